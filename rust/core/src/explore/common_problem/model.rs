//! The model as the engines see it.

use super::CommonProblem;
use super::layout::{CACHE_REF, CLEAN_PC, DIRTY};
use super::layout::{NEWER, PAGE_DIRTY, PRESENT, UNMAP_PC, Words};
use super::{Unmap, cleaner, unmapper};
use crate::explore::search::{Action, Class, Model, NotMonotone, Reductions, Sink};

/// What an [`Action`] is; `cpu` and `page` stand above it in the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    Unmapper,
    Cleaner,
    Fill,
    Evict,
    SetDirty,
    Store,
    UnmapIpi,
    CleanIpi,
    FaultLock,
    FaultPte,
    FaultUnlock,
    Refill,
    RefillDirty,
}

impl Kind {
    pub(super) const ALL: [Self; 13] = [
        Self::Unmapper,
        Self::Cleaner,
        Self::Fill,
        Self::Evict,
        Self::SetDirty,
        Self::Store,
        Self::UnmapIpi,
        Self::CleanIpi,
        Self::FaultLock,
        Self::FaultPte,
        Self::FaultUnlock,
        Self::Refill,
        Self::RefillDirty,
    ];

    #[inline]
    pub(super) const fn of(self, cpu: usize, page: usize) -> Action {
        Action(self as u32 | (cpu as u32) << 4 | (page as u32) << 8)
    }
}

/// The bits of [`Model::violations`].
pub(super) const FREED: u32 = 1;
pub(super) const STALE: u32 = 2;
pub(super) const LOST: u32 = 4;

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    #[inline]
    fn kernel_threads(&self, state: &Words<W>, sink: &mut impl Sink<Words<W>>) {
        if let Some(next) = self.step_unmapper(state) {
            sink.emit(Kind::Unmapper.of(0, 0), next);
        }
        if let Some(next) = self.step_cleaner(state) {
            sink.emit(Kind::Cleaner.of(0, 0), next);
        }
    }

    /// Whether some page has data newer than storage and nobody knows it: not the PTE, not the page, no kernel thread.
    #[inline]
    fn loses_write(&self, state: &Words<W>) -> bool {
        // Page bits side by side: the shifts bring each to the place of PRESENT.
        let lost = |word: u64| {
            word >> NEWER.trailing_zeros()
                & !(word >> PAGE_DIRTY.trailing_zeros())
                & !(word & word >> DIRTY.trailing_zeros())
        };
        let firsts = Self::every(PRESENT);
        if (Self::FIRST..W).all(|word| lost(state[word]) & firsts[word] == 0) {
            return false;
        }
        (0..P).any(|page| {
            let unmapper_knows =
                UNMAP_PC.get(state) == unmapper::at::SET_DIRTY && Self::UNMAP_PAGE.get(state) as usize == page;
            lost(Self::lane(state, page)) & PRESENT != 0 && !unmapper_knows && !self.cleaner_knows_dirty(state, page)
        })
    }

    /// Whether any CPU has an entry of this strength, or more, for a page that has none of `page_bits`.
    #[inline]
    fn any_entry(state: &Words<W>, least: u64, page_bits: u64) -> bool {
        (0..P).any(|page| {
            let lane = Self::lane(state, page);
            lane & page_bits == 0 && (0..U).any(|cpu| lane >> Self::entry(cpu) & Self::ENTRY >= least)
        })
    }
}

impl<const U: usize, const P: usize, const W: usize, const E: usize> Model for CommonProblem<U, P, W, E> {
    type State = Words<W>;

    fn initial(&self) -> Vec<Self::State> {
        vec![Self::start()]
    }

    #[inline]
    fn successors(&self, state: &Self::State, sink: &mut impl Sink<Self::State>) {
        self.kernel_threads(state, sink);
        self.users(state, sink);
    }

    #[inline]
    fn violations(&self, state: &Self::State) -> u32 {
        let mut violated = 0;
        if self.reclaims()
            && CLEAN_PC.get(state) == cleaner::at::DONE
            && Self::any_entry(state, Self::READ_ONLY, CACHE_REF)
        {
            violated |= FREED;
        }
        let permits = if self.options.unmap == Unmap::Zap { Self::READ_ONLY } else { Self::WRITABLE_DIRTY };
        if UNMAP_PC.get(state) == unmapper::at::RETURNED && Self::any_entry(state, permits, 0) {
            violated |= STALE;
        }
        if self.loses_write(state) {
            violated |= LOST;
        }
        violated
    }

    #[inline]
    fn urgent(&self, state: &Self::State) -> Option<(Action, Self::State)> {
        if Self::unmapper_is_urgent(state) {
            return self.step_unmapper(state).map(|next| (Kind::Unmapper.of(0, 0), next));
        }
        if self.cleaner_is_urgent(state) {
            return self.step_cleaner(state).map(|next| (Kind::Cleaner.of(0, 0), next));
        }
        Self::faulting(state)
            .filter(|&(_, step)| step == Self::FAULT_UNLOCK)
            .map(|(cpu, _)| (Kind::FaultUnlock.of(cpu, 0), Self::fault_unlocked(state)))
    }

    #[inline]
    fn without_dead(&self, state: &Self::State) -> Self::State {
        self.forget_dead(state)
    }

    #[inline]
    fn with_retired_sorted(&self, state: &Self::State) -> Self::State {
        self.sort_retired(state)
    }

    #[inline]
    fn with_cpus_sorted(&self, state: &Self::State) -> Self::State {
        Self::sort_cpus(state)
    }

    fn renamed(&self, state: &Self::State) -> Vec<Self::State> {
        self.renamings(state)
    }

    #[inline]
    fn with_stores(&self, state: &Self::State) -> Self::State {
        Self::store_all(state)
    }

    /// Entries and the ghost `newer` only ever enable: no step asks whether an entry is absent (a fill over an entry is the
    /// fill after its eviction), and all three invariants are violated by having one, never by lacking one.
    fn monotone(&self) -> Result<Self::State, NotMonotone> {
        if E != 3 {
            return Err(NotMonotone("entries of two bits are not ordered by inclusion".to_owned()));
        }
        let mut bits = Self::every(NEWER);
        for cpu in 0..U {
            for (bits, entries) in bits.iter_mut().zip(Self::entries_of(cpu)) {
                *bits |= entries;
            }
        }
        Ok(bits)
    }

    #[inline]
    fn saturated_successors(
        &self,
        state: &Self::State,
        reductions: Reductions,
        emit: &mut impl FnMut(Action, Self::State, Class),
    ) {
        self.kernel_threads(state, &mut |action, next| emit(action, next, Class::Step));
        self.users_saturated(state, reductions, emit);
    }

    #[inline]
    fn with_fills(&self, state: &Self::State, reductions: Reductions) -> Self::State {
        self.fill_all(state, reductions)
    }

    fn describe(&self, state: &Self::State, action: Action) -> String {
        self.words_for(state, action)
    }
}
