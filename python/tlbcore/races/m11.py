"""M11: free_pgtables flushes freed tables with the flags of the last VMA."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="M11",
    title="free_pgtables flushes freed tables with the flags of the last VMA",
    commit="",
    fixed_in="never merged",
    scheme="1",
    invariant="I6",
    story=(
        "With one flush at the end of munmap for the tables of all its VMAs, what an architecture is told of the VMA "
        "is that of the last one. If that is not executable, the way to tables that instructions were fetched by "
        "stays cached."
    ),
    interleaving=(
        "a CPU caches the way to the table of executable memory",
        "munmap takes out that table and one of memory that is not executable",
        "the flush, told of the last VMA, leaves what instruction fetches have cached",
        "the tables are freed, and the CPU walks through one",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    buggy_engine={"table_flush_trusts_last_vma": True},
    scenario={
        "operations": ["munmap"],
        "users": 1,
        "pages": [{"kind": "file", "exec": True}, {"kind": "file", "table": 1, "vma": 1}],
        "whole_tables": True,
    },
)
