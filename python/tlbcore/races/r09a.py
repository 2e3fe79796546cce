"""R09a: mm: fix MADV_[FREE|DONTNEED] TLB flush miss problem."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R09a",
    title="mm: fix MADV_[FREE|DONTNEED] TLB flush miss problem",
    commit="99baac21e458",
    fixed_in="v4.13",
    scheme="1+2",
    invariant="I2",
    story=(
        "Two threads zap the same range under the read lock. The second finds no entries any more, gathers "
        "nothing and returns without a flush, while the first has not flushed yet."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "one thread's MADV_DONTNEED clears the entry and drops the lock; its flush is to come",
        "another's finds nothing, gathers nothing, does not flush and returns",
        "the CPU uses its old translation",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.12 gather", constants={"pending_tracking": "mm_gen"}),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["madvise_dontneed", "madvise_dontneed"], "users": 1, "pages": 1, "kind": "anon"},
)
