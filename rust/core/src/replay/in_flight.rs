//! Flush IPIs that were sent and may not have arrived when the receiver switched.
//!
//! The machine lets a flush take effect at once. A real IPI is sent some microseconds after its operation began, and takes
//! its time (a dozen microseconds between virtual CPUs). A CPU that switches away
//! - before it was sent, is not told, and stays in the mask, unless page tables go: then all CPUs of the mask are told;
//! - after that, gets the IPI when it has another address space loaded, and so leaves the mask (`TLB_REMOTE_WRONG_CPU`).
//!
//! How long either takes is measured in the recording itself: the median time from the begin of an operation of the same
//! kind to "remote IPI send", and from that to "remote shootdown". Nothing else of the recorded flushes is looked at in a
//! replay.

use rustc_hash::FxHashMap;

use super::nesting::Nesting;
use super::times::Times;
use crate::flush::{FlushRequest, MmId, TlbFlushReason};
use crate::trace::{FlushKind, Recording};

const REMOTE_SHOOTDOWN: u8 = TlbFlushReason::RemoteShootdown as u8;
const REMOTE_SEND_IPI: u8 = TlbFlushReason::RemoteSendIpi as u8;

/// A flush that a CPU was told of.
#[derive(Clone, Copy)]
struct Sent {
    mm: MmId,
    time_ns: u64,
    freed_tables: bool,
}

/// Per CPU, the last flush that was sent to it.
#[derive(Clone)]
pub(super) struct InFlight {
    /// From sending to obeying.
    latency_ns: u64,
    /// From the begin of an operation to sending, by kind of event.
    until_sent_ns: FxHashMap<u8, u64>,
    last: Vec<Option<Sent>>,
}

impl InFlight {
    pub(super) fn new(recording: &Recording, nesting: &Nesting, nr_cpus: usize) -> Self {
        let (latency_ns, until_sent_ns) = (latency_ns(recording), until_sent_ns(recording, nesting));
        Self { latency_ns, until_sent_ns, last: vec![None; nr_cpus] }
    }

    /// An operation of this kind of event made a request; it began at this time.
    pub(super) fn sent(&mut self, request: &FlushRequest, kind: u8, begin_ns: u64) {
        if self.latency_ns == 0 {
            return;
        }
        let Some(mm) = request.mm else { return };
        let time_ns = begin_ns.saturating_add(self.until_sent_ns.get(&kind).copied().unwrap_or(0));
        for cpu in request.told.iter() {
            self.last[cpu.index()] = Some(Sent { mm, time_ns, freed_tables: request.freed_tables });
        }
    }

    /// The address space whose flush arrives at a CPU that switches at this time.
    pub(super) fn arriving(&mut self, cpu: u16, time_ns: u64) -> Option<MmId> {
        let sent = self.last.get_mut(usize::from(cpu))?.take()?;
        let is_told = sent.freed_tables || sent.time_ns <= time_ns;
        (is_told && time_ns < sent.time_ns.saturating_add(self.latency_ns)).then_some(sent.mm)
    }
}

/// The median time from the begin of an operation, or from when it had its lock, to its first sending, by kind of event.
fn until_sent_ns(recording: &Recording, nesting: &Nesting) -> FxHashMap<u8, u64> {
    let (events, flushes) = (&recording.events, &recording.flushes);
    let mut times: FxHashMap<u8, Times> = FxHashMap::default();
    let mut last = None;
    for row in 0..flushes.len() {
        if flushes.kind[row] != FlushKind::TlbFlushEvent.number() || flushes.reason[row] != REMOTE_SEND_IPI {
            continue;
        }
        let Ok(cause) = usize::try_from(flushes.op_event[row]) else { continue };
        if last.replace(cause) == Some(cause) {
            continue;
        }
        let begin_ns = nesting.woken_ns(cause).unwrap_or(events.time_ns[cause]);
        times.entry(events.kind[cause]).or_default().add(flushes.time_ns[row].saturating_sub(begin_ns));
    }
    times.into_iter().filter_map(|(kind, mut times)| Some((kind, times.median()?))).collect()
}

/// The median time from sending to obeying; 0 if the recording shows neither.
fn latency_ns(recording: &Recording) -> u64 {
    let flushes = &recording.flushes;
    let is =
        |row: usize, reason| flushes.kind[row] == FlushKind::TlbFlushEvent.number() && flushes.reason[row] == reason;
    let mut latencies = Times::default();
    let of_row = |row: usize| {
        let sent = usize::try_from(flushes.request[row]).ok().filter(|&sent| is(sent, REMOTE_SEND_IPI))?;
        flushes.time_ns[row].checked_sub(flushes.time_ns[sent])
    };
    let rows = (0..flushes.len()).filter(|&row| is(row, REMOTE_SHOOTDOWN));
    rows.filter_map(of_row).for_each(|time_ns| latencies.add(time_ns));
    latencies.median().unwrap_or(0)
}
