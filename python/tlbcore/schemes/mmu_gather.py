"""Scheme 1: mmu_gather (mm/mmu_gather.c, include/asm-generic/tlb.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.steps import (
    Block,
    Condition,
    Step,
    clear_vma_soft_dirty,
    dirty,
    file_backed,
    flush_tlb_batched_pending,
    for_each_pte,
    for_each_rmap_vma,
    for_each_table,
    for_each_vma,
    force_flush,
    free_pgtables,
    free_pte,
    have_vmas,
    lock,
    mark_lazyfree,
    mmap_read_lock,
    mmap_region,
    mmap_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    mprotect_fixup,
    page_dirty,
    page_lru,
    page_remove_rmap,
    page_shared,
    pmd_lock,
    pmd_unlock,
    pmdp_huge_get_and_clear,
    pmdp_invalidate,
    pmdp_invalidate_ad,
    present,
    prot_changed,
    protnone,
    pte_clear,
    pte_clear_soft_dirty,
    pte_mkclean,
    pte_mkold,
    pte_mkwrite,
    pte_modify,
    pte_needs_flush,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pte_wrprotect,
    ptep_get_and_clear,
    select_range,
    set_delay_rmap,
    set_force_flush,
    set_page_dirty,
    set_pmd_at,
    set_pte_at,
    split_folio,
    split_huge_pmd,
    swap,
    tlb_finish_mmu,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_flush_pmd_range,
    tlb_flush_pte_range,
    tlb_flush_rmaps,
    tlb_gather_mmu,
    tlb_remove_page,
    tlb_remove_pmd_tlb_entry,
    tlb_remove_tlb_entry,
    try_get_and_clear_pmd,
    unlock,
    vma_shared,
    vms_gather_munmap_vmas,
    when,
    whole_pmd,
    write,
    young,
    zero_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class MmuGather(Scheme):
    """Collect what one operation takes away, flush once, then free it.

    The three steps of include/asm-generic/tlb.h: unhook the page, invalidate its translations, free it. Dirty file
    pages force a flush before the page-table lock is dropped, since `page_mkclean` must not find them clean while a CPU
    can still write; so does a full batch.
    """

    #: Remove the rmap of dirty file pages after the flush (Linux kernel commit 5df397dec7c4, in v6.2).
    delay_rmap: bool = True
    #: madvise opens a gather for each VMA, not one for the call (before v6.16; MADV_COLD still does).
    madvise_per_vma: bool = False
    #: MADV_DONTNEED frees tables that it empties whole (CONFIG_PT_RECLAIM, in v6.14; on by default on x86-64).
    dontneed_frees_tables: bool = False
    #: mprotect may make huge entries writable (`can_change_pmd_writable`, in v6.2).
    huge_mkwrite: bool = True
    #: mprotect may make clean entries of exclusive anonymous pages writable, too (in v6.2).
    clean_mkwrite: bool = True
    #: MADV_COLD passes over pages that are not on the LRU yet (in v6.0).
    ages_lru_only: bool = True
    where: ClassVar[str] = "munmap, MADV_DONTNEED, exit; mprotect since Linux kernel commit 4a18419f71cd (in v5.19)"
    sources: ClassVar[Mapping[str, str]] = {
        "delay_rmap": "commit 5df397dec7c4 (v6.2)",
        "madvise_per_vma": "mm/madvise.c:madvise_batch_tlb_flush (v6.16): one gather for DONTNEED and FREE",
        "dontneed_frees_tables": "commit 6375e95f381e (v6.14); mm/memory.c:zap_pte_range (v6.18.2)",
        "huge_mkwrite": "mm/huge_memory.c:can_change_pmd_writable (v6.2)",
        "clean_mkwrite": "commit d84887739d5c (v6.2): allow clean exclusive anon pages to be writable",
        "ages_lru_only": "commit 58d426a7ba92 (v6.0): PageLRU is looked at first",
    }

    # What a successor may do otherwise: how a gather opens and ends, what a table's walk begins with, what is recorded.

    def open_gather(self, *, frees_pages: bool = True, fullmm: bool = False) -> Block:
        """Open the gather."""
        del frees_pages  # this gather always has a page list
        return [tlb_gather_mmu(fullmm=fullmm)]

    def close_gather(self) -> Block:
        """Flush and free."""
        return [tlb_finish_mmu()]

    def lock_table(self) -> Block:
        """Lock the table; see to what reclaim left unflushed."""
        return [pte_offset_map_lock(), flush_tlb_batched_pending()]

    def record(self, step: Step) -> Block:
        """Record an entry whose translation must go."""
        return [step]

    @property
    def needs_flush(self) -> Condition:
        """Which changes of an entry need a flush: x86's `pte_needs_flush()` (c9fe66560bf2, in v5.19)."""
        return pte_needs_flush

    # --- taking pages away -------------------------------------------------------------------------------------------

    def zap(self) -> Block:
        """`unmap_page_range()`: zap_pte_range for each table (mm/memory.c)."""
        return self._zap()

    def _zap(self, *, frees_tables: bool = False) -> Block:
        """The same; `frees_tables` is `details->reclaim_pt`."""
        return [
            for_each_table(
                self.lock_table(),
                LazyMmu.section(
                    for_each_pte(
                        when(
                            present,
                            ptep_get_and_clear(),
                            when(
                                dirty & file_backed,
                                set_page_dirty(),
                                set_delay_rmap() if self.delay_rmap else [],
                                set_force_flush(),
                            ),
                            self.record(tlb_remove_tlb_entry()),
                            page_remove_rmap(),
                            tlb_remove_page(),
                            otherwise=[pte_clear()],
                        ),
                        filter="not_none",
                    ),
                ),
                when(whole_pmd, try_get_and_clear_pmd()) if frees_tables else [],
                when(force_flush, tlb_flush_mmu_tlbonly(), tlb_flush_rmaps()),
                pte_unmap_unlock(),
                when(force_flush, tlb_flush_mmu()),
                when(whole_pmd, free_pte()) if frees_tables else [],
                on_huge_pmd=self._huge(
                    pmdp_huge_get_and_clear(),
                    self.record(tlb_remove_pmd_tlb_entry()),
                    page_remove_rmap(),
                    tlb_remove_page(),
                ),
            ),
        ]

    @staticmethod
    def _huge(*whole: Step | Block) -> Block:
        """What happens to a huge entry that the range covers; one that it cuts is split first."""
        return [pmd_lock(), when(whole_pmd, *whole, otherwise=[split_huge_pmd()]), pmd_unlock()]

    def unmap(self, name: str, *, downgrade: bool = False) -> Block:
        """Take everything out of a range of the address space; the caller holds mmap_lock for writing."""
        return [
            select_range(name),
            vms_gather_munmap_vmas(),
            [mmap_write_downgrade()] if downgrade else [],
            when(
                have_vmas,
                self.open_gather(),
                for_each_vma(self.zap()),
                self.free_tables(),
                self.close_gather(),
            ),
        ]

    def free_tables(self) -> Block:
        """What comes between the zap of a range and the end of its gather."""
        return [free_pgtables()]

    def munmap(self) -> Block:
        """`do_vmi_munmap()` (mm/vma.c)."""
        return [mmap_write_lock(), self.unmap("args", downgrade=True), mmap_unlock()]

    def mmap(self) -> Block:
        """`mmap_region()`: what MAP_FIXED lies over goes first."""
        return [mmap_write_lock(), self.unmap("args"), mmap_region(), mmap_unlock()]

    def exit_mmap(self) -> Block:
        """`exit_mmap()`: everything, with one full flush at the end."""
        return [
            mmap_read_lock(),
            self.open_gather(fullmm=True),
            for_each_vma(self.zap()),
            free_pgtables(),
            self.close_gather(),
            mmap_unlock(),
        ]

    def unmap_mapping_range(self) -> Block:
        """Truncation: `zap_page_range_single()` in each VMA that maps the file's range."""
        return [
            lock("rmap_lock", "read"),
            for_each_rmap_vma(self.open_gather(), self.zap(), self.close_gather()),
            unlock("rmap_lock"),
        ]

    # --- madvise -----------------------------------------------------------------------------------------------------

    def madvise_dontneed(self) -> Block:
        """`zap_page_range_single()` under the read lock."""
        walk = self._zap(frees_tables=True) if self.dontneed_frees_tables else self.zap()
        return [mmap_read_lock(), self._madvise_gather(walk), mmap_unlock()]

    def _madvise_gather(self, walk: Block) -> Block:
        if self.madvise_per_vma:
            return [for_each_vma(self.open_gather(), walk, self.close_gather())]
        return [self.open_gather(), for_each_vma(walk), self.close_gather()]

    def take_huge(self) -> Step:
        """Read a huge entry that is to change: it is none at no moment, since others look at it without its lock."""
        return pmdp_invalidate()

    def madvise_free(self) -> Block:
        """`madvise_free_pte_range()`: young or dirty entries lose both; no flush under the lock."""
        clean = [ptep_get_and_clear(), pte_mkold(), pte_mkclean(), set_pte_at()]
        return self._madvise(
            when(
                present,
                when(
                    ~zero_page & ~(page_dirty & page_shared),  # vm_normal_page() knows no zero page
                    when(young | dirty, clean, self.record(tlb_remove_tlb_entry())),
                    mark_lazyfree(),
                ),
                otherwise=[when(swap, pte_clear())],
            ),
            huge=[
                when(
                    young | dirty,
                    self.take_huge(),
                    pte_mkold(),
                    pte_mkclean(),
                    set_pmd_at(),
                    self.record(tlb_remove_pmd_tlb_entry()),
                ),
                mark_lazyfree(),
            ],
        )

    def madvise_cold(self) -> Block:
        """`madvise_cold_or_pageout_pte_range()` for MADV_COLD: young entries grow old."""
        return self._madvise(
            when(
                present & young & ~zero_page & ~page_shared & page_lru
                if self.ages_lru_only
                else present & young & ~zero_page & ~page_shared,
                ptep_get_and_clear(),
                pte_mkold(),
                set_pte_at(),
                self.record(tlb_remove_tlb_entry()),
            ),
            huge=[
                when(
                    young,
                    pmdp_invalidate(),
                    pte_mkold(),
                    set_pmd_at(),
                    self.record(tlb_remove_pmd_tlb_entry()),
                ),
            ],
        )

    def _madvise(self, *per_pte: Step | Block, huge: Block) -> Block:
        return [
            mmap_read_lock(),
            self._madvise_gather(
                [
                    for_each_table(
                        self.lock_table(),
                        LazyMmu.section(for_each_pte(*per_pte, filter="not_none")),
                        pte_unmap_unlock(),
                        # Neither the zero page nor one that others map is touched, or split for a part of it.
                        on_huge_pmd=[
                            pmd_lock(),
                            when(~zero_page & ~page_shared, when(whole_pmd, huge, otherwise=[split_folio()])),
                            pmd_unlock(),
                        ],
                    ),
                ],
            ),
            mmap_unlock(),
        ]

    # --- changing rights (since 5.19) --------------------------------------------------------------------------------

    def mprotect(self) -> Block:
        """`do_mprotect_pkey()`: one gather for the call, one record for each entry that needs a flush."""
        return [
            mmap_write_lock(),
            self.open_gather(frees_pages=False),
            for_each_vma(self.change_protection()),
            self.close_gather(),
            mmap_unlock(),
        ]

    def change_protection(self) -> Block:
        """`mprotect_fixup()`: the VMA, then `change_pte_range()` for each table (mm/mprotect.c)."""
        mkwrite = pte_mkwrite("can_change_pte_writable")
        return [
            when(
                prot_changed,
                mprotect_fixup(),
                for_each_table(
                    self.lock_table(),
                    LazyMmu.section(
                        for_each_pte(
                            ptep_get_and_clear(),
                            pte_modify(),
                            mkwrite if self.clean_mkwrite else when(dirty, mkwrite),
                            set_pte_at(),
                            when(self.needs_flush, self.record(tlb_flush_pte_range())),
                        ),
                    ),
                    pte_unmap_unlock(),
                    on_huge_pmd=self._huge(
                        pmdp_invalidate_ad(),
                        pte_modify(),
                        mkwrite if self.huge_mkwrite else [],
                        set_pmd_at(),
                        when(self.needs_flush, self.record(tlb_flush_pmd_range())),
                    ),
                ),
            ),
        ]

    def change_prot_numa(self) -> Block:
        """`change_prot_numa()` (mm/mempolicy.c): entries become protnone, to fault and tell where they are used."""
        return [
            mmap_read_lock(),
            self.open_gather(frees_pages=False),
            for_each_vma(
                for_each_table(
                    self.lock_table(),
                    LazyMmu.section(
                        for_each_pte(
                            when(
                                ~protnone & ~zero_page & ~vma_shared,
                                ptep_get_and_clear(),
                                pte_modify("none"),
                                set_pte_at(),
                                when(self.needs_flush, self.record(tlb_flush_pte_range())),
                            ),
                        ),
                    ),
                    pte_unmap_unlock(),
                ),
            ),
            self.close_gather(),
            mmap_unlock(),
        ]

    # --- helpers that the series of 2021 moves to a gather -----------------------------------------------------------

    def clear_refs_soft_dirty(self) -> Block:
        """`clear_refs_write()` with a gather."""
        return self.soft_dirty(self.record(tlb_flush_pte_range()), self.record(tlb_flush_pmd_range()))

    def soft_dirty(self, record: Block, record_huge: Block) -> Block:
        """clear_refs with a gather; what is recorded is the caller's choice."""
        return [
            mmap_write_lock(),
            self.open_gather(frees_pages=False),
            for_each_vma(
                clear_vma_soft_dirty(),
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(
                        ptep_get_and_clear(),
                        pte_wrprotect(),
                        pte_clear_soft_dirty(),
                        set_pte_at(),
                        record,
                    ),
                    pte_unmap_unlock(),
                    on_huge_pmd=[
                        pmd_lock(),
                        pmdp_invalidate_ad(),
                        pte_wrprotect(),
                        pte_clear_soft_dirty(),
                        set_pmd_at(),
                        record_huge,
                        pmd_unlock(),
                    ],
                ),
            ),
            self.close_gather(),
            mmap_unlock(),
        ]

    def wp_shared_mapping_range(self) -> Block:
        """`wp_shared_mapping_range()` (mm/mapping_dirty_helpers.c) with a gather for each VMA."""
        return [
            lock("rmap_lock", "read"),
            for_each_rmap_vma(
                self.open_gather(frees_pages=False),
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(
                        when(
                            write,
                            ptep_get_and_clear(),
                            pte_wrprotect(),
                            set_pte_at(),
                            when(self.needs_flush, self.record(tlb_flush_pte_range())),
                        ),
                    ),
                    pte_unmap_unlock(),
                ),
                self.close_gather(),
            ),
            unlock("rmap_lock"),
        ]


@dataclass(frozen=True)
class ForgetfulGather(MmuGather):
    """5.10's clear_refs: a gather in which nothing is recorded, so that only a nested one flushes.

    The bug that Linux kernel commit 912efa17e512 (in v5.11) mended by going to `TlbFlushPending`.
    """

    where: ClassVar[str] = "clear_refs_write() of 5.10"

    def clear_refs_soft_dirty(self) -> Block:
        """`clear_refs_write()` of 5.10."""
        return self.soft_dirty([], [])
