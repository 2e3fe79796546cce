//! Steps on the mmu_gather, and the freeing of page tables (mm/mmu_gather.c, mm/memory.c).

use crate::addr::{PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::TLB_FLUSH_ALL;
use crate::page_table::{FreedKind, PTE_LEVEL, Pte, table_index};
use crate::program::{LazyMmu, PendingTracking};

use super::Machine;
use super::frame::{After, Frame, Loop};
use super::gather::{GatherLimits, MmuGather};
use super::pages::{Pages, head_of};
use super::probes::Probe;

impl Machine {
    pub(super) fn tlb_gather_mmu(&mut self, frame: &mut Frame, fullmm: bool, light: bool) -> Result<()> {
        let constants = &self.kernel.constants;
        let limits = GatherLimits {
            bundle: constants.gather_bundle,
            batch: constants.gather_batch,
            batch_count: constants.gather_batch_count,
            spare: u32::from(constants.gather_batches_folios),
        };
        frame.gather = Some(MmuGather::new(limits, fullmm, light));
        if light {
            self.counters.nr_light_gathers += 1;
        } else {
            self.counters.nr_gathers += 1;
        }
        let mm = self.mm_mut(frame.r.mm)?;
        let pending = mm.tlb_flush_pending;
        mm.tlb_flush_pending += 1;
        self.hit(frame.by, frame.r.mm, Probe::Gather { full: fullmm, pending });
        Ok(())
    }

    #[inline]
    pub(super) fn tlb_remove_page(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.page()?;
        if self.pages.get(page).is_none() {
            return Ok(());
        }
        let run = self.pages_in_a_row(frame, page);
        if frame.gather()?.queue_run(page, run) {
            if matches!(frame.loops.last(), Some(Loop::Pte { .. })) {
                frame.force_flush = true;
                frame.break_pte = true;
            } else {
                // mm/huge_memory.c queues outside a table walk, where nobody would flush (tlb_remove_page_size).
                self.tlb_flush_mmu_early(frame)?;
            }
        }
        Ok(())
    }

    /// How many entries from the current one on map pages of one huge page in a row (mm/internal.h:`folio_pte_batch`).
    fn pages_in_a_row(&self, frame: &Frame, page: Pfn) -> u32 {
        let Some(place) = frame.r.place.filter(|place| place.level == PTE_LEVEL) else { return 1 };
        if !self.kernel.constants.gather_batches_folios || !Pages::is_huge(page) {
            return 1;
        }
        let first = frame.r.pte.pfn().0;
        let nr_left = (frame.r.table_range.end.0.saturating_sub(frame.r.addr.0) / PAGE_SIZE) as usize;
        let entries =
            self.tables.table(place.table)[table_index(frame.r.addr, PTE_LEVEL)..].iter().take(nr_left).skip(1);
        let follows =
            |(nr, pte): &(u64, &Pte)| pte.is_hw_present() && head_of(pte.pfn()) == page && pte.pfn().0 == first + nr;
        1 + (1..).zip(entries).take_while(follows).count() as u32
    }

    pub(super) fn tlb_flush_mmu_tlbonly(&mut self, frame: &mut Frame) -> Result<()> {
        let flush = frame.gather()?.take_flush();
        if self.kernel.constants.lazy_mmu == LazyMmu::PerPte {
            self.lazy_mmu_drain(frame.by);
        }
        if let Some(flush) = flush {
            let (start, end) = flush.range.map_or((VirtAddr(0), TLB_FLUSH_ALL), |range| (range.start, range.end));
            self.flush_mm_range(frame, frame.r.mm, (start, end), flush.stride_shift, flush.freed_tables);
        }
        Ok(())
    }

    pub(super) fn tlb_flush_rmaps(&mut self, frame: &mut Frame) -> Result<()> {
        for (page, mapping) in frame.gather()?.take_delayed() {
            self.pages.remove_rmap(page, mapping);
        }
        Ok(())
    }

    /// `tlb_flush_mmu` before the gather ends.
    pub(super) fn tlb_flush_mmu_early(&mut self, frame: &mut Frame) -> Result<()> {
        self.hit(frame.by, frame.r.mm, Probe::FlushMmu);
        self.tlb_flush_mmu(frame)
    }

    fn tlb_flush_mmu(&mut self, frame: &mut Frame) -> Result<()> {
        self.tlb_flush_mmu_tlbonly(frame)?;
        self.then(frame, After::FreeGathered)
    }

    /// Frees the tables and drops the pages that were queued, which no TLB holds any more.
    pub(super) fn free_gathered(&mut self, frame: &mut Frame) -> Result<()> {
        let gather = frame.gather()?;
        let tables = gather.take_tables();
        let pages = gather.take_pages();
        self.counters.nr_table_frees += tables.len() as u64;
        for table in tables {
            self.tables.free_table(table);
        }
        if !pages.is_empty() {
            // mm/swap_state.c:free_pages_and_swap_cache
            self.lru_add_drain_unmapping(frame.by.cpu);
        }
        for page in pages {
            self.pages.put_ref_and_swap_cache(page);
        }
        Ok(())
    }

    pub(super) fn tlb_finish_mmu(&mut self, frame: &mut Frame) -> Result<()> {
        let pending = self.mm_ref(frame.r.mm)?.tlb_flush_pending;
        self.hit(frame.by, frame.r.mm, Probe::Finish { pending });
        let is_nested = pending > 1;
        if is_nested && self.kernel.constants.pending_tracking == PendingTracking::Mm {
            self.counters.nr_nested_finishes += 1;
            frame.gather()?.force_full();
        }
        self.tlb_flush_mmu(frame)?;
        self.then(frame, After::EndGather)
    }

    /// mm/memory.c:`free_pgtables` over the areas just walked.
    pub(super) fn free_pgtables(&mut self, frame: &mut Frame) -> Result<()> {
        let areas = std::mem::take(&mut frame.detached);
        let bounds = self.free_bounds(frame, &areas)?;
        let mut index = 0;
        while index < areas.len() {
            let start = areas[index].start;
            let mut end = areas[index].end;
            index += 1;
            // Neighbours within 2 MiB share a PTE table, or could: one walk for all of them.
            while index < areas.len() && areas[index].start.0 <= end.0 + PMD_SIZE {
                end = areas[index].end;
                index += 1;
            }
            let ceiling = areas.get(index).map_or(bounds.1, |vma| vma.start);
            let mut freed = Vec::new();
            self.tables.free_pgd_range(frame.r.root, start, end, bounds.0, ceiling, &mut |table| freed.push(table));
            let gather = frame.gather()?;
            for table in freed {
                let level = match table.kind {
                    FreedKind::Pte(_) => 0,
                    FreedKind::Pmd(_) => 1,
                    FreedKind::Pud(_) => 2,
                    FreedKind::P4d(_) | FreedKind::FoldedP4d => 3,
                };
                gather.free_table(level, table.addr, table.kind.table());
            }
        }
        frame.detached = areas;
        Ok(())
    }

    /// mm/memory.c:`zap_pte_range` with `details->reclaim_pt`: a table of which nothing is left is taken out before its lock is
    /// dropped. A walk that was left early looks at all entries again when it comes to the end (`try_to_free_pte`).
    pub(super) fn try_get_and_clear_pmd(&mut self, frame: &mut Frame) {
        let Some(place) = frame.r.place.filter(|_| frame.r.reached >= frame.r.table_range.end) else { return };
        if self.tables.table(place.table).iter().all(|pte| pte.is_none()) {
            frame.set_aside = self.tables.detach_pte_table(frame.r.root, frame.r.table_range.start);
        }
    }

    /// mm/pt_reclaim.c:`free_pte`: the table that was taken out, if one was, goes with the gather.
    pub(super) fn free_pte(frame: &mut Frame) -> Result<()> {
        if let Some(table) = frame.set_aside.take() {
            let start = frame.r.table_range.start;
            frame.gather()?.free_table(PTE_LEVEL, start, Some(table));
        }
        Ok(())
    }

    /// Floor and ceiling of what may be freed: the areas that stay on either side of those taken out (0 = none).
    fn free_bounds(&self, frame: &Frame, areas: &[super::vma::Vma]) -> Result<(VirtAddr, VirtAddr)> {
        let (Some(first), Some(last)) = (areas.first(), areas.last()) else {
            return Ok((VirtAddr(0), VirtAddr(0)));
        };
        let vmas = &self.mm_ref(frame.r.mm)?.vmas;
        let floor = vmas.find_before(first.start).map_or(VirtAddr(0), |vma| vma.end);
        let ceiling = vmas.find(last.end).map_or(VirtAddr(0), |vma| vma.start);
        Ok((floor, ceiling))
    }
}
