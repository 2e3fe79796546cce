"""R09b: the same with MADV_FREE."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R09b",
    title="the same with MADV_FREE",
    commit="99baac21e458",
    fixed_in="v4.13",
    scheme="1+2",
    invariant="I4",
    story=(
        "Two threads give the same page up under the read lock. The second finds it clean already and returns "
        "without a flush; a store through the stale translation then leaves no D behind, and the page is "
        "taken for clean."
    ),
    interleaving=(
        "a CPU caches a dirty entry",
        "one thread's MADV_FREE makes the entry clean and drops the lock; its flush is to come",
        "another's finds it clean, does not flush and returns",
        "the CPU stores through its old translation without a trace; reclaim drops the page as clean",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.12 gather", constants={"pending_tracking": "mm_gen"}),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["madvise_free", "madvise_free"], "users": 1, "pages": 1, "kind": "anon"},
)
