"""Scheme 4: one flush for each page table, before its lock is dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    copies_dontunmap,
    copy_vma,
    flush_tlb_batched_pending,
    flush_tlb_range,
    for_each_extent,
    for_each_pte,
    force_flush,
    grows_in_place,
    lock,
    mmap_unlock,
    mmap_write_lock,
    move_huge_pmd,
    move_normal_pmd,
    moves,
    pmd_lock,
    pmd_present,
    pmd_unlock,
    present,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    select_range,
    set_force_flush,
    set_pte_at_new,
    shrinks,
    unlock,
    unmaps_new,
    vma_dontunmap,
    vma_expand,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class PerTable(Scheme):
    """Move the entries of one table, flush its range, only then drop the locks.

    The new table's lock is what others take to free a moved page, so that the old translation must be gone before that
    lock is (Linux kernel commit eb66ae030829, in v4.19).
    """

    #: How the destination and what is left of the source are unmapped.
    unmapping: MmuGather = field(default_factory=MmuGather)
    #: Keep walks of the reverse map out while a whole table moves: the lock of a table goes with it, and one who came
    #: by its old address would clear its entries and flush that.
    rmap_locked_move: bool = True
    #: Look again, under the locks, whether the table is still there before it moves.
    rechecks_pmd: bool = True
    sources: ClassVar[Mapping[str, str]] = {
        "unmapping": "mm/mremap.c:move_vma (v5.10.7): the source goes as munmap does",
        "rmap_locked_move": "commit 97113eb39fa7 (v5.14)",
        "rechecks_pmd": "commit 6fa1066fc5d0 (v6.12)",
    }
    where: ClassVar[str] = "move_ptes(), move_normal_pmd(), move_huge_pmd() (mm/mremap.c)"

    def mremap(self) -> Block:
        """`do_mremap()` (mm/mremap.c)."""
        return [
            mmap_write_lock(),
            when(unmaps_new, self.unmapping.unmap("new")),
            when(shrinks, self.unmapping.unmap("tail")),
            when(grows_in_place, vma_expand()),
            when(moves, self._move()),
            mmap_unlock(),
        ]

    def _move(self) -> Block:
        both_pml = [pmd_lock(), lock("new_pml")]
        drop_both_pml = [unlock("new_pml"), pmd_unlock()]
        move = [move_normal_pmd(), flush_tlb_range("extent")]
        move_table = [both_pml, when(pmd_present, *move) if self.rechecks_pmd else move, drop_both_pml]
        if self.rmap_locked_move:
            move_table = [lock("rmap_lock"), *move_table, unlock("rmap_lock")]
        return [
            copy_vma(),
            select_range("old"),
            for_each_extent(
                pte_offset_map_lock(),
                lock("new_ptl"),
                flush_tlb_batched_pending(),
                LazyMmu.section(
                    for_each_pte(
                        when(present, set_force_flush()),
                        ptep_get_and_clear(),
                        set_pte_at_new(),
                        filter="not_none",
                    ),
                ),
                when(force_flush, flush_tlb_range("extent")),
                unlock("new_ptl"),
                pte_unmap_unlock(),
                on_pmd=move_table,
                on_huge_pmd=[both_pml, move_huge_pmd(), flush_tlb_range("pmd"), drop_both_pml],
            ),
            when(copies_dontunmap, vma_dontunmap(), otherwise=[self.unmapping.unmap("old")]),
        ]
