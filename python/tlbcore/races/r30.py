"""R30: mm/khugepaged: fix GUP-fast interaction by sending IPI."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.schemes.synchronous import Synchronous

RACE = Race(
    id="R30",
    title="mm/khugepaged: fix GUP-fast interaction by sending IPI",
    commit="2ba99c5e0881",
    fixed_in="v6.1",
    scheme="1",
    invariant="I6",
    story=(
        "khugepaged takes a page table out of the tree, flushes, and gives the table away. Where a flush is no IPI, "
        "nothing keeps it from doing so while GUP-fast, which walks with interrupts off and without locks, is still "
        "in the table."
    ),
    interleaving=(
        "GUP-fast turns interrupts off and reads the upper entry: the table",
        "khugepaged clears the upper entry, flushes, copies the pages and gives the table away",
        "GUP-fast reads an entry of what is no table of its own any more",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "linux-6.0 khugepaged", collapse_huge_page=Synchronous(collapse_syncs_walkers=False)
    ),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["collapse_huge_page", "gup_fast"],
        "users": 1,
        "pages": [{"kind": "anon"}],
        "whole_tables": True,
    },
)
