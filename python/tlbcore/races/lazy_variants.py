"""Schemes that use lazy-MMU sections as they must not be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.steps import (
    Block,
    arch_enter_lazy_mmu_mode,
    arch_leave_lazy_mmu_mode,
    copies_dontunmap,
    copy_vma,
    flush_tlb_batched_pending,
    flush_tlb_range,
    for_each_extent,
    for_each_pte,
    for_each_table,
    force_flush,
    lock,
    mprotect_fixup,
    present,
    prot_changed,
    pte_modify,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    select_range,
    set_force_flush,
    set_pte_at,
    set_pte_at_new,
    tlb_flush_pte_range,
    unlock,
    vma_dontunmap,
    when,
    write,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class ReadBackGather(MmuGather):
    """mprotect that looks at entries again, after it stored them, to see what has to be flushed."""

    #: Leave lazy-MMU mode before the second look: only then stands in memory what was stored.
    drains: bool = True

    def change_protection(self) -> Block:
        """change_pte_range in two passes."""
        store = for_each_pte(pte_modify(), set_pte_at())
        look = for_each_pte(when(~write, self.record(tlb_flush_pte_range())))
        both = [LazyMmu.section(store), LazyMmu.section(look)] if self.drains else [LazyMmu.section(store, look)]
        walk = for_each_table(self.lock_table(), *both, pte_unmap_unlock())
        return [when(prot_changed, mprotect_fixup(), walk)]


@dataclass(frozen=True)
class NestedSectionMremap(PerTable):
    """mremap inside a lazy-MMU section of a caller's, which ends after the lock of the new table is dropped."""

    def _move(self) -> Block:
        move = for_each_pte(
            when(present, set_force_flush()), ptep_get_and_clear(), set_pte_at_new(), filter="not_none"
        )
        return [
            copy_vma(),
            select_range("old"),
            for_each_extent(
                pte_offset_map_lock(),
                lock("new_ptl"),
                arch_enter_lazy_mmu_mode(),
                flush_tlb_batched_pending(),
                LazyMmu.section(move),
                when(force_flush, flush_tlb_range("extent")),
                unlock("new_ptl"),
                arch_leave_lazy_mmu_mode(),
                pte_unmap_unlock(),
            ),
            when(copies_dontunmap, vma_dontunmap(), otherwise=[self.unmapping.unmap("old")]),
        ]


#: The schemes of this file by class name.
SCHEMES: dict[str, type[Scheme]] = {scheme.__name__: scheme for scheme in (ReadBackGather, NestedSectionMremap)}
