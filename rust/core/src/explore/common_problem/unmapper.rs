//! The unmapper: zap with a gather, or `mprotect` to read-only.

use super::layout::{
    CommonProblem, DIRTY, MAP_REF, MM_BATCHED, PAGE_DIRTY, PRESENT, PTE, PTL_FREE, PTL_UNMAP, RMAP, UNMAP_FLUSH,
    UNMAP_PC, WRITE, Words,
};
use super::{Clean, Unmap};

/// Where the unmapper is: each constant names what it does next.
pub(super) mod at {
    pub(in super::super) const LOCK: u64 = 0;
    pub(in super::super) const BATCHED_TEST: u64 = 1;
    pub(in super::super) const BATCHED_WAIT: u64 = 2;
    pub(in super::super) const PTE: u64 = 3;
    pub(in super::super) const SET_DIRTY: u64 = 4;
    pub(in super::super) const REMOVE_RMAP: u64 = 5;
    pub(in super::super) const FORCED_SEND: u64 = 6;
    pub(in super::super) const FORCED_WAIT: u64 = 7;
    pub(in super::super) const FLUSH_RMAPS: u64 = 8;
    pub(in super::super) const UNLOCK: u64 = 9;
    pub(in super::super) const FINAL_SEND: u64 = 10;
    pub(in super::super) const FINAL_WAIT: u64 = 11;
    pub(in super::super) const RETURN: u64 = 12;
    pub(in super::super) const RETURNED: u64 = 13;
}

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    /// The state after the unmapper's next step; `None` while it is blocked, and at its end.
    #[inline]
    pub(super) fn step_unmapper(&self, state: &Words<W>) -> Option<Words<W>> {
        let zap = self.options.unmap == Unmap::Zap;
        let pc = UNMAP_PC.get(state);
        let page = Self::UNMAP_PAGE.get(state) as usize;
        let waiting = Self::UNMAP_IPIS.get(state) != 0;
        let mut next = *state;
        let to = match pc {
            at::LOCK if Self::PTL.get(state) != PTL_FREE => return None,
            at::LOCK => {
                Self::PTL.set(&mut next, PTL_UNMAP);
                if self.options.flush_batched { at::BATCHED_TEST } else { at::PTE }
            }
            at::BATCHED_TEST if MM_BATCHED.get(state) == 0 => at::PTE,
            at::BATCHED_TEST => Self::send(&mut next, at::BATCHED_WAIT),
            at::BATCHED_WAIT | at::FORCED_WAIT | at::FINAL_WAIT if waiting => return None,
            at::BATCHED_WAIT => {
                MM_BATCHED.set(&mut next, 0);
                at::PTE
            }
            at::PTE if !Self::has(state, page, PRESENT) => Self::next_pte(&mut next, page),
            at::PTE if zap => {
                Self::clear(&mut next, page, PTE);
                if Self::has(state, page, DIRTY) {
                    UNMAP_FLUSH.set(&mut next, UNMAP_FLUSH.get(state) | u64::from(self.options.flush_under_lock));
                    at::SET_DIRTY
                } else {
                    at::REMOVE_RMAP
                }
            }
            at::PTE => {
                Self::clear(&mut next, page, WRITE);
                UNMAP_FLUSH.set(&mut next, 1);
                Self::next_pte(&mut next, page)
            }
            at::SET_DIRTY => {
                Self::set(&mut next, page, PAGE_DIRTY);
                // What is delayed is left to the forced flush; where there is none, the mapping stays in rmap.
                if self.options.delay_rmap { Self::next_pte(&mut next, page) } else { at::REMOVE_RMAP }
            }
            at::REMOVE_RMAP => {
                Self::clear(&mut next, page, RMAP);
                Self::next_pte(&mut next, page)
            }
            at::FORCED_SEND if zap && UNMAP_FLUSH.get(state) != 0 => Self::send(&mut next, at::FORCED_WAIT),
            at::FORCED_WAIT if self.options.delay_rmap => at::FLUSH_RMAPS,
            at::FORCED_SEND | at::FORCED_WAIT => at::UNLOCK,
            at::FLUSH_RMAPS => {
                Self::clear_every(&mut next, RMAP);
                at::UNLOCK
            }
            at::UNLOCK => {
                Self::PTL.set(&mut next, PTL_FREE);
                at::FINAL_SEND
            }
            at::FINAL_SEND => {
                let flushed = UNMAP_FLUSH.get(state) != 0;
                UNMAP_FLUSH.set(&mut next, 0);
                // zap: pages were gathered and not flushed yet; mprotect: a PTE was changed
                let flush = if zap { Self::any_has(state, MAP_REF) && !flushed } else { flushed };
                if flush { Self::send(&mut next, at::FINAL_WAIT) } else { at::RETURN }
            }
            at::FINAL_WAIT => at::RETURN,
            at::RETURN => {
                if zap {
                    Self::clear_every(&mut next, MAP_REF);
                }
                at::RETURNED
            }
            _ => return None,
        };
        UNMAP_PC.set(&mut next, to);
        Some(next)
    }

    /// Sends IPIs to every user CPU.
    fn send(next: &mut Words<W>, wait: u64) -> u64 {
        Self::UNMAP_IPIS.set(next, Self::ALL_CPUS);
        wait
    }

    fn next_pte(next: &mut Words<W>, page: usize) -> u64 {
        let last = page + 1 == P;
        Self::UNMAP_PAGE.set(next, if last { 0 } else { page as u64 + 1 });
        if last { at::FORCED_SEND } else { at::PTE }
    }

    /// Whether the unmapper's next step commutes with everything that others can do before it: it holds the page-table
    /// lock and touches what only the holder reads, or sends IPIs, or ends a wait.
    #[inline]
    pub(super) fn unmapper_is_urgent(state: &Words<W>) -> bool {
        match UNMAP_PC.get(state) {
            at::BATCHED_TEST | at::FORCED_SEND | at::UNLOCK | at::FINAL_SEND => true,
            at::BATCHED_WAIT | at::FORCED_WAIT | at::FINAL_WAIT => Self::UNMAP_IPIS.get(state) == 0,
            at::PTE => !Self::has(state, Self::UNMAP_PAGE.get(state) as usize, PRESENT),
            _ => false,
        }
    }

    /// Whether a write fault may find the VMA writable: `mprotect` holds `mmap_lock` for writing from its first step on.
    #[inline]
    pub(super) fn vma_is_writable(&self, state: &Words<W>) -> bool {
        self.options.unmap == Unmap::Zap || UNMAP_PC.get(state) == at::LOCK
    }

    /// Whether this model has a reclaim.
    #[inline]
    pub(super) fn reclaims(&self) -> bool {
        self.options.clean == Clean::Reclaim
    }
}
