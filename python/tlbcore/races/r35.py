"""R35: powerpc, mm: Fix mprotect on book3s 32-bit."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import SilentGather

RACE = Race(
    id="R35",
    title="powerpc, mm: Fix mprotect on book3s 32-bit",
    commit="78fc63ffa781",
    fixed_in="v6.19",
    scheme="1",
    invariant="I3",
    story=(
        "mprotect went over to mmu_gather, and on an architecture whose gather flushes only what is removed "
        "it flushed nothing."
    ),
    interleaving=(
        "mprotect makes an entry read-only and flushes nothing",
        "a store to the page succeeds",
    ),
    buggy=kernels.get("linux-6.18").derive("book3s-32 mprotect", mprotect=SilentGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mprotect"], "users": 1, "pages": 1, "kind": "anon"},
)
