//! Flushes of one address space that two CPUs ask for at the same time.
//!
//! A request raises the generation at once, and its own CPU executes it when the IPIs are sent (several microseconds between
//! virtual CPUs). If another CPU asks for a flush of the same mm in between, the first finds two generations to catch up
//! with and flushes everything; its IPI interrupts the second, which then finds nothing left to do
//! (arch/x86/mm/tlb.c:`flush_tlb_func`).
//!
//! So an operation whose flush tells other CPUs is left in progress ([`Call`]) until the next event of the recording. If
//! that is one of the same process on another CPU, soon enough, it gets as far as its own flush; then the first goes on.
//! How soon is measured in the recording: the median time from "remote IPI send" to the "local shootdown" after it. Half of
//! that, since an IPI that has arrived keeps its CPU from asking. Where recorded flushes are followed, their times tell which
//! operations meet, and in what order (`sent_order.rs`).

use std::sync::Arc;

use super::driver::Driver;
use super::nesting::Nesting;
use super::sent_order::{Asks, SentOrder};
use super::times::Times;
use crate::error::{Error, Result};
use crate::flush::TlbFlushReason;
use crate::machine::{Call, Operation, Outcome, Progress};
use crate::trace::{Event, EventKind, FlushKind, Recording};

const REMOTE_SHOOTDOWN: u8 = TlbFlushReason::RemoteShootdown as u8;
const LOCAL_MM_SHOOTDOWN: u8 = TlbFlushReason::LocalMmShootdown as u8;
const REMOTE_SEND_IPI: u8 = TlbFlushReason::RemoteSendIpi as u8;
/// A call flushes right after it began if all of it takes at most as many times as long as that.
const SHORT_CALL: u64 = 4;

/// An operation whose flush was asked for and not executed yet.
#[derive(Clone)]
pub(super) struct InProgress {
    call: Call,
    row: usize,
    task: u32,
    time_ns: u64,
    /// What the task does after it.
    then: Option<Operation>,
    /// When the request is made that it waits for, if that is known.
    next_ns: Option<u64>,
}

/// At most one operation in progress, and how long its flush takes.
#[derive(Clone)]
pub(super) struct Overlap {
    /// From a request to its execution on its own CPU; 0 if the recording does not show it.
    latency_ns: u64,
    /// Whether the operation of the current event may be left in progress.
    may_wait: bool,
    /// When the request is made that the operation of the current event waits for, if that is known.
    next_ns: Option<u64>,
    open: Option<InProgress>,
    /// What is known of the order, if recorded flushes are followed.
    order: Arc<SentOrder>,
}

impl Overlap {
    /// With `follow`, requests that met are taken in the order of their records; not of calls that waited, which take effect
    /// when they were woken.
    pub(super) fn new(recording: &Recording, nesting: &Nesting, follow: bool) -> Self {
        let mut overlap = Self {
            latency_ns: latency_ns(recording),
            may_wait: false,
            next_ns: None,
            open: None,
            order: Arc::default(),
        };
        if follow && recording.meta.source == "perf" && overlap.latency_ns > 0 {
            let is_soon = |row: usize| overlap.is_soon(&recording.events.get(row)) && nesting.woken_ns(row).is_none();
            overlap.order = Arc::new(SentOrder::of(recording, overlap.latency_ns, is_soon));
        }
        overlap
    }

    /// Of an event whose request met another, as the records of both show.
    pub(super) fn asks(&self, row: usize) -> Option<Asks> {
        self.order.of_event(row)
    }

    /// Whether the event's operation flushes as soon as it begins, if it does.
    fn is_soon(&self, event: &Event) -> bool {
        match event.kind() {
            EventKind::Fault => true,
            EventKind::Madvise | EventKind::Munmap | EventKind::Mprotect => {
                event.end_ns.saturating_sub(event.time_ns) <= self.latency_ns.saturating_mul(SHORT_CALL)
            }
            _ => false,
        }
    }
}

