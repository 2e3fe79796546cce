"""Scheme 5: reclaim clears entries of other tasks' address spaces and flushes for many of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.steps import (
    Block,
    add_to_swap,
    anon,
    dirty,
    flush_tlb_batched_pending,
    flush_tlb_range,
    for_each_mapping,
    for_each_page,
    for_each_pte,
    for_each_table,
    for_each_vma,
    isolate_folio,
    lock,
    migrate_copy,
    mmap_read_lock,
    mmap_unlock,
    page_dirty,
    page_in_swap_cache,
    page_lazyfree,
    page_lru,
    page_mapped,
    page_remove_rmap,
    page_shared,
    page_shmem,
    pageout,
    pmd_lock,
    pmd_unlock,
    pmdp_invalidate,
    pte_mkold,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_clear_flush,
    ptep_get_and_clear,
    put_page,
    remove_mapping_and_free,
    remove_migration_ptes,
    set_migration_entry,
    set_page_dirty,
    set_pmd_at,
    set_pte_at,
    set_swap_pte,
    set_tlb_ubc_flush_pending,
    should_defer_flush,
    split_folio,
    split_huge_pmd,
    tlb_finish_mmu,
    tlb_gather_mmu,
    tlb_remove_pmd_tlb_entry,
    tlb_remove_tlb_entry,
    try_to_unmap_flush,
    try_to_unmap_flush_dirty,
    unlock,
    when,
    whole_pmd,
    young,
    zero_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class DeferredUnmap(Scheme):
    """Clear entries at once, note which CPUs may still hold them, and flush those for the whole list of pages.

    A page may be written out or freed only after that flush. An operation that meets an entry cleared in this way
    flushes first (`flush_tlb_batched_pending`).
    """

    #: Migration batches too (Linux kernel commit 7e12beb8ca2a, in v6.3).
    batch_migration: bool = True
    #: MADV_PAGEOUT opens a gather for each VMA, not one for the call.
    madvise_per_vma: bool = False
    #: MADV_PAGEOUT makes young entries old first, and flushes them at the end of its gather (before v6.9).
    pageout_clears_young: bool = False
    #: It passes over pages that are not on the LRU yet before that, not after it (in v6.0).
    ages_lru_only: bool = True
    #: Reclaim that does not defer flushes a range, of one page (since v6.15).
    unmap_flushes_range: bool = False
    sources: ClassVar[Mapping[str, str]] = {
        "batch_migration": "commit 7e12beb8ca2a (v6.3)",
        "madvise_per_vma": "mm/madvise.c:madvise_pageout (v6.18.2)",
        "pageout_clears_young": "mm/madvise.c:madvise_cold_or_pageout_pte_range (v5.10.7): until v6.8",
        "unmap_flushes_range": "commit 354dffd29575 (v6.15); mm/rmap.c:try_to_unmap_one (v6.18.2)",
        "ages_lru_only": "commit 58d426a7ba92 (v6.0): PageLRU is looked at first",
    }
    where: ClassVar[str] = "try_to_unmap_one() for shrink_folio_list() and migrate_pages_batch() (mm/rmap.c)"

    @staticmethod
    def clear_entry(*, defer: bool = True, as_range: bool = False) -> Block:
        """Take the entry out; flush its page, or note that it is to be flushed."""
        if not defer:
            return [ptep_clear_flush()]
        if as_range:
            noted = when(should_defer_flush, set_tlb_ubc_flush_pending(), otherwise=[flush_tlb_range("entry")])
            return [ptep_get_and_clear(), noted]
        return [
            when(
                should_defer_flush,
                ptep_get_and_clear(),
                set_tlb_ubc_flush_pending(),
                otherwise=[ptep_clear_flush()],
            ),
        ]

    def reclaim_pages(self) -> Block:
        """`shrink_folio_list()` (mm/vmscan.c) on the operation's list of pages."""
        unmap = [
            lock("rmap_lock", "read"),
            for_each_mapping(
                pte_offset_map_lock(),
                self.clear_entry(as_range=self.unmap_flushes_range),
                when(dirty, set_page_dirty()),
                when(
                    anon & page_lazyfree & page_dirty,
                    set_pte_at(),  # written since MADV_FREE: it stays
                    otherwise=[
                        when(anon & ~page_lazyfree, set_swap_pte()),
                        page_remove_rmap(),
                        put_page(),
                    ],
                ),
                pte_unmap_unlock(),
                on_huge_pmd=[pmd_lock(), split_huge_pmd(), pmd_unlock()],
            ),
            unlock("rmap_lock"),
        ]
        return [
            for_each_page(
                lock("folio_lock"),
                when(anon & ~page_lazyfree & ~page_in_swap_cache, add_to_swap()),
                when(page_mapped & (~anon | page_lazyfree | page_in_swap_cache), unmap),
                when(
                    page_dirty & (anon | page_shmem) & ~page_mapped,
                    try_to_unmap_flush_dirty(),
                    pageout(),
                ),
                remove_mapping_and_free(),
                unlock("folio_lock"),
                keep=True,
            ),
            try_to_unmap_flush(),
            for_each_page(),  # free_unref_folios(): only now may the pages be used for something else
        ]

    def shrink_folio_list(self) -> Block:
        """Reclaim a list of pages that the LRU chose."""
        return self.reclaim_pages()

    def madvise_pageout(self) -> Block:
        """`madvise_cold_or_pageout_pte_range()` for MADV_PAGEOUT: each table's pages are reclaimed as a list."""
        age = [ptep_get_and_clear(), pte_mkold(), set_pte_at(), tlb_remove_tlb_entry()]
        age_huge = [pmdp_invalidate(), pte_mkold(), set_pmd_at(), tlb_remove_pmd_tlb_entry()]
        old = self.pageout_clears_young
        is_young = young & ~zero_page & ~page_shared
        is_young = is_young & page_lru if self.ages_lru_only else is_young
        walk = for_each_table(
            pte_offset_map_lock(),
            flush_tlb_batched_pending(),
            LazyMmu.section(
                for_each_pte(
                    [when(is_young, age)] if old else [],
                    isolate_folio(),
                ),
            ),
            pte_unmap_unlock(),
            self.reclaim_pages(),
            on_huge_pmd=[
                pmd_lock(),
                when(
                    ~zero_page & ~page_shared,  # else neither taken nor split for a part of it
                    when(
                        whole_pmd,
                        [when(young, age_huge)] if old else [],
                        isolate_folio(),
                        otherwise=[split_folio()],
                    ),
                ),
                pmd_unlock(),
                self.reclaim_pages(),
            ],
        )
        if self.madvise_per_vma:
            return [mmap_read_lock(), for_each_vma(tlb_gather_mmu(), walk, tlb_finish_mmu()), mmap_unlock()]
        return [mmap_read_lock(), tlb_gather_mmu(), for_each_vma(walk), tlb_finish_mmu(), mmap_unlock()]

    def migrate_pages(self) -> Block:
        """`migrate_pages_batch()` (mm/migrate.c): unmap all, flush once, then copy; before 6.3 page by page."""
        unmap = [
            lock("folio_lock"),
            lock("rmap_lock", "read"),
            for_each_mapping(
                pte_offset_map_lock(),
                self.clear_entry(defer=self.batch_migration),
                when(dirty, set_page_dirty()),
                set_migration_entry(),
                page_remove_rmap(),
                put_page(),
                pte_unmap_unlock(),
                on_huge_pmd=[pmd_lock(), split_huge_pmd(), pmd_unlock()],
            ),
            unlock("rmap_lock"),
            unlock("folio_lock"),
        ]
        move = [lock("folio_lock"), when(~page_mapped, migrate_copy(), remove_migration_ptes()), unlock("folio_lock")]
        if self.batch_migration:
            return [for_each_page(unmap, keep=True), try_to_unmap_flush(), for_each_page(move)]
        return [for_each_page(unmap, move)]
