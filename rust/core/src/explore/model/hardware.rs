//! What the hardware and user threads do at any time: fill and drop TLB entries, set A and D, store, answer IPIs.

use super::invariant::meets;
use super::op::Kind;
use super::pte;
use super::vars::Field;
use super::{Class, KernelModel};
use crate::explore::search::Action;

/// A TLB entry that allows reading.
pub(super) const READ: u64 = 0b001;
/// One that allows writing after a walk that sets D.
pub(super) const WRITE: u64 = 0b011;
/// One through which stores leave no trace.
pub(super) const WRITE_DIRTY: u64 = 0b111;

/// What a user CPU does with one TLB entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Deed {
    Fill = 0,
    Evict = 1,
    SetDirty = 2,
    Store = 3,
    /// Evict and fill.
    Refill = 4,
    /// Evict, fill and set D.
    RefillDirty = 5,
}

const DEEDS: [Deed; 6] = [Deed::Fill, Deed::Evict, Deed::SetDirty, Deed::Store, Deed::Refill, Deed::RefillDirty];

const OF_HARDWARE: u32 = 1 << 16;
const OF_IPI: u32 = 1 << 17;
const OF_CPU: u32 = 1 << 18;
const OF_UPPER: u32 = 1 << 19;

/// An action, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Actor {
    /// A kernel thread takes its next step, or one of several.
    Thread { thread: usize, choice: usize },
    /// A user CPU does something with a TLB entry.
    User { cpu: usize, slot: usize, deed: Deed },
    /// A user CPU goes on in its kernel code, by the number of the deed.
    Cpu { cpu: usize, deed: usize },
    /// A user CPU does something with a cached upper entry.
    Upper { cpu: usize, number: usize, deed: Deed },
    /// A user CPU answers a thread's IPI.
    Ipi { cpu: usize, thread: usize },
}

pub(super) fn thread_action(thread: usize, choice: usize) -> Action {
    Action((thread << 8 | choice) as u32)
}

pub(super) fn user_action(cpu: usize, slot: usize, via: usize, deed: Deed) -> Action {
    Action(OF_HARDWARE | (via << 20 | cpu << 12 | slot << 4 | deed as usize) as u32)
}

fn upper_action(cpu: usize, number: usize, deed: Deed) -> Action {
    Action(OF_UPPER | (cpu << 12 | number << 4 | deed as usize) as u32)
}

pub(super) fn ipi_action(cpu: usize, thread: usize) -> Action {
    Action(OF_IPI | (thread << 8 | cpu) as u32)
}

pub(super) fn cpu_action(cpu: usize, deed: usize) -> Action {
    Action(OF_CPU | (cpu << 8 | deed) as u32)
}

pub(super) fn actor(action: Action) -> Actor {
    let n = action.0 as usize;
    if action.0 & OF_CPU != 0 {
        Actor::Cpu { cpu: n >> 8 & 0xff, deed: n & 0xff }
    } else if action.0 & OF_IPI != 0 {
        Actor::Ipi { cpu: n & 0xff, thread: n >> 8 & 0xff }
    } else if action.0 & OF_UPPER != 0 {
        Actor::Upper { cpu: n >> 12 & 0xf, number: n >> 4 & 0xff, deed: DEEDS[n & 0xf] }
    } else if action.0 & OF_HARDWARE != 0 {
        Actor::User { cpu: n >> 12 & 0xf, slot: n >> 4 & 0xff, deed: DEEDS[n & 0xf] }
    } else {
        Actor::Thread { thread: n >> 8, choice: n & 0xff }
    }
}

impl<const W: usize> KernelModel<W> {
    /// What a walk to an entry would cache: 0 if it does not lead to the frame.
    #[inline]
    pub(super) fn walked(state: &[u64; W], entry: Field, frame: u8) -> u64 {
        let entry = entry.get(state);
        if !pte::is_present(entry) || pte::frame(entry) != frame {
            return 0;
        }
        match entry & (pte::WRITE | pte::DIRTY) {
            pte::WRITE => WRITE,
            bits if bits == pte::WRITE | pte::DIRTY => WRITE_DIRTY,
            _ => READ,
        }
    }

