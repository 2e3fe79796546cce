"""R17: mm/hugetlb: fix huge_pmd_unshare() vs GUP-fast race."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.table_variants import HugetlbGather

RACE = Race(
    id="R17",
    title="mm/hugetlb: fix huge_pmd_unshare() vs GUP-fast race",
    commit="1013af4f585f",
    fixed_in="v6.16",
    scheme="1",
    invariant="I6",
    cve="CVE-2025-38085",
    story=(
        "A process leaves a page table that it shares with another, which from then on is the only user and maps "
        "there what it likes. GUP-fast, on its way through the table without a lock, goes on in what is the page "
        "table of somebody else."
    ),
    interleaving=(
        "GUP-fast turns interrupts off and reads the upper entry: the shared table",
        "munmap clears the upper entry and gives up its share: the table is the other process's",
        "GUP-fast reads an entry of a table of another process",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "linux-6.15 hugetlb",
        munmap=HugetlbGather(syncs_walkers=False),
    ),
    fixed=kernels.get("linux-6.18").derive(
        "linux-6.18 hugetlb",
        munmap=HugetlbGather(),
    ),
    scenario={
        "operations": ["munmap", "gup_fast"],
        "users": 1,
        "pages": 1,
        "whole_tables": True,
        "shared_tables": True,
    },
)
