"""R18: mm/mremap: fix move_normal_pmd/retract_page_tables race."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.schemes.per_table import PerTable

RACE = Race(
    id="R18",
    title="mm/mremap: fix move_normal_pmd/retract_page_tables race",
    commit="6fa1066fc5d0",
    fixed_in="v6.12",
    scheme="4",
    invariant="I6",
    cve="CVE-2024-50066",
    story=(
        "mremap sees that a page table is there and takes the locks to move it as a whole. Before it has them, "
        "khugepaged takes that table out, which needs no mmap_lock any more, and mremap moves an entry that is none: "
        "page 0 of memory becomes a page table."
    ),
    interleaving=(
        "mremap looks at the upper entry without a lock: a table is there",
        "khugepaged takes the table out of the tree and has it freed",
        "mremap takes the locks and moves the entry, which is none by now: page 0 becomes a page table",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-6.11 mremap", mremap=PerTable(rechecks_pmd=False)),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": [{"operation": "mremap", "other_table": True}, "collapse_huge_page"],
        "users": 1,
        "pages": [{"mapped": "none"}],
        "whole_tables": True,
    },
)
