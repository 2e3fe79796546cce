//! What recorded flushes show of `mm_cpumask`.
//!
//! Since 6.14 a CPU stays in the mask of an address space that it has left, until a flush reaches it. Whether one reached it
//! can hang on foreign tasks that are not in the recording (a switch between two of them at that moment, their own
//! "remote wrong CPU" records), and one such chance decides over all flushes until the CPU comes back. So when a
//! recording is held against the kernel that made it, each flush is predicted first, and its record then corrects the mask
//! for those that follow. The prediction itself stands: a wrong one counts as a disagreement, once.

use rustc_hash::FxHashMap;

use super::validate::requests_of_perf;
use crate::trace::Recording;

/// Per event, whether its last flush found other CPUs in the mask.
#[derive(Clone)]
pub(super) struct MaskEvidence(FxHashMap<usize, bool>);

impl MaskEvidence {
    pub(super) fn new(recording: &Recording) -> Self {
        let mut last = FxHashMap::default();
        for (op_event, seen) in requests_of_perf(recording) {
            if let Ok(row) = usize::try_from(op_event) {
                last.insert(row, seen.told);
            }
        }
        Self(last)
    }

    /// Whether other CPUs were in the mask at the end of this event; none if it did not flush.
    pub(super) fn after(&self, row: usize) -> Option<bool> {
        self.0.get(&row).copied()
    }
}
