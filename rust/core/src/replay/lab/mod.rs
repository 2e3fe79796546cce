//! The kernel lab, exactly: every executed entry of a scenario with all that was seen of its flushes, on both sides.
//!
//! [`validate`](super::validate) counts flushes by size; here an entry is right only if nothing about it differs: the
//! requests with their ranges, who was in the masks, who obeyed, which lazy CPUs left and which were spared, what each
//! CPU flushed, and how often each probed function was entered. Entries of steps that ran at the same time (`|`) are kept
//! apart, since their order is a race that no replay in one order can know.

mod cause;
pub(super) mod columns;
mod compare;
mod entries;
pub(super) mod evidence;
pub(super) mod model;
mod parts;
pub(super) mod recorded;
pub(super) mod rseq;
pub(super) mod runner;
mod unseen;

pub use cause::{Cause, Reason};
pub use columns::{AskedFlush, Columns, CpuFlush, Difference};
pub use compare::{ComparedEntry, Exactness, LabValidation, compare, compare_entry};
pub use entries::{Entries, Entry};
pub use model::model_columns;
pub use recorded::recorded_columns;
