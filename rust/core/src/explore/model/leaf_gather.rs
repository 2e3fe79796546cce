//! Gathers, unrolled: what they collect, and how it is flushed and freed.

use crate::error::Result;
use crate::program::{Instr, PendingTracking};

use super::at::{At, LoopKindKey};
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex, Scope, Test};
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    /// The gather notes when its flush was deferred, if that decides something.
    pub(super) fn note_deferral(&mut self, next: OpIndex) -> OpIndex {
        if !self.world.engine.bumps_once_per_deferral {
            return next;
        }
        self.read_local(Local::DeferGen);
        self.vars.read(Var::TlbGen(0));
        self.op(Kind::NoteDeferral, Class::Visible, next, 0, "defer_gen = tlb_gen of the mm".to_owned())
    }

    /// `tlb_flush_mmu_tlbonly()`.
    pub(super) fn tlbonly(&mut self, name: &str, next: OpIndex) -> OpIndex {
        let (range, freed) = (self.read_local(Local::Range), self.read_local(Local::FreedTables));
        self.read_local(Local::FullMm);
        let all = self.pages_of_mm(0);
        let mut done = next;
        for local in [Local::Range, Local::FreedTables] {
            done = self.set_local(local, 0, done);
        }
        let words = format!("{name}()");
        if self.batches_invalidations() {
            return self.drain(&words, done);
        }
        let mut flush = self.flush(Scope::Gather(all), &words, done);
        if self.world.engine.fullmm_is_not_flushed {
            let full = self.read_local(Local::FullMm);
            let skips = Test::All(vec![Test::Above(full, 0), Test::Not(Box::new(Test::Above(freed, 0)))]);
            flush = self.op(Kind::Branch(skips), Class::Local, done, flush, String::new());
        }
        let test = Test::Any(vec![Test::Above(range, 0), Test::Above(freed, 0)]);
        self.op(Kind::Branch(test), Class::Local, flush, next, String::new())
    }

    pub(super) fn flush_rmaps(&mut self, next: OpIndex) -> OpIndex {
        let delayed = self.read_local(Local::Delayed);
        self.by_frame(Var::Mapcount, false);
        let flush = self.op(Kind::FlushRmaps, Class::Visible, next, 0, "tlb_flush_rmaps()".to_owned());
        self.op(Kind::Branch(Test::Above(delayed, 0)), Class::Local, flush, next, String::new())
    }

    pub(super) fn free_queued(&mut self, next: OpIndex) -> OpIndex {
        let queued = self.read_local(Local::Queued);
        self.by_frame(Var::Refs, false);
        let free = self.op(Kind::FreeQueued, Class::Visible, next, 0, "free_pages_and_swap_cache()".to_owned());
        let free = self.op(Kind::Branch(Test::Above(queued, 0)), Class::Local, free, next, String::new());
        self.free_gathered(free)
    }

    /// `tlb_finish_mmu()`.
    pub(super) fn finish_mmu(&mut self, next: OpIndex) -> OpIndex {
        let end = self.flush_pending(-1, next);
        let free = self.free_queued(end);
        let flush = self.tlbonly("tlb_finish_mmu", free);
        if !self.pending_matters() || self.kernel.constants.pending_tracking != PendingTracking::Mm {
            return flush;
        }
        let mut nested = flush;
        if self.has_tables() && self.world.engine.nested_finish_forgets_tables {
            // The whole range, but of last-level entries only.
            let range = self.read_local(Local::Range);
            let all = u64::from(self.pages_of_mm(0));
            nested = self.op(Kind::SetBits(range, all), Class::Local, nested, 0, String::new());
            nested = self.set_local(Local::FreedTables, 0, nested);
        } else {
            for local in [Local::FullMm, Local::FreedTables] {
                nested = self.set_local(local, 1, nested);
            }
        }
        let pending = self.vars.read(Var::FlushPending(u8::from(self.in_other_mm)));
        let text = "mm_tlb_flush_nested()".to_owned();
        self.op(Kind::Branch(Test::Above(pending, 1)), Class::Visible, nested, flush, text)
    }

    pub(super) fn flush_tracked(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let tracked = self.read_local(Local::Tracked);
        let mut wide = at.clone();
        wide.r.table = None;
        let whole = self.pages_here(&wide).iter().fold(0, |mask, page| mask | 1 << page);
        let done = self.set_local(Local::Tracked, 0, next);
        let part = self.flush(Scope::Tracked, "flush_tlb_range(tracked)", done);
        let part = self.op(Kind::Branch(Test::Above(tracked, 0)), Class::Local, part, next, String::new());
        if !self.pending_matters() {
            return part;
        }
        let nested = self.flush(Scope::Pages(whole), "flush_tlb_range(vma)", done);
        let pending = self.vars.read(Var::FlushPending(u8::from(self.in_other_mm)));
        let text = "mm_tlb_flush_nested()".to_owned();
        self.op(Kind::Branch(Test::Above(pending, 1)), Class::Visible, nested, part, text)
    }

    /// `tlb_gather_mmu()`.
    pub(super) fn gather_mmu(&mut self, fullmm: bool, next: OpIndex) -> OpIndex {
        let mut first = next;
        for (local, value) in
            [(Local::Range, 0), (Local::FreedTables, 0), (Local::FullMm, u64::from(fullmm)), (Local::Queued, 0)]
        {
            first = self.set_local(local, value, first);
        }
        self.flush_pending(1, first)
    }

    /// The page may be the last for which the gather has room: then the walk of the table is left, to be gone on with after
    /// a flush.
    pub(super) fn may_be_full(&mut self, here: Here<'_>, at: &At, next: OpIndex) -> Result<OpIndex> {
        let page = self.page(at)?;
        let mut left = at.clone();
        let Some(walk) = left.loops.pop().filter(|walk| matches!(walk.kind, LoopKindKey::Pte { .. })) else {
            return Ok(next);
        };
        let Instr::Next { exit, .. } = here.program.code[walk.next as usize] else { return Ok(next) };
        left.r = walk.saved;
        left.left_after = self.pages_here(&left).iter().any(|other| *other > page).then_some(page);
        let flushed = self.emit(here.program, exit, left)?;
        let flushed = self.set_local(Local::ForceFlush, 1, flushed);
        Ok(self.op(Kind::Choose, Class::Visible, next, flushed, "tlb_next_batch()".to_owned()))
    }
}
