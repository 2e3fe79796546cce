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
use super::lab::model::columns_of_requests;
use super::lab::recorded::columns_of_rows;
use super::lab::{Columns, Entries, Entry, model_columns, recorded_columns};
use super::search::{Found, Schedule, Search};
use super::switched_step::switched_entries;
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
    /// By first row.
    steps: BTreeMap<usize, Step>,
}

/// Rows that are replayed as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The last row.
    pub(super) last: usize,
    /// The only entry, if it ran alone and a CPU switched while it ran.
    pub(super) alone: Option<usize>,
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

/// What is held against the records at the end of a part of a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// An entry, which ends there.
    Entry(usize),
    /// The first requests of an entry that ran alone.
    Requests {
        /// Which entry.
        entry: usize,
        /// How many.
        nr: usize,
    },
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
            let end = end_of(recording, entry).unwrap_or(entry.row);
            let step = steps.entry(entry.step).or_insert((entry.row, end));
            *step = (step.0.min(entry.row), step.1.max(end));
        }
        let parallel = steps.into_values().map(|(first, last)| (first, Step { last, alone: None }));
        let steps = parallel.chain(switched_entries(recording, &entries)).collect();
        Self { entries, recorded, steps }
    }

    /// The columns that were recorded of an entry.
    pub(super) fn recorded(&self, entry: usize) -> &Columns {
        &self.recorded[entry]
    }

    /// The entries of the recording.
    pub(super) const fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The step that begins at a row.
    pub(super) fn at(&self, row: usize) -> Option<Step> {
        self.steps.get(&row).copied()
    }
}

/// The row with which an entry ends.
pub(super) fn end_of(recording: &Recording, entry: &Entry) -> Option<usize> {
    (entry.row..recording.events.len()).find(|row| {
        let event = recording.events.get(*row);
        event.task == entry.task && matches!(event.kind(), EventKind::StepEnd | EventKind::Exit)
    })
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
        // A call that is not known is no operation: fsync opens its file first.
        if event.kind().is_call() && event.kind() != EventKind::OtherCall {
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
    let mut items: Vec<Item> = items.into_iter().map(|(_, _, item)| item).collect();
    switch_before_gather_ends(recording, &mut items);
    items
}

/// The end of a gather and its request are two records of one step of the machine. What other CPUs switch to between them was
/// before the request, so it goes before both.
fn switch_before_gather_ends(recording: &Recording, items: &mut [Item]) {
    let ends_gather = |item: &Item| {
        let Item::Flush(row) = *item else { return None };
        let flush = recording.flushes.get(row);
        let ends = matches!(FlushKind::from_number(flush.kind), Some(FlushKind::Finish | FlushKind::FlushMmu));
        ends.then_some((flush.task, flush.cpu))
    };
    for at in 0..items.len() {
        let Some((task, cpu)) = ends_gather(&items[at]) else { continue };
        let makes_request = |item: &Item| match *item {
            Item::Flush(row) => {
                let flush = recording.flushes.get(row);
                (flush.task == task && flush.kind != FlushKind::Func.number())
                    .then_some(flush.kind == FlushKind::MmRange.number())
            }
            Item::Event(row) | Item::Return(row) => (recording.events.task[row] == task).then_some(false),
        };
        let Some(to) = (at + 1..items.len()).find(|&to| makes_request(&items[to]).is_some()) else { continue };
        if makes_request(&items[to]) != Some(true) {
            continue;
        }
        // A stable partition: switches of other CPUs, then the rest in its order.
        items[at..to].sort_by_key(|item| match *item {
            Item::Event(row) => {
                recording.events.get(row).kind() != EventKind::Switch || recording.events.cpu[row] == cpu
            }
            _ => true,
        });
    }
}

/// How a flush record is come to.
#[derive(Clone, Copy, Debug)]
struct FlushWay {
    /// A request raises the generation late.
    is_slow: bool,
    /// A request's targets are chosen again before the first CPU executes it.
    chooses_again: bool,
    /// A walk stopped on the way, as a reschedule was due.
    stops: bool,
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
                Item::Flush(row) => {
                    let way = FlushWay {
                        is_slow: schedule.is_slow(at),
                        chooses_again: schedule.chooses_again(at),
                        stops: schedule.stops(at),
                    };
                    self.driver.lead_to_flush(&mut self.interleaving, row, way)?;
                }
            }
            let nth = self.interleaving.tasks().iter().position(|other| *other == task);
            if let Item::Event(row) = *item
                && self.driver.faults_again(row)
            {
                self.interleaving.finish_fault(&mut self.driver.machine, task)?;
            } else if nth.is_some_and(|nth| schedule.runs_on(nth as u32, at)) {
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
        self.driver.led_since = Some(self.driver.machine.engine().log_mark());
        self.driver.lead_to_event(&mut self.interleaving, row)?;
        // What was done at once belongs to the event too.
        let cause = (row, self.driver.recording.events.task[row]);
        for op in before..self.driver.machine.nr_ops() {
            if self.interleaving.nobodys.contains(&op) {
                continue;
            }
            self.interleaving.causes.entry(op).or_insert(cause);
        }
        Ok(())
    }

    /// Differences from what was recorded, as far as it went.
    pub(super) fn nr_differences(&self, steps: &ParallelSteps, check: Check, requests: &[Vec<usize>]) -> usize {
        let traces = self.driver.traces(&self.interleaving);
        match check {
            Check::Entry(entry) => {
                let model = model_columns(&traces, &steps.entries);
                steps.recorded[entry].differences(&model[entry]).len()
            }
            Check::Requests { entry, nr } => {
                let rows: Vec<usize> = requests.iter().take(nr).flatten().copied().collect();
                let recorded = columns_of_rows(self.driver.recording, &rows);
                recorded.differences(&columns_of_requests(&traces, &steps.entries, entry, nr)).len()
            }
        }
    }
}

