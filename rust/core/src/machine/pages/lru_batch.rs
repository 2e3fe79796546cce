//! The batches in which pages wait, CPU by CPU, to be put on the LRU.

use crate::addr::Pfn;
use crate::cpumask::CpuId;

use super::Pages;

impl Pages {
    /// A page joins the batch of those that a CPU puts on the LRU together (mm/swap.c:`folio_add_lru`). One of `size` pages is
    /// full.
    pub fn lru_add(&mut self, cpu: CpuId, pfn: Pfn, size: u32) {
        if size == 0 {
            return;
        }
        if let Some(page) = self.slot_mut(pfn) {
            page.lru_cpu = Some(cpu);
        }
        if self.lru_batches.len() <= cpu.index() {
            self.lru_batches.resize(cpu.index() + 1, Vec::new());
        }
        let batch = &mut self.lru_batches[cpu.index()];
        batch.push(pfn);
        if batch.len() >= size as usize {
            self.lru_drain(cpu);
        }
    }

    /// All of a CPU's batch is put on the LRU.
    pub fn lru_drain(&mut self, cpu: CpuId) {
        let batch = self.lru_batches.get_mut(cpu.index()).map(std::mem::take).unwrap_or_default();
        for pfn in batch {
            if let Some(page) = self.slot_mut(pfn) {
                page.lru_cpu = None;
            }
        }
    }

    /// How many pages wait in a CPU's batch.
    pub fn nr_lru_waiting(&self, cpu: CpuId) -> usize {
        self.lru_batches.get(cpu.index()).map_or(0, Vec::len)
    }
}
