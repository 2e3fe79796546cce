//! What a replay keeps of what the machine did: flushes on the event that caused them, notes, traces.

use super::driver::{Driver, Keep};
use super::flushed::Predicted;
use super::ledger::{Ledger, OpKind};
use super::parallel_step::ParallelOutcome;
use super::traced::Traced;
use crate::flush::{FlushRequest, TlbFlushEvent};
use crate::machine::Probe;

/// What a driver has booked.
#[derive(Default)]
pub(super) struct Booked {
    predicted: Vec<Predicted>,
    ledger: Ledger,
    noted: Vec<(usize, &'static str)>,
    traced: Option<Vec<Traced>>,
    parallel_outcomes: Vec<ParallelOutcome>,
}

impl Driver<'_> {
    /// Notes that something had to be assumed or passed over for the event that is the current cause.
    pub(super) fn note(&mut self, name: &'static str) {
        match self.keep {
            Keep::All => self.noted.push((self.cause.0, name)),
            Keep::Sums => *self.notes.entry(name).or_default() += 1,
        }
    }

    /// Takes out what was booked, so that the rest can be cloned.
    pub(super) fn set_aside(&mut self) -> Booked {
        Booked {
            predicted: std::mem::take(&mut self.predicted),
            ledger: std::mem::take(&mut self.ledger),
            noted: std::mem::take(&mut self.noted),
            traced: self.traced.as_mut().map(std::mem::take),
            parallel_outcomes: std::mem::take(&mut self.parallel_outcomes),
        }
    }

    /// Puts back what was taken out; what was noted since follows it.
    pub(super) fn put_back(&mut self, booked: Booked) {
        self.predicted = booked.predicted;
        self.ledger = booked.ledger;
        let noted = std::mem::replace(&mut self.noted, booked.noted);
        self.noted.extend(noted);
        self.traced = booked.traced;
        self.parallel_outcomes = booked.parallel_outcomes;
    }

    /// Whether everything that the machine does is kept.
    pub(super) const fn is_traced(&self) -> bool {
        self.traced.is_some()
    }

    /// Keeps what the machine does from now on, and forgets what it did.
    pub(super) fn trace_from_here(&mut self) {
        self.machine.set_probing(true);
        self.traced = Some(Vec::new());
    }

    /// Takes out what was kept.
    pub(super) fn take_traces(&mut self) -> Vec<Traced> {
        self.traced.take().unwrap_or_default()
    }

    /// Keeps what the machine did, if that is wanted.
    pub(super) fn add_traces(&mut self, traces: Vec<Traced>) {
        if let Some(traced) = &mut self.traced {
            traced.extend(traces);
        }
    }

    /// Books a request on the row and task that caused it.
    pub(super) fn book_request(&mut self, (row, task): (usize, u32), request: &FlushRequest, events: &[TlbFlushEvent]) {
        self.ledger.request(OpKind::of(self.recording, row), request);
        self.in_flight.sent(request, self.recording.events.kind[row], self.recording.events.time_ns[row]);
        self.predicted.push(Predicted::new(row, task, request, events));
    }

    /// Forgets what the machine did since the last time: it was not done in the recording.
    pub(super) fn discard_log(&mut self) {
        match &self.led_since {
            Some(mark) => self.machine.engine_mut().discard_log_since(mark),
            None => self.machine.engine_mut().discard_log(),
        }
        self.machine.take_probes();
    }

    /// Books what the machine flushed since the last time on the current cause.
    pub(super) fn book(&mut self) {
        self.book_but(|_| true);
    }

    /// The same of what the kernel did by itself: its faults are not those of user mode, which alone are recorded.
    pub(super) fn book_by_kernel(&mut self) {
        self.book_but(|probe| !matches!(probe, Probe::Fault { .. }));
    }

    fn book_but(&mut self, is_seen: impl Fn(&Probe) -> bool) {
        if self.led_since.is_some() {
            self.led_since = Some(self.machine.engine().log_mark());
            return;
        }
        let (row, task) = self.cause;
        if self.traced.is_none() && self.machine.engine_mut().is_log_empty() {
            return;
        }
        let (requests, events) = self.machine.engine_mut().take_log();
        let first = self.machine.engine().counters().nr_flush_requests - requests.len() as u64;
        let unnamed_mms = self.unnamed_mms();
        if let Some(traced) = &mut self.traced {
            let mut probes = self.machine.take_probes();
            probes.retain(|hit| is_seen(&hit.probe));
            if !requests.is_empty() || !probes.is_empty() {
                let (requests, events) = (requests.clone(), events.clone());
                let unnamed_mms = unnamed_mms.clone();
                traced.push(Traced { row, task, first_request: first, requests, events, probes, unnamed_mms });
            }
        }
        if requests.is_empty() {
            return;
        }
        let kind = OpKind::of(self.recording, row);
        let mut rest = &events[..];
        for (index, request) in requests.iter().enumerate() {
            self.ledger.request(kind, request);
            // Later than its event, if the event's call had to wait.
            self.in_flight.sent(request, self.recording.events.kind[row], self.now_ns);
            if self.keep == Keep::Sums {
                continue;
            }
            let number = i64::try_from(first + index as u64).unwrap_or(i64::MAX);
            let begin = rest.iter().position(|e| e.request >= number).unwrap_or(rest.len());
            let end = rest.iter().position(|e| e.request > number).unwrap_or(rest.len());
            if request.mm.is_some_and(|mm| unnamed_mms.contains(&mm)) {
                self.note("flush of an address space that the recording does not name");
            } else {
                self.predicted.push(Predicted::new(row, task, request, &rest[begin..end]));
            }
            rest = &rest[end..];
        }
    }
}
