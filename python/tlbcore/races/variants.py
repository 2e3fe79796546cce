"""Schemes as kernels had them before a race was mended, and as patches had them that were not merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.races import deferral_variants, lazy_variants, more_variants, table_variants
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending
from tlbcore.steps import (
    Block,
    Condition,
    Step,
    copies_dontunmap,
    copy_vma,
    dec_tlb_flush_pending,
    dirty,
    file_backed,
    flush_tlb_batched_pending,
    flush_tlb_mm,
    flush_tlb_range,
    for_each_extent,
    for_each_pte,
    for_each_table,
    for_each_vma,
    force_flush,
    inc_tlb_flush_pending,
    lock,
    mmap_read_lock,
    mmap_unlock,
    page_remove_rmap,
    present,
    protnone,
    pte_clear,
    pte_clear_soft_dirty,
    pte_modify,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pte_wrprotect,
    ptep_clear_young,
    ptep_get_and_clear,
    select_range,
    set_delay_rmap,
    set_force_flush,
    set_page_dirty,
    set_pte_at,
    set_pte_at_new,
    set_tlb_ubc_flush_pending,
    should_defer_flush,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_flush_pte_range,
    tlb_flush_rmaps,
    tlb_remove_page,
    tlb_remove_tlb_entry,
    unlock,
    vma_dontunmap,
    when,
    write,
    young,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class LateFlushMremap(PerTable):
    """mremap as before v4.19 (and v4.9): a flush after the page-table locks are dropped."""

    #: One flush for the whole call, after all tables, as was proposed; without it, one after each.
    once: bool = False

    def _move(self) -> Block:
        flush = when(force_flush, flush_tlb_mm())
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
                unlock("new_ptl"),
                pte_unmap_unlock(),
                *([] if self.once else [flush]),
            ),
            *([flush] if self.once else []),
            when(copies_dontunmap, vma_dontunmap(), otherwise=[self.unmapping.unmap("old")]),
        ]


@dataclass(frozen=True)
class LateFlushGather(MmuGather):
    """The zap as before v3.15: the flush comes after the page-table lock is dropped."""

    def zap(self) -> Block:
        """zap_pte_range without the flush under the lock."""
        return [
            for_each_table(
                self.lock_table(),
                for_each_pte(
                    when(
                        present,
                        ptep_get_and_clear(),
                        when(dirty & file_backed, set_page_dirty(), set_delay_rmap(), set_force_flush()),
                        self.record(tlb_remove_tlb_entry()),
                        page_remove_rmap(),
                        tlb_remove_page(),
                        otherwise=[pte_clear()],
                    ),
                    filter="not_none",
                ),
                pte_unmap_unlock(),
                when(force_flush, tlb_flush_mmu_tlbonly(), tlb_flush_rmaps(), tlb_flush_mmu()),
            ),
        ]


@dataclass(frozen=True)
class TrustingGather(MmuGather):
    """A gather as before v4.13: it does not ask what reclaim left unflushed."""

    def lock_table(self) -> Block:
        """Only lock the table."""
        return [pte_offset_map_lock()]


@dataclass(frozen=True)
class SilentGather(MmuGather):
    """mprotect that records nothing, as book3s/32 saw it from v5.19 on: the flush finds an empty range."""

    def record(self, step: Step) -> Block:
        """Record nothing."""
        del step
        return []


@dataclass(frozen=True)
class PresentOnlyUnmap(DeferredUnmap):
    """Migration as before v3.13: an entry that is protnone counts as not accessible, whoever still has to flush it."""

    @staticmethod
    def clear_entry(*, defer: bool = True, as_range: bool = False) -> Block:
        """Flush only what the hardware takes for present now."""
        del defer, as_range
        return [
            when(
                protnone,
                ptep_get_and_clear(),
                otherwise=[
                    when(
                        should_defer_flush,
                        ptep_get_and_clear(),
                        set_tlb_ubc_flush_pending(),
                        otherwise=[ptep_get_and_clear(), flush_tlb_range("page")],
                    ),
                ],
            ),
        ]


@dataclass(frozen=True)
class ReadLockedClearRefs(TlbFlushPending):
    """clear_refs, or userfaultfd write protection, that lets faults run beside it: mmap_lock for reading only."""

    def clear_refs_soft_dirty(self) -> Block:
        """The walk of clear_refs under the read lock, with one flush at the end."""
        return [
            mmap_read_lock(),
            inc_tlb_flush_pending(),
            for_each_vma(
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(ptep_get_and_clear(), pte_wrprotect(), pte_clear_soft_dirty(), set_pte_at()),
                    pte_unmap_unlock(),
                ),
            ),
            flush_tlb_mm(),
            dec_tlb_flush_pending(),
            mmap_unlock(),
        ]


@dataclass(frozen=True)
class AskingKsm(Synchronous):
    """KSM of v4.13, before PageAnonExclusive: an entry without W and D is flushed if others still have to flush."""

    ksm_flushes_exclusive: bool = False


@dataclass(frozen=True)
class TrustingKsm(AskingKsm):
    """KSM as before v4.13: an entry without W and D needs no flush, whoever still has to flush it."""

    ksm_flushes: ClassVar[Condition] = write | dirty


@dataclass(frozen=True)
class InvertedDemotion(MmuGather):
    """Patch 03 as posted: the condition was the wrong way round."""

    @property
    def needs_flush(self) -> Condition:
        """What `!(pte_dirty(oldpte) || !pte_write(oldpte))` flushes."""
        return present & ~dirty & write


@dataclass(frozen=True)
class PlainStoreGather(MmuGather):
    """mprotect that decides by a value read before, and stores without an atomic exchange."""

    def change_protection(self) -> Block:
        """change_pte_range without ptep_modify_prot_start."""
        return [
            for_each_table(
                self.lock_table(),
                for_each_pte(
                    pte_modify(),
                    set_pte_at(),
                    when(dirty, self.record(tlb_flush_pte_range())),
                ),
                pte_unmap_unlock(),
            ),
        ]


@dataclass(frozen=True)
class AgeTrustingGather(MmuGather):
    """An unmap that does not flush entries without A; and ageing as reclaim does it, which flushes nothing."""

    trusts: bool = True

    def record(self, step: Step) -> Block:
        """Record only what was accessed."""
        return [when(young, step)] if self.trusts else [step]

    def madvise_cold(self) -> Block:
        """Ageing without a flush (`ptep_clear_flush_young()` on x86)."""
        return [
            mmap_read_lock(),
            for_each_vma(
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(when(young, ptep_clear_young())),
                    pte_unmap_unlock(),
                ),
            ),
            mmap_unlock(),
        ]


#: The schemes of this file and of those beside it by class name.
SCHEMES: dict[str, type[Scheme]] = {
    scheme.__name__: scheme
    for scheme in (
        LateFlushMremap,
        LateFlushGather,
        TrustingGather,
        SilentGather,
        PresentOnlyUnmap,
        ReadLockedClearRefs,
        AskingKsm,
        TrustingKsm,
        InvertedDemotion,
        PlainStoreGather,
        AgeTrustingGather,
        *deferral_variants.SCHEMES.values(),
        *lazy_variants.SCHEMES.values(),
        *more_variants.SCHEMES.values(),
        *table_variants.SCHEMES.values(),
    )
}
