//! Why an entry may differ for a reason that is outside the model, and the records that show it.
//!
//! A replay knows when a call began, not when inside it each flush was sent and obeyed, and it knows only the processes of
//! the recording. Each rule here looks for such a reason in the records, one request and one CPU at a time, and takes what it
//! explains away from both sides; an entry is explained if nothing is left. The rules excuse nothing (an entry that differs is
//! not exact), they tell where looking for a mistake of the model is worth while.

mod cpus;
mod pages;
mod walks;

use rustc_hash::FxHashSet;

use super::columns::Columns;
use super::compare::ComparedEntry;
use super::entries::{Entries, Entry};
use super::parts::Sides;
use crate::replay::Traced;
use crate::trace::{FlushKind, Recording};

/// What can make an entry differ although the model is right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// Reclaim took pages of processes that are not in the recording, and told CPUs where none of the recording ran.
    ForeignPages,
    /// No flush record names the address space of the entry's process, so what it flushed is not in the recording.
    NoAddressSpace,
    /// A page from before the recording was copied although nobody else maps it: somebody held a reference.
    HeldPage,
    /// A page that the caller made on another CPU was copied although nobody else maps it any more: until enough others
    /// followed, that CPU's batch on its way to the LRU has a reference. How full it was when the recording began is not known.
    LruBatch,
    /// A kernel thread wrote pages of a file back, before the entry or while it ran.
    Writeback,
    /// A walk was interrupted: the caller was switched out within its call although it could run, and the records show a table
    /// looked at twice, or flushed in parts.
    Interrupted,
    /// A CPU is missing in the mask that the recording shows idle since it was last there: it loaded another address space
    /// since, which no switch between foreign tasks tells.
    UnseenSwitch,
    /// A CPU switched tasks between the caller's record before a request and its record after it: before or after which of them
    /// the switch took effect is in no record.
    Switch,
    /// A CPU obeyed a request when the next one of its address space was made already, and did both at once.
    Late,
    /// A CPU that ran the address space was told, and the record of what it did is missing.
    NoRecord,
    /// A page that was read back from swap was written in user mode, without a fault: its entry allowed that.
    UnseenWrite,
    /// The latest entry about the same pages ran at the same time as others, and left them otherwise.
    RaceBefore,
}

impl Cause {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "a CPU switched tasks between the records of a request",
            Self::ForeignPages => "reclaim took pages of processes outside the recording",
            Self::Interrupted => "a reschedule was due in the middle of a walk",
            Self::NoAddressSpace => "the recording has no flush records of its address space",
            Self::HeldPage => "a page from before the recording is copied, though only its owner maps it",
            Self::LruBatch => "a page is copied that another CPU made and may still have in its LRU batch",
            Self::Writeback => "a kernel thread wrote pages back",
            Self::UnseenSwitch => "an idle CPU loaded another address space, which is not recorded",
            Self::Late => "a CPU obeyed a request only after the next one was made",
            Self::NoRecord => "a CPU that was told has no record of what it did",
            Self::UnseenWrite => "a page that was only read back from swap was written, without a fault",
            Self::RaceBefore => "a race about its pages ended otherwise before",
        }
    }

    /// The name in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Switch => "lab_switch",
            Self::ForeignPages => "lab_foreign_pages",
            Self::Interrupted => "lab_interrupted",
            Self::NoAddressSpace => "lab_no_address_space",
            Self::HeldPage => "lab_held_page",
            Self::LruBatch => "lab_lru_batch",
            Self::Writeback => "lab_writeback",
            Self::UnseenSwitch => "lab_unseen_switch",
            Self::Late => "lab_late",
            Self::NoRecord => "lab_no_record",
            Self::UnseenWrite => "lab_unseen_write",
            Self::RaceBefore => "lab_race_before",
        }
    }

    /// Whether it is a matter of times; else of what is not recorded.
    pub const fn is_timing(self) -> bool {
        matches!(self, Self::Switch | Self::Interrupted | Self::Late | Self::RaceBefore)
    }
}

/// A cause with the records that show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Which.
    pub cause: Cause,
    /// Rows of events.
    pub events: Vec<usize>,
    /// Rows of flush records.
    pub flushes: Vec<usize>,
}

/// A cause with its rows of events and of flush records.
type Found = (Cause, Vec<usize>, Vec<usize>);

/// In an x86 error code: the fault was a write.
const FAULT_WRITE: u64 = 2;

/// Columns that hang on who was where, and not on what is mapped.
const OF_CPUS: [&str; 7] =
    ["ipi_sends", "mask_cpus", "ran_cpus", "lazy_left_cpus", "lazy_skipped_cpus", "local_flushes", "tlb_flush_list"];

/// The facts that the rules need, of a whole recording.
pub(super) struct Causes<'r> {
    recording: &'r Recording,
    entries: &'r Entries,
    /// Per entry: its begin and end in ns.
    spans: Vec<(u64, u64)>,
    /// CPUs where a task of the recording ever was.
    known_cpus: u64,
}

/// What is asked about one entry.
struct Question<'a> {
    index: usize,
    entry: &'a Entry,
    sides: Sides,
    reasons: Vec<Reason>,
}

