"""R05: mm, mprotect: flush TLB if potentially racing with a parallel reclaim."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import TrustingGather

RACE = Race(
    id="R05",
    title="mm, mprotect: flush TLB if potentially racing with a parallel reclaim",
    commit="3ea277194daa",
    fixed_in="v4.13",
    scheme="5",
    invariant="I3",
    story=(
        "Reclaim clears an entry and leaves the flush for later. mprotect finds no entry, so it has nothing "
        "to flush, and returns; a CPU still writes through the old translation."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "reclaim clears the entry, leaves the flush for later and drops the lock",
        "mprotect finds nothing present, so nothing to flush, and returns",
        "the CPU stores through its old translation",
        "reclaim flushes",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.12 mprotect", mprotect=TrustingGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mprotect", "shrink_folio_list"], "users": 1, "pages": 1, "kind": "anon"},
)
