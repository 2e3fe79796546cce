//! Why an entry may differ for a reason that is outside the model.
//!
//! A replay knows when a call began, not when inside it each flush was sent and obeyed, and it knows only the processes of
//! the recording. These rules look at what was recorded; they excuse nothing (an entry that differs is not exact), they
//! tell where looking for a mistake of the model is worth while.

use rustc_hash::FxHashSet;

use super::columns::Columns;
use super::entries::{Entries, Entry};
use crate::trace::kinds::{TASK_IDLE, TASK_KTHREAD};
use crate::trace::{EventKind, FlushKind, Recording};

/// What can make an entry differ although the model is right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A CPU of the masks, or the entry's own, switched tasks while the entry ran: before or after which flush is chance.
    Switch,
    /// Reclaim took pages of processes that are not in the recording, and told CPUs where none of the recording ran.
    ForeignPages,
    /// A walk was interrupted: the caller was switched out within its call although it could run, and the records show a table
    /// looked at twice, or flushed in parts.
    Interrupted,
    /// No flush record names the address space of the entry's process, so what it flushed is not in the recording.
    NoAddressSpace,
    /// A CPU is missing in the mask that the recording shows idle since it was last there: it loaded another address space
    /// since, which no switch between foreign tasks tells.
    UnseenSwitch,
    /// A CPU that was told has no record of what it did: it was up to date by then, or its record was lost.
    NoRecord,
    /// Entries that ran at the same time differed before it, and left another state.
    RaceBefore,
}

impl Cause {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "a CPU switched tasks meanwhile",
            Self::ForeignPages => "reclaim took pages of processes outside the recording",
            Self::Interrupted => "a reschedule was due in the middle of a walk",
            Self::NoAddressSpace => "the recording has no flush records of its address space",
            Self::UnseenSwitch => "an idle CPU loaded another address space, which is not recorded",
            Self::NoRecord => "a CPU that was told has no record of what it did",
            Self::RaceBefore => "a race before it ended otherwise",
        }
    }
}

/// The tracepoint's reason on a CPU that had another address space loaded (`TLB_REMOTE_WRONG_CPU`).
const WRONG_CPU: u8 = 5;

/// The facts that the rules need, of a whole recording.
pub(super) struct Causes<'r> {
    recording: &'r Recording,
    /// Per entry: its begin and end in ns.
    spans: Vec<(u64, u64)>,
    /// Per entry: a deferred flush went to CPUs where no task of the recording ever was.
    foreign: Vec<bool>,
}

impl<'r> Causes<'r> {
    pub(super) fn new(recording: &'r Recording, entries: &Entries) -> Self {
        let events = &recording.events;
        let flushes = &recording.flushes;
        let mut spans: Vec<(u64, u64)> =
            entries.list.iter().map(|entry| (events.time_ns[entry.row], events.time_ns[entry.row])).collect();
        for row in 0..events.len() {
            if let Some(entry) = entries.of_event(row) {
                spans[entry].1 = spans[entry].1.max(events.end_ns[row]);
            }
        }
        let ours = |task: u32| (task as usize) < recording.tasks.len();
        let mut cpus: FxHashSet<u16> =
            (0..events.len()).filter(|&row| ours(events.task[row])).map(|row| events.cpu[row]).collect();
        let ranges = (0..flushes.len()).filter(|&row| flushes.kind[row] == FlushKind::MmRange.number());
        ranges.for_each(|row| cpus.extend((0..64).filter(|cpu| flushes.mask[row] >> cpu & 1 != 0)));
        let known = cpus.iter().fold(0u64, |mask, cpu| mask | 1u64.checked_shl(u32::from(*cpu)).unwrap_or(0));
        let mut foreign = vec![false; entries.list.len()];
        for row in 0..flushes.len() {
            if let Some(entry) = entries.of_flush(row) {
                spans[entry].1 = spans[entry].1.max(flushes.time_ns[row]);
                foreign[entry] |=
                    flushes.kind[row] == FlushKind::BatchFlush.number() && flushes.mask[row] & !known != 0;
            }
        }
        Self { recording, spans, foreign }
    }