    #[inline]
    fn is_old(&self, state: &[u64; W], entry: Field) -> bool {
        self.pte_bits & pte::YOUNG != 0 && entry.get(state) & pte::YOUNG == 0
    }

    #[inline]
    fn set_bits(&self, state: &mut [u64; W], entry: Field, bits: u64) {
        entry.set(state, entry.get(state) | bits & self.pte_bits);
    }

    /// A store through the slot's entry: what it changes.
    #[inline]
    fn store(&self, state: &mut [u64; W], frame: u8) {
        let fields = &self.frames[usize::from(frame)];
        if fields.lazyfree.get(state) == 0 || fields.kept.get(state) != 0 {
            fields.newer.set(state, 1);
        }
        if fields.late.mask != 0 && self.threads.iter().any(|t| t.copying.get(state) == u64::from(frame) + 1) {
            fields.late.set(state, 1);
        }
    }

    /// Everything that user CPUs can do.
    pub(super) fn user_steps(&self, state: &[u64; W], mut emit: impl FnMut(Action, [u64; W])) {
        for (cpu, entries) in self.tlb.iter().enumerate() {
            let runs = self.runs_user(state, cpu);
            for (slot, field) in entries.iter().enumerate() {
                let (page, frame) = self.slots[slot];
                let held = field.get(state);
                if held != 0 {
                    let mut next = *state;
                    field.set(&mut next, 0);
                    emit(user_action(cpu, slot, 0, Deed::Evict), next);
                }
                self.for_each_walk(state, cpu, page, |via, entry| {
                    let walked = Self::walked(state, entry, frame);
                    if held == 0 && walked != 0 {
                        let mut next = *state;
                        field.set(&mut next, walked);
                        self.set_bits(&mut next, entry, pte::YOUNG);
                        emit(user_action(cpu, slot, via, Deed::Fill), next);
                    }
                    if held == WRITE && walked >= WRITE && runs {
                        let mut next = *state;
                        field.set(&mut next, WRITE_DIRTY);
                        self.set_bits(&mut next, entry, pte::YOUNG | pte::DIRTY);
                        emit(user_action(cpu, slot, via, Deed::SetDirty), next);
                    }
                });
                if held == WRITE_DIRTY && runs {
                    let mut next = *state;
                    self.store(&mut next, frame);
                    if next != *state {
                        emit(user_action(cpu, slot, 0, Deed::Store), next);
                    }
                }
            }
            for (number, cached) in self.uncached(state, cpu) {
                let mut next = *state;
                cached.set(&mut next, 1);
                emit(upper_action(cpu, number, Deed::Fill), next);
            }
            for (number, cached) in self.cached(state, cpu) {
                let mut next = *state;
                cached.set(&mut next, 0);
                emit(upper_action(cpu, number, Deed::Evict), next);
            }
        }
        self.answers(state, false, emit);
    }

    /// CPUs answer IPIs.
    fn answers(&self, state: &[u64; W], symmetry: bool, mut emit: impl FnMut(Action, [u64; W])) {
        if self.engine.is_some() {
            return self.engine_steps(state, emit);
        }
        for (index, thread) in self.threads.iter().enumerate() {
            for (cpu, pending) in thread.pending.iter().enumerate() {
                if pending.get(state) == 0 || symmetry && self.is_like_the_one_before(state, cpu) {
                    continue;
                }
                let mut next = *state;
                pending.set(&mut next, 0);
                let covered = match self.op_of(state, thread).kind {
                    Kind::Wait(scope) => {
                        self.drop_cached(&mut next, cpu, thread, scope);
                        Self::covered(state, thread, scope)
                    }
                    _ => thread.tlbi.get(state) as u32,
                };
                if covered != 0 {
                    for (slot, (page, _)) in self.slots.iter().enumerate() {
                        if covered >> page & 1 != 0 {
                            self.tlb[cpu][slot].set(&mut next, 0);
                        }
                    }
                }
                emit(ipi_action(cpu, index), next);
            }
        }
    }

