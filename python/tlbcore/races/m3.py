"""M3: RFC 03/20: skipping the flush of clean entries without an atomic exchange."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import PlainStoreGather

RACE = Race(
    id="M3",
    title="RFC 03/20: skipping the flush of clean entries without an atomic exchange",
    commit="",
    fixed_in="never merged",
    scheme="1",
    invariant="I3",
    story=(
        "mprotect reads an entry without D; the hardware sets D and caches it; the plain store that follows "
        "loses D, and no flush is done since the value read was clean."
    ),
    interleaving=(
        "mprotect reads an entry without D",
        "the hardware sets D and caches it writable",
        "mprotect stores the read-only value it made of what it read: D is lost, and nothing is flushed",
    ),
    buggy=kernels.get("linux-6.18").derive("plain store", mprotect=PlainStoreGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mprotect"], "users": 1, "pages": 1},
)
