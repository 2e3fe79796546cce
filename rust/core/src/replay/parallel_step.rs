//! Steps of a scenario whose entries ran at the same time: is what was recorded among what the machine can do?
//!
//! The records of a step lead its tasks ([`Interleaving`]): each goes to what was recorded of it next, in the order of the
//! records. What records leave open is how far a task ran beyond one of them before another went on, so several schedules
//! are tried from the same state, and the first one in which every entry is right in every column is taken; else the one
//! in which most are. The schedules are the same on every run.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::driver::Driver;
use super::interleave::{Interleaving, Sign};
use super::lab::{Columns, Entries, Entry, model_columns, recorded_columns};
use super::traced::Traced;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::flush::{NO_REQUEST, TlbFlushEvent};
use crate::machine::{AccessKind, Operation};
use crate::trace::{Event, EventKind, FlushKind, Recording};

/// Schedules tried for a step: each task of four stopping or running on, and as many again that mix both.
const MAX_SCHEDULES: u64 = 48;
/// Tasks for which stopping or running on all the way is tried in every combination.
const MAX_UNIFORM_TASKS: u32 = 4;

/// The parallel steps of a recording.
pub(super) struct ParallelSteps {
    entries: Entries,
    recorded: Vec<Columns>,
    /// First row to last row.
    steps: BTreeMap<usize, usize>,
}

/// What became of one parallel step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParallelOutcome {
    /// Row of the event that it began with.
    pub row: usize,
    /// Its entries.
    pub nr_entries: usize,
    /// Those that are right in every column under the schedule that was taken.
    pub nr_exact: usize,
    /// Schedules tried.
    pub nr_schedules: u64,
}

/// A place in a step, in the order of the records.
#[derive(Clone, Copy, Debug)]
enum Item {
    Event(usize),
    Flush(usize),
    /// The call of this row returned.
    Return(usize),
}

impl ParallelSteps {
    /// Finds them.
    pub(super) fn of(recording: &Recording) -> Self {
        let entries = Entries::of(recording);
        let recorded = recorded_columns(recording, &entries);
        let mut steps: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let is_parallel = |entry: &&Entry| entry.parallel && entry.text != Entry::EXIT_MMAP;
        for entry in entries.list.iter().filter(is_parallel) {
            let rows = entry.row..recording.events.len();
            let is_end = |row: &usize| {
                let event = recording.events.get(*row);
                event.task == entry.task && matches!(event.kind(), EventKind::StepEnd | EventKind::Exit)
            };
            let end = rows.clone().find(is_end).unwrap_or(entry.row);
            let step = steps.entry(entry.step).or_insert((entry.row, end));
            *step = (step.0.min(entry.row), step.1.max(end));
        }
        Self { entries, recorded, steps: steps.into_values().collect() }
    }

    /// The last row of the parallel step that begins at a row.
    pub(super) fn end_of(&self, row: usize) -> Option<usize> {
        self.steps.get(&row).copied()
    }
}

/// The rows of a step with its flush records, in the order of their times.
fn items(recording: &Recording, first: usize, last: usize) -> Vec<Item> {
    let mut items: Vec<(u64, u8, Item)> = Vec::new();
    for row in first..=last {
        let event = recording.events.get(row);
        let rank = match event.kind() {
            EventKind::StepBegin => 0,
            EventKind::Switch => 4,
            EventKind::StepEnd => 5,
            _ => 1,
        };
        items.push((event.time_ns, rank, Item::Event(row)));
        if event.kind().is_call() {
            items.push((event.end_ns, 3, Item::Return(row)));
        }
    }
    let (from, to) = (recording.events.time_ns[first], recording.events.time_ns[last]);
    for row in 0..recording.flushes.len() {
        let time = recording.flushes.time_ns[row];
        if (from..=to).contains(&time) {
            items.push((time, 2, Item::Flush(row)));
        }
    }
    items.sort_by_key(|(time, rank, _)| (*time, *rank));
    items.into_iter().map(|(_, _, item)| item).collect()
}

/// Which schedule is tried: how far a task runs beyond a record.
#[derive(Clone, Copy)]
struct Schedule(u64);

impl Schedule {
    /// Whether the `nth` task runs on to just before its next sign after the `at`-th record.
    fn runs_on(self, nth: u32, at: usize) -> bool {
        if self.0 < 1 << MAX_UNIFORM_TASKS {
            return self.0 >> nth.min(MAX_UNIFORM_TASKS - 1) & 1 != 0;
        }
        let mut x = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(nth) << 32 | at as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) & 1 != 0
    }
}

