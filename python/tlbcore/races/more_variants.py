"""Schemes for races of Linux beyond the catalogue (`litmus/more`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    dirty,
    flush_tlb_mm,
    flush_tlb_range,
    for_each_mapping,
    for_each_page,
    for_each_vma,
    lock,
    migrate_copy,
    mmap_read_lock,
    mmap_unlock,
    page_mapped,
    page_remove_rmap,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    put_page,
    remove_migration_ptes,
    set_migration_entry,
    set_page_dirty,
    tlb_finish_mmu,
    tlb_gather_mmu,
    unlock,
    when,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class MigrateDevice(DeferredUnmap):
    """Migration to a device (mm/migrate_device.c): it clears entries without telling what is to be flushed."""

    #: Flush before the page-table lock is dropped (60bae7370896, in v6.0).
    flushes_locked: bool = True

    def migrate_pages(self) -> Block:
        """`migrate_vma_collect_pmd()`, then the move."""
        collect = for_each_mapping(
            pte_offset_map_lock(),
            ptep_get_and_clear(),
            when(dirty, set_page_dirty()),
            set_migration_entry(),
            page_remove_rmap(),
            put_page(),
            *([flush_tlb_range("page")] if self.flushes_locked else []),
            pte_unmap_unlock(),
        )
        unmap = [lock("folio_lock"), lock("rmap_lock", "read"), collect, unlock("rmap_lock"), unlock("folio_lock")]
        move = [lock("folio_lock"), when(~page_mapped, migrate_copy(), remove_migration_ptes()), unlock("folio_lock")]
        late = [] if self.flushes_locked else [flush_tlb_mm()]
        return [for_each_page(unmap, keep=True), *late, for_each_page(move)]


@dataclass(frozen=True)
class OomReaper(MmuGather):
    """`__oom_reap_task_mm()` (mm/oom_kill.c): what MADV_DONTNEED does, to the memory of a process that is to die."""

    #: One gather for each VMA (687cb0884a71, in v4.15); before, one for all, as of an address space that nobody runs.
    per_vma: bool = True

    def madvise_dontneed(self) -> Block:
        """Take everything away while other threads of the process still run."""
        if self.per_vma:
            walk = for_each_vma(tlb_gather_mmu(), self.zap(), tlb_finish_mmu())
            return [mmap_read_lock(), walk, mmap_unlock()]
        walk = for_each_vma(self.zap())
        return [mmap_read_lock(), tlb_gather_mmu(fullmm=True), walk, tlb_finish_mmu(), mmap_unlock()]


#: The schemes of this file by class name.
SCHEMES: dict[str, type[Scheme]] = {scheme.__name__: scheme for scheme in (MigrateDevice, OomReaper)}
