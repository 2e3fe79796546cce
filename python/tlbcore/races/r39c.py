"""R39c: LUF, an entry without W that a CPU still has with W."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.deferral_variants import LazyUnmapFlush
from tlbcore.races.race import Race
from tlbcore.races.variants import ReadLockedClearRefs

RACE = Race(
    id="R39c",
    title="LUF: an entry without W whose flush is outstanding is taken for one that nobody writes through",
    commit="",
    fixed_in="never merged",
    scheme="5+",
    invariant="I4",
    story=(
        "Write protection (of userfaultfd, or clear_refs) has taken W from an entry and not flushed yet. Reclaim takes the "
        "entry for one that nobody can write through, puts its flush off and writes the page out. A CPU stores to the "
        "page after that, and the store is lost."
    ),
    interleaving=(
        "a CPU caches a writable and dirty entry",
        "write protection takes W; its flush is to come",
        "reclaim finds no W, and clears the entry without a flush",
        "reclaim writes the page out",
        "the CPU stores through its old entry; nobody knows",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "LUF that trusts entries",
        shrink_folio_list=LazyUnmapFlush(asks_pending=False, tells=False),
        clear_refs_soft_dirty=ReadLockedClearRefs(),
    ),
    fixed=kernels.get("linux-6.18").derive(
        "LUF", shrink_folio_list=LazyUnmapFlush(), clear_refs_soft_dirty=ReadLockedClearRefs()
    ),
    scenario={
        "operations": ["clear_refs_soft_dirty", "shrink_folio_list"],
        "users": 1,
        "pages": 1,
        "kind": "anon",
    },
)
