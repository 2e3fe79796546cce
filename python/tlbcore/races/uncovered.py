"""Documented races that the explorer does not cover, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNCOVERED", "Uncovered"]


@dataclass(frozen=True)
class Uncovered:
    """A documented race that the explorer cannot run, or that says nothing to it."""

    id: str
    title: str
    #: The Linux commit that mended it; empty if there is none.
    commit: str
    #: The first release without it.
    fixed_in: str
    #: As in `Race`.
    scheme: str
    #: The invariant that it violates.
    invariant: str
    #: What the model would need.
    reason: str
    cve: str = ""


_TABLES = "page tables that are freed, and caches of paging structures that still point to them, are not modelled"
_WALKER = "walkers without locks (GUP-fast) and tables that change hands are not modelled"
_SHARED = "hugetlb and page tables that several address spaces share are not modelled"
_LAZY = "lazy CPUs and switches between address spaces are not modelled"
_MOVED = "huge entries and page tables that move as a whole are not modelled"

_ROWS = (
    (
        "R16",
        "hugetlbfs: flush TLBs correctly after huge_pmd_unshare",
        "a4a118f2eead",
        "v5.16",
        "1",
        "I1",
        _SHARED,
        "CVE-2021-4002",
    ),
    (
        "R17",
        "mm/hugetlb: fix huge_pmd_unshare() vs GUP-fast race",
        "1013af4f585f",
        "v6.16",
        "1",
        "I6",
        f"{_SHARED}; {_WALKER}",
        "CVE-2025-38085",
    ),
    (
        "R18",
        "mm/mremap: fix move_normal_pmd/retract_page_tables race",
        "6fa1066fc5d0",
        "v6.12",
        "4",
        "I6",
        f"{_MOVED}, nor is their retraction",
        "CVE-2024-50066",
    ),
    (
        "R19",
        "mm/mremap: hold the rmap lock in write mode when moving page table entries",
        "97113eb39fa7",
        "v5.14",
        "4",
        "I1",
        _MOVED,
        "CVE-2022-41222",
    ),
    ("R21", "mm: mmu_gather: remove __tlb_reset_range() for force flush", "7a30df49f63a", "v5.2", "1", "I6", _TABLES),
    (
        "R22",
        "mm/mmu_gather: invalidate TLB correctly on batch allocation failure and flush",
        "0ed1325967ab",
        "v5.6",
        "1",
        "I6",
        _TABLES,
    ),
    (
        "R23",
        "x86/mm: Flush more aggressively in lazy TLB mode",
        "b956575bed91",
        "v4.14",
        "HW",
        "I6",
        f"{_TABLES}; {_LAZY}",
    ),
    (
        "R28",
        "x86/mm: Fix flush_tlb_range() when used for zapping normal PMDs",
        "3ef938c35035",
        "v6.15",
        "HW",
        "I6",
        f"{_TABLES}; {_LAZY}",
    ),
    (
        "R29",
        "INVLPGB is disabled with page-table isolation: overrun of the bitmap of ASIDs",
        "94a17f2dc90b",
        "v6.15",
        "HW",
        "I8",
        "neither INVLPGB nor ASIDs are modelled; every flush of another CPU is an IPI",
    ),
    (
        "R30",
        "mm/khugepaged: fix GUP-fast interaction by sending IPI",
        "2ba99c5e0881",
        "v6.1",
        "1",
        "I6",
        f"{_WALKER}; huge pages are not modelled",
    ),
    (
        "R34",
        "huge-page code that makes an entry none for a moment, against MADV_DONTNEED",
        "ced108037c2a",
        "v4.11",
        "-",
        "I2",
        "huge pages are not modelled, and no invariant looks at pages that a zap passed over",
    ),
    (
        "R37",
        "hugetlb: take PMD sharing into account when flushing tlb/caches",
        "dff11abe280b",
        "v4.19",
        "2",
        "I2",
        _SHARED,
    ),
    (
        "R38",
        "bugs of patches that were posted and not merged so",
        "",
        "never merged",
        "all",
        "several",
        "not one race but a family; its members are M1 to M12",
    ),
    (
        "R39",
        "hazards of flushes that are put off beyond the unmap (LUF, LATR, vmap)",
        "",
        "never merged",
        "5+",
        "I1",
        "beyond R39b and R39c: pages read back into other frames and written by write(), and reuse by time, are not modelled",
    ),
    (
        "M7",
        "delayed rmap removal of anonymous pages",
        "",
        "never merged",
        "1",
        "I10",
        "the lifetime of anon_vma structures is not modelled",
    ),
    (
        "M10",
        "migc v1: the target of a migration becomes a source before its flush",
        "",
        "never merged",
        "5+",
        "I5",
        "its changelog names an inconsistent state of the page and gives no interleaving",
    ),
    (
        "M11",
        "free_pgtables flushes freed tables with the flags of the last VMA",
        "",
        "never merged",
        "1",
        "I6",
        _TABLES,
    ),
)

#: The races that are not covered, by their short names.
UNCOVERED: dict[str, Uncovered] = {row[0]: Uncovered(*row) for row in _ROWS}
