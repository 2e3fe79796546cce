//! Steps of the page fault (mm/memory.c): finding or making the page, and the entry that maps it.

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::page_table::{PMD_LEVEL, PTE_LEVEL, Prot, Pte, table_index};
use crate::program::SwapInMkwrite;

use super::Machine;
use super::frame::{Frame, Place};
use super::operation::AccessKind;
use super::pages::{HUGE_ZERO_PFN, PART_WORDS, PageKind, ZERO_PFN, head_of};
use super::rmap::Mapping;
use super::vma::{AnonVma, Vma};

fn is_write(frame: &Frame) -> bool {
    frame.args.kind == Some(AccessKind::Write)
}

impl Machine {
    /// Makes the tables of the address, unless a huge page is there, and reads the entry.
    pub(super) fn pte_alloc(&mut self, frame: &mut Frame) -> Result<()> {
        frame.r.place = self.find_place(frame);
        if frame.r.place.is_none() {
            let table = self.tables.alloc_pte_table(frame.r.root, frame.r.addr)?;
            frame.r.place = Some(Place { table, level: PTE_LEVEL });
        }
        let pte = self.read_entry(frame)?;
        frame.r.pte = pte;
        frame.r.new_pte = pte;
        frame.page = pte.is_present().then(|| head_of(pte.pfn()));
        Ok(())
    }

    /// Anonymous pages were mapped here: fork has to copy this area.
    fn anon_vma_prepare(&mut self, frame: &mut Frame) -> Result<()> {
        if frame.r.vma.anon_vma.is_none() {
            frame.r.vma.anon_vma = self.prepare_anon_vma(frame.r.mm, frame.r.vma.start)?;
        }
        Ok(())
    }

    /// Gives the area at an address the head of its reverse map, a neighbour's if that can be (`__anon_vma_prepare`).
    pub(super) fn prepare_anon_vma(&mut self, mm: MmId, addr: VirtAddr) -> Result<Option<AnonVma>> {
        let new = AnonVma { id: self.nr_anon_vmas + 1, cloned: false };
        let vmas = &mut self.mm_mut(mm)?.vmas;
        let Some(found) = vmas.lookup(addr).copied() else { return Ok(None) };
        let anon_vma = found.anon_vma.or_else(|| vmas.mergeable_anon_vma(found.start)).unwrap_or(new);
        vmas.update(Vma { anon_vma: Some(anon_vma), ..found });
        if anon_vma == new {
            self.nr_anon_vmas += 1;
        }
        Ok(Some(anon_vma))
    }

    pub(super) fn do_huge_pmd_anonymous_page(&mut self, frame: &mut Frame) -> Result<()> {
        let table = self.tables.alloc_table_at(frame.r.root, frame.r.addr, PMD_LEVEL)?;
        frame.r.place = Some(Place { table, level: PMD_LEVEL });
        let prot = self.page_prot(&frame.r.vma);
        // Before it is known whether the zero page will do.
        self.anon_vma_prepare(frame)?;
        if !is_write(frame) {
            let pte = Pte::new(HUGE_ZERO_PFN, prot).mk_huge().mk_young().wrprotect();
            frame.page = Some(HUGE_ZERO_PFN);
            return self.write_entry(frame, pte);
        }
        let page = self.pages.alloc(PageKind::Anon, true)?;
        if frame.args.tells_writes
            && let Some(page) = self.pages.get_mut(page)
        {
            page.zero_parts = Some(Box::new([u64::MAX; PART_WORDS]));
        }
        let mut pte = Pte::new(page, prot).mk_huge().mk_young().mk_dirty().mk_soft_dirty();
        if frame.r.vma.is_writable() {
            pte = pte.mk_write();
        }
        self.write_entry(frame, pte)?;
        self.pages.add_rmap(page, frame.mapping());
        frame.new_page = Some(page);
        // A huge page does not wait, nor do those before it.
        self.lru_add_drain(frame.by.cpu);
        Ok(())
    }

    /// A zeroed page with the reference of the mapping to come.
    pub(super) fn alloc_anon_page(&mut self, frame: &mut Frame) -> Result<()> {
        self.drain_before_copy(frame);
        self.anon_vma_prepare(frame)?;
        frame.new_page = Some(self.pages.alloc(PageKind::Anon, false)?);
        Ok(())
    }

