//! Flush IPIs that were sent and may not have arrived when the receiver switched.
//!
//! The machine lets a flush take effect at once. A real IPI takes its time (a dozen microseconds between virtual CPUs): a CPU
//! that switches away within it gets the IPI when it has another address space loaded, and so leaves the mask
//! (`TLB_REMOTE_WRONG_CPU`). How long it takes is measured in the recording itself: the median time from "remote IPI
//! send" to "remote shootdown". Nothing else of the recorded flushes is looked at in a replay.

use crate::flush::{FlushRequest, MmId};
use crate::trace::{FlushKind, Recording};

const REMOTE_SHOOTDOWN: u8 = 1;
const REMOTE_SEND_IPI: u8 = 4;

/// Per CPU, the last flush that was sent to it: of which mm, when.
#[derive(Clone)]
pub(super) struct InFlight {
    latency_ns: u64,
    last: Vec<Option<(MmId, u64)>>,
}

impl InFlight {
    pub(super) fn new(recording: &Recording, nr_cpus: usize) -> Self {
        Self { latency_ns: latency_ns(recording), last: vec![None; nr_cpus] }
    }

    /// A request was made at this time.
    pub(super) fn sent(&mut self, request: &FlushRequest, time_ns: u64) {
        if self.latency_ns == 0 {
            return;
        }
        let Some(mm) = request.mm else { return };
        for cpu in request.told.iter() {
            self.last[cpu.index()] = Some((mm, time_ns));
        }
    }

    /// The address space whose flush arrives at a CPU that switches at this time.
    pub(super) fn arriving(&mut self, cpu: u16, time_ns: u64) -> Option<MmId> {
        let (mm, sent_ns) = self.last.get_mut(usize::from(cpu))?.take()?;
        (time_ns.saturating_sub(sent_ns) < self.latency_ns).then_some(mm)
    }
}

/// The median time from sending to obeying; 0 if the recording shows neither.
fn latency_ns(recording: &Recording) -> u64 {
    let flushes = &recording.flushes;
    let is =
        |row: usize, reason| flushes.kind[row] == FlushKind::TlbFlushEvent.number() && flushes.reason[row] == reason;
    let mut latencies: Vec<u64> = (0..flushes.len())
        .filter(|&row| is(row, REMOTE_SHOOTDOWN))
        .filter_map(|row| {
            let sent = usize::try_from(flushes.request[row]).ok().filter(|&sent| is(sent, REMOTE_SEND_IPI))?;
            flushes.time_ns[row].checked_sub(flushes.time_ns[sent])
        })
        .collect();
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied().unwrap_or(0)
}
