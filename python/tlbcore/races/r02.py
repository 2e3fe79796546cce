"""R02: mremap: fix race between mremap() and page cleaning."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import LateFlushMremap

RACE = Race(
    id="R02",
    title="mremap: fix race between mremap() and page cleaning",
    commit="5d1904204c99",
    fixed_in="v4.9",
    scheme="4",
    invariant="I4",
    story=(
        "mremap moves a dirty entry and drops the locks before it flushes the old address. page_mkclean finds "
        "the entry at its new address, flushes that one and has the page written; a store through the old "
        "translation, whose D is cached, leaves no trace."
    ),
    interleaving=(
        "a thread stores at the old address; D is set",
        "mremap moves the entry and drops the locks; nothing is flushed",
        "page_mkclean finds the new entry, flushes the new address, takes W and D away; the page is written out",
        "the thread stores through its old translation; D is cached, so no walk and no trace",
        "mremap flushes the old address",
        "the clean entry is unmapped; nobody writes the second store",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-4.8 mremap", mremap=LateFlushMremap()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["mremap", "page_mkclean"], "users": 1, "pages": [{"mapped": "dirty"}]},
)
