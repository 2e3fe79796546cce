"""R22: mm/mmu_gather: invalidate TLB correctly on batch allocation failure and flush."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R22",
    title="mm/mmu_gather: invalidate TLB correctly on batch allocation failure and flush",
    commit="0ed1325967ab",
    fixed_in="v5.6",
    scheme="1",
    invariant="I6",
    story=(
        "munmap takes a page table out of the tree. When no page can be had for the gather's batch of tables, the "
        "table is freed at once: after an IPI that only software walkers wait for, without a flush. A CPU "
        "that has cached the way to it walks through memory that belongs to somebody else."
    ),
    interleaving=(
        "a CPU caches the upper entry, and so the way to the page table",
        "munmap clears the upper entry; no batch can be allocated, so it waits for software walkers and frees the table",
        "the table is used for something else",
        "the CPU walks through it by what it has cached",
        "munmap flushes, too late",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    buggy_engine={"lone_table_freed_unflushed": True},
    scenario={"operations": ["munmap"], "users": 1, "pages": 1, "whole_tables": True},
)
