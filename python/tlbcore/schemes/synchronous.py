"""No batching: operations that flush for each entry, or once at their end because nothing is to be freed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.steps import (
    Block,
    Condition,
    Step,
    alloc_anon_page,
    anon,
    clear_page_dirty,
    collapse_copy,
    copy_user_page,
    cow_mapping,
    dirty,
    do_huge_pmd_anonymous_page,
    dup_mm,
    dup_vma,
    find_get_page,
    flush_tlb_mm,
    folio_get,
    folio_put,
    folio_try_share_anon_rmap,
    for_each_mapping,
    for_each_page,
    for_each_pte,
    for_each_table,
    for_each_vma,
    huge_fault_fits,
    lock,
    map_around,
    mm_tlb_flush_pending,
    mmap_read_lock,
    mmap_unlock,
    mmap_write_lock,
    none,
    page_dup_rmap,
    page_exclusive,
    page_held,
    page_ksm,
    page_mapped,
    page_remove_rmap,
    page_shared,
    page_swap_shared,
    pages_identical,
    pmd_is_huge,
    pmd_lock,
    pmd_unlock,
    pmdp_collapse_flush,
    pmdp_invalidate,
    present,
    protnone,
    pte_alloc,
    pte_alloc_child,
    pte_free_defer,
    pte_mkclean,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pte_wrprotect,
    ptep_clear_flush,
    ptep_set_access_flags,
    ptep_set_wrprotect,
    put_old_page,
    put_page,
    set_page_dirty,
    set_pmd_at,
    set_pmd_at_child,
    set_pmd_huge,
    set_pte_anon,
    set_pte_at,
    set_pte_at_child,
    set_pte_file,
    set_pte_ksm,
    set_pte_numa,
    set_pte_swap_in,
    set_pte_zero,
    split_huge_pmd,
    stable_tree_search,
    swap,
    swap_duplicate,
    swap_in,
    tlb_remove_table_sync_one,
    unlock,
    vma_anonymous,
    vma_dontcopy,
    vma_needs_copy,
    vma_shared,
    when,
    wp_page_reuse,
    write,
    write_fault,
    zero_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def under_ptl(*steps: Step | Block) -> Block:
    """`steps` with the PTE table locked."""
    return [pte_offset_map_lock(), *steps, pte_unmap_unlock()]


def under_pml(*steps: Step | Block) -> Block:
    """`steps` with the PMD table locked."""
    return [pmd_lock(), *steps, pmd_unlock()]


def under_folio_lock(*steps: Step | Block) -> Block:
    """`steps` with the page locked: from page_mkwrite on, nobody can clean it (`do_page_mkwrite()`, mm/memory.c)."""
    return [lock("folio_lock"), *steps, unlock("folio_lock")]


@dataclass(frozen=True)
class Synchronous(Scheme):
    """Flush each entry as it changes (copy on write, page_mkclean), or the whole mm once (fork)."""

    #: A collapse waits for those who walk without locks before it reuses the table.
    collapse_syncs_walkers: bool = True
    #: The table above pages of a file is taken out under mmap_lock.
    retracts_under_mmap_lock: bool = False
    #: KSM takes PageAnonExclusive from a page, with a flush; before there was such a bit, what a NUMA hint remembered of W.
    ksm_flushes_exclusive: bool = True
    #: A write to the huge zero page gets a huge page, else the entry is split and one small page copied.
    replaces_huge_zero_page: bool = True
    sources: ClassVar[Mapping[str, str]] = {
        "collapse_syncs_walkers": "commit 2ba99c5e0881 (v6.1)",
        "retracts_under_mmap_lock": "mm/khugepaged.c:retract_page_tables (v6.18.2): no mmap_lock since v6.6",
        "ksm_flushes_exclusive": "commit 6c287605fd56 (v5.19)",
        "replaces_huge_zero_page": "commit 1ced09e0331f (v6.13)",
    }
    where: ClassVar[str] = "page faults, fork, page_mkclean, collapse, KSM"

    def fault(self) -> Block:
        """`__handle_mm_fault()` (mm/memory.c)."""
        return [
            lock("vma_lock", "read"),
            when(
                huge_fault_fits,
                under_pml(do_huge_pmd_anonymous_page()),
                otherwise=[pte_alloc(), when(pmd_is_huge, self._huge_entry(), otherwise=self._entry())],
            ),
            unlock("vma_lock"),
        ]

    def _entry(self) -> Block:
        return [
            when(
                none,
                self._none(),
                otherwise=[
                    when(
                        swap,
                        swap_in(),
                        under_ptl(set_pte_swap_in()),
                        when(present & write_fault & ~write, self._write_protected()),
                        otherwise=[
                            when(
                                protnone,
                                under_ptl(set_pte_numa()),
                                otherwise=[
                                    when(
                                        present & write_fault & ~write,
                                        self._write_protected(),
                                        otherwise=[when(present, under_ptl(ptep_set_access_flags()))],
                                    ),
                                ],
                            ),
                        ],
                    ),
                ],
            ),
        ]

    @staticmethod
    def _none() -> Block:
        anonymous = when(
            write_fault,
            alloc_anon_page(),
            under_ptl(set_pte_anon()),
            otherwise=under_ptl(set_pte_zero()),
        )
        of_a_file = when(
            ~write_fault,
            find_get_page(),
            under_folio_lock(under_ptl(map_around())),
            otherwise=[
                find_get_page(),
                when(
                    vma_shared,
                    under_folio_lock(set_page_dirty(), under_ptl(set_pte_file(write=True))),
                    otherwise=[alloc_anon_page(), copy_user_page(), under_ptl(set_pte_anon())],
                ),
            ],
        )
        return [when(vma_anonymous, anonymous, otherwise=[of_a_file])]

    def _write_protected(self) -> Block:
        """`do_wp_page()`: in place if nobody else has the page, in swap neither, else a copy, with a flush of the one page.

        The reference keeps others from writing in place meanwhile: then the entry could look as it did, and its page not.
        """
        own = anon & ~page_shared & ~page_swap_shared & ~page_held & ~page_ksm & ~zero_page
        return [
            when(
                vma_shared,
                under_folio_lock(set_page_dirty(), under_ptl(wp_page_reuse())),
                otherwise=[
                    pte_offset_map_lock(),
                    when(
                        own,
                        wp_page_reuse(),
                        pte_unmap_unlock(),
                        otherwise=[folio_get(), pte_unmap_unlock(), *self.copy(), folio_put()],
                    ),
                ],
            ),
        ]

    @staticmethod
    def copy() -> Block:
        """`wp_page_copy()`: the old translation is flushed before the new one is set."""
        return [
            alloc_anon_page(),
            copy_user_page(),
            under_ptl(ptep_clear_flush(), set_pte_anon(), page_remove_rmap()),
            put_old_page(),
        ]

    def _huge_entry(self) -> Block:
        """`do_huge_pmd_wp_page()`: a huge page of one's own is written in place, else it is split first."""
        split: Block = [under_pml(split_huge_pmd()), pte_alloc(), self._entry()]
        if self.replaces_huge_zero_page:
            otherwise: Block = [
                when(zero_page, under_pml(pmdp_invalidate(), do_huge_pmd_anonymous_page()), otherwise=split)
            ]
        else:
            otherwise = split
        return [
            when(
                protnone,
                under_pml(set_pte_numa()),
                otherwise=[
                    when(
                        write_fault & ~write,
                        when(
                            anon & ~page_shared & ~zero_page,
                            under_pml(wp_page_reuse()),
                            otherwise=otherwise,
                        ),
                        otherwise=under_pml(ptep_set_access_flags()),
                    ),
                ],
            ),
        ]

    def fork(self) -> Block:
        """`dup_mmap()`, `copy_page_range()`: write-protect what is shared from now on, one full flush at the end."""
        return [
            mmap_write_lock(),
            dup_mm(),
            for_each_vma(
                when(
                    ~vma_dontcopy,
                    dup_vma(),
                    when(
                        vma_needs_copy,
                        for_each_table(
                            pte_offset_map_lock(),
                            pte_alloc_child(),
                            LazyMmu.section(
                                for_each_pte(
                                    when(
                                        present,
                                        page_dup_rmap(),
                                        when(cow_mapping & write, ptep_set_wrprotect()),
                                        set_pte_at_child(),
                                        otherwise=[swap_duplicate()],
                                    ),
                                    filter="not_none",
                                ),
                            ),
                            pte_unmap_unlock(),
                            on_huge_pmd=under_pml(
                                page_dup_rmap(),
                                when(cow_mapping & write, pte_wrprotect(), set_pmd_at()),
                                set_pmd_at_child(),
                            ),
                        ),
                    ),
                ),
            ),
            flush_tlb_mm(),
            mmap_unlock(),
        ]

    def page_mkclean(self) -> Block:
        """`folio_clear_dirty_for_io()` with `page_vma_mkclean_one()` (mm/rmap.c): one flush for each mapping."""
        return [
            for_each_page(
                lock("folio_lock"),
                lock("rmap_lock", "read"),
                for_each_mapping(
                    under_ptl(
                        when(
                            present & (dirty | write),
                            ptep_clear_flush(),
                            pte_wrprotect(),
                            pte_mkclean(),
                            set_pte_at(),
                        ),
                    ),
                    on_huge_pmd=under_pml(
                        when(dirty | write, pmdp_invalidate(), pte_wrprotect(), pte_mkclean(), set_pmd_at()),
                    ),
                    shared_only=True,
                ),
                unlock("rmap_lock"),
                clear_page_dirty(),
                unlock("folio_lock"),
            ),
        ]

    def collapse_huge_page(self) -> Block:
        """`collapse_huge_page()`, and for pages of a file what `collapse_file()` does in the end (mm/khugepaged.c)."""
        collapse: Block = [
            mmap_write_lock(),
            under_pml(pmdp_collapse_flush()),
            tlb_remove_table_sync_one() if self.collapse_syncs_walkers else [],
            collapse_copy(),
            under_pml(set_pmd_huge()),
            mmap_unlock(),
        ]
        return [when(vma_anonymous, *collapse, otherwise=self.retract_page_tables())]

    def retract_page_tables(self) -> Block:
        """`retract_page_tables()`: the huge page is in the page cache, the table above the small ones goes."""
        take_out = under_pml(under_ptl(pmdp_collapse_flush()))
        if self.retracts_under_mmap_lock:
            take_out = [mmap_write_lock(), *take_out, mmap_unlock()]
        return [lock("rmap_lock", "read"), *take_out, pte_free_defer(), unlock("rmap_lock")]

    #: When `write_protect_page()` has to flush (mm/ksm.c), beside pages that are exclusive.
    ksm_flushes: ClassVar[Condition] = write | dirty | mm_tlb_flush_pending

    def ksm_merge(self) -> Block:
        """`try_to_merge_one_page()` (mm/ksm.c) for pages of one content: write-protect, compare, map the KSM page.

        A page whose entry is gone is passed over by `write_protect_page()`, and one whose entry is gone since by `replace_page()`.
        """
        exclusive = page_exclusive if self.ksm_flushes_exclusive else protnone & page_exclusive
        write_protect_page = under_ptl(
            when(
                present & (self.ksm_flushes | exclusive),
                ptep_clear_flush(),
                folio_try_share_anon_rmap(),
                when(dirty, set_page_dirty()),
                pte_wrprotect(),
                pte_mkclean(),
                set_pte_at(),
            ),
        )
        replace_page = under_ptl(
            when(
                present & ~write & ~dirty,
                ptep_clear_flush(),
                set_pte_ksm(),
                page_remove_rmap(),
                put_page(),
            ),
        )
        return [
            mmap_read_lock(),
            for_each_page(
                lock("folio_lock"),
                when(
                    page_mapped & ~page_shared & ~page_ksm,
                    for_each_mapping(
                        *write_protect_page,
                        stable_tree_search(),
                        when(~page_ksm, pages_identical(), *replace_page),
                    ),
                ),
                unlock("folio_lock"),
            ),
            mmap_unlock(),
        ]
