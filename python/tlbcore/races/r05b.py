"""R05b: the same with munmap."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import TrustingGather

RACE = Race(
    id="R05b",
    title="the same with munmap",
    commit="3ea277194daa",
    fixed_in="v4.13",
    scheme="5",
    invariant="I2",
    story=(
        "Reclaim clears an entry and leaves the flush for later. munmap finds no entry, so it has nothing to "
        "flush, and returns; a CPU still reads and writes what was mapped there."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "reclaim clears the entry, leaves the flush for later and drops the lock",
        "munmap finds nothing present, so nothing to flush, and returns",
        "the CPU uses its old translation",
        "reclaim flushes",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.12 munmap", munmap=TrustingGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["munmap", "shrink_folio_list"], "users": 1, "pages": 1, "kind": "anon"},
)
