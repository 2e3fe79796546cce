"""R39b: LUF, memory that is mapped anew before the flush of what was unmapped there."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.deferral_variants import LazyUnmapFlush
from tlbcore.races.race import Race

_KERNEL = kernels.get("linux-6.18")

RACE = Race(
    id="R39b",
    title="LUF: memory that is unmapped by a call while its flush is put off",
    commit="",
    fixed_in="never merged",
    scheme="5+",
    invariant="I2",
    story=(
        "Reclaim unmaps a page that nobody may write, and puts its flush off until the page is used for something else. "
        "munmap finds nothing mapped and returns without a flush: what is mapped there next is not what a CPU sees. "
        "So the address space has to be told, and munmap has to flush."
    ),
    interleaving=(
        "a CPU caches a read-only entry",
        "reclaim clears it and does not flush",
        "munmap finds nothing mapped, flushes nothing and returns; something else is mapped there",
        "the CPU reads the old page",
    ),
    buggy=_KERNEL.derive("LUF that tells nobody", shrink_folio_list=LazyUnmapFlush(tells=False)),
    fixed=_KERNEL.derive("LUF", shrink_folio_list=LazyUnmapFlush()),
    scenario={"operations": ["munmap", "shrink_folio_list"], "users": 1, "pages": [{"kind": "file", "mapped": "read"}]},
)
