"""R16: hugetlbfs: flush TLBs correctly after huge_pmd_unshare."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.table_variants import HugetlbGather

RACE = Race(
    id="R16",
    title="hugetlbfs: flush TLBs correctly after huge_pmd_unshare",
    commit="a4a118f2eead",
    fixed_in="v5.16",
    scheme="1",
    invariant="I1",
    cve="CVE-2021-4002",
    story=(
        "Two processes map hugetlb pages by one and the same page table. When one unmaps them it only leaves that "
        "table; nothing is recorded in its gather, so nothing is flushed. Truncation then unmaps the pages of the "
        "other and frees them, while a CPU of the first still translates to them."
    ),
    interleaving=(
        "a CPU of the first process translates to the page, by the shared table",
        "its munmap leaves the table; no entry was taken out, so the gather records nothing and flushes nothing",
        "truncation finds the page mapped by the second process only, unmaps it there, flushes there, frees it",
        "the CPU of the first process uses the page",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "linux-5.15 hugetlb",
        munmap=HugetlbGather(flushes_unshared=False),
        unmap_mapping_range=HugetlbGather(flushes_unshared=False),
    ),
    fixed=kernels.get("linux-6.18").derive(
        "linux-6.18 hugetlb",
        munmap=HugetlbGather(),
        unmap_mapping_range=HugetlbGather(),
    ),
    scenario={
        "operations": ["munmap", "truncate"],
        "users": 1,
        "pages": 1,
        "whole_tables": True,
        "shared_tables": True,
    },
)
