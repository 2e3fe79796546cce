//! Steps of mremap's move (mm/mremap.c): entries one by one, whole tables, huge entries. Reverse maps move along.

use crate::addr::{PAGE_SIZE, PMD_SIZE, PTRS_PER_TABLE, VirtAddr};
use crate::error::Result;
use crate::page_table::{PTE_LEVEL, PUD_LEVEL, Pte, TableId, table_index};

use super::Machine;
use super::frame::Frame;
use super::pages::head_of;
use super::rmap::Mapping;

impl Machine {
    /// Where the current entry goes.
    fn moved_addr(frame: &Frame) -> VirtAddr {
        let args = frame.args.mremap;
        VirtAddr(args.new.0 + (frame.mapping().addr.0 - args.old.0))
    }

    /// Stores the entry taken out of its old place at its new one; a present 4 KiB one counts as written for
    /// soft-dirty trackers.
    pub(super) fn set_pte_at_new(&mut self, frame: &mut Frame, small: bool) -> Result<()> {
        let place = frame.new_place.ok_or_else(|| frame.error("a table at the new address", "none"))?;
        let new_addr = Self::moved_addr(frame);
        let mut pte = frame.r.pte;
        if pte.is_present() {
            pte = pte.mk_soft_dirty();
            let old = frame.mapping();
            if let Some(page) = self.pages.get_mut(head_of(pte.pfn())) {
                page.rmap.rename(old, Mapping { addr: new_addr, ..old });
            }
        }
        if !small && self.read_entry(frame)? == frame.r.pte {
            // A program need not have taken the huge entry out before it moves it.
            self.write_entry(frame, Pte::NONE)?;
        }
        let index = table_index(new_addr, place.level);
        let replaced = self.tables.get(place.table, index);
        self.note_lazy_mmu(frame.by, frame.r.mm, new_addr, replaced, pte);
        self.tables.set(place.table, index, pte);
        Ok(())
    }

    /// `move_normal_pmd`, and `move_normal_pud` for an extent of 1 GiB.
    pub(super) fn move_normal_pmd(&mut self, frame: &mut Frame) -> Result<()> {
        let place = frame.new_place.ok_or_else(|| frame.error("an extent that is a whole table", "none"))?;
        let (old, new) = (frame.extent.start, frame.new_addr);
        let root = frame.r.root;
        if place.level == PUD_LEVEL {
            let entry = self.tables.move_pud(root, old, new)?;
            let table = entry.table_id();
            for index in 0..PTRS_PER_TABLE {
                let pmd = self.tables.get(table, index);
                let at = index as u64 * PMD_SIZE;
                let (from, to) = (VirtAddr(old.0 + at), VirtAddr(new.0 + at));
                if pmd.is_table() {
                    self.move_rmaps(frame, pmd.table_id(), from, to);
                } else if pmd.is_present() {
                    self.move_rmap(frame, pmd, from, to);
                }
            }
        } else {
            let entry = self.tables.move_pmd(root, old, new)?;
            self.move_rmaps(frame, entry.table_id(), old, new);
        }
        Ok(())
    }

    fn move_rmaps(&mut self, frame: &Frame, table: TableId, old: VirtAddr, new: VirtAddr) {
        debug_assert!(self.tables.level(table) == PTE_LEVEL, "not a PTE table");
        for index in 0..PTRS_PER_TABLE {
            let pte = self.tables.get(table, index);
            let at = index as u64 * PAGE_SIZE;
            if pte.is_present() {
                self.move_rmap(frame, pte, VirtAddr(old.0 + at), VirtAddr(new.0 + at));
            }
        }
    }

    fn move_rmap(&mut self, frame: &Frame, pte: Pte, old: VirtAddr, new: VirtAddr) {
        let mm = frame.r.mm;
        if let Some(page) = self.pages.get_mut(head_of(pte.pfn())) {
            page.rmap.rename(Mapping { mm, addr: old }, Mapping { mm, addr: new });
        }
    }
}