    /// The same for the saturating engine: entries are never just dropped, and are dropped, filled and made dirty in one
    /// step. All fills and stores that change nothing but monotone bits have happened (`with_fills`, `with_stores`), so that
    /// none of them is a step. With `symmetry`, of CPUs that hold the same only the first takes one.
    pub(super) fn saturated_user_steps(
        &self,
        state: &[u64; W],
        symmetry: bool,
        mut emit: impl FnMut(Action, [u64; W], Class),
    ) {
        for (cpu, entries) in self.tlb.iter().enumerate() {
            if symmetry && self.is_like_the_one_before(state, cpu) {
                continue;
            }
            let runs = self.runs_user(state, cpu);
            for (page, slots) in self.slot_of.iter().enumerate() {
                self.for_each_walk(state, cpu, page as u8, |via, entry| {
                    let Some(slot) = Self::slot_walked_to(state, entry, slots) else { return };
                    let (frame, field) = (self.slots[slot].1, entries[slot]);
                    let walked = Self::walked(state, entry, frame);
                    if walked > field.get(state) || self.is_old(state, entry) {
                        let mut next = *state;
                        field.set(&mut next, walked);
                        self.set_bits(&mut next, entry, pte::YOUNG);
                        emit(user_action(cpu, slot, via, Deed::Refill), next, Class::Fill);
                    }
                    if walked == WRITE && runs {
                        let mut next = *state;
                        field.set(&mut next, WRITE_DIRTY);
                        self.set_bits(&mut next, entry, pte::YOUNG | pte::DIRTY);
                        emit(user_action(cpu, slot, via, Deed::RefillDirty), next, Class::Fill);
                    }
                });
            }
            for (number, cached) in self.uncached(state, cpu) {
                let mut next = *state;
                cached.set(&mut next, 1);
                emit(upper_action(cpu, number, Deed::Refill), next, Class::Fill);
            }
        }
        self.answers(state, symmetry, |action, next| emit(action, next, Class::Step));
    }

    /// The slot of an entry that can be walked to; `slots` are those of its page by frame.
    #[inline]
    fn slot_walked_to(state: &[u64; W], entry: Field, slots: &[Option<u8>]) -> Option<usize> {
        let entry = entry.get(state);
        if pte::is_present(entry) { slots[usize::from(pte::frame(entry))].map(usize::from) } else { None }
    }

    /// Every store that changes only monotone bits: all of them do.
    pub(super) fn all_stores(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        if self.engine.is_none() {
            for (frame, fields) in self.frames.iter().enumerate() {
                if meets(state, &fields.tlb_dirty_mask) {
                    self.store(&mut next, frame as u8);
                }
            }
            return next;
        }
        for (_, entries) in self.tlb.iter().enumerate().filter(|(cpu, _)| self.runs_user(state, *cpu)) {
            for (slot, field) in entries.iter().enumerate() {
                if field.get(state) == WRITE_DIRTY {
                    self.store(&mut next, self.slots[slot].1);
                }
            }
        }
        next
    }

    /// Every fill that changes only monotone bits.
    pub(super) fn all_fills(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        if self.engine.is_none() && self.tables.are_fixed() {
            // Every CPU walks to the same entries.
            for (fields, slots) in self.pages.iter().zip(&self.slot_of) {
                if let Some(slot) = Self::slot_walked_to(state, fields.pte, slots)
                    && !self.is_old(state, fields.pte)
                {
                    let walked = Self::walked(state, fields.pte, self.slots[slot].1);
                    let filled = &self.filled[slot][walked.count_ones() as usize - 1];
                    next.iter_mut().zip(filled).for_each(|(word, bits)| *word |= bits);
                }
            }
            return next;
        }
        for (cpu, entries) in self.tlb.iter().enumerate() {
            for (_, cached) in self.uncached(state, cpu) {
                cached.set(&mut next, 1);
            }
            let from = next;
            for (page, slots) in self.slot_of.iter().enumerate() {
                self.for_each_walk(&from, cpu, page as u8, |_, entry| {
                    let Some(slot) = Self::slot_walked_to(&from, entry, slots) else { return };
                    let walked = Self::walked(&from, entry, self.slots[slot].1);
                    if walked > entries[slot].get(&next) && !self.is_old(&from, entry) {
                        entries[slot].set(&mut next, walked);
                    }
                });
            }
        }
        next
    }
}
