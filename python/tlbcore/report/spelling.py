"""How the kernel spells each step, each loop and each operation. Text only: `docs/steps.md` gives the meaning.

A step without an entry is spelled as a call of its own name without arguments.
"""

from __future__ import annotations

from typing import Final

OPERATION_ARGUMENTS: Final[dict[str, str]] = {
    "mmap": "mm, addr, len, prot, flags, file, pgoff",
    "munmap": "mm, addr, len",
    "mprotect": "mm, addr, len, prot",
    "mremap": "mm, addr, old_len, new_len, flags, new_addr",
    "madvise_dontneed": "mm, addr, len",
    "madvise_free": "mm, addr, len",
    "madvise_cold": "mm, addr, len",
    "madvise_pageout": "mm, addr, len",
    "clear_refs_soft_dirty": "mm",
    "fork": "mm",
    "exit_mmap": "mm",
    "fault": "vmf",
    "page_mkclean": "folio_list",
    "shrink_folio_list": "folio_list",
    "migrate_pages": "folio_list",
    "change_prot_numa": "mm, addr, len",
    "unmap_mapping_range": "mapping, first, last",
    "wp_shared_mapping_range": "mapping, first, last",
    "collapse_huge_page": "mm, addr",
    "ksm_merge": "folio_list",
}
"""What each operation is called with."""

LOOPS: Final[dict[str, str]] = {
    "for_each_vma": "for_each_vma(vmi, vma)",
    "for_each_rmap_vma": "vma_interval_tree_foreach(vma, &mapping->i_mmap, first, last)",
    "for_each_table": "for_each_table(pmd, addr)",
    "for_each_pte": "for_each_pte(pte, addr)",
    "for_each_extent": "for_each_extent(old_addr, new_addr)",
    "for_each_page": "list_for_each_entry(folio, folio_list, lru)",
    "for_each_mapping": "while (page_vma_mapped_walk(&pvmw))",
}
"""The heads of loops."""

SKIPS: Final[dict[tuple[str, str, object], str]] = {
    ("for_each_pte", "filter", "present"): "!pte_present(pte)",
    ("for_each_pte", "filter", "not_none"): "pte_none(pte)",
    ("for_each_mapping", "shared_only", True): "!(vma->vm_flags & VM_SHARED)",
}
"""Which items a loop's argument leaves out: loop, argument, value."""

LOCKS: Final[dict[tuple[str, str], str]] = {
    ("mmap_lock", "read"): "mmap_read_lock(mm);",
    ("mmap_lock", "write"): "mmap_write_lock(mm);",
    ("vma_lock", "read"): "vma_start_read(vma);",
    ("vma_lock", "write"): "vma_start_write(vma);",
    ("ptl", "write"): "ptl = pte_offset_map_lock(mm, pmd, addr);",
    ("new_ptl", "write"): "spin_lock_nested(new_ptl, SINGLE_DEPTH_NESTING);",
    ("pml", "write"): "pml = pmd_lock(mm, pmd);",
    ("new_pml", "write"): "spin_lock_nested(new_pml, SINGLE_DEPTH_NESTING);",
    ("rmap_lock", "read"): "i_mmap_lock_read(mapping);",
    ("rmap_lock", "write"): "i_mmap_lock_write(mapping);",
    ("folio_lock", "write"): "folio_lock(folio);",
}
"""Taking a lock, by name and mode."""

UNLOCKS: Final[dict[tuple[str, str], str]] = {
    ("mmap_lock", "read"): "mmap_read_unlock(mm);",
    ("mmap_lock", "write"): "mmap_write_unlock(mm);",
    ("vma_lock", "read"): "vma_end_read(vma);",
    ("vma_lock", "write"): "vma_end_write(vma);",
    ("ptl", "write"): "pte_unmap_unlock(pte, ptl);",
    ("new_ptl", "write"): "spin_unlock(new_ptl);",
    ("pml", "write"): "spin_unlock(pml);",
    ("new_pml", "write"): "spin_unlock(new_pml);",
    ("rmap_lock", "read"): "i_mmap_unlock_read(mapping);",
    ("rmap_lock", "write"): "i_mmap_unlock_write(mapping);",
    ("folio_lock", "write"): "folio_unlock(folio);",
}
"""Dropping a lock, by name and the mode in which it is held."""

DOWNGRADES: Final[dict[str, str]] = {"mmap_lock": "mmap_write_downgrade(mm);"}
"""Going on with a lock held for reading."""

