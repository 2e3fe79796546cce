//! Steps on one page-table entry, in a PTE table or, for a huge page, in a PMD table.
//!
//! Every change that the kernel makes to an entry goes through [`Machine::write_entry`], since architectures with a
//! lazy-MMU mode must hear of each; the hardware's own A and D do not.

use crate::addr::VirtAddr;
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::page_table::{PMD_LEVEL, Prot, Pte, table_index};
use crate::program::{LazyMmu, MkWriteRule, ProtSource};

use super::Machine;
use super::frame::Frame;
use super::probes::Probe;
use super::vma::{VmFlags, Vma};

impl Machine {
    /// The current entry as it is now.
    #[inline]
    pub(super) fn read_entry(&self, frame: &Frame) -> Result<Pte> {
        let place = frame.place()?;
        Ok(self.tables.get(place.table, table_index(frame.r.addr, place.level)))
    }

    /// Stores the current entry.
    #[inline]
    pub(super) fn write_entry(&mut self, frame: &Frame, pte: Pte) -> Result<()> {
        let place = frame.place()?;
        let index = table_index(frame.r.addr, place.level);
        if self.kernel.constants.lazy_mmu != LazyMmu::None {
            let old = self.tables.get(place.table, index);
            self.note_lazy_mmu(frame.by, frame.r.mm, frame.mapping().addr, old, pte);
        }
        self.tables.set(place.table, index, pte);
        Ok(())
    }

    /// Tells an architecture with a lazy-MMU mode that an entry changes.
    pub(super) fn note_lazy_mmu(&mut self, by: Initiator, mm: MmId, addr: VirtAddr, old: Pte, new: Pte) {
        let limit = self.kernel.constants.lazy_mmu_batch as usize;
        match self.kernel.constants.lazy_mmu {
            LazyMmu::None => {}
            LazyMmu::PerPte => {
                if !old.is_hw_present() || old == new {
                    return;
                }
                if self.cpus[by.cpu.index()].lazy_mmu.mm != mm {
                    self.lazy_mmu_drain(by);
                }
                let batch = &mut self.cpus[by.cpu.index()].lazy_mmu;
                batch.mm = mm;
                batch.pages.push(addr.vpn());
                if !batch.active || batch.pages.len() >= limit {
                    self.lazy_mmu_drain(by);
                }
            }
            LazyMmu::Multicall => {
                let batch = &mut self.cpus[by.cpu.index()].lazy_mmu;
                if batch.active && old != new {
                    batch.nr_calls += 1;
                    if batch.nr_calls >= limit as u64 {
                        self.lazy_mmu_drain(by);
                    }
                }
            }
        }
    }

    /// Issues what the CPU's lazy-MMU batch holds.
    pub(super) fn lazy_mmu_drain(&mut self, by: Initiator) {
        let batch = &mut self.cpus[by.cpu.index()].lazy_mmu;
        if batch.nr_calls > 0 {
            self.engine.count_multicalls(std::mem::take(&mut batch.nr_calls));
        }
        if !batch.pages.is_empty() {
            let mut pages = std::mem::take(&mut batch.pages);
            self.engine.lazy_mmu_drain(by, batch.mm, &pages);
            pages.clear();
            self.cpus[by.cpu.index()].lazy_mmu.pages = pages;
        }
    }

    pub(super) fn arch_enter_lazy_mmu_mode(&mut self, frame: &Frame) {
        self.cpus[frame.by.cpu.index()].lazy_mmu.active = true;
    }

    pub(super) fn arch_leave_lazy_mmu_mode(&mut self, frame: &Frame) {
        if self.kernel.constants.lazy_mmu != LazyMmu::None {
            self.lazy_mmu_drain(frame.by);
        }
        self.cpus[frame.by.cpu.index()].lazy_mmu.active = false;
    }

    /// Changes the entry in place; `new_pte` is the result.
    pub(super) fn change_entry(&mut self, frame: &mut Frame, change: impl FnOnce(Pte) -> Pte) -> Result<()> {
        let pte = change(self.read_entry(frame)?);
        frame.r.new_pte = pte;
        self.write_entry(frame, pte)
    }

