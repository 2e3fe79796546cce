"""Schemes that put flushes off beyond the call, as they were proposed and not merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    dec_tlb_flush_pending,
    dirty,
    flush_tlb_mm,
    for_each_mapping,
    for_each_page,
    for_each_pte,
    for_each_table,
    for_each_vma,
    inc_tlb_flush_pending,
    lock,
    migrate_copy,
    mm_tlb_flush_pending,
    mmap_read_lock,
    mmap_unlock,
    page_mapped,
    page_remove_rmap,
    present,
    pte_clear,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    put_page,
    remove_migration_ptes,
    set_migration_entry,
    set_page_dirty,
    set_tlb_ubc_flush_pending,
    should_defer_flush,
    tlb_finish_mmu,
    tlb_gather_mmu,
    tlb_remove_page,
    try_to_unmap_flush,
    unlock,
    when,
    write,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class LazyUnmapFlush(DeferredUnmap):
    """LUF: reclaim does not flush entries without W, whose pages are freed once everything is flushed, some time later.

    The wait for the flush ends where the page would be given to somebody else: when that is, is anybody's choice.
    """

    #: An entry may lack W and a CPU still have it: whoever took it away has not flushed yet.
    asks_pending: bool = True
    #: Others are told that a flush is outstanding.
    tells: bool = True

    def clear_entry(self, *, defer: bool = True, as_range: bool = False) -> Block:  # type: ignore[override]  # not static
        """Flush as usual what can be written; only tell of the rest."""
        flushes = write | mm_tlb_flush_pending if self.asks_pending else write
        untold = [ptep_get_and_clear(), *([set_tlb_ubc_flush_pending()] if self.tells else [])]
        return [when(flushes, DeferredUnmap.clear_entry(defer=defer, as_range=as_range), otherwise=untold)]

    def reclaim_pages(self) -> Block:
        """The same with a full flush before the pages may be used for something else."""
        *steps, free = super().reclaim_pages()
        return [*steps, flush_tlb_mm(), free]


@dataclass(frozen=True)
class Migc(DeferredUnmap):
    """migc: migration does not flush entries without W; the old page is freed once everything is flushed, later.

    Meanwhile others see that a flush is outstanding (`tlb_flush_pending`).
    """

    #: A page whose flush is outstanding is taken for one that needs no other, although it is a source again.
    skips_pending: bool = False

    def migrate_pages(self) -> Block:
        """`migrate_pages_batch()` with the flush of read-only entries after the move."""
        skips = ~write | mm_tlb_flush_pending if self.skips_pending else ~write & ~mm_tlb_flush_pending
        flushed = when(
            should_defer_flush,
            ptep_get_and_clear(),
            set_tlb_ubc_flush_pending(),
            otherwise=[ptep_get_and_clear(), flush_tlb_mm()],
        )
        unmap = [
            lock("folio_lock"),
            lock("rmap_lock", "read"),
            for_each_mapping(
                pte_offset_map_lock(),
                when(skips, ptep_get_and_clear(), otherwise=[flushed]),
                when(dirty, set_page_dirty()),
                set_migration_entry(),
                page_remove_rmap(),
                put_page(),
                pte_unmap_unlock(),
            ),
            unlock("rmap_lock"),
            unlock("folio_lock"),
        ]
        move = [inc_tlb_flush_pending(), migrate_copy(), remove_migration_ptes(), unlock("folio_lock")]
        later = [flush_tlb_mm(), dec_tlb_flush_pending()]
        return [
            for_each_page(unmap, keep=True),
            try_to_unmap_flush(),
            for_each_page(lock("folio_lock"), when(~page_mapped, *move, *later, otherwise=[unlock("folio_lock")])),
        ]


@dataclass(frozen=True)
class Latr(MmuGather):
    """LATR: MADV_DONTNEED tells the CPUs and does not wait; its pages are used again two ticks later."""

    #: Whoever uses the pages again makes sure that every CPU has come by, however long its ticks are apart.
    waits: bool = True

    def madvise_dontneed(self) -> Block:
        """The zap without a flush, then the wait."""
        zap = for_each_table(
            self.lock_table(),
            for_each_pte(
                when(
                    present,
                    ptep_get_and_clear(),
                    when(dirty, set_page_dirty()),
                    page_remove_rmap(),
                    tlb_remove_page(),
                    otherwise=[pte_clear()],
                ),
                filter="not_none",
            ),
            pte_unmap_unlock(),
        )
        told = [flush_tlb_mm()] if self.waits else []
        return [mmap_read_lock(), tlb_gather_mmu(), for_each_vma(zap), *told, tlb_finish_mmu(), mmap_unlock()]


#: The schemes of this file by class name.
SCHEMES: dict[str, type[Scheme]] = {scheme.__name__: scheme for scheme in (LazyUnmapFlush, Migc, Latr)}
