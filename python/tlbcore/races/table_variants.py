"""Schemes on page tables and huge pages as kernels had them before a race was mended, and as patches would have had them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    Step,
    dirty,
    file_backed,
    for_each_pte,
    for_each_rmap_vma,
    for_each_table,
    force_flush,
    free_pgtables,
    lock,
    page_remove_rmap,
    pmd_shared,
    pmdp_huge_get_and_clear,
    present,
    ptdesc_pmd_pts_dec,
    pte_clear,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    pud_clear,
    set_delay_rmap,
    set_force_flush,
    set_page_dirty,
    tlb_flush_mmu_tlbonly,
    tlb_flush_pte_range,
    tlb_flush_pud_range,
    tlb_flush_rmaps,
    tlb_remove_page,
    tlb_remove_table_sync_one,
    tlb_remove_tlb_entry,
    unlock,
    when,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class HugetlbGather(MmuGather):
    """Unmaps of hugetlb (`__unmap_hugepage_range()`, mm/hugetlb.c): a table that another process has too is only left."""

    #: Flush what was behind a shared table before the lock of the reverse map is dropped (a4a118f2eead, in v5.16).
    flushes_unshared: bool = True
    #: All that was behind it, not only the operation's range (dff11abe280b, in v4.19).
    flushes_whole: bool = True
    #: Wait for walkers without locks before it is the other one's alone (1013af4f585f, in v6.16).
    syncs_walkers: bool = True

    def zap(self) -> Block:
        """`hugetlb_zap_begin()`, the zap, `hugetlb_zap_end()`."""
        return [lock("rmap_lock"), self.unmap_hugepage_range(), unlock("rmap_lock")]

    def unmap_mapping_range(self) -> Block:
        """`hugetlb_vmdelete_list()`: truncation, with the lock of the reverse map held for writing."""
        walk = for_each_rmap_vma(self.open_gather(), self.unmap_hugepage_range(), self.close_gather())
        return [lock("rmap_lock"), walk, unlock("rmap_lock")]

    def unmap_hugepage_range(self) -> Block:
        """`__unmap_hugepage_range()`."""
        return [
            for_each_table(
                pte_offset_map_lock(),
                when(
                    pmd_shared,
                    pud_clear(),
                    tlb_remove_table_sync_one() if self.syncs_walkers else [],
                    ptdesc_pmd_pts_dec(),
                    self._record_unshared(),
                    otherwise=[
                        for_each_pte(
                            ptep_get_and_clear(),
                            when(dirty, set_page_dirty()),
                            tlb_remove_tlb_entry(),
                            page_remove_rmap(),
                            tlb_remove_page(),
                        ),
                    ],
                ),
                pte_unmap_unlock(),
                when(force_flush, tlb_flush_mmu_tlbonly()),
            ),
        ]

    def _record_unshared(self) -> Block:
        if not self.flushes_unshared:
            return []
        if self.flushes_whole:
            return [tlb_flush_pud_range(), set_force_flush()]
        return [for_each_pte(tlb_flush_pte_range()), set_force_flush()]


@dataclass(frozen=True)
class TransientNoneGather(MmuGather):
    """MADV_FREE that makes a huge entry none while it changes it, as before v4.11 (58ceeb6bec86)."""

    def take_huge(self) -> Step:
        """Take the entry out."""
        return pmdp_huge_get_and_clear()


@dataclass(frozen=True)
class LateAnonRmapGather(MmuGather):
    """A gather that removes every rmap after the flush, that of anonymous memory too, and munmap flushes only at its end."""

    def zap(self) -> Block:
        """zap_pte_range with every rmap delayed."""
        return [
            for_each_table(
                self.lock_table(),
                for_each_pte(
                    when(
                        present,
                        ptep_get_and_clear(),
                        when(dirty & file_backed, set_page_dirty()),
                        set_delay_rmap(),
                        tlb_remove_tlb_entry(),
                        page_remove_rmap(),
                        tlb_remove_page(),
                        otherwise=[pte_clear()],
                    ),
                    filter="not_none",
                ),
                pte_unmap_unlock(),
            ),
        ]

    def free_tables(self) -> Block:
        """Page tables and reverse maps go before the flush."""
        return [free_pgtables(), tlb_flush_mmu_tlbonly(), tlb_flush_rmaps()]


#: The schemes of this file by class name.
SCHEMES: dict[str, type[Scheme]] = {
    scheme.__name__: scheme for scheme in (HugetlbGather, TransientNoneGather, LateAnonRmapGather)
}
