"""M1: RFC 15/20: the generation is not raised if somebody raised it since the deferral."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="M1",
    title="RFC 15/20: the generation is not raised if somebody raised it since the deferral",
    commit="",
    fixed_in="never merged",
    scheme="HW",
    invariant="I8",
    story=(
        "A deferred flush that finds the generation raised since it was deferred does not raise it again. But "
        "who raised it did so before the last change of the deferral: CPUs that came to that generation take "
        "the request for an old one."
    ),
    interleaving=(
        "a call defers the flush of a first change",
        "another flush raises the generation, and a CPU comes to it",
        "the CPU caches another entry",
        "the call changes that entry too; its flush finds the generation raised and does not raise it",
        "the CPU has that generation already, and flushes nothing",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["madvise_dontneed", {"operation": "madvise_dontneed", "count": 1}],
        "users": 1,
        "pages": [{"kind": "anon", "table": 0}, {"kind": "anon", "table": 1}],
        "invariants": ("I1", "I2", "I3", "I4", "I5", "I8", "I9"),
    },
    engine={"generations": True},
    buggy_engine={"bumps_once_per_deferral": True},
)
