"""M4: skipping the flush of entries without A."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import AgeTrustingGather

RACE = Race(
    id="M4",
    title="skipping the flush of entries without A",
    commit="",
    fixed_in="never merged",
    scheme="1",
    invariant="I2",
    story=(
        "Ageing clears A without a flush, so an entry without A may well be cached; an unmap that trusts A "
        "leaves it there."
    ),
    interleaving=(
        "a CPU caches an entry",
        "ageing clears A and flushes nothing",
        "an unmap finds A clear and does not flush",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "trusts A", madvise_dontneed=AgeTrustingGather(), madvise_cold=AgeTrustingGather()
    ),
    fixed=kernels.get("linux-6.18").derive("ageing without a flush", madvise_cold=AgeTrustingGather(trusts=False)),
    scenario={"operations": ["madvise_dontneed", "madvise_cold"], "users": 1, "pages": 1, "kind": "anon"},
)