impl Question<'_> {
    /// Notes what shows a cause; the records of one cause stand together.
    fn because(&mut self, cause: Cause, events: &[usize], flushes: &[usize]) {
        let at = self.reasons.iter().position(|reason| reason.cause == cause).unwrap_or_else(|| {
            self.reasons.push(Reason { cause, events: Vec::new(), flushes: Vec::new() });
            self.reasons.len() - 1
        });
        let reason = &mut self.reasons[at];
        for (all, new) in [(&mut reason.events, events), (&mut reason.flushes, flushes)] {
            all.extend_from_slice(new);
            all.sort_unstable();
            all.dedup();
        }
    }
}

impl<'r> Causes<'r> {
    pub(super) fn new(recording: &'r Recording, entries: &'r Entries) -> Self {
        let events = &recording.events;
        let flushes = &recording.flushes;
        let mut spans: Vec<(u64, u64)> =
            entries.list.iter().map(|entry| (events.time_ns[entry.row], events.time_ns[entry.row])).collect();
        for row in 0..events.len() {
            if let Some(entry) = entries.of_event(row) {
                spans[entry].1 = spans[entry].1.max(events.end_ns[row]);
            }
        }
        for row in 0..flushes.len() {
            if let Some(entry) = entries.of_flush(row) {
                spans[entry].1 = spans[entry].1.max(flushes.time_ns[row]);
            }
        }
        let ours = |task: u32| (task as usize) < recording.tasks.len();
        let mut cpus: FxHashSet<u16> =
            (0..events.len()).filter(|&row| ours(events.task[row])).map(|row| events.cpu[row]).collect();
        let ranges = (0..flushes.len()).filter(|&row| flushes.kind[row] == FlushKind::MmRange.number());
        ranges.for_each(|row| cpus.extend((0..64).filter(|cpu| flushes.mask[row] >> cpu & 1 != 0)));
        Self { recording, entries, spans, known_cpus: cpus.iter().fold(0u64, |mask, cpu| mask | bit(*cpu)) }
    }

    /// The reasons that explain all of an entry's differences; none if something is left. `before` are the entries compared
    /// before it.
    pub(super) fn of(&self, compared: &ComparedEntry, before: &[ComparedEntry], traced: &[Traced]) -> Vec<Reason> {
        let index = before.len();
        let entry = &self.entries.list[index];
        let sides = (&compared.recorded, &compared.model);
        if self.is_unnamed(entry) && *sides.0 == without_flushes(sides.1) {
            return vec![Reason { cause: Cause::NoAddressSpace, events: Vec::new(), flushes: Vec::new() }];
        }
        let sides = Sides::of(self.recording, self.entries, traced, index, sides);
        let mut question = Question { index, entry, sides, reasons: Vec::new() };
        self.take_foreign_pages(&mut question);
        self.take_unseen_writes(&mut question, traced);
        self.take_written_back(&mut question);
        self.take_held_pages(&mut question);
        self.take_interrupted_walk(&mut question);
        self.take_second_looks(&mut question);
        if question.sides.are_in_pairs() {
            for at in 0..question.sides.recorded.requests.len() {
                for cpu in question.sides.cpus_that_differ(at) {
                    self.take_cpu(&mut question, at, cpu);
                }
            }
        }
        if question.sides.agree() {
            return question.reasons;
        }
        let latest = before.iter().rev().find(|other| self.shares_pages(entry, &other.entry));
        let raced = latest.filter(|other| other.entry.parallel && is_about_pages(other) && is_about_pages(compared));
        raced
            .map(|raced| Reason { cause: Cause::RaceBefore, events: vec![raced.entry.row], flushes: Vec::new() })
            .into_iter()
            .collect()
    }

    /// Whether two entries of one process name pages in common.
    fn shares_pages(&self, entry: &Entry, other: &Entry) -> bool {
        let pid = |entry: &Entry| self.recording.tasks.get(entry.task as usize).map(|task| task.pid);
        let meets = entry
            .pages()
            .zip(other.pages())
            .is_some_and(|(one, two)| one.0 == two.0 && one.1.start < two.1.end && two.1.start < one.1.end);
        meets && pid(entry) == pid(other)
    }

    /// Whether a task is none of the recording.
    fn is_of_kernel(&self, task: u32) -> bool {
        task as usize >= self.recording.tasks.len()
    }

    /// Whether no flush record names the address space of the entry's process.
    fn is_unnamed(&self, entry: &Entry) -> bool {
        let (tasks, flushes) = (&self.recording.tasks, &self.recording.flushes);
        let pid = |task: u32| tasks.get(task as usize).map(|task| task.pid);
        let own = pid(entry.task);
        !(0..flushes.len()).any(|row| {
            let makes =
                flushes.kind[row] == FlushKind::MmRange.number() || flushes.kind[row] == FlushKind::Gather.number();
            makes && pid(flushes.task[row]) == own
        })
    }
}

/// Whether an entry differs in what is mapped, not only in who was where.
fn is_about_pages(compared: &ComparedEntry) -> bool {
    compared.differences.iter().any(|difference| !OF_CPUS.contains(&difference.column))
}

fn bit(cpu: u16) -> u64 {
    1u64.checked_shl(u32::from(cpu)).unwrap_or(0)
}

/// The columns of an entry as a recording has them that shows nothing of its flushes: its faults.
fn without_flushes(model: &Columns) -> Columns {
    Columns { faults: model.faults, unmap_one: model.unmap_one, ..Columns::default() }
}
