//! The walk over a recording: each event goes to what knows its kind; flushes are booked on it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::flushed::Predicted;
use super::in_flight::InFlight;
use super::lab::evidence::LabEvidence;
use super::lab::rseq::Rseq;
use super::ledger::{Ledger, OpKind};
use super::mask_evidence::MaskEvidence;
use super::nesting::Nesting;
use super::overlap::Overlap;
use super::parallel_step::{ParallelOutcome, ParallelSteps};
use super::reclaim::ReclaimList;
use super::tasks::Tasks;
use super::traced::Traced;
use crate::error::{Error, Result};
use crate::flush::{LogMark, MmId};
use crate::machine::{Counters, FileId, Machine, MachineConfig, Operation, Outcome};
use crate::program::CompiledKernel;
use crate::trace::{Event, EventKind, Recording};

/// What a replay gave.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The flushes, in the order of the events that caused them.
    pub predicted: Vec<Predicted>,
    /// Sums per kind of operation.
    pub ledger: Ledger,
    /// Sums of the machine.
    pub counters: Counters,
    /// What had to be assumed or passed over, by name.
    pub notes: BTreeMap<&'static str, u64>,
    /// The same with the row of the event where it was noted, in the order of the rows.
    pub noted: Vec<(usize, &'static str)>,
    /// Events replayed.
    pub nr_events: u64,
    /// The parallel steps of a scenario, in order; none if the replay is not led by what was recorded.
    pub parallel: Vec<ParallelOutcome>,
}

/// Replays a recording under a kernel.
///
/// With `follow_masks`, a recorded flush corrects the model's mm_cpumask afterwards, where it shows the mask to be another
/// (`mask_evidence.rs`); only sensible under the kernel that was recorded.
///
/// `stop` is asked once for [`EVENTS_PER_ASKING`] events; when it says so the replay ends early with what it has.
///
/// # Errors
/// A recording that does not hold together ([`Recording::verify`]), a machine configuration that cannot be, or an
/// operation that the machine cannot do (with the row of its event).
pub fn replay(
    recording: &Recording,
    kernel: &Arc<CompiledKernel>,
    config: &MachineConfig,
    follow_masks: bool,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Replayed> {
    run(recording, kernel, config, follow_masks, (Keep::All, false), stop).map(|(replayed, _)| replayed)
}

/// The same with everything that the machine did about flushes, event by event. Slower.
///
/// # Errors
/// As [`replay`].
pub fn replay_traced(
    recording: &Recording,
    kernel: &Arc<CompiledKernel>,
    config: &MachineConfig,
    follow_masks: bool,
    stop: &mut dyn FnMut() -> bool,
) -> Result<(Replayed, Vec<Traced>)> {
    run(recording, kernel, config, follow_masks, (Keep::All, true), stop)
}

/// A replay asks whether to stop once for so many events.
pub const EVENTS_PER_ASKING: usize = 4096;

/// What a replay keeps of what it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Each flush and each note, with its event.
    All,
    /// Sums only: [`Replayed::predicted`] and [`Replayed::noted`] are empty.
    Sums,
}

pub(super) fn run(
    recording: &Recording,
    kernel: &Arc<CompiledKernel>,
    config: &MachineConfig,
    follow_masks: bool,
    (keep, trace): (Keep, bool),
    stop: &mut dyn FnMut() -> bool,
) -> Result<(Replayed, Vec<Traced>)> {
    recording.verify()?;
    check_cpus(recording, config)?;
    let mut driver = Driver::new(recording, kernel, config, &Measured::of(recording, config, follow_masks), keep)?;
    driver.machine.set_probing(trace);
    driver.traced = trace.then(Vec::new);
    // Only the kernel that was recorded can be led by what was recorded of it.
    let parallel = (recording.meta.source == "lab" && follow_masks).then(|| ParallelSteps::of(recording));
    let mut next = 0;
    while next < recording.events.len() {
        let row = next;
        if row % EVENTS_PER_ASKING == 0 && stop() {
            break;
        }
        let led = parallel.as_ref().and_then(|steps| Some((steps, steps.at(row)?)));
        next = led.map_or(row, |(_, led)| led.last) + 1;
        let done = match led {
            Some((steps, led)) => driver.led_step(steps, row, led),
            None => driver.event(row),
        };
        done.map_err(|error| of_event(row, error))?;
    }
    driver.end()
}

