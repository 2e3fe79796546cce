//! The explorer's model: programs of a kernel on several CPUs, in every order, on a small packed state with adversarial
//! hardware.
//!
//! [`Blueprint::new`] unrolls the programs of a scenario to small steps ([`op`]) and finds the variables that matter;
//! [`KernelModel`] runs them on states of `W` words and is what the engines search.

mod at;
mod blueprint;
mod conditions;
mod declare;
mod engine;
mod entry;
mod exec;
mod hardware;
mod huge;
mod invariant;
mod judge;
mod leaf;
mod leaf_batch;
mod leaf_counts;
mod leaf_deferred;
mod leaf_entry;
mod leaf_fault;
mod leaf_flush;
mod leaf_gather;
mod leaf_lazy_mmu;
mod leaf_lock;
mod leaf_page;
mod leaf_vma;
mod listing;
mod liveness;
mod loops;
pub mod op;
mod prune;
pub mod pte;
mod symmetry;
pub mod tables;
mod text;
mod unroll;
mod vars;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::hardware::thread_action;
use self::op::{Kind, Op, OpIndex};
use self::vars::Field;
use super::scenario::Kind as Content;
use super::search::{Action, Class, Model, NotMonotone, Reductions, Sink};

pub use blueprint::Blueprint;
pub use invariant::Invariant;
pub use text::{Event, Snapshot};

/// The step is not one that a thread waits at.
const NO_WAIT: u32 = u32::MAX;

/// Where a thread's registers lie.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent ways in which a thread is told from others")]
struct ThreadFields {
    pc: Field,
    pte: Field,
    new: Field,
    range: Field,
    full_mm: Field,
    freed_tables: Field,
    tlbi: Field,
    lazy_batch: [Field; 2],
    moved: Field,
    /// By virtual page.
    multicall: Vec<Field>,
    flush_gen: Field,
    defer_gen: Field,
    batch_mask: Vec<Field>,
    queued: Field,
    delayed: Field,
    pending: Vec<Field>,
    batch_pending: Field,
    batch_flushed: Field,
    listed: Field,
    new_frame: Field,
    cleaned: Field,
    tracked: Field,
    hold: Field,
    writing: Field,
    copying: Field,
    migrated: Field,
    merging: Field,
    /// Pages on its list are off the LRU list.
    isolates: bool,
    walk: Field,
    aside: Field,
    tables: Field,
    /// It leaves entries that it finds changed as they are: it promises something about a page only once it has made
    /// (or found) its entry read-only.
    may_give_up: bool,
    /// It walks page tables without locks.
    is_walker: bool,
    /// Flushes of its gather leave the way to tables of executable memory cached.
    keeps_exec: bool,
    /// The steps that it can be at, by the value of `pc`.
    waiting: Vec<OpIndex>,
    /// page_mkclean tells what it found only at the end.
    keeps_hold: bool,
    visited: Field,
    /// Virtual pages that look different to the application while it runs.
    changes: u32,
    /// Virtual pages that it promises to have unmapped, and to have write-protected.
    unmaps: u32,
    protects: u32,
    /// Its position before its first step.
    start: u64,
    /// Its number.
    index: usize,
}

impl ThreadFields {
    /// It has come by a virtual page about which it promises something.
    #[inline]
    fn visit<const W: usize>(&self, state: &mut [u64; W], page: u8) {
        if (self.unmaps | self.protects) >> page & 1 != 0 {
            self.visited.set(state, self.visited.get(state) | 1 << page);
        }
    }

    /// Widens the range of its gather to a virtual page.
    fn record<const W: usize>(&self, state: &mut [u64; W], page: u8) {
        self.range.set(state, exec::hull(self.range.get(state) | 1 << page));
    }

    /// All its registers but the position and the answers to IPIs.
    fn registers_mask<'m, const W: usize>(&self, masks: &'m [[u64; W]]) -> &'m [u64; W] {
        &masks[self.index]
    }
}