CHOICES: Final[dict[tuple[str, str], dict[str, tuple[str, ...]]]] = {
    ("select_range", "range"): {
        "args": ("start = addr, end = addr + len;",),
        "tail": ("start = addr + new_len, end = addr + old_len;",),
        "new": ("start = new_addr, end = new_addr + new_len;",),
        "old": ("start = addr, end = addr + min(old_len, new_len);",),
    },
    ("pte_modify", "prot"): {
        "vma": ("new_pte = pte_modify(new_pte, vma->vm_page_prot);",),
        "none": ("new_pte = pte_modify(new_pte, PAGE_NONE);",),
    },
    ("pte_mkwrite", "only_if"): {
        "always": ("new_pte = pte_mkwrite(new_pte, vma);",),
        "can_change_pte_writable": (
            "if (can_change_pte_writable(vma, addr, new_pte))",
            "    new_pte = pte_mkwrite(new_pte, vma);",
        ),
        "dirty_accountable": (
            "if (dirty_accountable && pte_dirty(new_pte) &&",
            "    (pte_soft_dirty(new_pte) || !(vma->vm_flags & VM_SOFTDIRTY)))",
            "    new_pte = pte_mkwrite(new_pte, vma);",
        ),
    },
    ("flush_tlb_range", "range"): {
        "vma": ("flush_tlb_range(vma, start, end);",),
        "table": ("flush_tlb_range(vma, table_start, table_end);",),
        "extent": ("flush_tlb_range(vma, old_addr, old_addr + extent);",),
        "pmd": ("flush_pmd_tlb_range(vma, addr, addr + HPAGE_PMD_SIZE);",),
        "page": ("flush_tlb_page(vma, addr);",),
        "entry": ("flush_tlb_range(vma, addr, addr + PAGE_SIZE);",),
    },
}
"""Steps whose one argument chooses the text: step, argument, value."""

