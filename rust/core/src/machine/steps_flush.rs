//! Steps that flush, or that note a flush for later: by range, by mm, deferred by reclaim, tracked for file mappings.

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::{MmId, TLB_FLUSH_ALL};
use crate::program::{BatchedPending, FlushScope, PendingTracking};

use super::Machine;
use super::frame::{After, Frame};
use super::mm::FlushBatched;
use super::probes::Probe;
use super::vma::Vma;

/// Above this, `set_tlb_ubc_flush_pending` begins to count anew (mm/rmap.c: `TLB_FLUSH_BATCH_PENDING_LARGE`).
const PENDING_LARGE: u32 = 0x7fff / 2;

impl Frame {
    /// Widens the tracked range by the current page.
    pub(super) fn track_flush_range(&mut self) {
        let page = VaRange::new(self.r.addr, VirtAddr(self.r.addr.0 + PAGE_SIZE));
        let hull =
            self.tracked.map_or(page, |tracked| VaRange::new(tracked.start.min(page.start), tracked.end.max(page.end)));
        self.tracked = Some(hull);
    }
}

impl Machine {
    /// `flush_tlb_mm_range`: at once when the operation runs alone, else begun, and ended by [`super::Call`].
    pub(super) fn flush_mm_range(
        &mut self,
        frame: &mut Frame,
        mm: MmId,
        (start, end): (VirtAddr, VirtAddr),
        stride_shift: u32,
        freed_tables: bool,
    ) {
        let (by, now_ns) = (frame.by, self.now_ns);
        if self.stepping.is_none() {
            self.engine.flush_tlb_mm_range(by, mm, start, end, stride_shift, freed_tables, now_ns);
        } else {
            let begun = self.engine.begin_mm_range(by, mm, start, end, stride_shift, freed_tables, now_ns);
            frame.flushing = begun.map(Box::new);
        }
    }

    /// What a step does after its flush: now, or when the flush has ended.
    pub(super) fn then(&mut self, frame: &mut Frame, after: After) -> Result<()> {
        if frame.flushing.is_some() {
            frame.after.push(after);
            return Ok(());
        }
        self.after_flush(frame, after)
    }

    pub(super) fn after_flush(&mut self, frame: &mut Frame, after: After) -> Result<()> {
        match after {
            After::FreeGathered => self.free_gathered(frame),
            After::EndGather => {
                frame.gather = None;
                self.dec_tlb_flush_pending(frame)
            }
            After::SplitHuge => self.split_invalidated_pmd(frame),
            After::SplitFolio => self.split_invalidated_folio(frame),
            After::BatchedFlushed(batched) => self.batched_flushed(frame.r.mm, batched),
            After::UnmapFlushed => {
                let ubc = &mut self.task_mut(frame.by.task)?.tlb_ubc;
                ubc.flush_required = false;
                ubc.writable = false;
                self.counters.nr_tlb_batch_flushes += 1;
                Ok(())
            }
        }
    }

    /// `flush_tlb_range` in the frame's mm.
    pub(super) fn flush_range(&mut self, frame: &mut Frame, range: VaRange) {
        let freed_tables = self.engine.rules().flush_tlb_range_freed_tables;
        self.flush_mm_range(frame, frame.r.mm, (range.start, range.end), PAGE_SHIFT, freed_tables);
    }

    /// `flush_tlb_page` of the current entry.
    pub(super) fn flush_page(&mut self, frame: &mut Frame) {
        let page = (frame.r.addr, VirtAddr(frame.r.addr.0 + PAGE_SIZE));
        self.flush_mm_range(frame, frame.r.mm, page, PAGE_SHIFT, false);
    }

    /// `flush_tlb_mm`, which gives no stride (arch/x86/include/asm/tlbflush.h).
    pub(super) fn flush_mm(&mut self, frame: &mut Frame) {
        self.flush_mm_range(frame, frame.r.mm, (VirtAddr(0), TLB_FLUSH_ALL), 0, true);
    }

    pub(super) fn flush_scope(&mut self, frame: &mut Frame, scope: FlushScope) {
        let range = match scope {
            FlushScope::Vma => frame.r.vma_range,
            FlushScope::Table => frame.r.table_range,
            FlushScope::Extent => frame.extent,
            FlushScope::Pmd => frame.pmd_range(),
            FlushScope::Entry => VaRange::new(frame.r.addr, VirtAddr(frame.r.addr.0 + PAGE_SIZE)),
            FlushScope::Page => {
                self.flush_page(frame);
                return;
            }
        };
        self.flush_range(frame, range);
    }

    pub(super) fn dec_tlb_flush_pending(&mut self, frame: &Frame) -> Result<()> {
        let mm = self.mm_mut(frame.r.mm)?;
        mm.tlb_flush_pending = mm.tlb_flush_pending.saturating_sub(1);
        Ok(())
    }

    pub(super) fn flush_tlb_batched_pending(&mut self, frame: &mut Frame) -> Result<()> {
        let id = frame.r.mm;
        let by_mask = self.kernel.constants.batched_pending == BatchedPending::Cpumask;
        let batched = self.mm_mut(id)?.tlb_flush_batched;
        let due = if by_mask {
            self.mm_ref(id)?.tlb_flush_batched_cpumask.intersects(self.engine.mm_cpumask(id))
        } else {
            batched.pending != batched.flushed
        };
        self.hit(frame.by, id, Probe::BatchedPending { due });
        if !due {
            if by_mask {
                self.mm_mut(id)?.tlb_flush_batched_cpumask.clear_all();
            }
            return Ok(());
        }
        self.counters.nr_batched_pending_flushes += 1;
        self.flush_mm(frame);
        self.then(frame, After::BatchedFlushed(batched))
    }