/// Where the variables of a virtual page lie.
#[derive(Clone, Copy, Debug)]
struct PageFields<const W: usize> {
    pte: Field,
    /// Its VMA allows nothing.
    vma_none: Field,
    unmapped: Field,
    protected: Field,
    /// Nobody maps anything here, so that an unmapping call must leave nothing.
    must_be_gone: bool,
    /// The TLB entries for it, of all CPUs.
    tlb_mask: [u64; W],
    /// Of these, the bits that let stores leave no trace: an entry without D has to walk first, and faults.
    tlb_dirty_mask: [u64; W],
}

/// Where the variables of a frame lie.
#[derive(Clone, Copy, Debug)]
struct FrameFields<const W: usize> {
    content: Content,
    is_spare: bool,
    can_be_freed: bool,
    dirty: Field,
    mapcount: Field,
    refs: Field,
    copied: Field,
    lock: Field,
    lazyfree: Field,
    ksm: Field,
    not_exclusive: Field,
    cached: Field,
    lru: Field,
    newer: Field,
    late: Field,
    kept: Field,
    freer: Field,
    /// A truncation gives its content up.
    is_truncated: bool,
    /// The TLB entries that lead to it, of all CPUs.
    tlb_mask: [u64; W],
    /// Of these, the bits that let stores leave no trace.
    tlb_dirty_mask: [u64; W],
}

/// A scenario on states of `W` words.
#[derive(Clone, Debug)]
pub struct KernelModel<const W: usize> {
    blueprint: Blueprint,
    ops: Vec<Op>,
    /// For each step: its number among those that its thread waits at, or [`NO_WAIT`].
    waits: Vec<u32>,
    fields: Vec<Field>,
    threads: Vec<ThreadFields>,
    register_masks: Vec<[u64; W]>,
    /// For each step, what may matter from there on of all but the other threads' registers.
    keep: Vec<[u64; W]>,
    pages: Vec<PageFields<W>>,
    frames: Vec<FrameFields<W>>,
    /// (virtual page, frame): what a TLB can hold.
    slots: Vec<(u8, u8)>,
    /// By virtual page and frame: the number of that slot.
    slot_of: Vec<Vec<Option<u8>>>,
    /// By slot: the entries of all CPUs if they are read-only, writable, writable and dirty.
    filled: Vec<[[u64; W]; 3]>,
    /// By CPU and slot.
    tlb: Vec<Vec<Field>>,
    tables: tables::Tables<W>,
    columns: Vec<Field>,
    /// Threads that run the same and may change names.
    twins: Vec<symmetry::Twins>,
    monotone: [u64; W],
    /// All bits that belong to user CPUs.
    of_users: [u64; W],
    tlb_gen: Field,
    engine: Option<engine::Engine>,
    batch_pending: Field,
    batch_flushed: Field,
    seen: Field,
    checked: u32,
    /// The bits of an entry that are modelled.
    pte_bits: u64,
    start: [u64; W],
    /// A counter was to go below 0 or above what its field holds.
    counter_left: Arc<AtomicBool>,
}

impl<const W: usize> KernelModel<W> {
    /// Whether any step was to take a counter below 0 or above what its field holds: more references dropped than there
    /// were, say. What was searched beyond it means nothing.
    pub fn counter_left(&self) -> bool {
        self.counter_left.load(Ordering::Relaxed)
    }

    /// Takes one step of a thread; a faulter has several to choose from.
    fn thread_steps(&self, state: &[u64; W], index: usize, mut emit: impl FnMut(Action, [u64; W])) {
        let thread = &self.threads[index];
        let at = thread.waiting[thread.pc.get(state) as usize];
        match &self.ops[at as usize].kind {
            Kind::Done => {}
            Kind::Choose => {
                let op = &self.ops[at as usize];
                for (choice, target) in [op.next, op.other].into_iter().enumerate() {
                    let mut next = *state;
                    if self.enter(&mut next, index, target) {
                        emit(thread_action(index, choice), next);
                    }
                }
            }
            Kind::Idle(choices) => {
                for (choice, (page, write, target)) in choices.iter().enumerate() {
                    if !self.would_fault(state, *page, *write) {
                        continue;
                    }
                    let mut next = *state;
                    if self.enter(&mut next, index, *target) {
                        emit(thread_action(index, choice), next);
                    }
                }
            }
            Kind::Table(tables::TableStep::Batch) => {
                let op = &self.ops[at as usize];
                // With a batch there already, nothing is allocated.
                let can_fail = thread.tables.get(state).is_power_of_two();
                for (choice, target) in [op.next, op.other].into_iter().take(1 + usize::from(can_fail)).enumerate() {
                    let mut next = *state;
                    self.go_on(&mut next, index, target);
                    emit(thread_action(index, choice), next);
                }
            }
            _ => {
                let mut next = *state;
                if self.run(&mut next, index, at) {
                    emit(thread_action(index, 0), next);
                }
            }
        }
    }