    /// The first rule that fits an entry that differs.
    pub(super) fn of(
        &self,
        index: usize,
        entry: &Entry,
        recorded: &Columns,
        model: &Columns,
        raced: bool,
    ) -> Option<Cause> {
        if self.foreign[index] {
            Some(Cause::ForeignPages)
        } else if self.is_unnamed(entry) && *recorded == without_flushes(model) {
            Some(Cause::NoAddressSpace)
        } else if self.was_interrupted(index, entry, recorded, model) {
            Some(Cause::Interrupted)
        } else if self.left_unseen(index, recorded, model) {
            Some(Cause::UnseenSwitch)
        } else if self.switched(index, entry, recorded.mask_cpus | model.mask_cpus) {
            Some(Cause::Switch)
        } else if is_short_of_records(recorded, model) {
            Some(Cause::NoRecord)
        } else {
            raced.then_some(Cause::RaceBefore)
        }
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

    /// Whether the caller was preempted in the entry, and nothing differs but how often tables were looked at and in how
    /// many parts they were flushed.
    fn was_interrupted(&self, index: usize, entry: &Entry, recorded: &Columns, model: &Columns) -> bool {
        let events = &self.recording.events;
        let (begin, end) = self.spans[index];
        let first = events.time_ns.partition_point(|time| *time < begin);
        let preempted = (first..events.len()).take_while(|&row| events.time_ns[row] <= end).any(|row| {
            // `R+`: could run, and was switched out in the kernel.
            let is_switch = events.kind[row] == EventKind::Switch.number() && events.task[row] == entry.task;
            is_switch && events.a1[row] == u64::from(b'R') && events.a2[row] != 0
        });
        let but_for_parts = |columns: &Columns| Columns {
            batch_pending_calls: 0,
            flush_mmu: 0,
            flush_list: Vec::new(),
            tlb_flush_list: Vec::new(),
            ipi_sends: 0,
            local_flushes: 0,
            ..columns.clone()
        };
        preempted
            && recorded.batch_pending_calls > model.batch_pending_calls
            && but_for_parts(recorded) == but_for_parts(model)
    }

    /// Whether nothing differs but CPUs of the mask that the kernel has not, or (since 6.14) has but finds in another address
    /// space, each of them idle since before the entry.
    fn left_unseen(&self, index: usize, recorded: &Columns, model: &Columns) -> bool {
        let elsewhere = |columns: &Columns| {
            let gone = columns.tlb_flush_list.iter().filter(|flush| flush.reason == WRONG_CPU);
            gone.fold(0u64, |mask, flush| mask | 1u64.checked_shl(u32::from(flush.cpu)).unwrap_or(0))
        };
        let gone = model.mask_cpus & !recorded.mask_cpus | elsewhere(recorded) & !elsewhere(model);
        let but_for_gone = |columns: &Columns| {
            let mut rest = columns.clone();
            rest.mask_cpus &= !gone;
            rest.ran_cpus &= !gone;
            rest.lazy_left_cpus &= !gone;
            rest.tlb_flush_list.retain(|flush| gone.checked_shr(u32::from(flush.cpu)).unwrap_or(0) & 1 == 0);
            rest
        };
        let events = &self.recording.events;
        let begun = events.time_ns.partition_point(|time| *time < self.spans[index].0);
        let is_idle = |cpu: &u16| {
            let switches = (0..begun).rev();
            let last = switches
                .into_iter()
                .find(|&row| events.kind[row] == EventKind::Switch.number() && events.cpu[row] == *cpu);
            last.is_some_and(|row| [TASK_IDLE, TASK_KTHREAD].map(u64::from).contains(&events.a0[row]))
        };
        gone != 0
            && but_for_gone(model) == but_for_gone(recorded)
            && (0..64).filter(|cpu| gone >> cpu & 1 != 0).all(|cpu| is_idle(&cpu))
    }

    fn switched(&self, index: usize, entry: &Entry, mask: u64) -> bool {
        let events = &self.recording.events;
        let (begin, end) = self.spans[index];
        let first = events.time_ns.partition_point(|time| *time < begin);
        (first..events.len()).take_while(|&row| events.time_ns[row] <= end).any(|row| {
            let cpu = events.cpu[row];
            let in_mask = mask.checked_shr(u32::from(cpu)).unwrap_or(0) & 1 != 0;
            events.kind[row] == EventKind::Switch.number() && (cpu == entry.cpu || in_mask)
        })
    }
}

/// The columns of an entry as a recording has them that shows nothing of its flushes: its faults.
fn without_flushes(model: &Columns) -> Columns {
    Columns { faults: model.faults, unmap_one: model.unmap_one, ..Columns::default() }
}

/// Whether nothing differs but tracepoints of other CPUs that the recording does not have.
fn is_short_of_records(recorded: &Columns, model: &Columns) -> bool {
    let mut rest = model.clone();
    for seen in &recorded.tlb_flush_list {
        match rest.tlb_flush_list.iter().position(|flush| flush == seen) {
            Some(at) => rest.tlb_flush_list.remove(at),
            None => return false,
        };
    }
    rest.tlb_flush_list.retain(|flush| flush.reason == 3 || flush.reason == 2);
    rest.tlb_flush_list.is_empty() && {
        rest.tlb_flush_list.clone_from(&recorded.tlb_flush_list);
        rest == *recorded
    }
}
