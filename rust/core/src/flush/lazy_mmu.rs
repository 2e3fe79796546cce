//! Lazy-MMU batches when they are issued: invalidations of single entries (sparc64, powerpc hash), or hypercalls that
//! change entries (Xen PV). Collecting them is the machine's business.
//!
//! A hash MMU does not walk the page tables: what it cached is a copy that must be removed by name. So generations play
//! no role here, and every CPU of the mask is reached whatever it has loaded (`arch/sparc/mm/tlb.c`,
//! `arch/powerpc/mm/book3s64/hash_tlb.c`).

use super::context::MmId;
use super::engine::{Engine, Initiator};
use super::log::FlushKind;
use super::multi::FlushTlbInfo;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, Vpn};
use crate::cpumask::CpuId;

impl Engine {
    /// Invalidates each of `pages` of `mm` on every CPU of its mask: a batch of per-PTE lazy-MMU mode, in any order.
    /// An empty batch does nothing and is not logged.
    pub fn lazy_mmu_drain(&mut self, by: Initiator, mm: MmId, pages: &[Vpn]) {
        let (Some(lowest), Some(highest)) = (pages.iter().min(), pages.iter().max()) else {
            return;
        };
        let info = FlushTlbInfo {
            mm: Some(mm),
            start: lowest.addr(),
            end: VirtAddr(highest.addr().0 + PAGE_SIZE),
            new_tlb_gen: 0,
            stride_shift: PAGE_SHIFT,
            freed_tables: false,
            trim_cpumask: false,
            initiating_cpu: by.cpu,
        };
        let mask = self.log_mask(self.mm_cpumask(mm));
        let mut reached = std::mem::take(&mut self.reached);
        reached.clear();
        reached.nr_entries = pages.len() as u32;
        for cpu in self.mm_cpumask(mm) {
            if cpu == by.cpu {
                reached.has_flushed_here = true;
            } else {
                reached.told.push(cpu);
            }
        }
        reached.is_remote = !reached.told.is_empty();
        if reached.has_flushed_here {
            self.invalidate_pages(by.cpu, mm, pages);
        }
        for at in 0..reached.told.len() {
            let cpu = reached.told[at];
            if self.invalidate_pages(cpu, mm, pages) == Some(0) {
                reached.nothing_cached.push(cpu);
            }
        }
        self.log.counters.nr_lazy_mmu_drains += 1;
        self.log.counters.nr_lazy_mmu_entries += pages.len() as u64;
        self.record(by, FlushKind::LazyMmu, &info, (info.start, info.end), mask, &reached);
        self.reached = reached;
    }

    /// Counts that `nr_entries` queued hypercalls were issued (`xen_mc_flush`): they change entries, they flush nothing.
    pub const fn count_multicalls(&mut self, nr_entries: u64) {
        self.log.counters.nr_lazy_mmu_drains += 1;
        self.log.counters.nr_lazy_mmu_entries += nr_entries;
    }

    /// Drops `pages` of `mm` on a CPU, and tells how many entries went; `None` if that is not known.
    fn invalidate_pages(&mut self, cpu: CpuId, mm: MmId, pages: &[Vpn]) -> Option<u32> {
        let pcid = self.pcid_of_mm(cpu, mm);
        let tlbs = self.tlbs.as_mut()?;
        let Some(pcid) = pcid else {
            return Some(0);
        };
        Some(pages.iter().map(|page| tlbs.invalidate_page(cpu.index(), pcid, page.addr()).nr_tlb).sum())
    }
}