PLAIN: Final[dict[str, str]] = {
    "inc_tlb_flush_pending": "inc_tlb_flush_pending(mm);",
    "dec_tlb_flush_pending": "dec_tlb_flush_pending(mm);",
    "vms_gather_munmap_vmas": "vms_gather_munmap_vmas(&vms, &mas_detach);",
    "mmap_region": "mmap_region(file, addr, len, vm_flags, pgoff);",
    "mprotect_fixup": "mprotect_fixup(vmi, vma, start, end, new_flags);",
    "flush_tlb_batched_pending": "flush_tlb_batched_pending(mm);",
    "ptep_get_and_clear": "pte = ptep_get_and_clear(mm, addr, ptep);",
    "pte_clear": "pte_clear(mm, addr, ptep);",
    "pte_wrprotect": "new_pte = pte_wrprotect(new_pte);",
    "pte_mkclean": "new_pte = pte_mkclean(new_pte);",
    "pte_mkold": "new_pte = pte_mkold(new_pte);",
    "pte_clear_soft_dirty": "new_pte = pte_clear_soft_dirty(new_pte);",
    "set_pte_at": "set_pte_at(mm, addr, ptep, new_pte);",
    "ptep_set_wrprotect": "ptep_set_wrprotect(mm, addr, ptep);",
    "ptep_clear_young": "ptep_test_and_clear_young(vma, addr, ptep);",
    "ptep_clear_flush": "pte = ptep_clear_flush(vma, addr, ptep);",
    "count_changed": "nr_changed++;",
    "set_force_flush": "force_flush = true;",
    "set_delay_rmap": "delay_rmap = true;",
    "flush_tlb_mm": "flush_tlb_mm(mm);",
    "tlb_remove_tlb_entry": "tlb_remove_tlb_entry(&tlb, ptep, addr);",
    "tlb_flush_pte_range": "tlb_flush_pte_range(&tlb, addr, PAGE_SIZE);",
    "tlb_remove_pmd_tlb_entry": "tlb_remove_pmd_tlb_entry(&tlb, pmd, addr);",
    "tlb_flush_pmd_range": "tlb_flush_pmd_range(&tlb, addr, HPAGE_PMD_SIZE);",
    "tlb_remove_page": "tlb_remove_page(&tlb, page);",
    "tlb_flush_mmu_tlbonly": "tlb_flush_mmu_tlbonly(&tlb);",
    "tlb_flush_rmaps": "tlb_flush_rmaps(&tlb, vma);",
    "tlb_flush_mmu": "tlb_flush_mmu(&tlb);",
    "tlb_finish_mmu": "tlb_finish_mmu(&tlb);",
    "free_pgtables": "free_pgtables(&tlb, vma, floor, ceiling);",
    "try_get_and_clear_pmd": "if (addr == end && pte_table_is_empty)\n    try_get_and_clear_pmd(mm, pmd, &pmdval);",
    "free_pte": "free_pte(mm, start, &tlb, pmdval);",
    "note_deferred_flush": "note_deferred_flush(&tlb, vma, pmd);",
    "check_deferred_flush": "check_deferred_flush(&tlb, vma, pmd);",
    "mark_tlb_gen_done": "mark_mm_tlb_gen_done(mm, tlb_gen);",
    "page_remove_rmap": "folio_remove_rmap_pte(folio, page, vma);",
    "put_page": "folio_put(folio);",
    "set_page_dirty": "folio_mark_dirty(folio);",
    "clear_page_dirty": "folio_clear_dirty(folio);",
    "set_tlb_ubc_flush_pending": "set_tlb_ubc_flush_pending(mm, pte, addr, addr + PAGE_SIZE);",
    "isolate_folio": "folio_isolate_lru(folio), list_add(&folio->lru, folio_list);",
    "add_to_swap": "folio_alloc_swap(folio);",
    "set_swap_pte": "set_pte_at(mm, addr, ptep, swp_entry_to_pte(folio->swap));",
    "pageout": "pageout(folio, mapping);",
    "remove_mapping_and_free": "if (!folio_mapped(folio) && !folio_test_dirty(folio))\n"
    "    remove_mapping(mapping, folio);",
    "set_migration_entry": "set_pte_at(mm, addr, ptep, make_migration_entry(page));",
    "migrate_copy": "folio_copy(new_folio, folio);",
    "remove_migration_ptes": "remove_migration_ptes(folio, new_folio);",
    "pmdp_huge_get_and_clear": "pmdp_huge_get_and_clear(mm, addr, pmd);",
    "pmdp_invalidate": "pmdp_invalidate(vma, addr, pmd);",
    "pmdp_invalidate_ad": "pmdp_invalidate_ad(vma, addr, pmd);",
    "set_pmd_at": "set_pmd_at(mm, addr, pmd, new_pmd);",
    "split_huge_pmd": "split_huge_pmd(vma, pmd, addr);",
    "split_folio": "split_folio(folio);",
    "pmdp_collapse_flush": "pmdp_collapse_flush(vma, addr, pmd);",
    "pud_clear": "pud_clear(pud);",
    "ptdesc_pmd_pts_dec": "ptdesc_pmd_pts_dec(virt_to_ptdesc(ptep));",
    "tlb_flush_pud_range": "tlb_flush_pmd_range(tlb, addr & PUD_MASK, PUD_SIZE);",
    "tlb_remove_table_sync_one": "tlb_remove_table_sync_one();",
    "pte_free_defer": "pte_free_defer(mm, pmd_pgtable(old_pmd));",
    "collapse_copy": "__collapse_huge_page_copy(pte, new_folio, pmd, vma, addr);",
    "set_pmd_huge": "set_pmd_at(mm, addr, pmd, folio_mk_pmd(new_folio, vma->vm_page_prot));",
    "pte_alloc": "pte_alloc(mm, pmd), pte = ptep_get(ptep);",
    "do_huge_pmd_anonymous_page": "do_huge_pmd_anonymous_page(vmf);",
    "alloc_anon_page": "new_folio = folio_prealloc(mm, vma, addr);",
    "copy_user_page": "copy_mc_user_highpage(new_page, page, addr, vma);",
    "find_get_page": "page = find_get_page(mapping, pgoff);",
    "set_pte_anon": "set_pte_at(mm, addr, ptep, mk_pte(new_page, vma->vm_page_prot));",
    "set_pte_zero": "set_pte_at(mm, addr, ptep, pte_mkspecial(zero_pte));",
    "map_around": "do_fault_around(vmf);",
    "wp_page_reuse": "wp_page_reuse(vmf, folio);",
    "ptep_set_access_flags": "ptep_set_access_flags(vma, addr, ptep, pte_mkyoung(pte), write_fault);",
    "swap_in": "folio = swapin_readahead(entry, vmf);",
    "set_pte_swap_in": "set_pte_at(mm, addr, ptep, mk_pte(page, vma->vm_page_prot));",
    "set_pte_numa": "set_pte_at(mm, addr, ptep, pte_mkyoung(pte_modify(pte, vma->vm_page_prot)));",
    "folio_try_share_anon_rmap": "folio_try_share_anon_rmap_pte(folio, page);",
    "folio_get": "folio_get(old_folio);",
    "folio_put": "folio_put(old_folio);",
    "put_old_page": "folio_put(old_folio);",
    "dup_mm": "child = dup_mm(mm);",
    "dup_vma": "new_vma = vm_area_dup(vma);",
    "pte_alloc_child": "child_ptep = pte_alloc(child, addr);",
    "page_dup_rmap": "folio_dup_anon_rmap_pte(folio, page, vma);",
    "set_pte_at_child": "set_pte_at(child, addr, child_ptep, pte_mkold(new_pte));",
    "swap_duplicate": "swap_duplicate(entry), set_pte_at(child, addr, child_ptep, pte);",
    "set_pmd_at_child": "set_pmd_at(child, addr, child_pmd, pmd_mkold(new_pmd));",
    "vma_expand": "vma_expand(vma, addr + new_len);",
    "copy_vma": "new_vma = copy_vma(vma, new_addr, new_len);",
    "vma_dontunmap": "dontunmap_complete(vma);",
    "move_normal_pmd": "move_normal_pmd(vma, old_addr, new_addr, old_pmd, new_pmd);",
    "set_pte_at_new": "set_pte_at(mm, new_addr, new_ptep, pte);",
    "move_huge_pmd": "move_huge_pmd(vma, old_addr, new_addr, old_pmd, new_pmd);",
    "track_flush_range": "tlb_start = min(tlb_start, addr), tlb_end = max(tlb_end, addr + PAGE_SIZE);",
    "flush_tracked_range": "if (mm_tlb_flush_nested(mm))\n"
    "    flush_tlb_range(vma, start, end);\n"
    "else if (tlb_end > tlb_start)\n"
    "    flush_tlb_range(vma, tlb_start, tlb_end);",
    "clear_vma_soft_dirty": "vm_flags_clear(vma, VM_SOFTDIRTY);",
    "clear_young_dirty": "clear_young_dirty_ptes(vma, addr, ptep);",
    "mark_lazyfree": "folio_mark_lazyfree(folio);",
    "stable_tree_search": "kfolio = stable_tree_search(folio);",
    "pages_identical": "pages_identical(folio, kfolio);",
    "set_pte_ksm": "set_pte_at(mm, addr, ptep, mk_pte(kfolio, vma->vm_page_prot));",
    "arch_enter_lazy_mmu_mode": "arch_enter_lazy_mmu_mode();",
    "arch_leave_lazy_mmu_mode": "arch_leave_lazy_mmu_mode();",
    "try_to_unmap_flush": "try_to_unmap_flush();",
    "try_to_unmap_flush_dirty": "try_to_unmap_flush_dirty();",
}
"""Steps without arguments."""

