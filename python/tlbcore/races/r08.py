"""R08: arm64/mm: Close theoretical race where stale TLB entry remains valid."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R08",
    title="arm64/mm: Close theoretical race where stale TLB entry remains valid",
    commit="4b634918384c",
    fixed_in="v6.16",
    scheme="5",
    invariant="I3",
    story=(
        "On arm64 reclaim broadcasts an invalidation and leaves the wait for it to a later DSB. Whoever finds "
        "that flag did a DSB too, but a DSB waits only for the invalidations of its own CPU: mprotect returns "
        "while a CPU still has the old entry."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "reclaim clears the entry and broadcasts TLBI; the DSB is to come",
        "mprotect finds nothing to change, and the flag",
        "its DSB waits for its own invalidations, of which there are none; it returns",
        "the CPU stores through its old entry",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mprotect", "shrink_folio_list"], "users": 1, "pages": 1, "kind": "anon"},
    engine={"tlbi": True},
    buggy_engine={"batched_pending_is_dsb": True},
)
