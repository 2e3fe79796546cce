//! Which entry of a scenario an event or a flush record belongs to.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::trace::{EventKind, FlushKind, Recording};

/// One executed entry, or the end of an address space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Row of the event that it begins with.
    pub row: usize,
    /// Number of the step, from 0; of the end of an address space the latest step that began before.
    pub step: u64,
    /// Repetition, from 0.
    pub iteration: u64,
    /// Index of the task.
    pub task: u32,
    /// Where it began.
    pub cpu: u16,
    /// The entry's text, `(exit_mmap)` for the end of an address space.
    pub text: String,
    /// Other entries ran at the same time.
    pub parallel: bool,
}

impl Entry {
    /// The text of the end of an address space.
    pub const EXIT_MMAP: &'static str = "(exit_mmap)";

    /// The operation: the first word.
    pub fn operation(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }

    /// The pages that the text names: their region, and which of it.
    pub fn pages(&self) -> Option<(&str, Range<u64>)> {
        let mut words = self.text.split_whitespace().skip(1);
        let region = words.next().filter(|word| word.len() == 1)?;
        let (first, nr): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((region, first..first.saturating_add(nr)))
    }
}

/// All entries, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// The entries.
    pub list: Vec<Entry>,
    /// By row of the event table.
    of_event: FxHashMap<usize, usize>,
    /// By row of the table of flush records: those that an actor made itself.
    of_flush: FxHashMap<usize, usize>,
}

impl Entries {
    /// Finds the entries of a recording of the lab.
    pub fn of(recording: &Recording) -> Self {
        let mut entries = Self::default();
        entries.find_steps(recording);
        entries.find_exits(recording);
        let of_several: FxHashSet<u64> = {
            let mut first = FxHashMap::default();
            let steps = entries.list.iter().filter(|entry| entry.text != Entry::EXIT_MMAP);
            steps.filter(|entry| *first.entry(entry.step).or_insert(entry.task) != entry.task).map(|e| e.step).collect()
        };
        for entry in &mut entries.list {
            entry.parallel = of_several.contains(&entry.step);
        }
        entries
    }

    /// The entry that an event belongs to.
    pub fn of_event(&self, row: usize) -> Option<usize> {
        self.of_event.get(&row).copied()
    }

    /// The entry whose actor made a flush record.
    pub fn of_flush(&self, row: usize) -> Option<usize> {
        self.of_flush.get(&row).copied()
    }

    fn find_steps(&mut self, recording: &Recording) {
        let mut open: FxHashMap<u32, usize> = FxHashMap::default();
        for row in 0..recording.events.len() {
            let event = recording.events.get(row);
            match event.kind() {
                EventKind::StepBegin => {
                    open.insert(event.task, self.list.len());
                    let name = usize::try_from(event.a2).ok().and_then(|index| recording.names.get(index));
                    self.list.push(Entry {
                        row,
                        step: event.a0,
                        iteration: event.a1,
                        task: event.task,
                        cpu: event.cpu,
                        text: name.cloned().unwrap_or_default(),
                        parallel: false,
                    });
                }
                EventKind::Exit => {
                    open.remove(&event.task);
                }
                _ => {}
            }
            if let Some(&entry) = open.get(&event.task) {
                self.of_event.insert(row, entry);
            }
            if event.kind() == EventKind::StepEnd {
                open.remove(&event.task);
            }
        }
    }

    /// An address space is torn down by the last task that leaves it, mostly after its last step.
    fn find_exits(&mut self, recording: &Recording) {
        let mut tearing: FxHashMap<u32, usize> = FxHashMap::default();
        for row in 0..recording.flushes.len() {
            let flush = recording.flushes.get(row);
            if flush.task as usize >= recording.tasks.len() {
                continue;
            }
            let cause = usize::try_from(flush.op_event).ok();
            let mut entry = cause.and_then(|cause| self.of_event(cause)).or_else(|| tearing.get(&flush.task).copied());
            if let (None, Some(FlushKind::ExitMmap), Some(cause)) = (entry, FlushKind::from_number(flush.kind), cause) {
                let before = self.list.iter().filter(|e| recording.events.time_ns[e.row] <= flush.time_ns);
                let step = before
                    .map(|e| (recording.events.time_ns[e.row], e.row, e.step))
                    .max()
                    .map_or(0, |(_, _, step)| step);
                entry = Some(self.list.len());
                tearing.insert(flush.task, self.list.len());
                let entry = self.list.len();
                let ends = |kind| matches!(kind, EventKind::ExitCall | EventKind::ExitGroup | EventKind::Exit);
                let events = (0..recording.events.len()).map(|row| (row, recording.events.get(row)));
                let ends = events.filter(|(_, event)| event.task == flush.task && ends(event.kind()));
                self.of_event.extend(ends.map(|(row, _)| row).chain([cause]).map(|row| (row, entry)));
                self.list.push(Entry {
                    row: cause,
                    step,
                    iteration: 0,
                    task: flush.task,
                    cpu: flush.cpu,
                    text: Entry::EXIT_MMAP.to_owned(),
                    parallel: false,
                });
            }
            if let Some(entry) = entry {
                self.of_flush.insert(row, entry);
            }
        }
    }
}
