//! In which order two CPUs asked for flushes of one address space at the same time, from the times of their records.
//!
//! Two faults that begin within a microsecond may make their requests in either order, and a fault may wait long (for a page,
//! for a lock) before it makes its own. Which request comes first decides who flushes what (`overlap.rs`), and no rule about
//! begins tells it. Where a recording is held against the kernel that made it, "remote IPI send" does, and "local shootdown"
//! tells whether the second was made before the first was executed. What either flushed is not looked at.

use rustc_hash::FxHashMap;

use crate::flush::TlbFlushReason;
use crate::trace::{EventKind, FlushKind, Recording};

const REMOTE_SEND_IPI: u8 = TlbFlushReason::RemoteSendIpi as u8;
/// By which a CPU shows that it executes its own request.
const LOCAL_REASONS: [u8; 2] = [TlbFlushReason::LocalShootdown as u8, TlbFlushReason::LocalMmShootdown as u8];

/// When an operation makes its request, and until when it is to wait for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asks {
    /// When its request was made.
    pub sent_ns: u64,
    /// When the next one of its address space was made, if that was before it executed its own.
    pub next_ns: Option<u64>,
}

/// The operations whose requests met, by row of their event.
#[derive(Clone, Default, Debug)]
pub(super) struct SentOrder(FxHashMap<usize, Asks>);

/// The one request of an event.
#[derive(Clone, Copy)]
struct Sent {
    event: usize,
    time_ns: u64,
    /// When its own CPU executed it, or is taken to have; the one that was overtaken left no record.
    executed_ns: u64,
}

impl SentOrder {
    /// `latency_ns` is the median time from sending to executing; `is_soon` tells which events flush as they begin.
    pub(super) fn of(recording: &Recording, latency_ns: u64, is_soon: impl Fn(usize) -> bool) -> Self {
        let mut order = Self::default();
        let mut last: FxHashMap<u32, Sent> = FxHashMap::default();
        let mut sent = single_requests(recording, latency_ns);
        sent.sort_by_key(|sent| (sent.time_ns, sent.event));
        for second in sent {
            let Some(pid) = pid_of(recording, recording.events.task[second.event]) else { continue };
            if let Some(first) = last.insert(pid, second)
                && is_soon(first.event)
                && is_soon(second.event)
                && meet(recording, &first, &second)
            {
                for one in [&first, &second] {
                    order.0.entry(one.event).or_insert(Asks { sent_ns: one.time_ns, next_ns: None });
                }
                order.0.insert(first.event, Asks { sent_ns: first.time_ns, next_ns: Some(second.time_ns) });
            }
        }
        order
    }

    /// Of an event whose request met another.
    pub(super) fn of_event(&self, row: usize) -> Option<Asks> {
        self.0.get(&row).copied()
    }
}

fn pid_of(recording: &Recording, task: u32) -> Option<u32> {
    recording.tasks.get(task as usize).map(|task| task.pid)
}

/// Requests that told other CPUs, of events that made no other.
fn single_requests(recording: &Recording, latency_ns: u64) -> Vec<Sent> {
    let flushes = &recording.flushes;
    let is_event = |row: usize| flushes.kind[row] == FlushKind::TlbFlushEvent.number();
    let rows = |reasons: &'static [u8]| {
        (0..flushes.len()).filter(move |&row| is_event(row) && reasons.contains(&flushes.reason[row]))
    };
    let executed: FxHashMap<i64, u64> =
        rows(&LOCAL_REASONS).map(|row| (flushes.request[row], flushes.time_ns[row])).collect();
    let mut by_event: FxHashMap<usize, Option<Sent>> = FxHashMap::default();
    for row in rows(&[REMOTE_SEND_IPI]) {
        let Ok(event) = usize::try_from(flushes.op_event[row]) else { continue };
        let time_ns = flushes.time_ns[row];
        let own = i64::try_from(row).ok().and_then(|row| executed.get(&row));
        let executed_ns = own.copied().unwrap_or(time_ns.saturating_add(latency_ns));
        let sent = Sent { event, time_ns, executed_ns };
        by_event.entry(event).and_modify(|found| *found = None).or_insert(Some(sent));
    }
    by_event.into_values().flatten().collect()
}

/// Whether the second request was made on another CPU, for another page, before the first was executed, and nothing but
/// faults of the same process came in between.
fn meet(recording: &Recording, first: &Sent, second: &Sent) -> bool {
    let events = &recording.events;
    let pid = |row: usize| pid_of(recording, events.task[row]);
    let begin = first.event.min(second.event);
    let end = events.time_ns.partition_point(|time| *time <= second.time_ns);
    second.time_ns < first.executed_ns
        && events.cpu[first.event] != events.cpu[second.event]
        && events.a0[first.event] >> 12 != events.a0[second.event] >> 12
        && (begin..end).all(|row| {
            let is_asking = row == first.event || row == second.event;
            is_asking || events.kind[row] == EventKind::Fault.number() && pid(row) == pid(first.event)
        })
}
