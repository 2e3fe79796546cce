"""R37: hugetlb: take PMD sharing into account when flushing tlb/caches."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.table_variants import HugetlbGather

RACE = Race(
    id="R37",
    title="hugetlb: take PMD sharing into account when flushing tlb/caches",
    commit="dff11abe280b",
    fixed_in="v4.19",
    scheme="2",
    invariant="I2",
    story=(
        "An operation on a part of a hugetlb mapping leaves the shared table, and with it all that the table maps; "
        "its flush covers only its own range. What was behind the rest is unmapped without a flush: an unmap of it "
        "finds nothing mapped and flushes nothing."
    ),
    interleaving=(
        "a CPU translates to a page beside the range, by the shared table",
        "munmap of the range leaves the table and flushes the range only",
        "MADV_DONTNEED of the page beside it finds no table, and returns",
        "the CPU uses the page",
    ),
    buggy=kernels.get("linux-6.18").derive(
        "linux-4.18 hugetlb",
        munmap=HugetlbGather(flushes_whole=False),
        madvise_dontneed=HugetlbGather(flushes_whole=False),
    ),
    fixed=kernels.get("linux-6.18").derive(
        "linux-6.18 hugetlb",
        munmap=HugetlbGather(),
        madvise_dontneed=HugetlbGather(),
    ),
    scenario={
        "operations": [
            {"operation": "munmap", "first": 0, "count": 1},
            {"operation": "madvise_dontneed", "first": 1, "count": 1},
        ],
        "users": 1,
        "pages": [{"kind": "file"}, {"kind": "file", "vma": 1}],
        "whole_tables": True,
        "shared_tables": True,
    },
)
