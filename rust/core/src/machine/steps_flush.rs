//! Steps that flush, or that note a flush for later: by range, by mm, deferred by reclaim, tracked for file mappings.

use crate::addr::{PAGE_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::program::{BatchedPending, FlushScope, PendingTracking};

use super::Machine;
use super::frame::Frame;
use super::mm::FlushBatched;
use super::probes::Probe;

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
    /// `flush_tlb_range` in the frame's mm.
    pub(super) fn flush_range(&mut self, frame: &Frame, range: VaRange) {
        self.engine.flush_tlb_range(frame.by, frame.r.mm, range.start, range.end, self.now_ns);
    }

    pub(super) fn flush_scope(&mut self, frame: &mut Frame, scope: FlushScope) {
        let range = match scope {
            FlushScope::Vma => frame.r.vma_range,
            FlushScope::Table => frame.r.table_range,
            FlushScope::Extent => frame.extent,
            FlushScope::Pmd => frame.pmd_range(),
            FlushScope::Page => {
                self.engine.flush_tlb_page(frame.by, frame.r.mm, frame.r.addr, self.now_ns);
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

    pub(super) fn flush_tlb_batched_pending(&mut self, frame: &Frame) -> Result<()> {
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
        self.engine.flush_tlb_mm(frame.by, id, self.now_ns);
        let by_flag = self.kernel.constants.batched_pending == BatchedPending::Flag;
        let mm = self.mm_mut(id)?;
        if by_mask {
            mm.tlb_flush_batched_cpumask.clear_all();
        } else if by_flag {
            mm.tlb_flush_batched = FlushBatched::default();
        } else {
            mm.tlb_flush_batched.flushed = batched.pending;
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

    pub(super) fn try_to_unmap_flush(&mut self, frame: &Frame, only_if_writable: bool) -> Result<()> {
        let task = self
            .tasks
            .get_mut(frame.by.task as usize)
            .and_then(Option::as_mut)
            .ok_or_else(|| frame.error("a live task", "none"))?;
        let ubc = &mut task.tlb_ubc;
        if !ubc.flush_required || only_if_writable && !ubc.writable {
            return Ok(());
        }
        self.engine.arch_tlbbatch_flush(frame.by, &mut ubc.cpumask);
        ubc.flush_required = false;
        ubc.writable = false;
        self.counters.nr_tlb_batch_flushes += 1;
        Ok(())
    }

    pub(super) fn flush_tracked_range(&mut self, frame: &mut Frame) -> Result<()> {
        let tracked = frame.tracked.take();
        if self.mm_mut(frame.r.mm)?.tlb_flush_pending > 1 {
            self.flush_range(frame, frame.r.vma_range);
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
                let vma = frame.r.vma;
                if !frame.walks_detached {
                    self.mm_mut(frame.r.mm)?.vmas.update(vma);
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
