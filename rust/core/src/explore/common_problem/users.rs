//! User CPUs and their hardware: fills, evictions, the walk that sets D, stores, write faults, IPIs.

use super::layout::{
    ACCESSED, CLEAN_PAGE, CommonProblem, DIRTY, ENTRY, NEWER, PAGE_DIRTY, PRESENT, PTL, PTL_FAULT, STORES, TLB, VALID,
    WRITABLE, WRITE, Words,
};
use super::model::Kind;
use crate::explore::search::{Action, Class, Reductions, Sink};

impl<const U: usize, const P: usize, const W: usize> CommonProblem<U, P, W> {
    /// The monotone bits of one CPU's entries, in every lane.
    #[inline]
    pub(super) const fn entries_of(cpu: usize) -> Words<W> {
        Self::every(ENTRY << (TLB + 3 * cpu))
    }

    #[inline]
    fn drop_entries(state: &mut Words<W>, cpu: usize) {
        Self::clear_every(state, ENTRY << (TLB + 3 * cpu));
    }

    /// Every action of the users and their hardware, as they are.
    #[expect(clippy::needless_bitwise_bool, reason = "guards that are coin flips: no branches")]
    #[inline]
    pub(super) fn users(&self, state: &Words<W>, sink: &mut impl Sink<Words<W>>) {
        let faults_possible = self.faults_possible(state);
        for cpu in 0..U {
            self.interrupts(state, cpu, sink);
            let in_user_mode = Self::fault(state, cpu) == 0;
            for page in 0..P {
                let lane = Self::lane(state, page);
                let (word, shift) = Self::place(page);
                let entry_shift = TLB + 3 * cpu;
                let entry = lane >> entry_shift & ENTRY;
                let present = lane & PRESENT != 0;

                // Fill where there is no entry, eviction where there is one.
                let fill = Self::filled(lane) << entry_shift | ACCESSED;
                let filled = lane | fill;
                let evicted = lane & !(ENTRY << entry_shift);
                let empty = entry == 0;
                let mut next = *state;
                next[word] ^= (lane ^ if empty { filled } else { evicted }) << shift;
                let kind = if empty { Kind::Fill } else { Kind::Evict };
                sink.emit_if(present | !empty, kind.of(cpu, page), next);

                // A store through a writable clean entry sets D by another walk; through a dirty one it leaves no trace.
                let walks = entry == VALID | WRITABLE && lane & (PRESENT | WRITE) == PRESENT | WRITE;
                let stores = entry == ENTRY && lane & NEWER == 0;
                let change = if walks { DIRTY | ACCESSED | STORES << entry_shift } else { NEWER };
                let mut next = *state;
                next[word] |= change << shift;
                let kind = if walks { Kind::SetDirty } else { Kind::Store };
                sink.emit_if(in_user_mode & (walks | stores), kind.of(cpu, page), next);

                if faults_possible && in_user_mode {
                    Self::fault_lock(state, cpu, page, lane, sink);
                }
            }
        }
    }

    /// The same for the saturating engine: no evictions, no stores (those are eager), fills that replace an entry.
    #[inline]
    pub(super) fn users_saturated(
        &self,
        state: &Words<W>,
        reductions: Reductions,
        emit: &mut impl FnMut(Action, Words<W>, Class),
    ) {
        let faults_possible = self.faults_possible(state);
        for cpu in 0..U {
            let mut step = |action, next| emit(action, next, Class::Step);
            self.interrupts(state, cpu, &mut step);
            let in_user_mode = Self::fault(state, cpu) == 0;
            for page in 0..P {
                let lane = Self::lane(state, page);
                if lane & PRESENT == 0 {
                    continue;
                }
                let entry_shift = TLB + 3 * cpu;
                let fill = Self::filled(lane) << entry_shift | ACCESSED;
                // Where A is dead, `with_fills` has done this.
                let changes_base = lane & ACCESSED == 0 && !(reductions.dead && self.accessed_is_dead(state, page));
                if changes_base {
                    let mut next = *state;
                    Self::clear(&mut next, page, ENTRY << entry_shift); // the eviction: a stronger entry is lost
                    Self::set(&mut next, page, fill);
                    emit(Kind::Refill.of(cpu, page), next, Class::Fill);
                }
                if lane & (WRITE | DIRTY) == WRITE && in_user_mode {
                    let mut next = *state;
                    Self::set(&mut next, page, ENTRY << entry_shift | ACCESSED | DIRTY);
                    emit(Kind::RefillDirty.of(cpu, page), next, Class::Fill);
                }
                if faults_possible && in_user_mode {
                    Self::fault_lock(state, cpu, page, lane, &mut |action, next| emit(action, next, Class::Step));
                }
            }
        }
    }

