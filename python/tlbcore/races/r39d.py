"""R39d: LATR, pages that are used again after a time."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.deferral_variants import Latr
from tlbcore.races.race import Race

_KERNEL = kernels.get("linux-6.18")

RACE = Race(
    id="R39d",
    title="LATR: pages are used again after two ticks, which some CPU may not have had",
    commit="",
    fixed_in="never merged",
    scheme="5+",
    invariant="I1",
    story=(
        "An unmapping call leaves word for each CPU to invalidate at its next tick or context switch, does not wait, and "
        "uses the pages again two ticks later. A CPU without ticks, or one that has interrupts off for long, has not come "
        "by then. Time is no acknowledgement: whoever uses the pages again has to know of every CPU."
    ),
    interleaving=(
        "a CPU caches an entry, and has no tick for long",
        "MADV_DONTNEED clears the entry and leaves word for the CPU",
        "two ticks later the page is given to somebody else",
        "the CPU uses the page through its old translation",
    ),
    buggy=_KERNEL.derive("LATR by time", madvise_dontneed=Latr(waits=False)),
    fixed=_KERNEL.derive("LATR by acknowledgement", madvise_dontneed=Latr()),
    scenario={"operations": ["madvise_dontneed"], "users": 1, "pages": 1, "kind": "anon"},
)
