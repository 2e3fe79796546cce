"""R19: mm/mremap: hold the rmap lock in write mode when moving page table entries."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.schemes.per_table import PerTable

RACE = Race(
    id="R19",
    title="mm/mremap: hold the rmap lock in write mode when moving page table entries",
    commit="97113eb39fa7",
    fixed_in="v5.14",
    scheme="4",
    invariant="I1",
    cve="CVE-2022-41222",
    story=(
        "A table that moves as a whole takes its lock along. One who came to it by the reverse map, at the old "
        "address, holds that lock all the time, clears the entry, flushes the old address and frees the page, while a "
        "CPU has the new address translated."
    ),
    interleaving=(
        "truncation finds the page at its old address and takes the lock of the page table",
        "mremap moves the table as a whole, flushes the old range and drops its locks",
        "a CPU uses the new address",
        "truncation clears the entry, flushes the old address and frees the page",
        "the CPU uses the page by the new address",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-5.13 mremap", mremap=PerTable(rmap_locked_move=False)),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": [{"operation": "mremap", "other_table": True}, "truncate"],
        "users": 1,
        "pages": 1,
        "whole_tables": True,
    },
)
