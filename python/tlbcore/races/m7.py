"""M7: delayed rmap removal of anonymous pages."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.table_variants import LateAnonRmapGather

RACE = Race(
    id="M7",
    title="delayed rmap removal of anonymous pages",
    commit="",
    fixed_in="never merged",
    scheme="1",
    invariant="I10",
    story=(
        "Were the reverse map of anonymous pages removed after the flush as well, as it is for dirty file pages, "
        "munmap would remove it after free_pgtables(), which has freed the anon_vma that it goes by."
    ),
    interleaving=(
        "munmap clears the entry; the rmap of the anonymous page is to be removed later",
        "free_pgtables() takes the VMA out of the reverse map and frees its anon_vma",
        "after the flush the rmap is removed, by way of the anon_vma that was freed",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-6.18 late rmap", munmap=LateAnonRmapGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["munmap"],
        "users": 1,
        "pages": [{"kind": "anon"}],
        "whole_tables": True,
    },
)