    /// Every fill that leaves the base as it is: where A is set already (or dead) and the entry becomes stronger.
    #[inline]
    pub(super) fn fill_all(&self, state: &Words<W>, reductions: Reductions) -> Words<W> {
        let mut next = *state;
        for page in 0..P {
            let lane = Self::lane(state, page);
            if lane & ACCESSED != 0 || (reductions.dead && self.accessed_is_dead(state, page)) {
                // An entry is a thermometer: where the walk finds a weaker one than is there, nothing changes.
                Self::set(&mut next, page, (Self::filled(lane) * Self::EVERY_CPU) << TLB);
            }
        }
        next
    }

    /// Every store through a writable dirty entry of a CPU in user mode.
    #[inline]
    pub(super) fn store_all(state: &Words<W>) -> Words<W> {
        let mut next = *state;
        for cpu in 0..U {
            if Self::fault(state, cpu) == 0 {
                let stores = Self::every(STORES << (TLB + 3 * cpu));
                for word in 1..W {
                    next[word] |= (state[word] & stores[word]) >> (TLB + 3 * cpu + 2) << NEWER.trailing_zeros();
                }
            }
        }
        next
    }

    /// The lowest bit of the entry of each CPU.
    const EVERY_CPU: u64 = {
        let mut all = 0;
        let mut cpu = 0;
        while cpu < U {
            all |= 1 << (3 * cpu);
            cpu += 1;
        }
        all
    };

    /// The entry that a walk finds in this PTE.
    #[inline]
    pub(super) fn filled(lane: u64) -> u64 {
        let present = lane & PRESENT;
        let writable = present & lane >> 1;
        let dirty = writable & lane >> 2;
        present | writable << 1 | dirty << 2
    }

    /// Whether some write fault can begin now.
    #[inline]
    fn faults_possible(&self, state: &Words<W>) -> bool {
        PTL.get(state) == 0 && self.vma_is_writable(state)
    }

    #[inline]
    fn fault_lock(state: &Words<W>, cpu: usize, page: usize, lane: u64, sink: &mut impl Sink<Words<W>>) {
        if lane & (PRESENT | WRITE) == PRESENT && !Self::cleaner_locks(state, page) {
            let mut next = *state;
            PTL.set(&mut next, PTL_FAULT);
            Self::set_fault(&mut next, cpu, page as u64 + 1);
            sink.emit(Kind::FaultLock.of(cpu, page), next);
        }
    }

    /// IPIs, which arrive in user mode and in the fault handler alike, and the handler's further steps.
    #[inline]
    fn interrupts(&self, state: &Words<W>, cpu: usize, sink: &mut impl Sink<Words<W>>) {
        let bit = 1 << cpu;
        let (of_unmapper, of_cleaner) = (Self::unmap_ipis(state), Self::clean_ipis(state));
        if of_unmapper & bit != 0 {
            let mut next = *state;
            Self::drop_entries(&mut next, cpu);
            Self::set_unmap_ipis(&mut next, of_unmapper & !bit);
            sink.emit(Kind::UnmapIpi.of(cpu, 0), next);
        }
        if of_cleaner & bit != 0 {
            let mut next = *state;
            if self.reclaims() {
                Self::drop_entries(&mut next, cpu);
            } else {
                // page_mkclean flushes its page only
                Self::clear(&mut next, CLEAN_PAGE.get(state) as usize, ENTRY << (TLB + 3 * cpu));
            }
            Self::set_clean_ipis(&mut next, of_cleaner & !bit);
            sink.emit(Kind::CleanIpi.of(cpu, 0), next);
        }
        let fault = Self::fault(state, cpu);
        if fault == Self::FAULT_UNLOCK {
            sink.emit(Kind::FaultUnlock.of(cpu, 0), Self::fault_unlocked(state, cpu));
        } else if fault != 0 {
            let page = fault as usize - 1;
            let mut next = *state;
            if Self::lane(state, page) & (PRESENT | WRITE) == PRESENT && self.vma_is_writable(state) {
                Self::set(&mut next, page, WRITE | DIRTY | ACCESSED | PAGE_DIRTY);
            }
            Self::set_fault(&mut next, cpu, Self::FAULT_UNLOCK);
            sink.emit(Kind::FaultPte.of(cpu, page), next);
        }
    }

    /// The state after the handler's last step.
    #[inline]
    pub(super) fn fault_unlocked(state: &Words<W>, cpu: usize) -> Words<W> {
        let mut next = *state;
        Self::set_fault(&mut next, cpu, 0);
        PTL.set(&mut next, 0);
        next
    }
}
