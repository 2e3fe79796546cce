"""R21: mm: mmu_gather: remove __tlb_reset_range() for force flush."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R21",
    title="mm: mmu_gather: remove __tlb_reset_range() for force flush",
    commit="7a30df49f63a",
    fixed_in="v5.2",
    scheme="1",
    invariant="I6",
    story=(
        "munmap, which holds mmap_lock for reading only by now, ends its gather while another one is open, and so "
        "flushes the whole range; but with the range it resets that it has tables to free. The flush is one of "
        "last-level entries (arm64), and a CPU keeps the way to a table that is freed."
    ),
    interleaving=(
        "a CPU caches the way to the page table",
        "munmap takes the table out of the tree; its gather notes that there is one to free",
        "MADV_DONTNEED opens a gather beside it",
        "munmap ends its gather: nested, so everything is reset, and last-level entries of the range are flushed",
        "the table is freed, and the CPU walks through it",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    buggy_engine={"nested_finish_forgets_tables": True},
    scenario={
        "operations": [
            {"operation": "munmap", "first": 0, "count": 1},
            {"operation": "madvise_dontneed", "first": 1, "count": 1},
        ],
        "users": 1,
        "pages": [{"kind": "file"}, {"kind": "file", "table": 1, "vma": 1}],
        "whole_tables": True,
    },
)
