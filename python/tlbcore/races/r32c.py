"""R32c: an entry is read inside a lazy-MMU section in which it was stored."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.lazy_variants import ReadBackGather
from tlbcore.races.race import Race

_KERNEL = kernels.get("linux-6.18:lazy_mmu=xen-pv")

RACE = Race(
    id="R32c",
    title="an entry is read inside the lazy-MMU section in which it was stored",
    commit="4f06b0436b2d",
    fixed_in="v2.6.29",
    scheme="3",
    invariant="I3",
    story=(
        "On Xen PV an entry that is stored inside a lazy-MMU section is a multicall that waits for the end of the section. "
        "Who reads the entry before, in the section or from an interrupt, sees what was there: here mprotect, which looks at "
        "its entries again to see what it has to flush, still finds them writable, and flushes nothing. The mode has to be "
        "left (or flushed) before such a look."
    ),
    interleaving=(
        "a CPU caches a writable entry",
        "inside a lazy-MMU section mprotect stores a read-only entry: a multicall waits",
        "it reads the entry again, still in the section: writable, so nothing is recorded for the flush",
        "the section ends, and the entry is read-only",
        "the call returns without a flush, and the CPU can still write",
    ),
    buggy=_KERNEL.derive("reads in lazy-MMU mode", mprotect=ReadBackGather(drains=False)),
    fixed=_KERNEL.derive("leaves lazy-MMU mode to read", mprotect=ReadBackGather()),
    scenario={"operations": ["mprotect"], "users": 1, "pages": 1, "kind": "anon"},
)