fn of_event(row: usize, error: Error) -> Error {
    match error {
        Error::Value(message) => Error::Value(format!("event {row}: {message}")),
        other => other,
    }
}

/// What a replay measures in its recording before it begins.
pub(super) struct Measured {
    nesting: Arc<Nesting>,
    masks: Option<Arc<MaskEvidence>>,
    overlap: Overlap,
    in_flight: InFlight,
    /// When the last event of all is over, and the last call that takes effect late.
    end_ns: u64,
}

impl Measured {
    pub(super) fn of(recording: &Recording, config: &MachineConfig, follow_masks: bool) -> Self {
        let nesting = if recording.meta.source == "perf" { Nesting::of(recording) } else { Nesting::default() };
        let events = &recording.events;
        let is_late = |kind: u8| [EventKind::Mmap, EventKind::Mremap].iter().any(|late| late.number() == kind);
        let late = events.kind.iter().zip(events.end_ns.iter()).filter(|&(&kind, _)| is_late(kind));
        let end_ns = late.fold(events.time_ns.last().copied().unwrap_or(0), |end_ns, (_, &late)| end_ns.max(late));
        Self {
            end_ns: end_ns.max(nesting.last_woken_ns().saturating_add(1)),
            masks: follow_masks.then(|| Arc::new(MaskEvidence::new(recording))),
            overlap: Overlap::new(recording, &nesting, follow_masks),
            in_flight: InFlight::new(recording, &nesting, config.nr_cpus as usize),
            nesting: Arc::new(nesting),
        }
    }
}

impl Measured {
    /// Whether a call had to wait for others, and takes effect when it was woken.
    pub(super) fn has_woken_calls(&self) -> bool {
        self.nesting.last_woken_ns() > 0
    }
}

impl Replayed {
    /// Calls that take effect late, and operations that others overtake, are booked late: not so in a result.
    pub(super) fn put_in_order(&mut self) {
        self.predicted.sort_by_key(|flush| flush.op_event);
        self.noted.sort_by_key(|(row, _)| *row);
    }
}

/// Whether the machine has every CPU that an event or flush is on.
pub(super) fn check_cpus(recording: &Recording, config: &MachineConfig) -> Result<()> {
    let check = |table: &str, cpus: &[u16]| match cpus.iter().position(|&cpu| u32::from(cpu) >= config.nr_cpus) {
        Some(row) => Err(Error::Value(format!(
            "{table} {row}: found CPU {}, expected below {} (the machine's CPUs)",
            cpus[row], config.nr_cpus
        ))),
        None => Ok(()),
    };
    check("event", &recording.events.cpu)?;
    check("flush", &recording.flushes.cpu)
}

