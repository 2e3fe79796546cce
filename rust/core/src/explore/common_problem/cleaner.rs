//! The cleaner: `page_mkclean` with writeback, or reclaim with a deferred flush; one page after the other.

use super::layout::{
    ACCESSED, BATCH_REQUIRED, BATCH_WRITABLE, CACHE_REF, CLEAN_DIRTY, CLEAN_PC, CommonProblem, DIRTY, MAP_REF,
    MM_BATCHED, NEWER, PAGE_DIRTY, PRESENT, PTE, PTL_CLEAN, PTL_FREE, RMAP, WRITE, Words,
};

/// Where the cleaner is: each constant names what it does next. The first three are common to both.
pub(super) mod at {
    pub(in super::super) const MAPPED_TEST: u64 = 0;
    pub(in super::super) const LOCK: u64 = 1;
    pub(in super::super) const PTE: u64 = 2;

    // page_mkclean and writeback
    pub(in super::super) const MKCLEAN_WAIT: u64 = 3;
    pub(in super::super) const MKCLEAN_UNLOCK: u64 = 4;
    pub(in super::super) const MKCLEAN_TEST_CLEAR_DIRTY: u64 = 5;
    pub(in super::super) const MKCLEAN_WRITE_OUT: u64 = 6;
    pub(in super::super) const MKCLEAN_SET_DIRTY: u64 = 7;

    // reclaim
    pub(in super::super) const UNMAP_SET_DIRTY: u64 = 3;
    pub(in super::super) const UNMAP_UNLOCK: u64 = 4;
    pub(in super::super) const PAGEOUT_TEST: u64 = 5;
    pub(in super::super) const PAGEOUT_WAIT: u64 = 6;
    pub(in super::super) const PAGEOUT_CLEAR_DIRTY: u64 = 7;
    pub(in super::super) const PAGEOUT_WRITE_OUT: u64 = 8;
    pub(in super::super) const REMOVE_MAPPING: u64 = 9;
    pub(in super::super) const BATCH_SEND: u64 = 10;
    pub(in super::super) const BATCH_WAIT: u64 = 11;
    pub(in super::super) const FREE: u64 = 12;
    pub(in super::super) const YOUNG_UNLOCK: u64 = 14;
    pub(in super::super) const UNMAP_DROP: u64 = 15;

