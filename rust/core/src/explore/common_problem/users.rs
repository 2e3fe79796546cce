//! User CPUs and their hardware: fills, evictions, the walk that sets D, stores, write faults, IPIs.

use super::layout::{ACCESSED, CommonProblem, DIRTY, NEWER, PAGE_DIRTY, PRESENT, PTL_FREE, TLB, WRITE, Words};
use super::model::Kind;
use crate::explore::search::{Action, Class, Reductions, Sink};

/// What the hardware of one CPU can do about the pages of one word: sets of pages, by the first bits of their lanes, and what
/// the steps change, each in its lane.
#[derive(Clone, Copy, Default)]
struct LaneSteps {
    /// No entry of the CPU.
    empty: u64,
    /// A fill, or else an eviction.
    fills: u64,
    /// What either changes.
    fill: u64,
    /// A store through a writable dirty entry that makes the page newer.
    stores: u64,
    /// A store through a writable clean one, which walks again.
    walks: u64,
    /// What either sets.
    store: u64,
}

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    /// The monotone bits of one CPU's entries, in every lane.
    #[inline]
    pub(super) const fn entries_of(cpu: usize) -> Words<W> {
        Self::every(Self::ENTRY << Self::entry(cpu))
    }

    #[inline]
    fn drop_entries(state: &mut Words<W>, cpu: usize) {
        Self::clear_every(state, Self::ENTRY << Self::entry(cpu));
    }

    /// Every action of the users and their hardware, as they are.
    #[inline]
    pub(super) fn users(&self, state: &Words<W>, sink: &mut impl Sink<Words<W>>) {
        let faultable = self.faultable(state);
        // Compilers do not unroll a loop as long as this one; at the size that is timed its shifts are to be constants.
        if U == 2 {
            self.user(state, 0, &faultable, sink);
            self.user(state, 1, &faultable, sink);
        } else {
            (0..U).for_each(|cpu| self.user(state, cpu, &faultable, sink));
        }
    }

    #[expect(clippy::inline_always, reason = "as said above")]
    #[inline(always)]
    fn user(&self, state: &Words<W>, cpu: usize, faultable: &Words<W>, sink: &mut impl Sink<Words<W>>) {
        self.interrupts(state, cpu, sink);
        let user_mode = u64::from(Self::is_in_user_mode(state, cpu)).wrapping_neg();
        let mut steps = [LaneSteps::default(); W];
        for word in Self::FIRST..W {
            steps[word] = Self::lane_steps(state[word], word, cpu);
        }
        for page in 0..P {
            let (word, shift) = Self::place(page);
            let LaneSteps { empty, fills, fill, stores, walks, store } = steps[word];
            let is = |lanes: u64| lanes >> shift & 1 != 0;
            let lane = Self::LANE_MASK << shift;

            let mut next = *state;
            next[word] ^= fill & lane;
            let kind = if is(empty) { Kind::Fill } else { Kind::Evict };
            sink.emit_if(is(fills), kind.of(cpu, page), next);

            let mut next = *state;
            next[word] |= store & lane;
            let kind = if is(walks) { Kind::SetDirty } else { Kind::Store };
            sink.emit_if(is((walks | stores) & user_mode), kind.of(cpu, page), next);

            if is(faultable[word]) {
                sink.emit(Kind::FaultLock.of(cpu, page), Self::fault_locked(state, cpu, page));
            }
        }
    }

    /// What the hardware of one CPU can do about the pages of one word.
    #[inline]
    fn lane_steps(bits: u64, word: usize, cpu: usize) -> LaneSteps {
        let firsts = Self::every(1)[word];
        let of = |page_bit: u64| bits >> page_bit.trailing_zeros() & firsts;
        let at = Self::entry(cpu);
        let (first, second, last) = (bits >> at, bits >> (at + 1), bits >> (at + E - 1));
        let empty = firsts & !(first | second | last);
        // Of writable entries, those whose lowest bit (of two), or highest (of three), is set are dirty.
        let (writable, is_dirty) = (second & firsts, if E == 3 { last } else { first });
        let (clean, dirty) = (writable & !is_dirty, writable & is_dirty);

        // Fill where there is no entry, eviction where there is one.
        let present = of(PRESENT) & empty;
        let fill = Self::filled_lanes(present, of(WRITE) & present, of(DIRTY) & present) << at;
        let accessed = (present & !of(ACCESSED)) << ACCESSED.trailing_zeros();
        let evicted = bits & Self::every(Self::ENTRY << at)[word];

        // A store through a writable clean entry sets D by another walk; through a dirty one it leaves no trace.
        let walks = clean & of(PRESENT) & of(WRITE);
        let stores = dirty & !of(NEWER);
        LaneSteps {
            empty,
            fills: present | (firsts & !empty),
            fill: fill | accessed | evicted,
            stores,
            walks,
            store: (walks * (DIRTY | ACCESSED | Self::WRITABLE_DIRTY << at)) | (stores * NEWER),
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
        let faultable = self.faultable(state);
        for cpu in 0..U {
            let mut step = |action, next| emit(action, next, Class::Step);
            self.interrupts(state, cpu, &mut step);
            let in_user_mode = Self::is_in_user_mode(state, cpu);
            for page in 0..P {
                let lane = Self::lane(state, page);
                if lane & PRESENT == 0 {
                    continue;
                }
                let entry_shift = Self::entry(cpu);
                let fill = Self::filled(lane) << entry_shift | ACCESSED;
                // Where A is dead, `with_fills` has done this.
                let changes_base = lane & ACCESSED == 0 && !(reductions.dead && self.accessed_is_dead(state, page));
                if changes_base {
                    let mut next = *state;
                    Self::clear(&mut next, page, Self::ENTRY << entry_shift); // the eviction: a stronger entry is lost
                    Self::set(&mut next, page, fill);
                    emit(Kind::Refill.of(cpu, page), next, Class::Fill);
                }
                if lane & (WRITE | DIRTY) == WRITE && in_user_mode {
                    let mut next = *state;
                    Self::set(&mut next, page, Self::WRITABLE_DIRTY << entry_shift | ACCESSED | DIRTY);
                    emit(Kind::RefillDirty.of(cpu, page), next, Class::Fill);
                }
                if Self::has(&faultable, page, PRESENT) {
                    emit(Kind::FaultLock.of(cpu, page), Self::fault_locked(state, cpu, page), Class::Step);
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
            if Self::is_in_user_mode(state, cpu) {
                // Of an entry that is writable dirty the upper bits are set, in either code.
                let top = Self::entry(cpu) + E - 1;
                let tops = Self::every(1 << top);
                for word in Self::FIRST..W {
                    let stores = state[word] & state[word] << 1 & tops[word];
                    next[word] |= stores >> top << NEWER.trailing_zeros();
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
            all |= 1 << (E * cpu);
            cpu += 1;
        }
        all
    };

    /// The entry that a walk finds in this PTE.
    #[inline]
    pub(super) fn filled(lane: u64) -> u64 {
        let present = lane & PRESENT;
        Self::filled_lanes(present, present & lane >> 1, present & lane >> 2)
    }

    /// The same for many lanes, from what bits their PTEs have; a bit for each.
    #[inline]
    fn filled_lanes(present: u64, write: u64, dirty: u64) -> u64 {
        let dirty = write & dirty;
        if E == 3 { present | write << 1 | dirty << 2 } else { present & !(write ^ dirty) | write << 1 }
    }

    /// The pages on which a write fault can begin now, by the first bits of their lanes. The page-table lock is free then: no
    /// CPU is in another fault.
    #[inline]
    fn faultable(&self, state: &Words<W>) -> Words<W> {
        let mut pages = [0; W];
        if Self::PTL.get(state) == PTL_FREE && self.vma_is_writable(state) {
            let firsts = Self::every(PRESENT);
            for word in Self::FIRST..W {
                pages[word] = state[word] & !(state[word] >> WRITE.trailing_zeros()) & firsts[word];
            }
            if let Some(page) = Self::cleaner_locks(state) {
                Self::clear(&mut pages, page, PRESENT);
            }
        }
        pages
    }

    /// The state in which the handler has taken the locks.
    #[inline]
    fn fault_locked(state: &Words<W>, cpu: usize, page: usize) -> Words<W> {
        let mut next = *state;
        Self::PTL.set(&mut next, Self::in_fault(cpu, page as u64 + 1));
        next
    }

    /// IPIs, which arrive in user mode and in the fault handler alike, and the handler's further steps.
    #[expect(clippy::inline_always, reason = "as for `user`")]
    #[inline(always)]
    fn interrupts(&self, state: &Words<W>, cpu: usize, sink: &mut impl Sink<Words<W>>) {
        let bit = 1 << cpu;
        let (of_unmapper, of_cleaner) = (Self::UNMAP_IPIS.get(state), Self::CLEAN_IPIS.get(state));
        if of_unmapper & bit != 0 {
            let mut next = *state;
            Self::drop_entries(&mut next, cpu);
            Self::UNMAP_IPIS.set(&mut next, of_unmapper & !bit);
            sink.emit(Kind::UnmapIpi.of(cpu, 0), next);
        }
        if of_cleaner & bit != 0 {
            let mut next = *state;
            if self.reclaims() {
                Self::drop_entries(&mut next, cpu);
            } else {
                // page_mkclean flushes its page only
                Self::clear(&mut next, Self::CLEAN_PAGE.get(state) as usize, Self::ENTRY << Self::entry(cpu));
            }
            Self::CLEAN_IPIS.set(&mut next, of_cleaner & !bit);
            sink.emit(Kind::CleanIpi.of(cpu, 0), next);
        }
        let fault = Self::fault(state, cpu);
        if fault == Self::FAULT_UNLOCK {
            sink.emit(Kind::FaultUnlock.of(cpu, 0), Self::fault_unlocked(state));
        } else if fault != 0 {
            let page = fault as usize - 1;
            let mut next = *state;
            if Self::lane(state, page) & (PRESENT | WRITE) == PRESENT && self.vma_is_writable(state) {
                Self::set(&mut next, page, WRITE | DIRTY | ACCESSED | PAGE_DIRTY);
            }
            Self::PTL.set(&mut next, Self::in_fault(cpu, Self::FAULT_UNLOCK));
            sink.emit(Kind::FaultPte.of(cpu, page), next);
        }
    }

    /// The state after the handler's last step.
    #[inline]
    pub(super) fn fault_unlocked(state: &Words<W>) -> Words<W> {
        let mut next = *state;
        Self::PTL.set(&mut next, PTL_FREE);
        next
    }
}
