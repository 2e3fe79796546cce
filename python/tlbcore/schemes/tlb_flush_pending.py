"""Scheme 2: inc/dec_tlb_flush_pending around a walk, then one flush of the whole range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.steps import (
    Block,
    Condition,
    any_changed,
    clear_vma_soft_dirty,
    count_changed,
    dec_tlb_flush_pending,
    flush_tlb_batched_pending,
    flush_tlb_mm,
    flush_tlb_range,
    flush_tracked_range,
    for_each_pte,
    for_each_rmap_vma,
    for_each_table,
    for_each_vma,
    inc_tlb_flush_pending,
    lock,
    mmap_read_lock,
    mmap_unlock,
    mmap_write_lock,
    mprotect_fixup,
    pmd_lock,
    pmd_unlock,
    pmdp_invalidate,
    prot_changed,
    protnone,
    pte_clear_soft_dirty,
    pte_mkwrite,
    pte_modify,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pte_wrprotect,
    ptep_get_and_clear,
    set_pmd_at,
    set_pte_at,
    split_huge_pmd,
    track_flush_range,
    unlock,
    vma_shared,
    when,
    whole_pmd,
    write,
    zero_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TlbFlushPending(Scheme):
    """Count the operation as pending while it changes entries, then flush its whole range if anything changed.

    Others that find an entry changed already read the count and flush as well (`mm_tlb_flush_nested`,
    `pte_accessible`).
    """

    #: Count (and so flush for) only changes that this condition holds for; none: every present entry counts.
    counts: Condition | None = None
    sources: ClassVar[Mapping[str, str]] = {
        "counts": "mm/mprotect.c:change_pte_range (v5.10.7): every present entry; mm/mprotect.c (RFC 03/20): demotions"
    }
    where: ClassVar[str] = "change_protection_range() before v5.19; clear_refs since v5.11; mapping_dirty_helpers"

    def _count(self) -> Block:
        return [count_changed()] if self.counts is None else [when(self.counts, count_changed())]

    def mprotect(self) -> Block:
        """5.10's `change_protection_range()`, for each VMA."""
        return [
            mmap_write_lock(),
            for_each_vma(
                when(
                    prot_changed,
                    mprotect_fixup(),
                    inc_tlb_flush_pending(),
                    for_each_table(
                        pte_offset_map_lock(),
                        flush_tlb_batched_pending(),
                        LazyMmu.section(
                            for_each_pte(
                                ptep_get_and_clear(),
                                pte_modify(),
                                pte_mkwrite("dirty_accountable"),
                                set_pte_at(),
                                self._count(),
                            ),
                        ),
                        pte_unmap_unlock(),
                        on_huge_pmd=[
                            pmd_lock(),
                            when(
                                whole_pmd,
                                pmdp_invalidate(),
                                pte_modify(),
                                set_pmd_at(),
                                self._count(),
                                otherwise=[split_huge_pmd()],
                            ),
                            pmd_unlock(),
                        ],
                    ),
                    when(any_changed, flush_tlb_range("vma")),
                    dec_tlb_flush_pending(),
                ),
            ),
            mmap_unlock(),
        ]

    def change_prot_numa(self) -> Block:
        """5.10's NUMA hints, by the same walk."""
        return [
            mmap_read_lock(),
            for_each_vma(
                inc_tlb_flush_pending(),
                for_each_table(
                    pte_offset_map_lock(),
                    flush_tlb_batched_pending(),
                    LazyMmu.section(
                        for_each_pte(
                            when(
                                ~protnone & ~zero_page & ~vma_shared,
                                ptep_get_and_clear(),
                                pte_modify("none"),
                                set_pte_at(),
                                self._count(),
                            ),
                        ),
                    ),
                    pte_unmap_unlock(),
                ),
                when(any_changed, flush_tlb_range("vma")),
                dec_tlb_flush_pending(),
            ),
            mmap_unlock(),
        ]

    def clear_refs_soft_dirty(self) -> Block:
        """`clear_refs_write()` (fs/proc/task_mmu.c): one full flush whatever was found."""
        return [
            mmap_write_lock(),
            inc_tlb_flush_pending(),
            for_each_vma(
                clear_vma_soft_dirty(),
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(ptep_get_and_clear(), pte_wrprotect(), pte_clear_soft_dirty(), set_pte_at()),
                    pte_unmap_unlock(),
                    on_huge_pmd=[
                        pmd_lock(),
                        pmdp_invalidate(),
                        pte_wrprotect(),
                        pte_clear_soft_dirty(),
                        set_pmd_at(),
                        pmd_unlock(),
                    ],
                ),
            ),
            flush_tlb_mm(),
            dec_tlb_flush_pending(),
            mmap_unlock(),
        ]

    def wp_shared_mapping_range(self) -> Block:
        """`wp_shared_mapping_range()` (mm/mapping_dirty_helpers.c): flush what changed, or all of it if nested."""
        return [
            lock("rmap_lock", "read"),
            for_each_rmap_vma(
                inc_tlb_flush_pending(),
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(
                        when(
                            write,
                            ptep_get_and_clear(),
                            pte_wrprotect(),
                            set_pte_at(),
                            track_flush_range() if self.counts is None else when(self.counts, track_flush_range()),
                        ),
                    ),
                    pte_unmap_unlock(),
                ),
                flush_tracked_range(),
                dec_tlb_flush_pending(),
            ),
            unlock("rmap_lock"),
        ]
