"""R11: mm: migrate: prevent racy access to tlb_flush_pending."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R11",
    title="mm: migrate: prevent racy access to tlb_flush_pending",
    commit="16af97dc5a89",
    fixed_in="v4.13",
    scheme="2",
    invariant="I5",
    story=(
        "tlb_flush_pending is a bool. Two NUMA-hint walks run; the first one to end clears it for both. "
        "Migration of a page of the other takes its entry for one that no CPU holds, and copies while a CPU "
        "still writes."
    ),
    interleaving=(
        "a NUMA-hint walk sets the flag",
        "another one, of other pages, sets it too",
        "the first flushes its own range and clears the flag",
        "the second has entries that are not flushed",
        "migration of such a page sees no flag, does not flush, and copies",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": [
            {"operation": "change_prot_numa", "first": 0, "count": 1},
            {"operation": "change_prot_numa", "first": 1, "count": 1},
            {"operation": "migrate_pages", "first": 1, "count": 1},
        ],
        "users": 1,
        # The first walk needs no page that is mapped: what matters is that it ends.
        "pages": [{"kind": "anon", "mapped": "none"}, {"kind": "anon"}],
    },
    buggy_engine={"tlb_flush_pending_is_bool": True},
)
