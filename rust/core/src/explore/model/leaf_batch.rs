//! The batch of reclaim, unrolled: flushes that are left for later, and who must not wait for that.

use crate::error::Result;
use crate::explore::scenario::World;
use crate::program::{BatchedPending, Leaf, PendingTracking};

use super::at::At;
use super::op::{Class, Freed, Kind, OpIndex, Scope, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    /// A flag says that reclaim left something, not a count.
    fn uses_flag(&self) -> bool {
        self.kernel.constants.batched_pending != BatchedPending::Counter
    }

    /// Whether anybody leaves flushes for later in this way.
    fn batches(&self) -> bool {
        self.world.users > 0 && self.any_program_has(|leaf| *leaf == Leaf::SetTlbUbcFlushPending) > 0
    }

    /// All entries stand under one lock, so that whoever holds it sees nobody change the marks of the batch.
    fn one_table(&self) -> bool {
        !self.world.tables.iter().skip(1).any(|mm| *mm == 0)
    }

    /// `flush_tlb_batched_pending()`.
    pub(super) fn flush_batched(&mut self, next: OpIndex) -> OpIndex {
        if !self.batches() {
            return next;
        }
        let class = if self.one_table() { Class::Urgent } else { Class::Visible };
        let name = "flush_tlb_batched_pending";
        if self.tracks_batched_cpus() {
            // The CPUs take themselves out of the mask.
            let flush = self.flush_mm(name, next);
            let asked = (0..self.world.users)
                .map(|cpu| {
                    let vars = [self.vars.read(Var::InMask(cpu)), self.vars.read(Var::BatchedCpu(cpu))];
                    Test::All(vars.into_iter().map(|var| Test::Above(var, 0)).collect())
                })
                .collect();
            return self.op(Kind::Branch(Test::Any(asked)), Class::Visible, flush, next, format!("{name}()"));
        }
        let pending = self.vars.read(Var::BatchPending(0));
        if self.uses_flag() {
            let clear = self.op(Kind::Set(pending, 0), class, next, 0, "tlb_flush_batched = false".to_owned());
            let flush = self.flush_of_batched(name, clear);
            return self.op(Kind::Branch(Test::Above(pending, 0)), class, flush, next, format!("{name}()"));
        }
        self.vars.read(Var::BatchFlushed(0));
        let (mine, flushed) = (self.read_local(Local::BatchPending), self.read_local(Local::BatchFlushed));
        let store = self.op(Kind::StoreBatched(0), class, next, 0, "cmpxchg(tlb_flush_batched)".to_owned());
        let flush = self.flush_of_batched(name, store);
        let test = Test::Differ(mine, flushed);
        let branch = self.op(Kind::Branch(test), Class::Local, flush, next, String::new());
        self.op(Kind::ReadBatched(0), class, branch, 0, format!("{name}()"))
    }

    /// What `flush_tlb_batched_pending()` does if reclaim left something.
    fn flush_of_batched(&mut self, name: &str, next: OpIndex) -> OpIndex {
        if self.world.engine.tlbi && self.world.engine.batched_pending_is_dsb {
            return self.dsb(name, next);
        }
        self.flush_mm(name, next)
    }

    /// A mask says which CPUs have flushes of reclaim outstanding.
    fn tracks_batched_cpus(&self) -> bool {
        let is_detailed = self.world.engine.is_detailed() && !self.world.engine.by_active_mm;
        is_detailed && self.kernel.constants.batched_pending == BatchedPending::Cpumask
    }

    /// `set_tlb_ubc_flush_pending()`.
    pub(super) fn set_ubc(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let class = if self.one_table() { Class::Urgent } else { Class::Visible };
        let pending = self.vars.write(Var::BatchPending(0));
        let text = "set_tlb_ubc_flush_pending()".to_owned();
        let kind = if self.uses_flag() { Kind::Set(pending, 1) } else { Kind::Add(pending, 1) };
        let mark = self.op(kind, class, next, 0, text);
        let writable = self.set_local(Local::UbcWritable, 1, mark);
        let dirty = Test::Pte { mask: pte::DIRTY, value: pte::DIRTY };
        let mark = self.op(Kind::Branch(dirty), Class::Local, writable, mark, String::new());
        let mark = self.set_local(Local::UbcRequired, 1, mark);
        let mark = if self.world.engine.tlbi {
            let scope = Scope::Pages(1 << self.page(at)?);
            self.tlbi(scope, Class::Visible, "arch_tlbbatch_add_pending()", mark)
        } else if self.world.engine.is_detailed() && !self.world.engine.by_active_mm {
            self.add_to_batch(self.page(at)?, mark)
        } else if self.kernel.constants.pending_tracking == PendingTracking::Mm {
            mark
        } else {
            let tlb_gen = self.vars.read(Var::TlbGen(0));
            self.op(Kind::Add(tlb_gen, 1), Class::Visible, mark, 0, "inc_mm_tlb_gen()".to_owned())
        };
        let (accessible, class) = self.pte_accessible();
        Ok(self.op(Kind::Branch(accessible), class, mark, next, "pte_accessible()".to_owned()))
    }

    /// `arch_tlbbatch_add_pending()`: the generation, then the mask; before them the mask of all that is outstanding.
    fn add_to_batch(&mut self, page: u8, next: OpIndex) -> OpIndex {
        for cpu in 0..self.world.users {
            self.read_local(Local::BatchMask(cpu));
        }
        self.read_local(Local::FlushGen);
        let text = "batch mask |= mm_cpumask".to_owned();
        let mask = self.op(Kind::OrBatchMask, Class::Visible, next, 0, text);
        let add = self.op(Kind::AddBatch(page), Class::Visible, mask, 0, "inc_mm_tlb_gen()".to_owned());
        if !self.tracks_batched_cpus() {
            return add;
        }
        let text = "tlb_flush_batched_cpumask |= mm_cpumask".to_owned();
        self.op(Kind::OrBatchedCpus, Class::Visible, add, 0, text)
    }

    /// `try_to_unmap_flush()` and `try_to_unmap_flush_dirty()`: the batch flushes all that its CPUs have.
    pub(super) fn unmap_flush(&mut self, asks: Local, name: &str, next: OpIndex) -> OpIndex {
        let required = self.read_local(asks);
        let mut done = next;
        for local in [Local::UbcRequired, Local::UbcWritable] {
            done = self.set_local(local, 0, done);
        }
        if self.world.engine.tlbi {
            let wait = self.dsb(&format!("{name}()"), done);
            return self.op(Kind::Branch(Test::Above(required, 0)), Class::Local, wait, next, String::new());
        }
        if self.world.engine.is_detailed() && !self.world.engine.by_active_mm {
            let wait = Kind::Await { scope: Scope::Pages(self.pages_of_mm(0)), full: true, of_batch: true };
            let flush = self.ask(wait, Freed::No, &format!("{name}()"), done);
            return self.op(Kind::Branch(Test::Above(required, 0)), Class::Local, flush, next, String::new());
        }
        // Generation 0 that is taken for an old one: every CPU answers, none flushes (aa44284960d5).
        let is_skipped = self.world.engine.gen_zero_is_old && self.kernel.constants.flush_skips_old_gen;
        let pages = if is_skipped {
            0
        } else if self.world.engine.batch_flushes_physical {
            // INVLPG takes what it is given for a virtual address.
            let frames = 0..self.world.frames.len() as u8;
            let named = frames.filter_map(|frame| self.world.page_at(World::pfn(frame)));
            named.fold(0, |mask, page| mask | 1 << page)
        } else {
            self.pages_of_mm(0)
        };
        let scope = Scope::Pages(pages);
        let flush = self.flush(scope, &format!("{name}()"), done);
        self.op(Kind::Branch(Test::Above(required, 0)), Class::Local, flush, next, String::new())
    }
}
