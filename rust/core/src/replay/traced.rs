//! Everything that the machine did about flushes in an event: for comparisons that look at more than [`super::Predicted`].

use crate::flush::{FlushRequest, MmId, TlbFlushEvent};
use crate::machine::ProbeHit;

/// What one event of the recording made the machine do.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Row of the event.
    pub row: usize,
    /// Index of the task that it is booked on.
    pub task: u32,
    /// Number of the first request, over the life of the machine; the others follow it.
    pub first_request: u64,
    /// The requests, in order.
    pub requests: Vec<FlushRequest>,
    /// The tracepoints, in order.
    pub events: Vec<TlbFlushEvent>,
    /// The probes, in order.
    pub probes: Vec<ProbeHit>,
    /// Address spaces that the recording does not name: it has no records about them.
    pub unnamed_mms: Vec<MmId>,
}
