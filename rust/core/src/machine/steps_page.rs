//! Steps on pages: reverse map, lists, swap (mm/vmscan.c, mm/rmap.c), migration (mm/migrate.c).

use crate::addr::{Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::page_table::{PMD_LEVEL, PTE_LEVEL, Pte, table_index};

use super::Machine;
use super::frame::{Frame, MigrationMark, Place};
use super::pages::{Page, PageKind, is_zero_pfn};
use super::rmap::Mapping;

impl Machine {
    /// Changes the current page (nothing for zero pages).
    #[inline]
    pub(super) fn with_page(&mut self, frame: &Frame, change: impl FnOnce(&mut Page)) -> Result<()> {
        let pfn = frame.page()?;
        if let Some(page) = self.pages.get_mut(pfn) {
            change(page);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn page_remove_rmap(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.page()?;
        let mapping = frame.mapping();
        if is_zero_pfn(page) {
            return Ok(());
        }
        if frame.delay_rmap {
            frame.gather()?.note_delayed(page, mapping);
        } else {
            self.pages.remove_rmap(page, mapping);
        }
        Ok(())
    }

    /// Puts the page on the operation's list, once.
    pub(super) fn isolate_folio(&mut self, frame: &mut Frame) -> Result<()> {
        let pfn = frame.page()?;
        let Some(page) = self.pages.get(pfn) else {
            return Ok(());
        };
        // mm/madvise.c: pages that others map too are theirs as well.
        let is_shared = page.rmap.len() != 1;
        if is_shared || page.lru_cpu.is_some() || !self.can_reclaim(pfn) {
            return Ok(());
        }
        self.list_page(frame, pfn);
        Ok(())
    }

    pub(super) fn set_swap_pte(&mut self, frame: &mut Frame) -> Result<()> {
        let pfn = frame.page()?;
        let Some(slot) = self.pages.get(pfn).and_then(|page| page.swap_slot) else {
            return Err(frame.error("a page with a swap slot", "one without"));
        };
        self.pages.swap_duplicate(slot);
        let pte = frame.r.pte.to_swap(u64::from(slot));
        self.write_entry(frame, pte)
    }

    /// mm/vmscan.c:`__remove_mapping`: the page leaves the cache, so that the list's reference is its last.
    pub(super) fn remove_mapping_and_free(&mut self, frame: &mut Frame) -> Result<()> {
        let pfn = frame.page()?;
        let is_free = self.pages.get(pfn).is_some_and(|page| page.rmap.is_empty() && !page.dirty);
        if is_free {
            self.pages.leave_page_cache(pfn);
            self.pages.leave_swap_cache(pfn);
        }
        Ok(())
    }

    pub(super) fn set_migration_entry(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.page()?;
        let pte = frame.r.pte.to_migration();
        self.write_entry(frame, pte)?;
        frame.migrated.push(MigrationMark { page, mapping: frame.mapping() });
        Ok(())
    }

    pub(super) fn migrate_copy(&mut self, frame: &mut Frame) -> Result<()> {
        let old = frame.page()?;
        let new = self.pages.alloc(PageKind::Anon, super::pages::Pages::is_huge(old))?;
        self.pages.replace(old, new);
        frame.new_page = Some(new);
        Ok(())
    }

    /// mm/migrate.c:`remove_migration_pte` for each entry that this operation made of the page.
    pub(super) fn remove_migration_ptes(&mut self, frame: &mut Frame) -> Result<()> {
        let old = frame.page()?;
        let new = frame.new_page()?;
        let (own, others) =
            std::mem::take(&mut frame.migrated).into_iter().partition(|mark: &MigrationMark| mark.page == old);
        frame.migrated = others;
        for mark in own {
            self.remove_migration_pte(frame.by, mark.mapping.mm, mark.mapping.addr, old, new);
        }
        if self.stepping.is_some() {
            // Others may have copied or moved entries meanwhile.
            for (mm, addr) in self.migration_entries(old) {
                self.remove_migration_pte(frame.by, mm, addr, old, new);
            }
        }
        // The reference that the allocation came with was the copy's own.
        self.pages.put_ref(new);
        Ok(())
    }

    /// The migration entry of `old` at an address, if it is there, maps `new` from now on.
    pub(super) fn remove_migration_pte(&mut self, by: Initiator, id: MmId, addr: VirtAddr, old: Pfn, new: Pfn) {
        let Some(mm) = self.mm(id) else { return };
        let root = mm.root;
        let Some(vma) = mm.vmas.lookup(addr).copied() else { return };
        let Some(place) = self.place_at(root, addr) else { return };
        let index = table_index(addr, place.level);
        let entry = self.tables.get(place.table, index);
        if !entry.is_migration() || super::pages::head_of(entry.pfn()) != old {
            return;
        }
        let pfn = Pfn(new.0 + (entry.pfn().0 - old.0));
        let pte = self.present_again(&vma, entry, pfn, place);
        self.note_lazy_mmu(by, id, addr, entry, pte);
        self.tables.set(place.table, index, pte);
        self.pages.map(new, Mapping { mm: id, addr });
    }

    /// The present entry that takes the place of a migration entry.
    fn present_again(&self, vma: &super::vma::Vma, entry: Pte, pfn: Pfn, place: Place) -> Pte {
        let mut pte = Pte::new(pfn, self.page_prot(vma)).mk_old();
        if place.level == PMD_LEVEL {
            pte = pte.mk_huge();
        }
        if entry.write() {
            pte = pte.mk_write();
        }
        if entry.young() {
            pte = pte.mk_young();
        }
        if entry.dirty() {
            pte = pte.mk_dirty().mk_soft_dirty();
        }
        if entry.soft_dirty() {
            pte = pte.mk_soft_dirty();
        }
        if entry.uffd_wp() {
            pte = pte.mk_uffd_wp().wrprotect();
        }
        pte
    }

    /// Where the entry for an address stands: the PTE table, or the PMD table of a huge one.
    pub(super) fn place_at(&self, root: crate::page_table::TableId, addr: crate::addr::VirtAddr) -> Option<Place> {
        if let Some(table) = self.tables.pte_table(root, addr) {
            return Some(Place { table, level: PTE_LEVEL });
        }
        let table = self.tables.table_at(root, addr, PMD_LEVEL)?;
        Some(Place { table, level: PMD_LEVEL })
    }
}