PTE_TO_PMD: Final[tuple[tuple[str, str], ...]] = (
    ("new_pte", "new_pmd"),
    ("pte_modify(", "pmd_modify("),
    ("pte_mkwrite(", "pmd_mkwrite("),
    ("pte_wrprotect(", "pmd_wrprotect("),
    ("pte_mkclean(", "pmd_mkclean("),
    ("pte_mkold(", "pmd_mkold("),
    ("pte_clear_soft_dirty(", "pmd_clear_soft_dirty("),
    ("can_change_pte_writable(", "can_change_pmd_writable("),
    ("folio_remove_rmap_pte(", "folio_remove_rmap_pmd("),
    ("tlb_remove_page(&tlb, page);", "tlb_remove_page_size(&tlb, page, HPAGE_PMD_SIZE);"),
    ("folio_dup_anon_rmap_pte(", "folio_dup_anon_rmap_pmd("),
    ("set_pte_at(mm, addr, ptep,", "set_pmd_at(mm, addr, pmd,"),
    ("pte_mkyoung(pmd_modify(pte,", "pmd_mkyoung(pmd_modify(entry,"),
    (
        "ptep_set_access_flags(vma, addr, ptep, pte_mkyoung(pte),",
        "pmdp_set_access_flags(vma, addr, pmd, pmd_mkyoung(entry),",
    ),
    ("wp_page_reuse(vmf, folio);", "pmdp_set_access_flags(vma, addr, pmd, pmd_mkdirty(pmd_mkyoung(entry)), true);"),
)
"""The same on a huge entry, for steps under `pml`; replaced one after the other."""