impl Driver<'_> {
    /// Before an event: the operation in progress is over, unless the event can meet it.
    pub(super) fn meet(&mut self, row: usize, event: &Event) -> Result<()> {
        let is_soon = self.overlap.latency_ns > 0 && self.overlap.is_soon(event);
        self.overlap.may_wait = is_soon && self.may_be_met(row, event);
        self.overlap.next_ns = None;
        let Some(open) = &self.overlap.open else { return Ok(()) };
        if let Some(next_ns) = open.next_ns {
            return if event.time_ns <= next_ns { Ok(()) } else { self.end_open() };
        }
        let first = self.recording.events.get(open.row);
        let is_met = is_soon && self.meets(open.time_ns, &first, event);
        if is_met { Ok(()) } else { self.end_open() }
    }

    /// Whether an event comes soon enough after another that began at this time, in the same process on another CPU.
    fn meets(&self, begin_ns: u64, first: &Event, event: &Event) -> bool {
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        event.time_ns.saturating_sub(begin_ns) < self.overlap.latency_ns / 2
            && event.task != first.task
            && event.cpu != first.cpu
            && pid(event.task) == pid(first.task)
            && event.a0 >> 12 != first.a0 >> 12
    }

    /// Whether the next event meets this one: only then does its operation have to be left in progress.
    fn may_be_met(&self, row: usize, event: &Event) -> bool {
        // What a scenario's step leads to is not in the order of its rows; and gathers that others have open are closed while
        // a call waits for its flush.
        if self.is_lab || self.nesting.of_call(row) > 0 {
            return true;
        }
        let events = &self.recording.events;
        let begin_ns = self.now_ns.max(event.time_ns);
        let next_ns = events.time_ns.get(row + 1);
        next_ns.is_some_and(|next_ns| next_ns.saturating_sub(begin_ns) < self.overlap.latency_ns / 2) && {
            let next = events.get(row + 1);
            self.overlap.is_soon(&next) && self.meets(begin_ns, event, &next)
        }
    }

    /// Before an operation that takes effect late: the one in progress is over, unless it waits for this one's request.
    pub(super) fn meet_late(&mut self, asks: Option<Asks>) -> Result<()> {
        let waits_for = self.overlap.open.as_ref().and_then(|open| open.next_ns);
        if waits_for.is_none() || waits_for != asks.map(|asks| asks.sent_ns) {
            self.end_open()?;
        }
        self.overlap.next_ns = asks.and_then(|asks| asks.next_ns);
        self.overlap.may_wait = self.overlap.next_ns.is_some();
        Ok(())
    }

    /// Does an operation. The last one of an event may be left in progress where its flush tells other CPUs: it is taken
    /// to succeed, and `then` follows when it is over.
    pub(super) fn run_last(&mut self, operation: &Operation, then: Option<Operation>) -> Result<Outcome> {
        let Some(outcome) = self.advance_beside(operation)? else {
            if let Some(open) = &mut self.overlap.open {
                open.then = then;
            }
            return Ok(Outcome::None);
        };
        if let (Some(then), false) = (then, matches!(outcome, Outcome::Errno(_))) {
            self.overlap.may_wait = false;
            self.advance_beside(&then)?;
        }
        Ok(outcome)
    }

    /// Does an operation beside the one in progress, which goes on when it is in the way, or when a flush begins after its
    /// own. None: this one is in progress now.
    fn advance_beside(&mut self, operation: &Operation) -> Result<Option<Outcome>> {
        if self.overlap.open.is_none() && !self.overlap.may_wait {
            return self.run(operation).map(Some);
        }
        let mut call = self.machine.begin(operation.clone())?;
        loop {
            match self.machine.advance_to_flush(&mut call)? {
                Progress::Done(outcome) => return Ok(Some(outcome)),
                Progress::Blocked(_) if self.overlap.open.is_some() => self.end_open()?,
                Progress::Blocked(key) => return Err(Error::Value(format!("found {key} held, expected it free"))),
                Progress::Ran => {}
            }
            let Some(flush) = call.flushing() else { continue };
            let tells_others = flush.waiting().len() > 1;
            // Its generation is made: who asked before executes now.
            self.end_open()?;
            if tells_others && self.overlap.may_wait {
                let (row, task) = self.cause;
                let next_ns = self.overlap.next_ns;
                self.overlap.open = Some(InProgress { call, row, task, time_ns: self.now_ns, then: None, next_ns });
                return Ok(None);
            }
        }
    }

    /// The operation in progress goes on to its end; its flushes are booked on its own event.
    pub(super) fn end_open(&mut self) -> Result<()> {
        let Some(mut open) = self.overlap.open.take() else { return Ok(()) };
        let cause = std::mem::replace(&mut self.cause, (open.row, open.task));
        let mut done = None;
        while done.is_none() {
            if let Progress::Done(outcome) = self.machine.advance_to_flush(&mut open.call)? {
                done = Some(outcome);
            }
        }
        if let (Some(then), Some(Outcome::None | Outcome::Value(_))) = (open.then, done) {
            self.run(&then)?;
        }
        self.book();
        self.follow_mask(open.row, &self.recording.events.get(open.row))?;
        self.cause = cause;
        Ok(())
    }

    /// Whether the event's flush is still to come.
    pub(super) fn is_open(&self, row: usize) -> bool {
        self.overlap.open.as_ref().is_some_and(|open| open.row == row)
    }
}

/// The median time from asking to executing on the CPU that asked, of requests that another CPU obeyed (without an IPI it
/// takes next to none); 0 if the recording does not show it.
fn latency_ns(recording: &Recording) -> u64 {
    let flushes = &recording.flushes;
    let is =
        |row: usize, reason| flushes.kind[row] == FlushKind::TlbFlushEvent.number() && flushes.reason[row] == reason;
    let rows = |reason| (0..flushes.len()).filter(move |&row| is(row, reason));
    let sent_of = |row: usize| usize::try_from(flushes.request[row]).ok().filter(|&sent| is(sent, REMOTE_SEND_IPI));
    // A bit for each flush record.
    let mut obeyed = vec![0_u64; flushes.len().div_ceil(64)];
    rows(REMOTE_SHOOTDOWN).filter_map(sent_of).for_each(|sent| obeyed[sent / 64] |= 1 << (sent % 64));
    let mut latencies = Times::default();
    for row in rows(LOCAL_MM_SHOOTDOWN) {
        if let Some(sent) = sent_of(row).filter(|sent| obeyed[sent / 64] >> (sent % 64) & 1 != 0)
            && let Some(latency_ns) = flushes.time_ns[row].checked_sub(flushes.time_ns[sent])
        {
            latencies.add(latency_ns);
        }
    }
    latencies.median().unwrap_or(0)
}
