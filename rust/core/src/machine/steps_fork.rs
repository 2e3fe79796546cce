//! Steps of fork (mm/mmap.c:`dup_mmap`, mm/memory.c:`copy_page_range`).

use crate::error::Result;
use crate::page_table::{PMD_LEVEL, Pte, table_index};

use super::Machine;
use super::frame::{Frame, Place};
use super::rmap::Mapping;
use super::vma::{AnonVma, VmFlags};

impl Machine {
    pub(super) fn dup_mm(&mut self, frame: &mut Frame) -> Result<()> {
        let parent = self.mm_ref(frame.r.mm)?;
        // The structure is copied, and mm_init() does not reset what reclaim left unflushed (kernel/fork.c:`dup_mm`).
        let (brk, tlb_flush_batched) = (parent.brk, parent.tlb_flush_batched);
        let mut ancestors = parent.ancestors.clone();
        ancestors.push(frame.r.mm);
        let child = self.create_mm();
        let mm = self.mm_mut(child)?;
        (mm.brk, mm.ancestors, mm.tlb_flush_batched) = (brk, ancestors, tlb_flush_batched);
        frame.child = Some(child);
        Ok(())
    }

    fn child(frame: &Frame) -> Result<crate::flush::MmId> {
        frame.child.ok_or_else(|| frame.error("a child mm (dup_mm)", "none"))
    }

    pub(super) fn dup_vma(&mut self, frame: &mut Frame) -> Result<()> {
        let child = Self::child(frame)?;
        let mut vma = frame.r.vma;
        vma.anon_vma = vma.anon_vma.filter(|_| !vma.flags.contains(VmFlags::WIPEONFORK));
        if let Some(anon_vma) = &mut vma.anon_vma {
            // mm/rmap.c:anon_vma_fork(): a new one, and the parent's in the chain beside it.
            self.nr_anon_vmas += 1;
            *anon_vma = AnonVma { id: self.nr_anon_vmas, cloned: true };
        }
        self.mm_mut(child)?.vmas.insert_forked(vma);
        Ok(())
    }

    /// The child gets a table where the parent has one, with entries or without.
    pub(super) fn pte_alloc_child(&mut self, frame: &mut Frame) -> Result<()> {
        let root = self.mm_ref(Self::child(frame)?)?.root;
        self.tables.alloc_pte_table(root, frame.r.table_range.start)?;
        Ok(())
    }

    fn child_mapping(frame: &Frame) -> Result<Mapping> {
        Ok(Mapping { mm: Self::child(frame)?, ..frame.mapping() })
    }

    pub(super) fn page_dup_rmap(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.page()?;
        self.pages.map(page, Self::child_mapping(frame)?);
        self.with_page(frame, |page| page.exclusive = false)
    }

    /// Stores an entry of the child where the parent's stands.
    fn write_child(&mut self, frame: &Frame, pte: Pte) -> Result<()> {
        let place = frame.place()?;
        let mapping = Self::child_mapping(frame)?;
        let root = self.mm_ref(mapping.mm)?.root;
        let table = self.tables.alloc_table_at(root, mapping.addr, place.level)?;
        let place = Place { table, ..place };
        let index = table_index(mapping.addr, place.level);
        let old = self.tables.get(table, index);
        self.note_lazy_mmu(frame.by, mapping.mm, mapping.addr, old, pte);
        self.tables.set(table, index, pte);
        Ok(())
    }

    pub(super) fn set_pte_at_child(&mut self, frame: &mut Frame) -> Result<()> {
        let mut pte = frame.r.new_pte.mk_old();
        if frame.r.vma.is_shared() {
            pte = pte.mk_clean();
        }
        debug_assert!(frame.place()?.level <= PMD_LEVEL, "an entry above the PMD");
        self.write_child(frame, pte)
    }

    /// A swap slot gets another user; a migration entry that allowed writes stops doing so in both.
    pub(super) fn swap_duplicate(&mut self, frame: &mut Frame) -> Result<()> {
        let mut pte = frame.r.pte;
        if let Some(slot) = pte.swap_slot() {
            self.pages.swap_duplicate(slot as u32);
        } else if pte.is_migration() && pte.write() && !frame.r.vma.is_shared() {
            pte = pte.wrprotect();
            self.write_entry(frame, pte)?;
        }
        self.write_child(frame, pte)
    }
}
