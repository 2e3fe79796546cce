//! Steps of a scenario whose entries ran at the same time: is what was recorded among what the machine can do?
//!
//! The records of a step lead its tasks ([`Interleaving`]): each goes to what was recorded of it next, in the order of the
//! records. What records leave open is how far a task ran beyond one of them before another went on, and how long after its
//! record a context switch took effect (`sched_switch` is traced before `switch_mm`). So, from the end of one entry to the end
//! of the next, several schedules are tried from the same state, and the first one under which the entry that ends there
//! is right in every column is taken. If there is none, the entries that ended before it are tried under other schedules that
//! suit them as well (`search.rs`). The schedules are the same on every run.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::driver::Driver;
use super::interleave::{Interleaving, Sign};
use super::lab::{Columns, Entries, Entry, model_columns, recorded_columns};
use super::search::{Found, Schedule, Search};
use super::traced::Traced;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::flush::{NO_REQUEST, TlbFlushEvent};
use crate::machine::{AccessKind, Operation};
use crate::trace::{Event, EventKind, FlushKind, Recording};

/// Records by which a context switch may be late.
const MAX_LATE: usize = 6;

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
pub(super) enum Item {
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

    /// The entries of the recording.
    pub(super) const fn entries(&self) -> &Entries {
        &self.entries
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

/// A step under way.
#[derive(Clone)]
pub(super) struct Way<'a> {
    driver: Driver<'a>,
    interleaving: Interleaving,
    /// Switches that have not taken effect: row, and the place of the record up to which they may wait.
    late: Vec<(usize, usize)>,
}

impl Way<'_> {
    /// Goes to the end of the records `from..to`.
    pub(super) fn go(&mut self, items: &[Item], from: usize, to: usize, schedule: Schedule) -> Result<()> {
        for (at, item) in items.iter().enumerate().take(to).skip(from) {
            let recording = self.driver.recording;
            let task = match *item {
                Item::Event(row) | Item::Return(row) => recording.events.task[row],
                Item::Flush(row) => recording.flushes.task[row],
            };
            self.switch_late(at, item, task)?;
            match *item {
                Item::Event(row) if recording.events.get(row).kind() == EventKind::Switch && schedule.is_late(at) => {
                    self.late.push((row, at + MAX_LATE));
                }
                Item::Event(row) => self.lead_to_event(row)?,
                Item::Return(row) => {
                    self.interleaving.until(&mut self.driver.machine, task, Sign::Return(row))?;
                }
                Item::Flush(row) => self.driver.lead_to_flush(&mut self.interleaving, row, schedule.is_slow(at))?,
            }
            let nth = self.interleaving.tasks().iter().position(|other| *other == task);
            if nth.is_some_and(|nth| schedule.runs_on(nth as u32, at)) {
                self.interleaving.run_ahead(&mut self.driver.machine, task)?;
            }
        }
        Ok(())
    }

    /// Late switches take effect before the CPU or the task that comes does anything, and in time.
    fn switch_late(&mut self, at: usize, item: &Item, task: u32) -> Result<()> {
        let recording = self.driver.recording;
        let cpu = match *item {
            Item::Event(row) => Some(recording.events.cpu[row]),
            Item::Return(_) => None,
            Item::Flush(row) => {
                let flush = recording.flushes.get(row);
                (flush.kind != FlushKind::Func.number()).then_some(flush.cpu)
            }
        };
        let is_due = |(row, until): &(usize, usize)| {
            let switch = recording.events.get(*row);
            *until <= at || Some(switch.cpu) == cpu || switch.a0 == u64::from(task)
        };
        let due: Vec<(usize, usize)> = self.late.extract_if(.., |late| is_due(late)).collect();
        due.into_iter().try_for_each(|(row, _)| self.lead_to_event(row))
    }

    fn lead_to_event(&mut self, row: usize) -> Result<()> {
        let before = self.driver.machine.nr_ops();
        self.driver.lead_to_event(&mut self.interleaving, row)?;
        // What was done at once belongs to the event too.
        let cause = (row, self.driver.recording.events.task[row]);
        for op in before..self.driver.machine.nr_ops() {
            self.interleaving.causes.entry(op).or_insert(cause);
        }
        Ok(())
    }