    /// A reference of the page that is to be copied, for the time without its table's lock (mm/memory.c:`do_wp_page`).
    pub(super) fn folio_get(&mut self, frame: &mut Frame) -> Result<()> {
        let pfn = frame.page()?;
        self.pages.get_ref(pfn);
        if let Some(page) = self.pages.get_mut(pfn) {
            page.nr_copied += 1;
            frame.copied = Some(pfn);
        }
        Ok(())
    }

    pub(super) fn folio_put(&mut self, frame: &mut Frame) {
        let Some(pfn) = frame.copied.take() else { return };
        if let Some(page) = self.pages.get_mut(pfn) {
            page.nr_copied -= 1;
        }
        self.pages.put_ref(pfn);
    }

    pub(super) fn find_get_page(&mut self, frame: &mut Frame) -> Result<()> {
        let Some(file) = frame.r.vma.file else {
            return Err(frame.error("a VMA with a file", "anonymous memory"));
        };
        let index = frame.r.vma.index_of(frame.r.addr);
        frame.page = Some(self.page_cache_page(frame.by.cpu, file, index)?);
        Ok(())
    }

    /// Stores the entry that a fault made.
    fn install(&mut self, frame: &mut Frame, pte: Pte) -> Result<()> {
        frame.r.new_pte = pte;
        self.write_entry(frame, pte)
    }

    pub(super) fn set_pte_anon(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.new_page()?;
        let mut pte = Pte::new(page, self.page_prot(&frame.r.vma)).mk_young().mk_soft_dirty();
        if frame.r.vma.is_writable() {
            pte = pte.mk_write().mk_dirty();
        }
        self.install(frame, pte)?;
        self.pages.add_rmap(page, frame.mapping());
        self.lru_add(frame.by.cpu, page);
        Ok(())
    }

    pub(super) fn set_pte_zero(&mut self, frame: &mut Frame) -> Result<()> {
        let pte = Pte::new(ZERO_PFN, self.page_prot(&frame.r.vma)).wrprotect().mk_special();
        self.install(frame, pte)
    }

    pub(super) fn set_pte_file(&mut self, frame: &mut Frame, write: bool) -> Result<()> {
        let page = frame.page()?;
        let mut pte = self.read_entry_of(page, self.page_prot(&frame.r.vma));
        if write {
            pte = pte.mk_write().mk_dirty().mk_soft_dirty();
        }
        self.install(frame, pte)?;
        self.pages.map(page, frame.mapping());
        Ok(())
    }

    /// The entry with which a page of the page cache is mapped to be read (mm/memory.c:`set_pte_range`).
    fn read_entry_of(&self, page: Pfn, prot: Prot) -> Pte {
        let pte = Pte::new(page, prot).mk_young();
        let is_dirty = self.pages.get(page).is_some_and(|page| page.dirty);
        let keeps = self.kernel.constants.read_fault_keeps_dirty && pte.write() && is_dirty;
        if keeps { pte.mk_dirty().mk_soft_dirty() } else { pte }
    }

    /// mm/memory.c:`do_fault_around`: maps what the page cache has around the address, and its own page.
    pub(super) fn map_around(&mut self, frame: &mut Frame) -> Result<()> {
        let vma = frame.r.vma;
        let Some(file) = vma.file else {
            return Err(frame.error("a VMA with a file", "anonymous memory"));
        };
        let place = frame.place()?;
        let addr = frame.r.addr;
        let table_start = addr.align_down(PMD_SHIFT);
        let window = u64::from(self.kernel.constants.fault_around_pages) * PAGE_SIZE;
        let start = VirtAddr(addr.0 / window * window).max(table_start).max(vma.start);
        let end = VirtAddr(start.0 + window).min(VirtAddr(table_start.0 + PMD_SIZE)).min(vma.end);
        let prot = self.page_prot(&vma);
        // The read is waited for, and the fault done again: what came with it is mapped too.
        self.pages.read_around(file, vma.index_of(addr));
        for number in start.0 >> PAGE_SHIFT..end.0 >> PAGE_SHIFT {
            let at = VirtAddr(number << PAGE_SHIFT);
            let index = vma.index_of(at);
            let is_free = self.tables.get(place.table, table_index(at, PTE_LEVEL)).is_none();
            if !is_free || at != addr && !self.pages.is_resident(file, index) {
                continue;
            }
            let page = self.page_cache_page(frame.by.cpu, file, index)?;
            let pte = self.read_entry_of(page, prot);
            self.note_lazy_mmu(frame.by, frame.r.mm, at, Pte::NONE, pte);
            self.tables.set(place.table, table_index(at, PTE_LEVEL), pte);
            self.pages.map(page, Mapping { mm: frame.r.mm, addr: at });
        }
        Ok(())
    }