    #[inline]
    pub(super) fn ptep_get_and_clear(&mut self, frame: &mut Frame) -> Result<()> {
        let pte = self.read_entry(frame)?;
        frame.r.pte = pte;
        frame.r.new_pte = pte;
        self.write_entry(frame, Pte::NONE)
    }

    pub(super) fn pte_clear(&mut self, frame: &mut Frame) -> Result<()> {
        let old = self.read_entry(frame)?;
        self.write_entry(frame, Pte::NONE)?;
        if let Some(slot) = old.swap_slot() {
            self.pages.free_swap_and_cache(slot as u32);
        }
        Ok(())
    }

    /// `vm_page_prot` of an area.
    #[inline]
    pub(super) fn page_prot(&self, vma: &Vma) -> Prot {
        vma.page_prot(vma.file.is_some_and(|id| self.pages.file(id).is_some_and(|file| !file.shmem)))
    }

    pub(super) fn pte_modify(&self, frame: &mut Frame, prot: ProtSource) {
        let prot = match prot {
            ProtSource::Vma => self.page_prot(&frame.r.vma),
            ProtSource::None => Prot::NONE,
        };
        frame.r.new_pte = frame.r.new_pte.modify(prot);
    }

    pub(super) fn pte_mkwrite(&self, frame: &mut Frame, rule: MkWriteRule) {
        let allowed = match rule {
            MkWriteRule::Always => true,
            MkWriteRule::CanChangePteWritable => self.can_change_pte_writable(frame, frame.r.new_pte),
            MkWriteRule::DirtyAccountable => self.dirty_accountable(frame),
        };
        if allowed {
            frame.r.new_pte = frame.r.new_pte.mk_write();
        }
    }

    /// mm/mprotect.c:`can_change_pte_writable`: whether a write would not have to fault for any other reason.
    pub(super) fn can_change_pte_writable(&self, frame: &Frame, pte: Pte) -> bool {
        let vma = &frame.r.vma;
        let tracks_soft_dirty = !vma.flags.contains(VmFlags::SOFTDIRTY);
        if !vma.is_writable() || pte.is_protnone() || pte.uffd_wp() || tracks_soft_dirty && !pte.soft_dirty() {
            return false;
        }
        if vma.is_shared() {
            return pte.dirty();
        }
        frame
            .page
            .and_then(|pfn| self.pages.get(pfn))
            .is_some_and(|page| page.exclusive && page.rmap.len() == 1 && !page.ksm)
    }

    /// 5.10's rule in change_pte_range: a dirty entry of a mapping whose dirty pages are accounted stays writable.
    fn dirty_accountable(&self, frame: &Frame) -> bool {
        let vma = &frame.r.vma;
        let pte = frame.r.new_pte;
        let real_file = vma.file.and_then(|id| self.pages.file(id)).is_some_and(|file| !file.shmem);
        vma.is_shared()
            && vma.is_writable()
            && real_file
            && pte.dirty()
            && (pte.soft_dirty() || vma.flags.contains(VmFlags::SOFTDIRTY))
    }

    pub(super) fn ptep_clear_flush(&mut self, frame: &mut Frame) -> Result<()> {
        let addr = frame.r.addr;
        let is_huge = frame.place()?.level == PMD_LEVEL;
        let probe = if is_huge { Probe::PmdpClearFlush { addr } } else { Probe::PtepClearFlush { addr } };
        self.hit(frame.by, frame.r.mm, probe);
        self.ptep_get_and_clear(frame)?;
        if self.pte_accessible(frame, frame.r.pte) {
            if is_huge {
                let range = frame.pmd_range();
                self.flush_range(frame, range);
            } else {
                self.flush_page(frame);
            }
        }
        Ok(())
    }

    /// The huge entry is refused to the hardware from now on; `pte` and `new_pte` are what it was.
    pub(super) fn pmdp_invalidate(&mut self, frame: &mut Frame, flushes: bool) -> Result<()> {
        let pte = self.read_entry(frame)?;
        frame.r.pte = pte;
        frame.r.new_pte = pte;
        let invalid = if pte.is_present() { pte.mk_invalid() } else { pte };
        self.write_entry(frame, invalid)?;
        if flushes {
            let range = frame.pmd_range();
            self.flush_range(frame, range);
        }
        Ok(())
    }
}
