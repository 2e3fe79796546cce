"""R10: mm: fix KSM data corruption."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import AskingKsm, ReadLockedClearRefs, TrustingKsm

RACE = Race(
    id="R10",
    title="mm: fix KSM data corruption",
    commit="b3a81d0841a9",
    fixed_in="v4.13",
    scheme="2",
    invariant="I5",
    story=(
        "MADV_FREE takes D from an entry, clear_refs takes W, and neither has flushed yet. KSM takes an entry without "
        "both for one that nobody can store through, compares the page, and replaces it while a CPU still writes to it."
    ),
    interleaving=(
        "a CPU writes to the page, and caches a writable and dirty entry",
        "MADV_FREE clears D; the flush is to come",
        "clear_refs clears W; the flush is to come",
        "KSM finds neither W nor D, does not flush, and compares the page with its own: they are identical",
        "the CPU stores something else through its entry",
        "KSM maps its page instead, and drops the one that was written",
        "MADV_FREE and clear_refs flush",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "linux-4.12 KSM", ksm_merge=TrustingKsm(), clear_refs_soft_dirty=ReadLockedClearRefs()
    ),
    fixed=kernels.get("linux-6.18").derive(
        "linux-4.13 KSM", ksm_merge=AskingKsm(), clear_refs_soft_dirty=ReadLockedClearRefs()
    ),
    scenario={
        # clear_refs has come by the other page, where there is nothing for it to do.
        "operations": [
            {"operation": "madvise_free", "first": 1},
            {"operation": "clear_refs_soft_dirty", "first": 1},
            "ksm_merge",
        ],
        "users": 1,
        "pages": [{"kind": "anon", "mapped": "read"}, {"kind": "anon"}],
    },
)