    pub(super) fn wp_page_reuse(&mut self, frame: &mut Frame) -> Result<()> {
        self.drain_before_copy(frame);
        if let Some(page) = frame.page.and_then(|pfn| self.pages.get_mut(pfn)) {
            page.exclusive = page.kind == PageKind::Anon;
        }
        self.change_entry(frame, |pte| pte.mk_write().mk_dirty().mk_young().mk_soft_dirty())
    }

    pub(super) fn ptep_set_access_flags(&mut self, frame: &mut Frame) -> Result<()> {
        let writes = is_write(frame);
        self.change_entry(frame, |pte| {
            let young = pte.mk_young();
            if writes && pte.write() { young.mk_dirty().mk_soft_dirty() } else { young }
        })
    }

    /// The page of the swap entry: from the swap cache, else read back into it.
    pub(super) fn swap_in(&mut self, frame: &mut Frame) -> Result<()> {
        let Some(slot) = frame.r.pte.swap_slot().map(|slot| slot as u32) else {
            return Err(frame.error("a swap entry", "another"));
        };
        self.anon_vma_prepare(frame)?;
        if let Some(page) = self.pages.swap_cache_of(slot) {
            frame.page = Some(page);
            return Ok(());
        }
        let page = self.pages.alloc(PageKind::Anon, false)?;
        self.pages.enter_swap_cache(page, slot);
        // The cache's reference is the only one now.
        self.pages.put_ref(page);
        // mm/rmap.c:__page_set_anon_rmap: a page that others may map is found from the first of the family.
        let is_shared = self.pages.swap_count(slot) > 1;
        let root = self.mm_ref(frame.r.mm)?.ancestors.first().copied().filter(|_| is_shared);
        if let (Some(root), Some(page)) = (root, self.pages.get_mut(page)) {
            page.anon_mm = Some(root);
        }
        self.lru_add(frame.by.cpu, page);
        frame.page = Some(page);
        Ok(())
    }

    pub(super) fn set_pte_swap_in(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.page()?;
        let entry = frame.r.pte;
        let Some(slot) = entry.swap_slot().map(|slot| slot as u32) else {
            return Err(frame.error("a swap entry", "another"));
        };
        let is_unmapped = self.pages.get(page).is_some_and(|found| found.rmap.is_empty() && !found.ksm);
        let exclusive = self.pages.swap_count(slot) == 1 && is_unmapped;
        self.with_page(frame, |page| page.exclusive = exclusive)?;
        let mut pte = Pte::new(page, self.page_prot(&frame.r.vma)).mk_young();
        let mkwrite = is_write(frame) || self.kernel.constants.swap_in_mkwrite == SwapInMkwrite::Exclusive;
        if exclusive && mkwrite && frame.r.vma.is_writable() && !entry.uffd_wp() {
            pte = pte.mk_write();
            if is_write(frame) {
                pte = pte.mk_dirty().mk_soft_dirty();
            }
        }
        if entry.soft_dirty() {
            pte = pte.mk_soft_dirty();
        }
        if entry.uffd_wp() {
            pte = pte.mk_uffd_wp();
        }
        self.install(frame, pte)?;
        self.pages.map(page, frame.mapping());
        self.pages.swap_free(slot);
        if is_write(frame) && self.pages.swap_count(slot) == 0 {
            self.pages.leave_swap_cache(page);
        }
        frame.r.pte = pte;
        Ok(())
    }

    /// mm/memory.c:`do_numa_page`: the hint is taken away.
    pub(super) fn set_pte_numa(&mut self, frame: &mut Frame) -> Result<()> {
        let old = self.read_entry(frame)?;
        let mut pte = old.modify(self.page_prot(&frame.r.vma)).mk_young();
        if pte.write() || self.can_change_pte_writable(frame, pte) {
            pte = pte.mk_write();
        }
        frame.r.new_pte = pte;
        self.write_entry(frame, pte)
    }

    /// The page of a present entry: its own frame, or the huge page it is a part of.
    pub fn page_of(pte: Pte) -> Option<Pfn> {
        pte.is_present().then(|| head_of(pte.pfn()))
    }
}
