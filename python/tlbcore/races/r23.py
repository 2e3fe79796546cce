"""R23: x86/mm: Flush more aggressively in lazy TLB mode."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R23",
    title="x86/mm: Flush more aggressively in lazy TLB mode",
    commit="b956575bed91",
    fixed_in="v4.14",
    scheme="HW",
    invariant="I6",
    story=(
        "A CPU that runs a kernel thread keeps CR3 of the last address space, and needs no flush: it looks at the "
        "generation before it goes back to user mode. But it can walk the page tables in speculation meanwhile, by what it "
        "has cached of the way to them; and if they were freed, it walks through what is no page table any more. "
        "A flush that frees tables has to reach lazy CPUs too, which then leave the address space."
    ),
    interleaving=(
        "a CPU caches the way to a page table, and goes lazy with CR3 still loaded",
        "munmap clears the upper entry, and its flush asks no lazy CPU",
        "the table is freed, and used for something else",
        "the lazy CPU walks through it by what it has cached",
    ),
    buggy=kernels.get("linux-5.10"),
    fixed=kernels.get("linux-5.10"),
    scenario={"operations": ["munmap"], "users": 1, "pages": 1, "whole_tables": True},
    engine={"generations": True, "lazy": True},
    buggy_engine={"lazy_is_never_asked": True},
)