impl Driver<'_> {
    /// Replays the rows of a parallel step.
    pub(super) fn parallel_step(&mut self, steps: &ParallelSteps, first: usize, last: usize) -> Result<()> {
        self.flush_reclaim()?;
        self.run_deferred(self.recording.events.time_ns[first])?;
        self.book();
        let items = items(self.recording, first, last);
        let booked = self.set_aside();
        let start = self.clone();
        let mut best: Option<(usize, Self, Interleaving)> = None;
        let mut nr_schedules = 0;
        let of_step: Vec<usize> = (0..steps.entries.list.len())
            .filter(|entry| (first..=last).contains(&steps.entries.list[*entry].row))
            .filter(|entry| steps.entries.list[*entry].text != Entry::EXIT_MMAP)
            .collect();
        while nr_schedules < MAX_SCHEDULES {
            let mut trial = start.clone();
            let tried = trial.try_schedule(&items, Schedule(nr_schedules));
            nr_schedules += 1;
            let Ok(interleaving) = tried else { continue };
            let model = model_columns(&trial.traces(&interleaving), &steps.entries);
            let nr_exact = of_step.iter().filter(|entry| model[**entry] == steps.recorded[**entry]).count();
            if best.as_ref().is_none_or(|(most, _, _)| nr_exact > *most) {
                best = Some((nr_exact, trial, interleaving));
            }
            if nr_exact == of_step.len() {
                break;
            }
        }
        let Some((nr_exact, trial, interleaving)) = best else {
            // No schedule could be carried out: one after the other, as always.
            *self = start;
            self.put_back(booked);
            self.note("parallel step replayed in the order of its records");
            return (first..=last).try_for_each(|row| self.event(row));
        };
        *self = trial;
        self.put_back(booked);
        self.book_interleaved(&interleaving);
        let nr_entries = of_step.len();
        self.parallel_outcomes.push(ParallelOutcome { row: first, nr_entries, nr_exact, nr_schedules });
        self.cause = (last, self.recording.events.task[last]);
        Ok(())
    }

    fn try_schedule(&mut self, items: &[Item], schedule: Schedule) -> Result<Interleaving> {
        let mut interleaving = Interleaving::default();
        self.machine.set_probing(true);
        for (at, item) in items.iter().enumerate() {
            let task = match *item {
                Item::Event(row) => {
                    self.lead_to_event(&mut interleaving, row)?;
                    self.recording.events.task[row]
                }
                Item::Return(row) => {
                    let task = self.recording.events.task[row];
                    interleaving.until(&mut self.machine, task, Sign::Return(row))?;
                    task
                }
                Item::Flush(row) => {
                    self.lead_to_flush(&mut interleaving, row)?;
                    self.recording.flushes.task[row]
                }
            };
            let nth = interleaving.tasks().iter().position(|other| *other == task);
            if nth.is_some_and(|nth| schedule.runs_on(nth as u32, at)) {
                interleaving.run_ahead(&mut self.machine, task)?;
            }
        }
        for task in interleaving.tasks() {
            interleaving.finish(&mut self.machine, task)?;
        }
        Ok(interleaving)
    }

    fn lead_to_event(&mut self, interleaving: &mut Interleaving, row: usize) -> Result<()> {
        let event = self.recording.events.get(row);
        self.set_now(event.time_ns);
        self.cause = (row, event.task);
        match event.kind() {
            EventKind::StepEnd => {
                interleaving.finish(&mut self.machine, event.task)?;
                self.scenario(row, &event)
            }
            EventKind::Access => self.push_accesses(interleaving, row, &event),
            EventKind::Fault if self.step_covers(&event) => {
                let page = VirtAddr(event.a0).align_down(PAGE_SHIFT);
                interleaving.until(&mut self.machine, event.task, Sign::Fault(page)).map(|_| ())
            }
            // The runner's own pages: nothing that the entries are compared by.
            EventKind::Fault if interleaving.is_in_call(event.task) => Ok(()),
            EventKind::Switch => {
                let curr = self.machine.cpu(CpuId(event.cpu)).and_then(|cpu| cpu.curr);
                if let Some(running) = curr {
                    interleaving.leave_atomic(&mut self.machine, running)?;
                }
                self.switch(&event)
            }
            EventKind::Fsync | EventKind::Ftruncate | EventKind::Fpunch | EventKind::ClearRefs => {
                self.collected = Some(Vec::new());
                self.scenario(row, &event)?;
                self.push_collected(interleaving, row, event.task);
                Ok(())
            }
            EventKind::Fork | EventKind::Exec => self.dispatch(row, &event),
            kind if kind.is_call() => {
                self.collected = Some(Vec::new());
                self.call_alone(&event)?;
                self.push_collected(interleaving, row, event.task);
                Ok(())
            }
            _ => self.dispatch(row, &event),
        }
    }

    fn push_collected(&mut self, interleaving: &mut Interleaving, row: usize, task: u32) {
        for operation in self.collected.take().unwrap_or_default() {
            interleaving.push(task, row, operation);
        }
    }

    fn push_accesses(&mut self, interleaving: &mut Interleaving, row: usize, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let kind = if event.a3 != 0 { AccessKind::Write } else { AccessKind::Read };
        let step = usize::try_from(event.a2.max(1)).unwrap_or(usize::MAX);
        for page in (0..event.a1).step_by(step) {
            let addr = event.a0.saturating_add(page.saturating_mul(PAGE_SIZE));
            interleaving.push(event.task, row, Operation::Access { task, addr, kind });
        }
        Ok(())
    }

    fn lead_to_flush(&mut self, interleaving: &mut Interleaving, row: usize) -> Result<()> {
        let flush = self.recording.flushes.get(row);
        let sign = match FlushKind::from_number(flush.kind) {
            Some(FlushKind::Gather | FlushKind::GatherFull) => Sign::Gather,
            Some(FlushKind::Finish) => Sign::Finish,
            Some(FlushKind::FlushMmu) => Sign::FlushMmu,
            Some(FlushKind::BatchPending) => Sign::BatchedPending,
            Some(FlushKind::MmRange | FlushKind::BatchFlush) => Sign::Request,
            Some(FlushKind::Func) => {
                interleaving.deliver(&mut self.machine, CpuId(flush.icpu), CpuId(flush.cpu));
                return Ok(());
            }
            _ => return Ok(()),
        };
        if interleaving.tasks().contains(&flush.task) {
            interleaving.until(&mut self.machine, flush.task, sign)?;
        }
        Ok(())
    }

    /// What the machine did for each row, as a replay in one order would have traced it.
    fn traces(&self, interleaving: &Interleaving) -> Vec<Traced> {
        let (requests, events) = (self.machine.engine().log(), self.machine.engine().events());
        let first = self.machine.engine().counters().nr_flush_requests - requests.len() as u64;
        let mut of_request: FxHashMap<i64, Vec<TlbFlushEvent>> = FxHashMap::default();
        for event in events {
            of_request.entry(event.request).or_default().push(*event);
        }
        let switches = of_request.remove(&NO_REQUEST).unwrap_or_default();
        let mut traces = Vec::new();
        for (number, request) in (first..).zip(requests) {
            let Some(&(row, task)) = interleaving.causes.get(&request.op) else { continue };
            let mut events = of_request.remove(&number.cast_signed()).unwrap_or_default();
            events.extend(&switches);
            traces.push(Traced {
                row,
                task,
                first_request: number,
                requests: vec![request.clone()],
                events,
                probes: Vec::new(),
            });
        }
        for hit in &interleaving.probes {
            if let Some(&(row, task)) = interleaving.causes.get(&hit.op) {
                let (first_request, probes) = (hit.nr_requests, vec![*hit]);
                traces.push(Traced { row, task, first_request, requests: Vec::new(), events: Vec::new(), probes });
            }
        }
        traces
    }

    fn book_interleaved(&mut self, interleaving: &Interleaving) {
        let traces = self.traces(interleaving);
        self.machine.engine_mut().take_log();
        self.machine.take_probes();
        self.machine.set_probing(self.is_traced());
        for trace in &traces {
            for request in &trace.requests {
                if let Some(&cause) = interleaving.causes.get(&request.op) {
                    let number = trace.first_request.cast_signed();
                    let events: Vec<TlbFlushEvent> =
                        trace.events.iter().filter(|event| event.request == number).copied().collect();
                    self.book_request(cause, request, &events);
                }
            }
        }
        self.add_traces(traces);
    }
}