/// A machine in the middle of a recording.
#[derive(Clone)]
pub(super) struct Driver<'a> {
    pub(super) recording: &'a Recording,
    pub(super) machine: Machine,
    pub(super) tasks: Tasks,
    /// Files by address space and descriptor.
    pub(super) files_by_fd: FxHashMap<(MmId, u64), FileId>,
    /// Files of a scenario, by name index.
    pub(super) files_by_name: FxHashMap<u64, FileId>,
    /// The heap of each address space, as the recording's brk calls tell it: start, end.
    pub(super) heaps: FxHashMap<MmId, (u64, u64)>,
    /// Of which address space each that a fork made is a copy.
    pub(super) copied_from: FxHashMap<MmId, MmId>,
    /// Where the latest mapping of a length lies: mm, bytes.
    pub(super) mapped: FxHashMap<(MmId, u64), u64>,
    /// The file that the current step of a task maps: name index, shared.
    pub(super) step_files: FxHashMap<u32, u64>,
    /// Pages that reclaim took in a row.
    pub(super) reclaim: Option<ReclaimList>,
    /// When the latest MADV_PAGEOUT of a task returned, in ns: it chooses its pages by itself.
    pub(super) pageout_end: FxHashMap<u32, u64>,
    /// The step in which each task is.
    pub(super) step_of: FxHashMap<u32, usize>,
    /// Row of the exit call of each task that is in one.
    pub(super) exit_of: FxHashMap<u32, usize>,
    /// What the recording shows of masks, if it is followed.
    masks: Option<Arc<MaskEvidence>>,
    /// What takes effect later than it began: that time in ns, row.
    deferred: BinaryHeap<Reverse<(u64, usize)>>,
    /// Calls that ran while others had a gather open.
    pub(super) nesting: Arc<Nesting>,
    /// An operation whose flush others may overtake.
    pub(super) overlap: Overlap,
    /// Flushes that may not have arrived yet.
    pub(super) in_flight: InFlight,
    /// Row of the execve of each task that is in one which has not yet taken effect.
    pub(super) exec_of: FxHashMap<u32, usize>,
    pub(super) now_ns: u64,
    /// The recording is the kernel lab's.
    pub(super) is_lab: bool,
    /// What its records say beforehand, if it is.
    pub(super) lab: Option<Arc<LabEvidence>>,
    /// Where children that did not run yet will write their ids (lab only): task, address.
    pub(super) child_tids: FxHashMap<u32, u64>,
    /// What the kernel owes the threads' `struct rseq` (lab only).
    pub(super) rseq: Rseq,
    /// The event that flushes are booked on, and its task.
    pub(super) cause: (usize, u32),
    pub(super) predicted: Vec<Predicted>,
    pub(super) ledger: Ledger,
    pub(super) noted: Vec<(usize, &'static str)>,
    /// Sums of what was not kept one by one.
    pub(super) notes: BTreeMap<&'static str, u64>,
    /// When all is over, whoever did the last thing.
    end_ns: u64,
    pub(super) keep: Keep,
    nr_events: u64,
    /// What the machine did, if it is wanted.
    pub(super) traced: Option<Vec<Traced>>,
    /// Operations of a call are collected here instead of being done.
    pub(super) collected: Option<Vec<Operation>>,
    /// In a step that is led by its records nothing is booked before its end: what is to be forgotten came since here.
    pub(super) led_since: Option<LogMark>,
    pub(super) parallel_outcomes: Vec<ParallelOutcome>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        recording: &'a Recording,
        kernel: &Arc<CompiledKernel>,
        config: &MachineConfig,
        measured: &Measured,
        keep: Keep,
    ) -> Result<Self> {
        Ok(Self {
            recording,
            machine: Machine::new(config, Arc::clone(kernel))?,
            tasks: Tasks::new(recording.tasks.len(), config.nr_cpus as usize),
            files_by_fd: FxHashMap::default(),
            files_by_name: FxHashMap::default(),
            heaps: FxHashMap::default(),
            copied_from: FxHashMap::default(),
            mapped: FxHashMap::default(),
            step_files: FxHashMap::default(),
            reclaim: None,
            pageout_end: FxHashMap::default(),
            step_of: FxHashMap::default(),
            exit_of: FxHashMap::default(),
            masks: measured.masks.clone(),
            deferred: BinaryHeap::new(),
            overlap: measured.overlap.clone(),
            in_flight: measured.in_flight.clone(),
            nesting: Arc::clone(&measured.nesting),
            exec_of: FxHashMap::default(),
            now_ns: recording.events.time_ns.first().copied().unwrap_or(0),
            is_lab: recording.meta.source == "lab",
            lab: (recording.meta.source == "lab").then(|| Arc::new(LabEvidence::new(recording))),
            child_tids: FxHashMap::default(),
            rseq: Rseq::default(),
            cause: (0, 0),
            predicted: Vec::new(),
            ledger: Ledger::default(),
            noted: Vec::new(),
            notes: BTreeMap::new(),
            end_ns: measured.end_ns,
            keep,
            nr_events: 0,
            traced: None,
            collected: None,
            led_since: None,
            parallel_outcomes: Vec::new(),
        })
    }

    /// Replays some rows of the recording, ascending, that nothing between them can touch. An error comes with its row.
    pub(super) fn rows(
        mut self,
        rows: impl Iterator<Item = usize>,
        stop: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<Replayed, (usize, Error)> {
        let mut before = None;
        for (at, row) in rows.enumerate() {
            if at % EVENTS_PER_ASKING == 0 && stop() {
                break;
            }
            // An operation in progress is over with the next event of the recording, unless that meets it.
            let is_next = before.is_none_or(|before| before + 1 == row);
            let done = if is_next { Ok(()) } else { self.end_open() };
            done.and_then(|()| self.event(row)).map_err(|error| (row, of_event(row, error)))?;
            before = Some(row);
        }
        self.end().map(|(replayed, _)| replayed).map_err(|error| (usize::MAX, error))
    }

    fn end(mut self) -> Result<(Replayed, Vec<Traced>)> {
        self.end_open()?;
        self.flush_reclaim()?;
        self.run_deferred(u64::MAX)?;
        self.end_open()?;
        self.set_now(self.end_ns);
        self.finish_execs()?;
        self.exit_rest()?;
        let mut notes = self.notes;
        for (_, name) in &self.noted {
            *notes.entry(*name).or_default() += 1;
        }
        let mut replayed = Replayed {
            predicted: self.predicted,
            ledger: self.ledger,
            counters: self.machine.counters(),
            notes,
            noted: self.noted,
            nr_events: self.nr_events,
            parallel: self.parallel_outcomes,
        };
        replayed.put_in_order();
        Ok((replayed, self.traced.unwrap_or_default()))
    }

    pub(super) fn event(&mut self, row: usize) -> Result<()> {
        let event = self.recording.events.get(row);
        self.nr_events += 1;
        self.run_deferred(event.time_ns)?;
        self.meet(row, &event)?;
        self.set_now(event.time_ns);
        self.rseq_due(row, event.time_ns)?;
        self.advance_reclaim(row, &event)?;
        if !matches!(event.kind(), EventKind::Switch | EventKind::MigrateTask) {
            self.finish_exec(&event)?;
        }
        self.cause = (row, event.task);
        self.dispatch(row, &event)?;
        // An exit whose call was recorded is counted there.
        if operation_counts(event.kind()) && self.cause.0 == row {
            self.ledger.operation(OpKind::of(self.recording, row));
        }
        if !self.is_open(row) {
            self.book();
            // What the recording shows of a call is looked at only when the call was predicted.
            if self.effect_ns(row, &event).is_none() {
                self.follow_mask(row, &event)?;
            }
        }
        Ok(())
    }

    /// When an event takes effect, if that is later than it began.
    ///
    /// The kernel finds the place for a new mapping only when it holds mmap_lock, for which it may have waited for the
    /// munmap of another thread; nobody uses the mapping before the call returns. A call that had to wait goes on after the
    /// switch that wakes it; an operation whose request met another, when it made it.
    fn effect_ns(&self, row: usize, event: &Event) -> Option<u64> {
        if matches!(event.kind(), EventKind::Mmap | EventKind::Mremap) {
            return Some(event.end_ns);
        }
        let woken_ns = self.nesting.woken_ns(row).map(|woken_ns| woken_ns.saturating_add(1));
        woken_ns.or_else(|| self.overlap.asks(row).map(|asks| asks.sent_ns))
    }

    pub(super) fn dispatch(&mut self, row: usize, event: &Event) -> Result<()> {
        if let Some(effect_ns) = self.effect_ns(row, event) {
            self.deferred.push(Reverse((effect_ns, row)));
            return Ok(());
        }
        self.take_effect(row, event)
    }

    fn take_effect(&mut self, row: usize, event: &Event) -> Result<()> {
        match event.kind() {
            EventKind::Switch => {
                self.switch(event)?;
                self.rseq_after_switch(row, event)?;
                self.visit_unseen(row, event)
            }
            EventKind::MigrateTask | EventKind::SetCpu => Ok(()), // the switches that follow say where it runs
            EventKind::TaskStart => self.ensure_running(event.task, event.cpu).map(|_| ()),
            EventKind::ProcessFork => self.process_fork(event),
            EventKind::Exit => self.exit(row, event),
            EventKind::ExitCall | EventKind::ExitGroup => {
                self.exit_of.insert(event.task, row);
                Ok(())
            }
            EventKind::Exec => {
                self.exec(row, event);
                Ok(())
            }
            EventKind::Fault if self.meets_reclaim(row, event) => Ok(()),
            EventKind::Fault => self.fault(event),
            kind if kind.is_call() => self.call(row, event),
            _ => self.scenario(row, event),
        }
    }

    /// Corrects the mask of the task's address space by what the recording shows of it.
    pub(super) fn follow_mask(&mut self, row: usize, event: &Event) -> Result<()> {
        if self.is_lab && self.masks.is_some() {
            return self.follow_idle(row);
        }
        let Some(has_others) = self.masks.as_ref().and_then(|masks| masks.after(row)) else { return Ok(()) };
        let Some(task) = self.tasks.alive(event.task) else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let cpu = self.machine.task(task)?.cpu;
        if self.machine.engine_mut().correct_mm_cpumask(mm, cpu, has_others) {
            self.note("mm_cpumask found to be another, corrected");
        }
        Ok(())
    }

    /// Does what takes effect by now.
    pub(super) fn run_deferred(&mut self, now_ns: u64) -> Result<()> {
        while let Some(&Reverse((effect_ns, row))) = self.deferred.peek()
            && effect_ns <= now_ns
        {
            self.deferred.pop();
            let asks = self.overlap.asks(row);
            self.meet_late(asks)?;
            if asks.is_none() {
                self.set_now(effect_ns.min(now_ns));
            }
            let mut event = self.recording.events.get(row);
            let running = self.tasks.alive(event.task).and_then(|task| self.machine.running_on(task));
            event.cpu = running.and_then(|cpu| u16::try_from(cpu).ok()).unwrap_or(event.cpu);
            self.cause = (row, event.task);
            self.take_effect(row, &event)?;
            if !self.is_open(row) {
                self.book();
                self.follow_mask(row, &event)?;
            }
        }
        Ok(())
    }

    /// Does an operation; its flushes are booked on the current cause.
    pub(super) fn run(&mut self, operation: &Operation) -> Result<Outcome> {
        if let Some(collected) = &mut self.collected
            && !matches!(operation, Operation::Schedule { .. } | Operation::CreateFile { .. })
        {
            collected.push(operation.clone());
            return Ok(Outcome::None);
        }
        if !matches!(operation, Operation::Schedule { .. }) {
            // Only a switch comes in the middle of a page that is reclaimed.
            self.finish_walk()?;
        }
        self.machine.apply(operation)
    }

    /// Time goes on.
    pub(super) fn set_now(&mut self, now_ns: u64) {
        if now_ns > self.now_ns {
            self.now_ns = now_ns;
            self.machine.set_now_ns(now_ns);
        }
    }
}

/// Whether an event is an operation of its own.
pub(super) fn operation_counts(kind: EventKind) -> bool {
    kind.is_call() || matches!(kind, EventKind::Fault | EventKind::Exit | EventKind::ReclaimPage)
}