impl Driver<'_> {
    /// Replays the rows of a step, led by its records.
    pub(super) fn parallel_step(&mut self, steps: &ParallelSteps, first: usize, step: Step) -> Result<()> {
        let last = step.last;
        self.flush_reclaim()?;
        self.run_deferred(self.recording.events.time_ns[first])?;
        self.book();
        let items = items(self.recording, first, last);
        let booked = self.set_aside();
        let start = self.clone();
        self.machine.set_probing(true);
        self.led_since = Some(self.machine.engine().log_mark());
        let interleaving = Interleaving::new(step.alone.is_some());
        let way = Way { driver: self.clone(), interleaving, late: Vec::new() };
        let found = Search::new(steps, step, &items, self.recording).run(way);
        let Some(found) = found.filter(|found| step.alone.is_none() || found.nr_exact == found.nr_entries) else {
            // No schedule could be carried out, or none is better: one after the other, as always.
            *self = start;
            self.put_back(booked);
            if step.alone.is_none() {
                self.note("parallel step replayed in the order of its records");
            }
            return (first..=last).try_for_each(|row| self.event(row));
        };
        let Found { way, nr_entries, nr_exact, nr_schedules } = found;
        let Way { driver, mut interleaving, late } = way;
        *self = driver;
        for (row, _) in late {
            self.lead_to_event(&mut interleaving, row)?;
        }
        let running = self.running();
        for task in interleaving.tasks() {
            interleaving.finish(&mut self.machine, task)?;
        }
        self.led_since = None;
        self.put_back(booked);
        self.book_interleaved(&interleaving);
        self.run_again(&running)?;
        self.cause = (last, self.recording.events.task[last]);
        if step.alone.is_some() {
            self.note("entry during which a CPU switched: their order taken from the records");
        } else {
            self.parallel_outcomes.push(ParallelOutcome { row: first, nr_entries, nr_exact, nr_schedules });
        }
        (first..=last).try_for_each(|row| self.follow_idle(row))
    }

    /// What runs on each CPU.
    fn running(&self) -> Vec<Option<u32>> {
        (0..).map_while(|cpu| self.machine.cpu(CpuId(cpu))).map(|cpu| cpu.curr).collect()
    }

    /// A task that had something left after its last switch came back for it to where it ran: what was switched to in the
    /// records runs there again.
    fn run_again(&mut self, running: &[Option<u32>]) -> Result<()> {
        for (cpu, (before, now)) in (0..).zip(running.iter().zip(self.running())) {
            if *before != now && before.is_none_or(|task| self.machine.task(task).is_ok()) {
                self.run(&Operation::Schedule { cpu, task: *before })?;
                self.discard_log();
            }
        }
        Ok(())
    }

    fn lead_to_event(&mut self, interleaving: &mut Interleaving, row: usize) -> Result<()> {
        let event = self.recording.events.get(row);
        self.set_now(event.time_ns);
        self.lead_forks(interleaving, &event)?;
        self.cause = (row, event.task);
        match event.kind() {
            EventKind::StepEnd => {
                interleaving.finish(&mut self.machine, event.task)?;
                self.lead_forks(interleaving, &event)?;
                self.scenario(row, &event)
            }
            EventKind::Access => self.push_accesses(interleaving, row, &event),
            EventKind::Fault if self.step_covers(&event) => {
                let page = VirtAddr(event.a0).align_down(PAGE_SHIFT);
                if interleaving.is_alone {
                    self.heed_recorded_fault(&event)?;
                }
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
                if interleaving.is_alone {
                    // Its request is led as any other; the next record of the task finds it done.
                    return Ok(());
                }
                interleaving.until(&mut self.machine, event.task, Sign::Return(row)).map(|_| ())
            }
            EventKind::Switch => {
                let curr = self.machine.cpu(CpuId(event.cpu)).and_then(|cpu| cpu.curr);
                if let Some(running) = curr {
                    interleaving.leave_atomic(&mut self.machine, running)?;
                }
                self.switch(&event)?;
                self.lead_rseq(interleaving, row, &event)?;
                self.visit_unseen(row, &event)
            }
            EventKind::Fsync | EventKind::Ftruncate | EventKind::Fpunch | EventKind::ClearRefs => {
                self.collected = Some(Vec::new());
                self.scenario(row, &event)?;
                self.push_collected(interleaving, row, event.task);
                Ok(())
            }
            // From the visit on, a CPU that switches finds the generation raised, or is told.
            EventKind::ReclaimPage if interleaving.is_in_call(event.task) => {
                let page = VirtAddr(event.a0).align_down(PAGE_SHIFT);
                interleaving.until(&mut self.machine, event.task, Sign::UnmapOne(page)).map(|_| ())
            }
            EventKind::Fork if interleaving.is_alone => self.lead_to_fork(interleaving, row, &event),
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
        let faults = if interleaving.is_alone { self.faults_of(row, event) } else { None };
        let mm = self.machine.task_mm(task)?;
        for page in (0..event.a1).step_by(step) {
            let addr = event.a0.saturating_add(page.saturating_mul(PAGE_SIZE));
            if faults.as_ref().is_some_and(|faults| !faults.contains_key(&addr)) {
                self.heed_fault(mm, VirtAddr(addr), kind, None)?;
            }
            interleaving.push(event.task, row, Operation::Access { task, addr, kind });
        }
        Ok(())
    }

    fn lead_to_flush(&mut self, interleaving: &mut Interleaving, row: usize, way: FlushWay) -> Result<()> {
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
                interleaving.deliver(&mut self.machine, CpuId(flush.icpu), CpuId(flush.cpu), way.chooses_again);
                return Ok(());
            }
            Some(FlushKind::Multi) => return interleaving.make_owed(&mut self.machine, flush.task),
            _ => return Ok(()),
        };
        if !interleaving.tasks().contains(&flush.task) {
            return Ok(());
        }
        if way.stops {
            // Where, only what was flushed by then tells; else it does not matter.
            let at = if sign == Sign::BatchedPending { VirtAddr(0) } else { VirtAddr(flush.end) };
            if flush.count > 1 && sign == Sign::BatchedPending {
                interleaving.until(&mut self.machine, flush.task, sign)?;
            }
            interleaving.until_stopped(&mut self.machine, flush.task, sign, at)?;
        } else if way.is_slow && sign == Sign::Request {
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
        for hit in interleaving.probes.iter().filter(|hit| !interleaving.hides(hit)) {
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
