"""M2: RFC 03/20: the condition of the skipped flush was inverted."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import InvertedDemotion

RACE = Race(
    id="M2",
    title="RFC 03/20: the condition of the skipped flush was inverted",
    commit="",
    fixed_in="never merged",
    scheme="1",
    invariant="I3",
    story=("A writable dirty entry that becomes read-only was judged to need no flush, a clean one to need it."),
    interleaving=("a writable dirty entry becomes read-only and is judged to need no flush",),
    buggy=kernels.get("linux-6.18").derive("RFC 03 as posted", mprotect=InvertedDemotion()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mprotect"], "users": 1, "pages": 1, "kind": "anon"},
)
