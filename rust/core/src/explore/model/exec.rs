//! What each small step does to a packed state.

use std::sync::atomic::Ordering;

use crate::program::{MkWriteRule, ProtSource};

use super::entry::protnone;
use super::op::{Kind, Op, OpIndex, PageRef, Scope};
use super::pte;
use super::vars::{Field, VarId};
use super::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    #[inline]
    pub(super) fn field(&self, var: VarId) -> Field {
        self.fields[usize::from(var.0)]
    }

    #[inline]
    pub(super) fn value(&self, state: &[u64; W], var: VarId) -> u64 {
        self.field(var).get(state)
    }

    /// The frame that a step of the thread acts on.
    #[inline]
    pub(super) fn frame_of(&self, state: &[u64; W], thread: &ThreadFields, page: PageRef) -> usize {
        usize::from(match page {
            PageRef::Fixed(frame) => frame,
            PageRef::MappedAt(page) => pte::frame(self.entry_now(state, page).get(state)),
            PageRef::New => thread.new_frame.get(state) as u8,
            PageRef::OfPte | PageRef::None => pte::frame(thread.pte.get(state)),
        })
    }

    /// Takes a step and all local ones after it; false if it has to wait.
    pub(super) fn run(&self, state: &mut [u64; W], thread_index: usize, mut at: OpIndex) -> bool {
        let thread = &self.threads[thread_index];
        loop {
            let op = &self.ops[at as usize];
            match self.exec(state, thread, op) {
                None => return false,
                Some(next) => at = next,
            }
            if self.waits[at as usize] != super::NO_WAIT {
                break;
            }
        }
        self.wait_at(state, thread, at);
        true
    }

    /// On to a step: waits there if it is one to wait at, else takes it and the local ones after it.
    pub(super) fn go_on(&self, state: &mut [u64; W], thread: usize, at: OpIndex) {
        if self.waits[at as usize] == super::NO_WAIT {
            self.run(state, thread, at);
        } else {
            self.wait_at(state, &self.threads[thread], at);
        }
    }

    fn wait_at(&self, state: &mut [u64; W], thread: &ThreadFields, at: OpIndex) {
        thread.pc.set(state, u64::from(self.waits[at as usize]));
        if matches!(self.ops[at as usize].kind, Kind::Done | Kind::Idle(_)) {
            for (word, registers) in state.iter_mut().zip(thread.registers_mask(&self.register_masks)) {
                *word &= !registers;
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each small step")]
    fn exec(&self, state: &mut [u64; W], thread: &ThreadFields, op: &Op) -> Option<OpIndex> {
        match &op.kind {
            Kind::Done | Kind::Idle(_) | Kind::Choose => return None,
            Kind::Branch(test) => {
                return Some(if self.holds(state, thread, test) { op.next } else { op.other });
            }
            Kind::Set(var, value) => self.field(*var).set(state, *value),
            Kind::SetBits(var, bits) => {
                let field = self.field(*var);
                field.set(state, field.get(state) | bits);
            }
            Kind::Add(var, by) => self.add(state, self.field(*var), *by),
            Kind::Acquire(var) => {
                let field = self.field(*var);
                if field.get(state) != 0 {
                    return None;
                }
                field.set(state, 1);
            }
            Kind::AcquireFolio(page) => {
                let field = self.frames[self.frame_of(state, thread, *page)].lock;
                if field.get(state) != 0 {
                    return None;
                }
                field.set(state, 1);
            }
            Kind::ReleaseFolio(page) => self.frames[self.frame_of(state, thread, *page)].lock.set(state, 0),
            Kind::AcquireRead { readers, writer } => {
                if self.value(state, *writer) != 0 {
                    return None;
                }
                self.add(state, self.field(*readers), 1);
            }
            Kind::AcquireWrite { readers, writer } => {
                if self.value(state, *writer) != 0 || self.value(state, *readers) != 0 {
                    return None;
                }
                self.field(*writer).set(state, 1);
            }
            Kind::Downgrade { readers, writer } => {
                self.field(*writer).set(state, 0);
                self.add(state, self.field(*readers), 1);
            }

            Kind::ReadPte(page) => self.load(state, thread, *page),
            Kind::PteSame(page) => {
                let same = self.entry(state, thread, *page).get(state) == thread.pte.get(state);
                return Some(if same { op.next } else { op.other });
            }
            Kind::ReadIfMaps(page, frame) => {
                let entry = self.entry(state, thread, *page).get(state);
                if !pte::maps(entry) || pte::frame(entry) != *frame {
                    return Some(op.other);
                }
                self.load(state, thread, *page);
            }
            Kind::Xchg { page, discards } => self.xchg(state, thread, *page, *discards),
            Kind::ClearPte(page) => self.write_pte(state, thread, *page, 0),
            Kind::Modify(page, prot) => {
                let entry = thread.new.get(state);
                let modified = match prot {
                    ProtSource::None => protnone(entry),
                    ProtSource::Vma if self.pages[usize::from(*page)].vma_none.get(state) != 0 => protnone(entry),
                    ProtSource::Vma => {
                        let entry = if pte::is_protnone(entry) { pte::revive(entry) } else { entry };
                        // Private pages, and shared file pages whose writes are tracked: vm_page_prot has no W.
                        entry & !pte::WRITE
                    }
                };
                thread.new.set(state, modified);
            }
            Kind::Mkwrite { rule, vma_write, shared, mapcounts } => {
                let entry = thread.new.get(state);
                let writable = self.value(state, *vma_write) != 0 && pte::is_present(entry);
                let dirty = entry & pte::DIRTY != 0;
                let single = || {
                    let frame = usize::from(pte::frame(entry));
                    mapcounts.get(frame).is_some_and(|count| self.value(state, *count) == 1)
                        && self.is_exclusive(state, frame)
                };
                let allowed = match rule {
                    MkWriteRule::Always => true,
                    MkWriteRule::CanChangePteWritable => writable && if *shared { dirty } else { single() },
                    MkWriteRule::DirtyAccountable => writable && *shared && dirty,
                };
                if allowed {
                    thread.new.set(state, entry | pte::WRITE);
                }
            }
            Kind::ClearNewBits(bits) => {
                let entry = thread.new.get(state);
                thread.new.set(state, entry & !bits);
            }
            Kind::SetPte(page) => {
                let entry = thread.new.get(state);
                Self::settle_hold(state, thread, entry);
                self.write_pte(state, thread, *page, entry);
            }
            Kind::ClearPteBits(page, bits) => {
                let entry = self.entry(state, thread, *page).get(state) & !bits;
                thread.new.set(state, entry);
                self.write_pte(state, thread, *page, entry);
            }
            Kind::SetPteBits(page, bits) => {
                let bits = bits & self.pte_bits;
                let entry = self.entry(state, thread, *page).get(state) | bits;
                thread.new.set(state, entry);
                self.write_pte(state, thread, *page, entry);
            }
            Kind::Reuse(page, bits) => {
                let entry = self.entry(state, thread, *page).get(state) | bits & self.pte_bits;
                thread.new.set(state, entry);
                self.frames[usize::from(pte::frame(entry))].not_exclusive.set(state, 0);
                self.write_pte(state, thread, *page, entry);
            }
            Kind::Unhint { page, vma_write, mapcounts } => {
                let mut entry = pte::revive(self.entry(state, thread, *page).get(state));
                entry |= pte::YOUNG & self.pte_bits;
                let may_write = match mapcounts.get(usize::from(pte::frame(entry))) {
                    Some(count) => {
                        self.value(state, *count) == 1 && self.is_exclusive(state, usize::from(pte::frame(entry)))
                    }
                    None => entry & pte::DIRTY != 0,
                };
                if may_write && self.value(state, *vma_write) != 0 {
                    entry |= pte::WRITE;
                }
                self.write_pte(state, thread, *page, entry);
            }
            Kind::UseOld => {
                let frame = pte::frame(thread.pte.get(state));
                thread.new_frame.set(state, u64::from(frame));
            }
            Kind::SetPteAs { page, clears, of_new } => {
                let entry = if *of_new { thread.new.get(state) } else { thread.pte.get(state) } & !clears;
                Self::settle_hold(state, thread, entry);
                // Not in the table that is walked.
                self.write_entry(state, *page, self.entry_now(state, *page), entry);
            }
            Kind::QueueMulticall { page, clears, of_new } => {
                let entry = if *of_new { thread.new.get(state) } else { thread.pte.get(state) } & !clears;
                Self::settle_hold(state, thread, entry);
                thread.multicall[usize::from(*page)].set(state, entry);
            }
            Kind::Multicall(page) => {
                let queued = thread.multicall[usize::from(*page)];
                let entry = queued.get(state);
                if entry != 0 {
                    let field = self.entry_now(state, *page);
                    let kept = field.get(state) & (pte::YOUNG | pte::DIRTY);
                    let kept = if pte::is_present(entry) && pte::is_present(field.get(state)) { kept } else { 0 };
                    self.write_entry(state, *page, field, entry | kept);
                    queued.set(state, 0);
                }
            }
            Kind::MapPage { page, frame, write, dirty, sole } => {
                let frame = self.frame_of(state, thread, *frame) as u8;
                let mut entry = pte::present(frame, pte::YOUNG & self.pte_bits);
                // Its own mapping is counted already; one that is being taken away still is.
                let is_mapped_elsewhere = self.frames[usize::from(frame)].mapcount.get(state) > 1;
                let fields = &self.frames[usize::from(frame)];
                let is_ksm = fields.ksm.get(state) != 0;
                let is_sole = !is_ksm && !is_mapped_elsewhere && !self.is_known_elsewhere(state, *page, frame);
                if *sole && is_sole {
                    fields.not_exclusive.set(state, 0);
                }
                let may_write = !sole || is_sole;
                if may_write && write.is_some_and(|var| self.value(state, var) != 0) {
                    entry |= pte::WRITE | if *dirty { pte::DIRTY } else { 0 };
                }
                self.install(state, thread, *page, entry);
            }
            Kind::SetSwap(page) => {
                let entry = pte::absent(thread.pte.get(state), pte::SWAP) & !(pte::WRITE | pte::DIRTY | pte::YOUNG);
                self.write_pte(state, thread, *page, entry);
            }
            Kind::SetMigration(page) => {
                let entry = pte::absent(thread.pte.get(state), pte::MIGRATION);
                Self::settle_hold(state, thread, entry);
                self.write_pte(state, thread, *page, entry);
                let migrated = thread.migrated.get(state);
                thread.migrated.set(state, migrated | 1 << page);
            }
            Kind::RemoveMigration { page, from } => {
                let entry = self.entry(state, thread, *page).get(state);
                if pte::is_migration(entry) && pte::frame(entry) == *from {
                    let new = self.frame_of(state, thread, PageRef::New);
                    self.add(state, self.frames[new].mapcount, 1);
                    self.add(state, self.frames[new].refs, 1);
                    self.install(state, thread, *page, pte::revive(pte::with_frame(entry, new as u8)));
                }
            }

            Kind::AddFrame { vars, frame, by } => {
                let frame = self.frame_of(state, thread, *frame);
                self.add(state, self.field(vars[frame]), *by);
            }
            Kind::Reference { by, .. } => {
                let frame = &self.frames[usize::from(pte::frame(thread.pte.get(state)))];
                self.add(state, frame.refs, *by);
                self.add(state, frame.copied, *by);
            }
            Kind::SetFrame { vars, frame, value } => {
                let frame = self.frame_of(state, thread, *frame);
                self.field(vars[frame]).set(state, *value);
            }
            Kind::SetDirty(page) => {
                let frame = self.frame_of(state, thread, *page);
                self.frames[frame].dirty.set(state, 1);
                if thread.hold.get(state) == frame as u64 + 1 {
                    thread.hold.set(state, 0);
                }
            }
            Kind::TestClearDirty(frame) => {
                let fields = &self.frames[usize::from(*frame)];
                let writes = fields.dirty.get(state) != 0 || thread.cleaned.get(state) != 0;
                fields.dirty.set(state, 0);
                thread.cleaned.set(state, 0);
                thread.hold.set(state, 0);
                if !writes {
                    return Some(op.other);
                }
                thread.writing.set(state, u64::from(*frame) + 1);
            }
            Kind::WriteOut(frame) => {
                self.frames[usize::from(*frame)].newer.set(state, 0);
                thread.writing.set(state, 0);
            }
            Kind::MarkLazyfree(page) => {
                let fields = self.frames[self.frame_of(state, thread, *page)];
                fields.lazyfree.set(state, 1);
                fields.dirty.set(state, 0);
                fields.newer.set(state, 0);
                fields.kept.set(state, 0);
                fields.freer.set(state, thread.index as u64 + 1);
                thread.hold.set(state, 0);
            }
            Kind::Queue(page) => {
                if let Some(slot) = self.slot(self.home_of(state, thread, *page), pte::frame(thread.pte.get(state))) {
                    let queued = thread.queued.get(state);
                    thread.queued.set(state, queued | 1 << slot);
                }
            }
            Kind::DelayRmap(page) => {
                if let Some(slot) = self.slot(self.home_of(state, thread, *page), pte::frame(thread.pte.get(state))) {
                    let delayed = thread.delayed.get(state);
                    thread.delayed.set(state, delayed | 1 << slot);
                }
            }
            Kind::FlushRmaps => {
                let delayed = thread.delayed.get(state);
                for (slot, (page, frame)) in self.slots.iter().enumerate() {
                    if delayed >> slot & 1 != 0 {
                        self.add(state, self.frames[usize::from(*frame)].mapcount, -1);
                        self.use_anon_vma(state, *page, *frame);
                    }
                }
                thread.delayed.set(state, 0);
            }
            Kind::FreeQueued => {
                let queued = thread.queued.get(state);
                for (slot, (_, frame)) in self.slots.iter().enumerate() {
                    if queued >> slot & 1 != 0 {
                        self.add(state, self.frames[usize::from(*frame)].refs, -1);
                    }
                }
                thread.queued.set(state, 0);
            }
            Kind::RemoveMapping(frame) => {
                let fields = &self.frames[usize::from(*frame)];
                // The references of the list and of the cache only.
                let expected = 1 + fields.cached.get(state);
                let is_free = fields.mapcount.get(state) == 0
                    && fields.dirty.get(state) == 0
                    && fields.refs.get(state) == expected;
                if is_free {
                    fields.refs.set(state, 1);
                    fields.cached.set(state, 0);
                }
            }
            Kind::Truncate(frame) => {
                let fields = &self.frames[usize::from(*frame)];
                if fields.mapcount.get(state) == 0 && fields.cached.get(state) != 0 {
                    fields.cached.set(state, 0);
                    self.add(state, fields.refs, -1);
                    fields.newer.set(state, 0);
                    fields.dirty.set(state, 0);
                }
            }
            Kind::FindPage(frame) => {
                let fields = &self.frames[usize::from(*frame)];
                if fields.cached.get(state) == 0 {
                    fields.cached.set(state, 1);
                    self.add(state, fields.refs, 1);
                }
            }
            Kind::Isolate(page) => {
                if let PageRef::MappedAt(page) = page
                    && !pte::maps(self.entry_now(state, *page).get(state))
                {
                    return Some(op.next);
                }
                let frame = self.frame_of(state, thread, *page);
                let fields = &self.frames[frame];
                if fields.lru.get(state) != 0 && fields.refs.get(state) != 0 {
                    fields.lru.set(state, 0);
                    self.add(state, fields.refs, 1);
                    let listed = thread.listed.get(state);
                    thread.listed.set(state, listed | 1 << frame);
                }
            }
            Kind::Hold(page) => {
                let entry = self.pages[usize::from(*page)].pte.get(state);
                let frame = usize::from(pte::frame(entry));
                let listed = thread.listed.get(state);
                // One that several map is passed over.
                if pte::is_present(entry) && self.frames[frame].mapcount.get(state) == 1 && listed >> frame & 1 == 0 {
                    self.add(state, self.frames[frame].refs, 1);
                    thread.listed.set(state, listed | 1 << frame);
                }
            }
            Kind::StableTree { frame, is_first } => {
                if thread.merging.get(state) == 0 {
                    if *is_first {
                        thread.merging.set(state, 1);
                        thread.new_frame.set(state, u64::from(*frame));
                    }
                    self.frames[usize::from(*frame)].ksm.set(state, 1);
                }
            }
            Kind::DropList => {
                let listed = thread.listed.get(state);
                for (frame, fields) in self.frames.iter().enumerate() {
                    if listed >> frame & 1 != 0 {
                        self.add(state, fields.refs, -1);
                        if thread.isolates {
                            fields.lru.set(state, 1);
                        }
                    }
                }
                thread.listed.set(state, 0);
            }
            Kind::Alloc(allowed) => {
                let is_free = |index: &usize| allowed >> index & 1 != 0 && self.frames[*index].refs.get(state) == 0;
                let free = (0..self.frames.len()).find(is_free)?;
                self.frames[free].refs.set(state, 1);
                self.frames[free].lru.set(state, 1);
                self.frames[free].ksm.set(state, 0);
                self.frames[free].not_exclusive.set(state, 0);
                thread.new_frame.set(state, free as u64);
                self.forget_slots(state, free as u8);
            }
            Kind::Copy(page) => {
                let frame = self.frame_of(state, thread, *page);
                self.frames[frame].late.set(state, 0);
                thread.copying.set(state, frame as u64 + 1);
            }
            Kind::CopyDone => thread.copying.set(state, 0),
            Kind::Replace(frame) => {
                let new = self.frame_of(state, thread, PageRef::New);
                let (old, new) = (self.frames[usize::from(*frame)], self.frames[new]);
                let moved = [
                    (old.dirty, new.dirty),
                    (old.newer, new.newer),
                    (old.lazyfree, new.lazyfree),
                    (old.ksm, new.ksm),
                    (old.not_exclusive, new.not_exclusive),
                ];
                for (from, to) in moved {
                    to.set(state, from.get(state));
                    from.set(state, 0);
                }
                let cached = old.cached.get(state);
                let references = cached as i8;
                self.add(state, old.refs, -references);
                self.add(state, new.refs, references);
                new.cached.set(state, cached);
                old.cached.set(state, 0);
            }

            Kind::Table(step) => return self.table_step(state, thread, op, step),
            Kind::Record(var, page) => {
                let field = self.field(*var);
                field.set(state, hull(field.get(state) | 1 << page));
            }
            Kind::Send { .. } => {
                for pending in &thread.pending {
                    pending.set(state, 1);
                }
                if self.tlb_gen.mask != 0 {
                    self.add(state, self.tlb_gen, 1);
                }
            }
            Kind::Wait(_) => {
                if thread.pending.iter().any(|pending| pending.get(state) != 0) {
                    return None;
                }
            }
            Kind::NoteDeferral
            | Kind::BumpGen(_)
            | Kind::AddBatch(_)
            | Kind::OrBatchMask
            | Kind::OrBatchedCpus
            | Kind::AskCpu { .. }
            | Kind::Await { .. } => return self.exec_engine(state, thread, op),
            Kind::Invalidate(page) => {
                if pte::is_present(thread.pte.get(state)) {
                    let batch = thread.lazy_batch[thread.moved.get(state) as usize];
                    batch.set(state, batch.get(state) | 1 << page);
                }
            }
            Kind::EmptyLazyBatch => thread.lazy_batch[thread.moved.get(state) as usize].set(state, 0),
            Kind::Tlbi(scope) => {
                let pages = thread.tlbi.get(state) | u64::from(Self::covered(state, thread, *scope));
                thread.tlbi.set(state, pages);
                for pending in &thread.pending {
                    pending.set(state, 1);
                }
            }
            Kind::Dsb => {
                if thread.pending.iter().any(|pending| pending.get(state) != 0) {
                    return None;
                }
                thread.tlbi.set(state, 0);
            }
            Kind::ReadBatched(_) => {
                let (pending, flushed) = (self.batch_pending.get(state), self.batch_flushed.get(state));
                thread.batch_pending.set(state, pending);
                thread.batch_flushed.set(state, flushed);
            }
            Kind::StoreBatched(_) => {
                let mine = (thread.batch_pending.get(state), thread.batch_flushed.get(state));
                if mine == (self.batch_pending.get(state), self.batch_flushed.get(state)) {
                    self.batch_flushed.set(state, mine.0);
                }
            }
            Kind::NoteGen { defer, tlb_gen } => {
                let next = self.value(state, *tlb_gen) + 1;
                self.field(*defer).set(state, next);
            }
            Kind::CopyVar { from, to } => {
                let value = self.value(state, *from);
                self.field(*to).set(state, value);
            }
            Kind::Return(promise) => self.promise(state, thread, *promise),
        }
        Some(op.next)
    }

    /// Adds to a counter. One that would leave its field stays as it is, and the search says so: programs that do not pair
    /// what they count have no meaning here.
    #[inline]
    pub(super) fn add(&self, state: &mut [u64; W], field: Field, by: i8) {
        let value = field.get(state).wrapping_add_signed(i64::from(by));
        if value > field.mask {
            if field.mask != 0 {
                self.counter_left.store(true, Ordering::Relaxed);
            }
            return;
        }
        field.set(state, value);
    }

    /// The frame is another page's from now on: swap entries that named it for what their slot holds lead to the disk.
    fn forget_slots(&self, state: &mut [u64; W], frame: u8) {
        let entries = self.pages.iter().map(|page| page.pte).chain(self.threads.iter().map(|thread| thread.pte));
        for field in entries {
            let entry = field.get(state);
            if pte::is_swap(entry) && pte::frame(entry) == frame {
                field.set(state, entry | pte::ON_DISK);
            }
        }
    }

    /// Nobody but its one mapping has had the page since it was written last (`PageAnonExclusive`).
    fn is_exclusive(&self, state: &[u64; W], frame: usize) -> bool {
        let fields = &self.frames[frame];
        fields.ksm.get(state) == 0 && fields.not_exclusive.get(state) == 0
    }

    /// The step that a thread is at.
    #[inline]
    pub(super) fn op_of(&self, state: &[u64; W], thread: &ThreadFields) -> &Op {
        &self.ops[thread.waiting[thread.pc.get(state) as usize] as usize]
    }

    /// The virtual pages that a flush of the thread covers.
    pub(super) fn covered(state: &[u64; W], thread: &ThreadFields, scope: Scope) -> u32 {
        match scope {
            Scope::Pages(mask) | Scope::PagesAndTables(mask) => mask,
            Scope::Gather(all) => {
                if thread.full_mm.get(state) != 0 {
                    all
                } else {
                    thread.range.get(state) as u32
                }
            }
            Scope::LazyBatch => thread.lazy_batch[thread.moved.get(state) as usize].get(state) as u32,
            Scope::Tracked => thread.tracked.get(state) as u32,
        }
    }

    pub(super) fn slot(&self, page: u8, frame: u8) -> Option<usize> {
        self.slot_of[usize::from(page)][usize::from(frame)].map(usize::from)
    }
}

/// All bits from the lowest to the highest that is set: a range has no holes.
pub(super) fn hull(bits: u64) -> u64 {
    let high = 64 - bits.leading_zeros();
    let low = bits.trailing_zeros();
    super::vars::ones(high) & !super::vars::ones(low)
}
