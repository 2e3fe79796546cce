//! Flushes, gathers and the batches of reclaim, unrolled to small steps.

use crate::error::Result;
use crate::explore::scenario::World;
use crate::program::{
    BatchedPending, Condition, Instr, LazyMmu, Leaf, PendingTracking, ProgramName, ProtSource, Test as Asked,
};

use super::at::At;
use super::op::{Class, Freed, Kind, OpIndex, PageRef, Scope, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

/// How a page comes to be mapped.
#[derive(Clone, Copy, Default)]
pub(super) struct Mapping {
    /// Dirty, if it is writable.
    pub dirty: bool,
    /// With a reference of its own; else it takes over that of the thread.
    pub takes_ref: bool,
    /// Not writable if another entry refers to the page.
    pub sole: bool,
}

impl Mapping {
    pub const WITH_REFERENCE: Self = Self { dirty: false, takes_ref: true, sole: false };
}

impl Unroller<'_> {
    /// Whether any thread's program has the leaf.
    fn any_program_has(&self, wanted: impl Fn(&Leaf) -> bool) -> usize {
        let has = |program: ProgramName| {
            let code = &self.kernel.program(program).code;
            code.iter().any(|instr| matches!(instr, Instr::Leaf(leaf) if wanted(leaf)))
        };
        self.world.threads.iter().filter(|thread| !thread.is_walker && has(thread.program)).count()
    }

    /// Whether any thread's program has the condition.
    fn any_program_asks(&self, wanted: Asked) -> bool {
        fn has(condition: &Condition, wanted: Asked) -> bool {
            match condition {
                Condition::Test(asked) => *asked == wanted,
                Condition::Not(inner) => has(inner, wanted),
                Condition::All(list) | Condition::Any(list) => list.iter().any(|inner| has(inner, wanted)),
            }
        }
        let asks = |instr: &Instr| matches!(instr, Instr::BranchUnless { condition, .. } if has(condition, wanted));
        let mut programs = self.world.threads.iter().filter(|thread| !thread.is_walker);
        programs.any(|thread| self.kernel.program(thread.program).code.iter().any(asks))
    }

    /// Whether anybody can see another's `tlb_flush_pending`.
    pub(super) fn pending_matters(&self) -> bool {
        let nr_threads =
            self.any_program_has(|leaf| matches!(leaf, Leaf::TlbGatherMmu { .. } | Leaf::IncTlbFlushPending));
        let asks = self.has_protnone() || self.any_program_asks(Asked::MmTlbFlushPending);
        nr_threads > 1 || nr_threads == 1 && asks
    }

    /// Whether an entry can be protnone, if only until its call changes it again.
    pub(super) fn can_be_protnone(&self) -> bool {
        let has_huge = self.world.pages.iter().any(|page| page.huge);
        let makes = |leaf: &Leaf| match leaf {
            Leaf::PteModify { prot } => *prot == ProtSource::None,
            Leaf::PmdpInvalidate | Leaf::PmdpInvalidateAd => has_huge,
            _ => false,
        };
        self.has_protnone() || self.any_program_has(makes) > 0
    }

    /// Whether mprotect or NUMA balancing leaves entries protnone.
    pub(super) fn has_protnone(&self) -> bool {
        self.world.threads.iter().any(|thread| thread.none || thread.program == ProgramName::ChangeProtNuma)
    }

    /// A flush of all user CPUs; if there is none, nothing.
    pub(super) fn flush(&mut self, scope: Scope, text: &str, next: OpIndex) -> OpIndex {
        let freed = if matches!(scope, Scope::Gather(_)) { Freed::Gather } else { Freed::No };
        self.flush_of(scope, false, freed, text, next)
    }

    /// `flush_tlb_mm()`.
    pub(super) fn flush_mm(&mut self, text: &str, next: OpIndex) -> OpIndex {
        let all = self.pages_of_mm(0);
        self.flush_of(self.with_tables(all), true, Freed::Yes, text, next)
    }

    pub(super) fn flush_of(&mut self, scope: Scope, full: bool, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        if self.world.users == 0 || self.in_other_mm {
            return next;
        }
        if self.batches_invalidations() && scope != Scope::LazyBatch {
            // Hash MMUs are told of each entry; flushes of ranges do nothing.
            return next;
        }
        if self.world.engine.tlbi {
            let wait = self.dsb(text, next);
            return self.tlbi(scope, Class::Urgent, text, wait);
        }
        if self.world.engine.is_detailed() {
            let wait = self.ask_cpus(scope, full, freed, text, next);
            if self.world.engine.by_active_mm {
                return wait;
            }
            self.read_local(Local::FlushGen);
            self.vars.read(Var::TlbGen(0));
            return self.op(Kind::BumpGen(scope), Class::Visible, wait, 0, format!("{text}: inc_mm_tlb_gen()"));
        }
        for cpu in 0..self.world.users {
            self.read_local(Local::Pending(cpu));
        }
        self.vars.write(Var::TlbGen(0));
        // Requests commute with all that others do, unless their generations are looked at.
        let tracks_gens = self.kernel.constants.pending_tracking != PendingTracking::Mm;
        let class = if tracks_gens { Class::Visible } else { Class::Urgent };
        let wait = self.op(Kind::Wait(scope), Class::Urgent, next, 0, format!("{text}: all have answered"));
        self.op(Kind::Send { scope, mm: 0 }, class, wait, 0, format!("{text}: send IPIs"))
    }

    /// The architecture is told of each entry that changes, and takes what it is told inside a lazy-MMU section together.
    pub(super) fn batches_invalidations(&self) -> bool {
        self.kernel.constants.lazy_mmu == LazyMmu::PerPte && self.world.users > 0
    }

    /// Entries that are stored inside a lazy-MMU section are stored at its end, by multicalls.
    pub(super) fn queues_multicalls(&self, at: &At) -> bool {
        at.lazy_mmu && self.kernel.constants.lazy_mmu == LazyMmu::Multicall
    }

    /// Something is batched in lazy-MMU sections.
    pub(super) fn batches_in_lazy_mmu(&self) -> bool {
        self.batches_invalidations() || self.kernel.constants.lazy_mmu == LazyMmu::Multicall
    }

    pub(super) fn queue_multicall(
        &mut self,
        page: u8,
        clears: u64,
        of_new: bool,
        name: &str,
        next: OpIndex,
    ) -> OpIndex {
        self.read_local(Local::Multicall(page));
        self.read_local(if of_new { Local::New } else { Local::Pte });
        let text = format!("{name}({}): queued", self.page_text(page));
        self.op(Kind::QueueMulticall { page, clears, of_new }, Class::Visible, next, 0, text)
    }

    /// What a changed entry asks for: a place in the batch, or, outside a section, the invalidation at once.
    pub(super) fn invalidate(&mut self, at: &At, page: u8, next: OpIndex) -> OpIndex {
        if !self.batches_invalidations() {
            return next;
        }
        let next = if at.lazy_mmu { next } else { self.drain("flush of the entry", next) };
        for cpu in 0..2 {
            self.read_local(Local::LazyBatch(cpu));
        }
        self.read_local(Local::Pte);
        self.op(Kind::Invalidate(page), Class::Local, next, 0, String::new())
    }

    /// The batch of the CPU on which the thread is now.
    fn drain(&mut self, text: &str, next: OpIndex) -> OpIndex {
        let done = self.op(Kind::EmptyLazyBatch, Class::Local, next, 0, String::new());
        self.flush(Scope::LazyBatch, text, done)
    }

    /// The section ends: its batch is drained, on whichever CPU that is.
    pub(super) fn leave_lazy_mmu(&mut self, mut next: OpIndex) -> OpIndex {
        if !self.batches_invalidations() {
            for page in (0..self.world.pages.len() as u8).rev() {
                let text = format!("multicall: set_pte({})", self.page_text(page));
                next = self.op(Kind::Multicall(page), Class::Visible, next, 0, text);
            }
            return next;
        }
        let stays = self.drain("arch_leave_lazy_mmu_mode()", next);
        if !self.world.engine.lazy_mmu_preempts {
            return stays;
        }
        let moved = self.read_local(Local::Moved);
        let text = "preempted, goes on on another CPU".to_owned();
        let elsewhere = self.op(Kind::Set(moved, 1), Class::Visible, stays, 0, text);
        self.op(Kind::Choose, Class::Visible, stays, elsewhere, "arch_leave_lazy_mmu_mode()".to_owned())
    }

    fn tlbi(&mut self, scope: Scope, class: Class, text: &str, next: OpIndex) -> OpIndex {
        for cpu in 0..self.world.users {
            self.read_local(Local::Pending(cpu));
        }
        self.read_local(Local::Tlbi);
        self.op(Kind::Tlbi(scope), class, next, 0, format!("{text}: TLBI"))
    }

    /// Waits for one's own invalidations, and for nobody else's.
    fn dsb(&mut self, text: &str, next: OpIndex) -> OpIndex {
        self.op(Kind::Dsb, Class::Urgent, next, 0, format!("{text}: DSB"))
    }

    /// Looks at one CPU after the other, sends IPIs, and waits.
    fn ask_cpus(&mut self, scope: Scope, full: bool, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        let wait = Kind::Await { scope, full, of_batch: false };
        self.ask(wait, freed, text, next)
    }

    fn ask(&mut self, wait: Kind, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        let of_batch = matches!(wait, Kind::Await { of_batch: true, .. });
        let mut first = self.op(wait, Class::Visible, next, 0, format!("{text}: all have answered"));
        for cpu in (0..self.world.users).rev() {
            self.read_local(Local::Pending(cpu));
            let kind = Kind::AskCpu { cpu, freed, of_batch };
            first = self.op(kind, Class::Visible, first, 0, format!("{text}: looks at user {cpu}"));
        }
        first
    }

    /// The gather notes when its flush was deferred, if that decides something.
    pub(super) fn note_deferral(&mut self, next: OpIndex) -> OpIndex {
        if !self.world.engine.bumps_once_per_deferral {
            return next;
        }
        self.read_local(Local::DeferGen);
        self.vars.read(Var::TlbGen(0));
        self.op(Kind::NoteDeferral, Class::Visible, next, 0, "defer_gen = tlb_gen of the mm".to_owned())
    }

    pub(super) fn flush_pending(&mut self, by: i8, next: OpIndex) -> OpIndex {
        if !self.pending_matters() {
            return next;
        }
        let var = self.vars.write(Var::FlushPending(u8::from(self.in_other_mm)));
        let name = if by > 0 { "inc" } else { "dec" };
        let text = format!("{name}_tlb_flush_pending()");
        let kind = if self.world.engine.tlb_flush_pending_is_bool {
            Kind::Set(var, u64::from(by > 0))
        } else {
            Kind::Add(var, by)
        };
        self.op(kind, Class::Visible, next, 0, text)
    }

    pub(super) fn pte_accessible(&mut self) -> (Test, Class) {
        if self.has_protnone() && self.pending_matters() {
            let pending = self.vars.read(Var::FlushPending(u8::from(self.in_other_mm)));
            (Test::PteAccessible { pending }, Class::Visible)
        } else {
            (Test::Pte { mask: pte::PRESENT, value: pte::PRESENT }, Class::Local)
        }
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

    // --- the batch of reclaim ----------------------------------------------------------------------------------------

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

    // --- pages -------------------------------------------------------------------------------------------------------

    fn fixed(&self, at: &At, name: &str) -> Result<u8> {
        match at.r.frame {
            PageRef::Fixed(frame) => Ok(frame),
            _ => Err(self.error(&format!("{name} outside a loop over pages"))),
        }
    }

    /// The dirty flag is taken, then the content is written.
    pub(super) fn write_out(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, name)?;
        self.vars.read(Var::Dirty(frame));
        self.read_local(Local::Cleaned);
        let page = self.frame_text(PageRef::Fixed(frame));
        let write = self.op(Kind::WriteOut(frame), Class::Visible, next, 0, format!("write out {page}"));
        let text = format!("folio_test_clear_dirty({page})");
        Ok(self.op(Kind::TestClearDirty(frame), Class::Visible, write, next, text))
    }

    pub(super) fn add_to_swap(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, "add_to_swap")?;
        let page = PageRef::Fixed(frame);
        let name = self.frame_text(page);
        let (cache, refs) = (self.by_frame(Var::Cached, false), self.by_frame(Var::Refs, false));
        self.by_frame(Var::Dirty, false);
        let next = self.op(Kind::SetDirty(page), Class::Visible, next, 0, format!("folio_mark_dirty({name})"));
        let kind = Kind::AddFrame { vars: refs, frame: page, by: 1 };
        let next = self.op(kind, Class::Urgent, next, 0, format!("folio_get({name})"));
        let kind = Kind::SetFrame { vars: cache, frame: page, value: 1 };
        Ok(self.op(kind, Class::Visible, next, 0, format!("add_to_swap({name})")))
    }

    pub(super) fn remove_mapping(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, "remove_mapping_and_free")?;
        for var in [Var::Mapcount(frame), Var::Dirty(frame), Var::Cached(frame), Var::Refs(frame)] {
            self.vars.read(var);
        }
        let text = format!("__remove_mapping({})", self.frame_text(PageRef::Fixed(frame)));
        Ok(self.op(Kind::RemoveMapping(frame), Class::Visible, next, 0, text))
    }

    pub(super) fn swap_in(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let spare = self.spare_of(&[self.page(at)?]);
        let cached = self.by_frame(Var::Cached, true);
        let refs = self.by_frame(Var::Refs, false);
        self.read_local(Local::NewFrame);
        let read = self.op(Kind::Alloc(spare), Class::Visible, next, 0, "swap_readpage(new page)".to_owned());
        // Found and got are one: what is found is given only if it could be got while it was there (folio_try_get()).
        let kind = Kind::AddFrame { vars: refs, frame: PageRef::New, by: 1 };
        let get = self.op(kind, Class::Local, next, 0, String::new());
        let found = self.op(Kind::UseOld, Class::Local, get, 0, String::new());
        self.read_local(Local::Pte);
        let in_cache = Test::Pte { mask: pte::ON_DISK, value: 0 };
        let test = Test::All(vec![in_cache, Test::FrameAbove(cached, 0)]);
        Ok(self.op(Kind::Branch(test), Class::Visible, found, read, "swap_cache_get_folio()".to_owned()))
    }

    pub(super) fn migrate_copy(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let PageRef::Fixed(frame) = at.r.frame else { return next };
        for var in [Var::Dirty, Var::Refs, Var::Lazyfree] {
            self.by_frame(var, false);
        }
        self.by_frame(Var::Cached, true);
        self.read_local(Local::NewFrame);
        let page = PageRef::Fixed(frame);
        let name = self.frame_text(page);
        let copy = self.op(Kind::Copy(page), Class::Visible, next, 0, format!("folio_copy({name})"));
        let replace = self.op(Kind::Replace(frame), Class::Visible, copy, 0, format!("folio_migrate_mapping({name})"));
        // The new page is locked until all entries lead to it (`migrate_folio_unmap()`), so that nobody else moves it on.
        self.by_frame(Var::FolioLock, true);
        let locked = self.op(Kind::AcquireFolio(PageRef::New), Class::Local, replace, 0, String::new());
        let spare = self.spare_of(&self.pages_of(frame));
        self.op(Kind::Alloc(spare), Class::Visible, locked, 0, "alloc_migration_target()".to_owned())
    }

    /// `remove_migration_pte()` for each entry, under its lock.
    pub(super) fn remove_migration(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let from = self.fixed(at, "remove_migration_ptes")?;
        let refs = self.by_frame(Var::Refs, false);
        self.by_frame(Var::Mapcount, false);
        // The ghost of the copy ends with a step of its own: stores see it, so that it must not end with an unlock.
        let next = self.op(Kind::CopyDone, Class::Local, next, 0, String::new());
        let kind = Kind::AddFrame { vars: refs, frame: PageRef::New, by: -1 };
        let next = self.op(kind, Class::Visible, next, 0, "folio_put(new page)".to_owned());
        let mut next = self.release_folio(PageRef::New, next);
        let migrated = self.read_local(Local::Migrated);
        for page in self.pages_of(from).into_iter().rev() {
            let table = self.world.pages[usize::from(page)].table;
            let after = next;
            let lock = self.vars.read(Var::Ptl(table));
            let kind = Kind::Set(lock, 0);
            let unlock = self.op(kind, Class::Urgent, after, 0, "pte_unmap_unlock()".to_owned());
            let text = format!("remove_migration_pte({})", self.page_text(page));
            self.vars.read(Var::Pte(page));
            let set = self.op(Kind::RemoveMigration { page, from }, Class::Visible, unlock, 0, text);
            let take = self.op(Kind::Acquire(lock), Class::Visible, set, 0, "pte_offset_map_lock()".to_owned());
            next = self.op(Kind::Branch(Test::Bit(migrated, page)), Class::Local, take, after, String::new());
        }
        Ok(next)
    }

    /// Maps a page at the current address: the rmap first, then the entry.
    pub(super) fn map_page(
        &mut self,
        at: &At,
        frame: PageRef,
        write: Option<super::vars::VarId>,
        mapping: Mapping,
        next: OpIndex,
    ) -> Result<OpIndex> {
        let Mapping { dirty, takes_ref, sole } = mapping;
        if sole {
            self.by_frame(Var::Mapcount, true);
        }
        let page = self.page(at)?;
        self.vars.read(Var::Pte(page));
        if frame == PageRef::New {
            self.read_local(Local::NewFrame);
        }
        let name = self.page_text(page);
        let next = self.op(Kind::CopyDone, Class::Local, next, 0, String::new());
        let kind = Kind::MapPage { page, frame, write, dirty, sole };
        let next = self.op(kind, Class::Visible, next, 0, format!("set_pte_at({name}, {})", self.frame_text(frame)));
        let counts = self.by_frame(Var::Mapcount, false);
        let kind = Kind::AddFrame { vars: counts, frame, by: 1 };
        let next = self.op(kind, Class::Visible, next, 0, format!("folio_add_rmap({})", self.frame_text(frame)));
        if !takes_ref {
            return Ok(next);
        }
        let refs = self.by_frame(Var::Refs, false);
        let kind = Kind::AddFrame { vars: refs, frame, by: 1 };
        Ok(self.op(kind, Class::Visible, next, 0, format!("folio_get({})", self.frame_text(frame))))
    }
}
