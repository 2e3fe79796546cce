//! Whether a test holds in a state.

use super::op::Test;
use super::pte;
use super::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    /// Whether a test holds for a thread.
    pub(super) fn holds(&self, state: &[u64; W], thread: &ThreadFields, test: &Test) -> bool {
        let entry = || thread.pte.get(state);
        match test {
            Test::Const(value) => *value,
            Test::Pte { mask, value } => entry() & mask == *value,
            Test::PteMaps => pte::maps(entry()),
            Test::PteAccessible { pending } => {
                pte::is_present(entry()) || pte::is_protnone(entry()) && self.value(state, *pending) > 0
            }
            Test::PteNeedsFlush => needs_flush(entry(), thread.new.get(state)),
            Test::PteDemoted => demoted(entry(), thread.new.get(state)),
            Test::PteChanged => entry() != thread.new.get(state),
            Test::FrameIn(mask) => mask >> pte::frame(entry()) & 1 != 0,
            Test::SwapShared(locks) => {
                let frame = pte::frame(entry());
                let is_locked = |(of, lock): &(u8, _)| *of == frame && self.value(state, *lock) != 0;
                locks.iter().any(is_locked) || self.is_put_away(state, frame)
            }
            Test::Listed(lists) => lists.iter().any(|list| self.value(state, *list) >> pte::frame(entry()) & 1 != 0),
            Test::Above(var, above) => self.value(state, *var) > *above,
            Test::FrameAbove(vars, above) => self.value(state, vars[usize::from(pte::frame(entry()))]) > *above,
            Test::Bit(var, bit) => self.value(state, *var) >> bit & 1 != 0,
            Test::Differ(a, b) => self.value(state, *a) != self.value(state, *b),
            Test::Exceeds(a, b) => self.value(state, *a) > self.value(state, *b),
            Test::Not(inner) => !self.holds(state, thread, inner),
            Test::All(list) => list.iter().all(|test| self.holds(state, thread, test)),
            Test::Any(list) => list.iter().any(|test| self.holds(state, thread, test)),
        }
    }

    /// Some entry refers to the frame from swap or migration.
    pub(super) fn is_put_away(&self, state: &[u64; W], frame: u8) -> bool {
        self.pages.iter().map(|page| page.pte.get(state)).any(|entry| {
            pte::refers(entry) && (pte::is_swap(entry) || pte::is_migration(entry)) && pte::frame(entry) == frame
        })
    }

    /// The entry of another virtual page refers to the frame.
    pub(super) fn is_known_elsewhere(&self, state: &[u64; W], page: u8, frame: u8) -> bool {
        let mut others = self.pages.iter().enumerate().filter(|(other, _)| *other != usize::from(page));
        others.any(|(_, fields)| {
            let entry = fields.pte.get(state);
            pte::refers(entry) && pte::frame(entry) == frame
        })
    }
}

/// x86's `pte_needs_flush`, as [`crate::machine`] has it.
fn needs_flush(old: u64, new: u64) -> bool {
    if !pte::is_present(old) {
        return false;
    }
    if !pte::is_present(new) || pte::frame(old) != pte::frame(new) {
        return true;
    }
    old & pte::DIRTY != 0 && new & pte::DIRTY == 0 || (old ^ new) & pte::WRITE != 0
}

/// The series' rule: only what takes a right away.
fn demoted(old: u64, new: u64) -> bool {
    if !pte::is_present(old) {
        return false;
    }
    if !pte::is_present(new) || pte::frame(old) != pte::frame(new) {
        return true;
    }
    let lost = |bit: u64| old & bit != 0 && new & bit == 0;
    lost(pte::DIRTY) || lost(pte::WRITE) && old & pte::DIRTY != 0
}