    /// Differences of an entry from what was recorded, as far as it went.
    pub(super) fn nr_differences(&self, steps: &ParallelSteps, entry: usize) -> usize {
        let model = model_columns(&self.driver.traces(&self.interleaving), &steps.entries);
        steps.recorded[entry].differences(&model[entry]).len()
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
        self.machine.set_probing(true);
        let way = Way { driver: self.clone(), interleaving: Interleaving::default(), late: Vec::new() };
        let Some(found) = Search::new(steps, &items, self.recording).run(way) else {
            // No schedule could be carried out: one after the other, as always.
            *self = start;
            self.put_back(booked);
            self.note("parallel step replayed in the order of its records");
            return (first..=last).try_for_each(|row| self.event(row));
        };
        let Found { way, nr_entries, nr_exact, nr_schedules } = found;
        let Way { driver, mut interleaving, late } = way;
        *self = driver;
        for (row, _) in late {
            self.lead_to_event(&mut interleaving, row)?;
        }
        for task in interleaving.tasks() {
            interleaving.finish(&mut self.machine, task)?;
        }
        self.put_back(booked);
        self.book_interleaved(&interleaving);
        self.parallel_outcomes.push(ParallelOutcome { row: first, nr_entries, nr_exact, nr_schedules });
        self.cause = (last, self.recording.events.task[last]);
        Ok(())
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
            EventKind::Fault => {
                // The runner's own pages: user space, so that the call before it is over.
                if let Some(call) = interleaving.row_of_call(event.task) {
                    interleaving.until(&mut self.machine, event.task, Sign::Return(call))?;
                }
                if interleaving.is_in_call(event.task) {
                    return Ok(());
                }
                self.collected = Some(Vec::new());
                self.fault(&event)?;
                let operations = self.collected.take().unwrap_or_default();
                if operations.is_empty() {
                    return Ok(());
                }
                interleaving.push_first(event.task, row, operations);
                interleaving.until(&mut self.machine, event.task, Sign::Return(row)).map(|_| ())
            }
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

    fn lead_to_flush(&mut self, interleaving: &mut Interleaving, row: usize, is_slow: bool) -> Result<()> {
        let flush = self.recording.flushes.get(row);
        let sign = match FlushKind::from_number(flush.kind) {
            Some(FlushKind::Gather | FlushKind::GatherFull) => Sign::Gather,
            Some(FlushKind::Finish) => Sign::Finish,
            Some(FlushKind::FlushMmu) => Sign::FlushMmu,
            Some(FlushKind::BatchPending) => Sign::BatchedPending,
            Some(FlushKind::MmRange | FlushKind::BatchFlush) => Sign::Request,
            Some(FlushKind::Func) => {
                if let Some(task) = interleaving.owing_on(&self.machine, CpuId(flush.icpu)) {
                    interleaving.make_owed(&mut self.machine, task)?;
                }
                interleaving.deliver(&mut self.machine, CpuId(flush.icpu), CpuId(flush.cpu));
                return Ok(());
            }
            Some(FlushKind::Multi) => return interleaving.make_owed(&mut self.machine, flush.task),
            _ => return Ok(()),
        };
        if !interleaving.tasks().contains(&flush.task) {
            return Ok(());
        }
        if is_slow && sign == Sign::Request {
            interleaving.owe_request(&mut self.machine, flush.task)?;
        } else {
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
        let unnamed_mms = self.unnamed_mms();
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
                unnamed_mms: unnamed_mms.clone(),
            });
        }
        for hit in &interleaving.probes {
            if let Some(&(row, task)) = interleaving.causes.get(&hit.op) {
                traces.push(Traced {
                    row,
                    task,
                    first_request: hit.nr_requests,
                    requests: Vec::new(),
                    events: Vec::new(),
                    probes: vec![*hit],
                    unnamed_mms: unnamed_mms.clone(),
                });
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
