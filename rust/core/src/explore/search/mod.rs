//! The search engines, generic over a [`Model`].
//!
//! `plain` is exact breadth first: it tells verdicts, counts states, and finds the shortest counterexample.
//! [`saturate`] keeps maximal states only, orders of magnitude fewer, and serves to prove; what it finds is made concrete by
//! `plain`. [`audit`] holds one against the other.

mod antichain;
mod audit;
mod bounds;
mod forecast;
mod group;
mod kept;
mod memory;
mod model;
mod normal;
mod plain;
mod queue;
mod recent;
mod reductions;
mod saturate;
mod shard;
mod small;
mod table;
mod tokens;
mod witness;

pub use audit::{Audit, NoAudit, audit};
pub use bounds::{Bounds, Control, Progress, Stopped};
pub use model::{Action, Class, Model, NotMonotone, PackedState, Sink};
pub use plain::{Finding, Outcome, search};
pub use reductions::Reductions;
pub use saturate::{SaturatedOutcome, saturate};
pub use witness::{Run, Step, follow};
