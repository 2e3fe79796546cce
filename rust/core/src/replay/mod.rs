//! Driver 1: a recording runs through the machine under a kernel of one's choice.
//!
//! What a recording says was asked for (calls, faults, switches) is done by the machine, in the recorder's order; what the
//! kernel did about TLBs then is not looked at. A flush that the machine does is noted with the event that caused it, so
//! that [`validate`](validate::validate) can hold it against what was recorded.
//!
//! What a recording does not say is taken over from its evidence and counted in [`Replayed::notes`]: processes and
//! mappings that were there before it began, pages that fault-around did or did not map, the address space of foreign
//! tasks. A system call runs whole at the moment it was entered; only entries of the kernel lab that ran at the same time are
//! interleaved ([`ParallelOutcome`]).

mod booking;
mod calls;
mod driver;
mod faults;
mod flushed;
mod groups;
mod in_flight;
mod interleave;
pub mod lab;
mod ledger;
mod mask_evidence;
mod nesting;
mod overlap;
mod parallel;
mod parallel_step;
mod reclaim;
mod reclaimed;
mod scenario;
mod search;
mod sent_order;
mod switched_step;
mod tasks;
mod times;
mod traced;
pub mod validate;

pub use driver::{EVENTS_PER_ASKING, Keep, Replayed, replay, replay_traced};
pub use flushed::{FlushSize, Predicted};
pub use ledger::{Ledger, LedgerRow};
pub use parallel::replay_parallel;
pub use parallel_step::ParallelOutcome;
pub use traced::Traced;
