"""R34: thp: fix MADV_DONTNEED vs. MADV_FREE race."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.table_variants import TransientNoneGather

RACE = Race(
    id="R34",
    title="thp: fix MADV_DONTNEED vs. MADV_FREE race",
    commit="58ceeb6bec86",
    fixed_in="v4.11",
    scheme="-",
    invariant="I2",
    story=(
        "Code that changes a huge entry takes it out and puts it back, under the lock of its table. MADV_DONTNEED "
        "looks without that lock whether there is an entry; in the moment between it sees none, passes over it and "
        "returns, while the old page is mapped again."
    ),
    interleaving=(
        "MADV_FREE, under the lock, makes the huge entry none for a moment",
        "MADV_DONTNEED sees none without the lock, and passes over it",
        "MADV_FREE stores the changed entry",
        "MADV_DONTNEED returns, and the old page is still mapped",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.10 madvise_free", madvise_free=TransientNoneGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["madvise_free", "madvise_dontneed"],
        "users": 1,
        "pages": [{"kind": "anon", "huge": True, "mapped": "dirty"}],
    },
)