    /// Takes the first step of a fault: waits there if it is one to wait at.
    fn enter(&self, state: &mut [u64; W], index: usize, target: OpIndex) -> bool {
        self.run(state, index, target)
    }

    /// Whether an access to the page would fault by the page tables.
    fn would_fault(&self, state: &[u64; W], page: u8, write: bool) -> bool {
        let entry = self.entry_now(state, page).get(state);
        !pte::is_present(entry) || write && entry & pte::WRITE == 0
    }

    /// The invariants that are checked, one bit each.
    pub fn checked(&self) -> u32 {
        self.checked
    }

    /// What it was made from.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }
}

impl<const W: usize> Model for KernelModel<W> {
    type State = [u64; W];

    fn initial(&self) -> Vec<[u64; W]> {
        self.engine.as_ref().map_or_else(|| vec![self.start], |engine| engine.set_starts(self.start))
    }

    fn successors(&self, state: &[u64; W], sink: &mut impl Sink<[u64; W]>) {
        for index in 0..self.threads.len() {
            self.thread_steps(state, index, |action, next| sink.emit(action, next));
        }
        self.user_steps(state, |action, next| sink.emit(action, next));
    }

    fn violations(&self, state: &[u64; W]) -> u32 {
        self.violated(state)
    }

    fn urgent(&self, state: &[u64; W]) -> Option<(Action, [u64; W])> {
        for (index, thread) in self.threads.iter().enumerate() {
            let at = thread.waiting[thread.pc.get(state) as usize];
            if self.ops[at as usize].class == op::Class::Urgent {
                let mut next = *state;
                if self.run(&mut next, index, at) {
                    return Some((thread_action(index, 0), next));
                }
            }
        }
        None
    }

    fn without_dead(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        for thread in &self.threads {
            let at = thread.waiting[thread.pc.get(state) as usize];
            for (word, keep) in next.iter_mut().zip(self.keep[at as usize]) {
                *word &= keep;
            }
        }
        next
    }

    fn with_cpus_sorted(&self, state: &[u64; W]) -> [u64; W] {
        self.with_names_sorted(state)
    }

    fn renamed(&self, state: &[u64; W]) -> Vec<[u64; W]> {
        self.all_renamed(state)
    }

    fn with_stores(&self, state: &[u64; W]) -> [u64; W] {
        self.all_stores(state)
    }

    fn without_cpus(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        for (word, users) in next.iter_mut().zip(self.of_users) {
            *word &= !users;
        }
        next
    }

    fn monotone(&self) -> Result<[u64; W], NotMonotone> {
        Ok(self.monotone)
    }

    fn saturated_successors(
        &self,
        state: &[u64; W],
        reductions: Reductions,
        emit: &mut impl FnMut(Action, [u64; W], Class),
    ) {
        for index in 0..self.threads.len() {
            self.thread_steps(state, index, |action, next| emit(action, next, Class::Step));
        }
        self.saturated_user_steps(state, reductions.symmetry, emit);
    }

    fn with_fills(&self, state: &[u64; W], _reductions: Reductions) -> [u64; W] {
        self.all_fills(state)
    }

    fn describe(&self, state: &[u64; W], action: Action) -> String {
        let event = self.event(state, action);
        format!("{}: {}", event.who, event.text)
    }
}
