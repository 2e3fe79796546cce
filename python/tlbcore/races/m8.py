"""M8: mm/mremap: flush outside of the page-table lock."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import LateFlushMremap

RACE = Race(
    id="M8",
    title="mm/mremap: flush outside of the page-table lock",
    commit="",
    fixed_in="never merged",
    scheme="4",
    invariant="I1",
    story=(
        "One flush for the whole of mremap, after all page-table locks are dropped, was proposed for speed. That is "
        "R01 again, for longer: a page of the first table can be freed while mremap still moves the second."
    ),
    interleaving=(
        "mremap moves the entries of one table and drops its locks; nothing is flushed",
        "it goes on with the next table",
        "truncation finds the new entry, clears it, flushes the new address and frees the page",
        "a CPU that still translates the old address uses it",
        "mremap flushes the old addresses, too late",
    ),
    buggy=kernels.get("linux-6.18").derive("one flush for mremap", mremap=LateFlushMremap(once=True)),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["mremap", {"operation": "truncate", "first": 0, "count": 1}],
        "users": 1,
        "pages": [{"mapped": "dirty"}, {"table": 1, "mapped": "none"}],
    },
)
