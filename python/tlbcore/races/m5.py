"""M5: RFC 20/20: a CPU clears its bit of the mask of outstanding flushes after the flush."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="M5",
    title="RFC 20/20: a CPU clears its bit of the mask of outstanding flushes after the flush",
    commit="",
    fixed_in="never merged",
    scheme="5",
    invariant="I3",
    story=(
        "The mask tells which CPUs have flushes of reclaim outstanding, and a CPU that flushes everything "
        "takes itself out. If it does so after the flush, it wipes out what reclaim noted in between: whoever "
        "comes next finds nothing outstanding."
    ),
    interleaving=(
        "reclaim clears an entry, and notes the CPU",
        "another call has the CPU flush everything",
        "the CPU caches a second entry; reclaim clears that too, and notes the CPU again",
        "the CPU clears its bit",
        "mprotect finds the second entry cleared and nobody noted, flushes nothing and returns",
        "the CPU stores through its old entry",
    ),
    buggy=kernels.get("linux-6.18").derive("RFC 20/20", constants={"batched_pending": "cpumask"}),
    fixed=kernels.get("linux-6.18").derive("RFC 20/20", constants={"batched_pending": "cpumask"}),
    scenario={
        "operations": ["mprotect", "shrink_folio_list"],
        "users": 1,
        "pages": [{"kind": "anon", "table": 0}, {"kind": "anon", "table": 1}],
        "invariants": ("I1", "I2", "I3", "I4", "I5", "I8", "I9"),
    },
    engine={"generations": True},
    buggy_engine={"clears_batched_late": True},
)