    /// What was pending in an mm before a full flush of it is not any more.
    fn batched_flushed(&mut self, id: MmId, batched: FlushBatched) -> Result<()> {
        let kind = self.kernel.constants.batched_pending;
        let mm = self.mm_mut(id)?;
        match kind {
            BatchedPending::Cpumask => mm.tlb_flush_batched_cpumask.clear_all(),
            BatchedPending::Flag => mm.tlb_flush_batched = FlushBatched::default(),
            // What changed meanwhile stays as it is (mm/rmap.c: an atomic_cmpxchg that fails).
            BatchedPending::Counter if mm.tlb_flush_batched == batched => {
                mm.tlb_flush_batched.flushed = batched.pending;
            }
            BatchedPending::Counter => {}
        }
        Ok(())
    }

    pub(super) fn set_tlb_ubc_flush_pending(&mut self, frame: &Frame) -> Result<()> {
        let pte = frame.r.pte;
        if !self.pte_accessible(frame, pte) {
            return Ok(());
        }
        let id = frame.r.mm;
        self.engine.inc_tlb_gen(id);
        let mask = self.engine.mm_cpumask(id).clone();
        let ubc = &mut self.task_mut(frame.by.task)?.tlb_ubc;
        ubc.cpumask.or_assign(&mask);
        ubc.flush_required = true;
        ubc.writable |= pte.dirty();
        let kind = self.kernel.constants.batched_pending;
        let mm = self.mm_mut(id)?;
        match kind {
            BatchedPending::Flag => mm.tlb_flush_batched.pending = 1,
            BatchedPending::Counter if mm.tlb_flush_batched.pending > PENDING_LARGE => {
                mm.tlb_flush_batched = FlushBatched { pending: 1, flushed: 0 };
            }
            BatchedPending::Counter => mm.tlb_flush_batched.pending += 1,
            BatchedPending::Cpumask => mm.tlb_flush_batched_cpumask.or_assign(&mask),
        }
        Ok(())
    }

    pub(super) fn try_to_unmap_flush(&mut self, frame: &mut Frame, only_if_writable: bool) -> Result<()> {
        if frame.args.goes_on && !only_if_writable {
            return Ok(()); // the list is not at its end
        }
        let task = self
            .tasks
            .get_mut(frame.by.task as usize)
            .and_then(Option::as_mut)
            .ok_or_else(|| frame.error("a live task", "none"))?;
        let ubc = &mut task.tlb_ubc;
        if !ubc.flush_required || only_if_writable && !ubc.writable {
            return Ok(());
        }
        if self.stepping.is_none() {
            self.engine.arch_tlbbatch_flush(frame.by, &mut ubc.cpumask);
        } else {
            frame.flushing = Some(Box::new(self.engine.begin_batch(frame.by, &mut ubc.cpumask)));
        }
        self.then(frame, After::UnmapFlushed)
    }

    pub(super) fn flush_tracked_range(&mut self, frame: &mut Frame) -> Result<()> {
        let tracked = frame.tracked.take();
        if self.mm_mut(frame.r.mm)?.tlb_flush_pending > 1 {
            let range = frame.r.vma_range;
            self.flush_range(frame, range);
        } else if let Some(range) = tracked {
            self.flush_range(frame, range);
        }
        Ok(())
    }

    /// The generation that will have done what this operation leaves for later.
    pub(super) fn note_deferred_flush(&mut self, frame: &mut Frame) -> Result<()> {
        let defer_gen = self.engine.context(frame.r.mm).tlb_gen + 1;
        match self.kernel.constants.pending_tracking {
            PendingTracking::Mm => {}
            PendingTracking::MmGen => self.mm_mut(frame.r.mm)?.defer_gen = defer_gen,
            PendingTracking::Vma => {
                frame.r.vma.defer_gen = defer_gen;
                let start = frame.r.vma.start;
                if !frame.walks_detached {
                    let vmas = &mut self.mm_mut(frame.r.mm)?.vmas;
                    // A fault may have changed the area since this program looked it up.
                    if let Some(vma) = vmas.lookup(start).copied() {
                        vmas.update(Vma { defer_gen, ..vma });
                    }
                }
            }
            PendingTracking::Table => self.tables.set_defer_gen(frame.place()?.table, defer_gen),
        }
        Ok(())
    }

    pub(super) fn check_deferred_flush(&mut self, frame: &mut Frame) -> Result<()> {
        let mm = self.mm_mut(frame.r.mm)?;
        let (mm_gen, completed) = (mm.defer_gen, mm.tlb_gen_completed);
        match self.kernel.constants.pending_tracking {
            PendingTracking::Mm => {}
            PendingTracking::MmGen => {
                if mm_gen > completed {
                    frame.gather()?.need_flush_all();
                }
            }
            PendingTracking::Vma => {
                if frame.r.vma.defer_gen > completed {
                    let range = frame.r.vma_range;
                    frame.gather()?.flush_pte_range(range);
                }
            }
            PendingTracking::Table => {
                if self.tables.defer_gen(frame.place()?.table) > completed {
                    let range = frame.r.table_range;
                    frame.gather()?.flush_pte_range(range);
                }
            }
        }
        Ok(())
    }

    pub(super) fn mark_tlb_gen_done(&mut self, frame: &Frame) -> Result<()> {
        let tlb_gen = self.engine.context(frame.r.mm).tlb_gen;
        self.mm_mut(frame.r.mm)?.tlb_gen_completed = tlb_gen;
        Ok(())
    }
}
