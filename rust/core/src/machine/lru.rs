//! Pages on their way to the LRU (mm/swap.c): a CPU gathers those that it made in a batch, and puts them there together.
//! Until then the batch has a reference, which copies on write look at, and nobody finds the page on the LRU.

use crate::addr::Pfn;
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::program::{CowReuse, ProgramName};

use super::Machine;
use super::frame::Frame;
use super::pages::{FileId, Page, PageKind};

impl Machine {
    /// A page that was made on a CPU (`folio_add_lru`).
    pub(super) fn lru_add(&mut self, cpu: CpuId, pfn: Pfn) {
        self.pages.lru_add(cpu, pfn, self.kernel.constants.lru_add_batch);
    }

    /// Pages that went through a CPU's batch, and of which the machine has no records.
    pub fn lru_add_unseen(&mut self, cpu: CpuId, nr_pages: u64) {
        let size = u64::from(self.kernel.constants.lru_add_batch);
        if size == 0 {
            return; // nothing waits
        }
        let nr_waiting = self.pages.nr_lru_waiting(cpu) as u64;
        let nr_left = if nr_pages < size - nr_waiting {
            nr_pages
        } else {
            self.pages.lru_drain(cpu);
            (nr_pages - (size - nr_waiting)) % size
        };
        (0..nr_left).for_each(|_| self.lru_add(cpu, super::ZERO_PFN));
    }

    /// `lru_add_drain`: what a CPU gathered is put on the LRU.
    pub fn lru_add_drain(&mut self, cpu: CpuId) {
        self.pages.lru_drain(cpu);
    }

    /// `lru_add_drain_all`: every CPU does it.
    pub fn lru_add_drain_all(&mut self) {
        (0..self.cpus.len()).for_each(|cpu| self.pages.lru_drain(CpuId(cpu as u16)));
    }

    /// The same where only older kernels do it: when something is unmapped.
    pub(super) fn lru_add_drain_unmapping(&mut self, cpu: CpuId) {
        if self.kernel.constants.unmapping_drains_lru {
            self.pages.lru_drain(cpu);
        }
    }

    /// A page of a file from its page cache, or a new one put there. What is new of shared memory waits for the LRU; that of a
    /// real file was read before.
    pub(super) fn page_cache_page(&mut self, cpu: CpuId, file: FileId, index: u64) -> Result<Pfn> {
        let is_new = self.pages.file(file).is_some_and(|found| found.shmem && !found.pages.contains_key(&index));
        let pfn = self.pages.find_get_page(file, index)?;
        if is_new {
            self.lru_add(cpu, pfn);
        }
        Ok(pfn)
    }

    /// Whether the reference of a batch, or of a fault that copies it, makes a write copy the page (mm/memory.c:`do_wp_page`).
    pub(super) fn is_held(&self, page: &Page, cpu: CpuId) -> bool {
        let is_copied = page.nr_copied > 0;
        match self.kernel.constants.cow_reuse {
            CowReuse::PageCount => is_copied || page.lru_cpu.is_some(),
            CowReuse::Exclusive => {
                !page.exclusive && (is_copied || page.lru_cpu.is_some_and(|waits_on| waits_on != cpu))
            }
        }
    }

    /// A write to an entry that does not allow it looks for further references, once those of its own CPU's batch are gone
    /// (mm/memory.c:`wp_can_reuse_anon_folio`), unless there are too many anyway.
    pub(super) fn drain_before_copy(&mut self, frame: &Frame) {
        let by_reference = self.kernel.constants.cow_reuse == CowReuse::Exclusive;
        let may_be_own = |page: &Page| {
            let is_small = page.kind == PageKind::Anon && !page.ksm && !page.exclusive;
            is_small
                && page.lru_cpu == Some(frame.by.cpu)
                && page.rmap.len() + usize::from(page.swap_slot.is_some()) <= 2
        };
        let page = frame.page.filter(|_| frame.program == ProgramName::Fault && frame.r.pte.is_present());
        if by_reference && page.and_then(|pfn| self.pages.get(pfn)).is_some_and(may_be_own) {
            self.lru_add_drain(frame.by.cpu);
        }
    }
}
