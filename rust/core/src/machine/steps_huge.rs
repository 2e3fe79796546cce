//! Steps on huge pages: splitting one into a table, collapsing a table into one (mm/huge_memory.c, mm/khugepaged.c).

use crate::addr::{PAGE_SIZE, PMD_SHIFT, PTRS_PER_TABLE, Pfn, VirtAddr};
use crate::error::Result;
use crate::page_table::{PMD_LEVEL, PTE_LEVEL, Pte, table_index};

use super::Machine;
use super::frame::{After, Frame, Place};
use super::pages::{HUGE_PAGES, HUGE_ZERO_PFN, PART_WORDS, PageKind, ZERO_PFN, head_of, is_zero_pfn};
use super::rmap::Mapping;

impl Machine {
    /// `__split_huge_pmd_locked`: the table that takes the huge entry's place is the current one afterwards.
    pub(super) fn split_huge_pmd(&mut self, frame: &mut Frame) -> Result<()> {
        self.pmdp_invalidate(frame, true)?;
        self.then(frame, After::SplitHuge)
    }

    /// The same without letting others come in between; for splits on the way to something else.
    pub(super) fn split_at_once(&mut self, frame: &mut Frame) -> Result<()> {
        let stepping = self.stepping.take();
        let split = self.split_huge_pmd(frame);
        self.stepping = stepping;
        split
    }

    /// The split itself, when no TLB holds the huge entry any more.
    pub(super) fn split_invalidated_pmd(&mut self, frame: &mut Frame) -> Result<()> {
        let huge = frame.r.pte;
        let mapping = frame.mapping();
        let table = self.tables.split_huge_pmd_as(frame.r.root, mapping.addr, huge)?;
        if huge.is_present() && huge.pfn() == HUGE_ZERO_PFN {
            let small = huge.clear_huge().with_pfn(ZERO_PFN).mk_special();
            self.tables.update(table, 0..PTRS_PER_TABLE, |_, _| small);
        } else if huge.is_present() {
            self.pages.split_mapping(head_of(huge.pfn()), mapping, HUGE_PAGES as u32);
        }
        frame.r.place = Some(Place { table, level: PTE_LEVEL });
        frame.r.pte = self.tables.get(table, table_index(frame.r.addr, PTE_LEVEL));
        frame.r.new_pte = frame.r.pte;
        frame.page = frame.r.pte.is_present().then(|| head_of(frame.r.pte.pfn()));
        Ok(())
    }

    /// mm/huge_memory.c:`split_folio` of a page that only the current entry maps. One that somebody holds besides stays whole
    /// (`can_split_folio`).
    pub(super) fn split_folio(&mut self, frame: &mut Frame) -> Result<()> {
        if frame.page.and_then(|pfn| self.pages.get(pfn)).is_none_or(|page| page.refcount != 1) {
            return Ok(());
        }
        self.pmdp_invalidate(frame, true)?;
        self.then(frame, After::SplitFolio)
    }

    /// The table takes the entry's place, and small pages that of the huge one.
    pub(super) fn split_invalidated_folio(&mut self, frame: &mut Frame) -> Result<()> {
        self.split_invalidated_pmd(frame)?;
        if let Some(pfn) = frame.page {
            if self.kernel.constants.split_maps_zero_pages {
                self.map_zero_parts(frame, pfn)?;
            }
            self.split_folio_unseen(pfn)?;
        }
        frame.r.pte = self.read_entry(frame)?;
        frame.r.new_pte = frame.r.pte;
        frame.page = frame.r.pte.is_present().then(|| head_of(frame.r.pte.pfn()));
        Ok(())
    }

    /// mm/migrate.c:`try_to_map_unused_to_zeropage`, for each part of a huge page that this table maps.
    fn map_zero_parts(&mut self, frame: &Frame, head: Pfn) -> Result<()> {
        let table = frame.place()?.table;
        let start = frame.r.addr.align_down(PMD_SHIFT);
        let zero = Pte::new(ZERO_PFN, self.page_prot(&frame.r.vma)).wrprotect().mk_special();
        for index in 0..PTRS_PER_TABLE {
            let pte = self.tables.get(table, index);
            if !self.pages.is_zero_part(pte.pfn()) {
                continue;
            }
            self.tables.set(table, index, if pte.soft_dirty() { zero.mk_soft_dirty() } else { zero });
            let addr = VirtAddr(start.0 + index as u64 * PAGE_SIZE);
            self.pages.remove_rmap(head, Mapping { mm: frame.r.mm, addr });
            self.pages.put_ref(head);
        }
        Ok(())
    }

    pub(super) fn pmdp_collapse_flush(&mut self, frame: &mut Frame) {
        frame.set_aside = self.tables.detach_pte_table(frame.r.root, frame.r.addr);
        frame.r.place =
            self.tables.table_at(frame.r.root, frame.r.addr, PMD_LEVEL).map(|table| Place { table, level: PMD_LEVEL });
        let range = frame.pmd_range();
        self.flush_range(frame, range);
    }

    /// Copies what the table set aside maps into a new huge page, and lets go of it.
    pub(super) fn collapse_copy(&mut self, frame: &mut Frame) -> Result<()> {
        let table = frame.set_aside.ok_or_else(|| frame.error("a table set aside", "none"))?;
        let new = self.pages.alloc(PageKind::Anon, true)?;
        frame.new_page = Some(new);
        let mut zero_parts = Box::new([u64::MAX; PART_WORDS]);
        let base = frame.r.addr.align_down(PMD_SHIFT);
        for index in 0..PTRS_PER_TABLE {
            let pte = self.tables.get(table, index);
            if pte.is_present() {
                let page = head_of(pte.pfn());
                if !is_zero_pfn(page) && !self.pages.is_zero_part(pte.pfn()) {
                    zero_parts[index / 64] &= !(1 << (index % 64));
                }
                let addr = VirtAddr(base.0 + index as u64 * PAGE_SIZE);
                self.pages.remove_rmap(page, Mapping { mm: frame.r.mm, addr });
                self.pages.put_ref_and_swap_cache(page);
            }
            self.tables.set(table, index, Pte::NONE);
        }
        if let Some(page) = self.pages.get_mut(new) {
            page.zero_parts = Some(zero_parts);
        }
        Ok(())
    }

    /// Maps the new huge page; the table set aside is freed.
    pub(super) fn set_pmd_huge(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.new_page()?;
        let mut pte = Pte::new(page, self.page_prot(&frame.r.vma)).mk_huge().mk_young().mk_dirty().mk_soft_dirty();
        if frame.r.vma.is_writable() {
            pte = pte.mk_write();
        }
        self.write_entry(frame, pte)?;
        self.pages.add_rmap(page, frame.mapping());
        self.free_set_aside(frame);
        Ok(())
    }

    /// Frees the table that was taken out of the tree, if there is one.
    pub(super) fn free_set_aside(&mut self, frame: &mut Frame) {
        if let Some(table) = frame.set_aside.take() {
            self.tables.free_table(table);
            self.counters.nr_table_frees += 1;
        }
    }
}
