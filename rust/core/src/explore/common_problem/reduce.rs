//! What the reductions of the common problem do to a state.

use super::cleaner::at as cleaner_at;
use super::layout::{
    ACCESSED, BATCH_REQUIRED, BATCH_WRITABLE, CLEAN_PC, CommonProblem, MM_BATCHED, PRESENT, RMAP, TLB, UNMAP_PC, Words,
};
use super::unmapper::at as unmapper_at;

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    /// Whether nobody reads the A bit of this page any more: only reclaim does, until it has decided on the page.
    #[inline]
    pub(super) fn accessed_is_dead(&self, state: &Words<W>, page: usize) -> bool {
        let pc = CLEAN_PC.get(state);
        let decides =
            matches!(pc, cleaner_at::MAPPED_TEST | cleaner_at::LOCK | cleaner_at::PTE | cleaner_at::YOUNG_UNLOCK);
        let cursor = Self::CLEAN_PAGE.get(state) as usize;
        !self.reclaims() || self.cleaner_is_past_pages(pc) || page < cursor || (page == cursor && !decides)
    }

    pub(super) fn forget_dead(&self, state: &Words<W>) -> Words<W> {
        let mut next = *state;
        let pc = CLEAN_PC.get(state);
        let past = self.cleaner_is_past_pages(pc);
        let cursor = Self::CLEAN_PAGE.get(state) as usize;
        for page in 0..P {
            let mut dead = 0;
            if self.accessed_is_dead(state, page) {
                dead |= ACCESSED;
            }
            // rmap is read by the cleaner's first test of the page only
            if (past || page < cursor) && !Self::has(state, page, PRESENT) {
                dead |= RMAP;
            }
            Self::clear(&mut next, page, dead);
        }
        if UNMAP_PC.get(state) > unmapper_at::BATCHED_TEST {
            MM_BATCHED.set(&mut next, 0);
        }
        if self.reclaims() && matches!(pc, cleaner_at::FREE | cleaner_at::DONE) {
            BATCH_WRITABLE.set(&mut next, 0);
            BATCH_REQUIRED.set(&mut next, 0);
        }
        next
    }

    /// How many pages are below both cursors.
    fn retired(&self, state: &Words<W>) -> usize {
        let below = |past: bool, cursor: u64| if past { P } else { cursor as usize };
        below(UNMAP_PC.get(state) >= unmapper_at::FORCED_SEND, Self::UNMAP_PAGE.get(state))
            .min(below(self.cleaner_is_past_pages(CLEAN_PC.get(state)), Self::CLEAN_PAGE.get(state)))
    }

    /// Sorts the pages below both cursors by lane, then by whether a write fault is about them.
    pub(super) fn sort_retired(&self, state: &Words<W>) -> Words<W> {
        let retired = self.retired(state);
        if retired < 2 {
            return *state;
        }
        let faulting = Self::faulting(state);
        let mut keys = [0_u64; P];
        for (page, key) in keys[..retired].iter_mut().enumerate() {
            *key = Self::lane(state, page);
            *key |= u64::from(faulting.is_some_and(|(_, step)| step == page as u64 + 1)) << Self::LANE;
        }
        if keys[..retired].is_sorted() {
            return *state;
        }
        keys[..retired].sort_unstable();
        let mut next = *state;
        for (page, key) in keys[..retired].iter().enumerate() {
            Self::clear(&mut next, page, Self::LANE_MASK);
            Self::set(&mut next, page, key & Self::LANE_MASK);
            if let Some((cpu, _)) = faulting
                && key >> Self::LANE != 0
            {
                Self::PTL.set(&mut next, Self::in_fault(cpu, page as u64 + 1));
            }
        }
        next
    }

    /// Sorts the user CPUs by their entries, then by fault handler and IPIs. The columns of CPUs are independent, so that
    /// sorting them is exact.
    pub(super) fn sort_cpus(state: &Words<W>) -> Words<W> {
        let (of_unmapper, of_cleaner) = (Self::UNMAP_IPIS.get(state), Self::CLEAN_IPIS.get(state));
        let mut keys = [0_u64; U];
        for (cpu, key) in keys.iter_mut().enumerate() {
            for page in 0..P {
                *key |= (Self::lane(state, page) >> Self::entry(cpu) & Self::ENTRY) << (E * page);
            }
            let others = Self::fault(state, cpu) | (of_unmapper >> cpu & 1) << 3 | (of_cleaner >> cpu & 1) << 4;
            *key |= others << (E * P);
        }
        if keys.is_sorted() {
            return *state;
        }
        keys.sort_unstable();
        let mut next = *state;
        let (mut of_unmapper, mut of_cleaner) = (0, 0);
        for page in 0..P {
            let column = |cpu: usize| (keys[cpu] >> (E * page) & Self::ENTRY) << (E * cpu);
            let entries = (0..U).fold(0, |entries, cpu| entries | column(cpu));
            Self::clear(&mut next, page, Self::LANE_MASK >> TLB << TLB);
            Self::set(&mut next, page, entries << TLB);
        }
        for (cpu, key) in keys.iter().enumerate() {
            let others = key >> (E * P);
            if others & 7 != 0 {
                Self::PTL.set(&mut next, Self::in_fault(cpu, others & 7));
            }
            of_unmapper |= (others >> 3 & 1) << cpu;
            of_cleaner |= (others >> 4 & 1) << cpu;
        }
        Self::UNMAP_IPIS.set(&mut next, of_unmapper);
        Self::CLEAN_IPIS.set(&mut next, of_cleaner);
        next
    }

    /// The state under every renaming of user CPUs and of pages below both cursors.
    pub(super) fn renamings(&self, state: &Words<W>) -> Vec<Words<W>> {
        let mut all = vec![*state];
        // Exchanges of neighbours generate every permutation.
        let retired = self.retired(state);
        let mut at = 0;
        while let Some(&state) = all.get(at) {
            let of_cpus = (1..U).map(|cpu| Self::exchange_cpus(&state, cpu - 1, cpu));
            let of_pages = (1..retired).map(|page| Self::exchange_pages(&state, page - 1, page));
            for next in of_cpus.chain(of_pages) {
                if !all.contains(&next) {
                    all.push(next);
                }
            }
            at += 1;
        }
        all
    }

    fn exchange_cpus(state: &Words<W>, a: usize, b: usize) -> Words<W> {
        let mut next = *state;
        for page in 0..P {
            let lane = Self::lane(state, page);
            for (from, to) in [(a, b), (b, a)] {
                Self::clear(&mut next, page, Self::ENTRY << Self::entry(to));
                Self::set(&mut next, page, (lane >> Self::entry(from) & Self::ENTRY) << Self::entry(to));
            }
        }
        let exchange = |bits: u64| bits & !(1 << a | 1 << b) | (bits >> a & 1) << b | (bits >> b & 1) << a;
        Self::UNMAP_IPIS.set(&mut next, exchange(Self::UNMAP_IPIS.get(state)));
        Self::CLEAN_IPIS.set(&mut next, exchange(Self::CLEAN_IPIS.get(state)));
        if let Some((cpu, step)) = Self::faulting(state)
            && (cpu == a || cpu == b)
        {
            Self::PTL.set(&mut next, Self::in_fault(a + b - cpu, step));
        }
        next
    }

    fn exchange_pages(state: &Words<W>, a: usize, b: usize) -> Words<W> {
        let mut next = *state;
        for (from, to) in [(a, b), (b, a)] {
            Self::clear(&mut next, to, Self::LANE_MASK);
            Self::set(&mut next, to, Self::lane(state, from));
        }
        if let Some((cpu, step)) = Self::faulting(state) {
            let page = step as usize - 1;
            if page == a || page == b {
                Self::PTL.set(&mut next, Self::in_fault(cpu, (a + b - page) as u64 + 1));
            }
        }
        next
    }
}
