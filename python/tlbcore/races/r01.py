"""R01: mremap: properly flush TLB before releasing the page."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import LateFlushMremap

RACE = Race(
    id="R01",
    title="mremap: properly flush TLB before releasing the page",
    commit="eb66ae030829",
    fixed_in="v4.19",
    scheme="4",
    invariant="I1",
    cve="CVE-2018-18281",
    story=(
        "mremap moves an entry and drops both page-table locks before it flushes the old address. Truncation "
        "takes the new table's lock, clears the entry, flushes the new address and frees the page, while "
        "another CPU still translates the old address to it."
    ),
    interleaving=(
        "mremap takes both page-table locks",
        "it moves the entry from the old address to the new one and drops both locks; nothing is flushed",
        "truncation finds the new entry, clears it, flushes the new address and frees the page",
        "the page is allocated to somebody else",
        "a CPU that still translates the old address uses it",
        "mremap flushes the old address, too late",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.18 mremap", mremap=LateFlushMremap()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mremap", "truncate"], "users": 1, "pages": [{"mapped": "dirty"}]},
)