    /// The end of both.
    pub(in super::super) const DONE: u64 = 13;
}

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    /// The state after the cleaner's next step; `None` while it is blocked, and at its end.
    #[inline]
    pub(super) fn step_cleaner(&self, state: &Words<W>) -> Option<Words<W>> {
        let page = Self::CLEAN_PAGE.get(state) as usize;
        let mut next = *state;
        let to = match CLEAN_PC.get(state) {
            at::MAPPED_TEST => {
                if Self::faulting(state).is_some_and(|(_, step)| step == page as u64 + 1) {
                    return None; // a write fault holds the page lock
                }
                // Both go on with the page's dirty flag where there is nothing to unmap.
                const { assert!(at::MKCLEAN_TEST_CLEAR_DIRTY == at::PAGEOUT_TEST) };
                if Self::has(state, page, RMAP) { at::LOCK } else { at::PAGEOUT_TEST }
            }
            at::LOCK if Self::PTL.get(state) != PTL_FREE => return None,
            at::LOCK => {
                Self::PTL.set(&mut next, PTL_CLEAN);
                at::PTE
            }
            pc if self.reclaims() => self.step_reclaim(pc, page, &mut next)?,
            pc => self.step_mkclean(pc, page, &mut next)?,
        };
        CLEAN_PC.set(&mut next, to);
        Some(next)
    }

    #[inline]
    fn step_mkclean(&self, pc: u64, page: usize, next: &mut Words<W>) -> Option<u64> {
        let lane = Self::lane(next, page);
        Some(match pc {
            at::PTE if lane & PRESENT != 0 && lane & (DIRTY | WRITE) != 0 => {
                CLEAN_DIRTY.set(next, u64::from(lane & DIRTY != 0));
                Self::clear(next, page, PRESENT | WRITE | DIRTY);
                Self::CLEAN_IPIS.set(next, Self::ALL_CPUS);
                at::MKCLEAN_WAIT
            }
            at::PTE => at::MKCLEAN_UNLOCK,
            at::MKCLEAN_WAIT if Self::CLEAN_IPIS.get(next) != 0 => return None,
            at::MKCLEAN_WAIT => {
                Self::set(next, page, PRESENT);
                at::MKCLEAN_UNLOCK
            }
            at::MKCLEAN_UNLOCK => {
                Self::PTL.set(next, PTL_FREE);
                if CLEAN_DIRTY.get(next) != 0 { at::MKCLEAN_SET_DIRTY } else { at::MKCLEAN_TEST_CLEAR_DIRTY }
            }
            at::MKCLEAN_SET_DIRTY => {
                Self::set(next, page, PAGE_DIRTY);
                CLEAN_DIRTY.set(next, 0);
                at::MKCLEAN_TEST_CLEAR_DIRTY
            }
            at::MKCLEAN_TEST_CLEAR_DIRTY if lane & PAGE_DIRTY == 0 => self.next_page(next, page),
            at::MKCLEAN_TEST_CLEAR_DIRTY => {
                Self::clear(next, page, PAGE_DIRTY);
                at::MKCLEAN_WRITE_OUT
            }
            at::MKCLEAN_WRITE_OUT => {
                Self::clear(next, page, NEWER);
                self.next_page(next, page)
            }
            _ => return None,
        })
    }

    #[inline]
    fn step_reclaim(&self, pc: u64, page: usize, next: &mut Words<W>) -> Option<u64> {
        let lane = Self::lane(next, page);
        Some(match pc {
            at::PTE if lane & PRESENT == 0 => at::UNMAP_UNLOCK,
            at::PTE if lane & ACCESSED != 0 => {
                Self::clear(next, page, ACCESSED); // without a flush
                at::YOUNG_UNLOCK
            }
            at::PTE => {
                Self::clear(next, page, PTE);
                MM_BATCHED.set(next, 1);
                BATCH_REQUIRED.set(next, 1);
                if lane & DIRTY != 0 {
                    BATCH_WRITABLE.set(next, 1);
                    at::UNMAP_SET_DIRTY
                } else {
                    at::UNMAP_DROP
                }
            }
            at::UNMAP_SET_DIRTY => {
                Self::set(next, page, PAGE_DIRTY);
                at::UNMAP_DROP
            }
            at::UNMAP_DROP => {
                Self::clear(next, page, RMAP | MAP_REF);
                at::UNMAP_UNLOCK
            }
            at::UNMAP_UNLOCK => {
                Self::PTL.set(next, PTL_FREE);
                at::PAGEOUT_TEST
            }
            at::YOUNG_UNLOCK => {
                Self::PTL.set(next, PTL_FREE);
                at::MAPPED_TEST
            }
            at::PAGEOUT_TEST if lane & PAGE_DIRTY == 0 => at::REMOVE_MAPPING,
            at::PAGEOUT_TEST if BATCH_WRITABLE.get(next) == 0 => at::PAGEOUT_CLEAR_DIRTY,
            at::PAGEOUT_TEST => {
                Self::CLEAN_IPIS.set(next, Self::ALL_CPUS);
                at::PAGEOUT_WAIT
            }
            at::PAGEOUT_WAIT | at::BATCH_WAIT if Self::CLEAN_IPIS.get(next) != 0 => return None,
            at::PAGEOUT_WAIT | at::BATCH_WAIT => {
                BATCH_WRITABLE.set(next, 0);
                BATCH_REQUIRED.set(next, 0);
                if pc == at::PAGEOUT_WAIT { at::PAGEOUT_CLEAR_DIRTY } else { at::FREE }
            }
            at::PAGEOUT_CLEAR_DIRTY => {
                Self::clear(next, page, PAGE_DIRTY);
                at::PAGEOUT_WRITE_OUT
            }
            at::PAGEOUT_WRITE_OUT => {
                Self::clear(next, page, NEWER);
                at::REMOVE_MAPPING
            }
            at::REMOVE_MAPPING => {
                if lane & (MAP_REF | PAGE_DIRTY) == 0 {
                    Self::clear(next, page, CACHE_REF);
                }
                self.next_page(next, page)
            }
            at::BATCH_SEND if BATCH_REQUIRED.get(next) == 0 => at::FREE,
            at::BATCH_SEND => {
                Self::CLEAN_IPIS.set(next, Self::ALL_CPUS);
                at::BATCH_WAIT
            }
            at::FREE => at::DONE,
            _ => return None,
        })
    }

    fn next_page(&self, next: &mut Words<W>, page: usize) -> u64 {
        let last = page + 1 == P;
        Self::CLEAN_PAGE.set(next, if last { 0 } else { page as u64 + 1 });
        match (last, self.reclaims()) {
            (false, _) => at::MAPPED_TEST,
            (true, true) => at::BATCH_SEND,
            (true, false) => at::DONE,
        }
    }

    /// Whether the cleaner's next step commutes with everything that others can do before it.
    #[inline]
    pub(super) fn cleaner_is_urgent(&self, state: &Words<W>) -> bool {
        let pc = CLEAN_PC.get(state);
        let lane = Self::lane(state, Self::CLEAN_PAGE.get(state) as usize);
        if pc == at::PTE {
            return lane & PRESENT == 0 || (!self.reclaims() && lane & (WRITE | DIRTY) == 0);
        }
        if self.reclaims() {
            match pc {
                at::UNMAP_SET_DIRTY | at::UNMAP_DROP | at::UNMAP_UNLOCK | at::YOUNG_UNLOCK | at::BATCH_SEND => true,
                at::PAGEOUT_WAIT | at::BATCH_WAIT => Self::CLEAN_IPIS.get(state) == 0,
                _ => false,
            }
        } else {
            matches!(pc, at::MKCLEAN_UNLOCK | at::MKCLEAN_SET_DIRTY)
        }
    }

    /// Whether the cleaner has left its loop over the pages.
    #[inline]
    pub(super) fn cleaner_is_past_pages(&self, pc: u64) -> bool {
        if self.reclaims() { (at::BATCH_SEND..=at::DONE).contains(&pc) } else { pc == at::DONE }
    }

    /// The page whose lock the cleaner holds.
    #[inline]
    pub(super) fn cleaner_locks(state: &Words<W>) -> Option<usize> {
        let pc = CLEAN_PC.get(state);
        let holds = pc != at::MAPPED_TEST && !(at::BATCH_SEND..=at::DONE).contains(&pc);
        holds.then(|| Self::CLEAN_PAGE.get(state) as usize)
    }

    /// Whether the cleaner carries the knowledge that this page is dirty, in a variable of its own or on the way to storage.
    #[inline]
    pub(super) fn cleaner_knows_dirty(&self, state: &Words<W>, page: usize) -> bool {
        let pc = CLEAN_PC.get(state);
        Self::CLEAN_PAGE.get(state) as usize == page
            && if self.reclaims() {
                matches!(pc, at::UNMAP_SET_DIRTY | at::PAGEOUT_WRITE_OUT)
            } else {
                let holds = matches!(pc, at::MKCLEAN_WAIT | at::MKCLEAN_UNLOCK | at::MKCLEAN_SET_DIRTY);
                (holds && CLEAN_DIRTY.get(state) != 0) || pc == at::MKCLEAN_WRITE_OUT
            }
    }
}
