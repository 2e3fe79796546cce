"""R28: x86/mm: Fix flush_tlb_range() when used for zapping normal PMDs."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R28",
    title="x86/mm: Fix flush_tlb_range() when used for zapping normal PMDs",
    commit="3ef938c35035",
    fixed_in="v6.15",
    scheme="HW",
    invariant="I6",
    story=(
        "khugepaged takes a page table out of the tree and flushes by flush_tlb_range(), which on x86 said that no tables "
        "are freed. So no lazy CPU was asked, and one that had cached the way to the table could walk "
        "through it in speculation after it was given away: R23 again, by another road."
    ),
    interleaving=(
        "a CPU caches the way to a page table, and goes lazy with CR3 still loaded",
        "collapse clears the upper entry; flush_tlb_range() asks no lazy CPU",
        "the table is freed, and used for something else",
        "the lazy CPU walks through it by what it has cached",
    ),
    buggy=kernels.get("linux-5.10"),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["collapse_huge_page"],
        "users": 1,
        "pages": [{"kind": "anon"}],
        "whole_tables": True,
    },
    engine={"generations": True, "lazy": True},
)
