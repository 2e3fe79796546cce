"""R14b: mm: proc: Invalidate TLB after clearing soft-dirty page state."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R14b",
    title="mm: proc: Invalidate TLB after clearing soft-dirty page state",
    commit="912efa17e512",
    fixed_in="v5.11",
    scheme="1",
    invariant="I3",
    story=(
        "clear_refs opens a gather but records nothing in it, so that the end of the gather finds an empty "
        "range and flushes nothing. A CPU still writes through the old translation, and the store is not "
        "tracked."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "clear_refs takes W away and ends a gather that has an empty range, without a flush",
        "the call returns",
        "the CPU stores through its old translation, which is not tracked",
    ),
    buggy=kernels.get("linux-5.10"),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["clear_refs_soft_dirty"], "users": 1, "pages": 1, "kind": "anon"},
)
