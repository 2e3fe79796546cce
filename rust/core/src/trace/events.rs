//! The event model: a recording as columns.
//!
//! Contract: row order is the recorder's order (time order, except where `meta.counts` says `time_reversals`); an event's
//! `time_ns` is where it begins, so a call stands where it was entered and `end_ns` tells its return. `task` is an index
//! into [`Recording::tasks`] or one of the reserved `TASK_*`. [`Recording::verify`] checks all of that; whoever indexes
//! by columns of a file calls it first. Nothing here interprets events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::column::columns;
use super::kinds::{
    Attribution, EventKind, FlushKind, NO_CPU, NO_MM, NO_NR, NO_PAGES, NO_REASON, NO_SITE, NO_VALUE, TASK_OTHER,
};
use crate::addr::PAGE_SIZE;
use crate::error::{Error, Result};

columns! {
    /// The events of a recording, one array per field.
    EventColumns of
    /// One event; what the arguments mean is told by its [`EventKind`].
    Event {
        /// Begin, in nanoseconds of the recording's clock.
        time_ns: u64,
        /// End of a call, in nanoseconds; of anything else `time_ns`.
        end_ns: u64,
        /// The CPU on which it began.
        cpu: u16,
        /// [`EventKind`] as a number.
        kind: u8,
        /// Flag bits (`KERNEL_MODE`, ...).
        flags: u8,
        /// Index of the task that did it.
        task: u32,
        /// System call number, -1 if it is none.
        nr: i32,
        /// First argument.
        a0: u64,
        /// Second argument.
        a1: u64,
        /// Third argument.
        a2: u64,
        /// Fourth argument.
        a3: u64,
        /// Fifth argument.
        a4: u64,
        /// Sixth argument.
        a5: u64,
        /// Return value of a call, result of a step, else 0.
        ret: i64,
        /// Name index of where in the program it was caused, [`NO_SITE`] if that is not recorded.
        site: u32,
    }
}

columns! {
    /// What the kernel really did about TLBs, one array per field: the truth that a model is held against.
    FlushColumns of
    /// One record of the kernel's flush code; its [`FlushKind`] tells which fields it has.
    Flush {
        /// When, in nanoseconds of the recording's clock.
        time_ns: u64,
        /// On which CPU.
        cpu: u16,
        /// Index of the task that ran there.
        task: u32,
        /// Row of the event that caused it, -1 if unknown.
        op_event: i64,
        /// [`Attribution`] as a number: how `op_event` was found.
        attribution: u8,
        /// Row of the flush record that opened the request to which this one belongs (itself if it did), -1 if unknown.
        request: i64,
        /// [`FlushKind`] as a number.
        kind: u8,
        /// Reason of the tracepoint: 0 task switch, 1 remote shootdown, 2 local shootdown, 3 local mm shootdown,
        /// 4 remote IPI send, 5 remote wrong CPU; 255 none.
        reason: u8,
        /// Pages (in strides) flushed, -1 all, `i64::MIN` no count.
        pages: i64,
        /// First byte of the range.
        start: u64,
        /// Byte after the range (`u64::MAX`: everything).
        end: u64,
        /// log2 of the stride in bytes.
        stride_shift: u8,
        /// 1 if page tables were freed.
        freed_tables: u8,
        /// CPUs 0-63 as bits: mm_cpumask or the CPUs that were told.
        mask: u64,
        /// tlb_gen of the request, 0 if unknown.
        tlb_gen: u64,
        /// Number of the address space, `u32::MAX` if unknown.
        mm: u32,
        /// CPU that asked for it, 65535 if unknown.
        icpu: u16,
        /// mm->tlb_flush_pending at entry, or mm->tlb_flush_batched.
        pending: u32,
        /// Flags of the mmu_gather: 1 fullmm, 2 need_flush_all, 4 freed_tables, 8 cleared_ptes, 16 cleared_pmds,
        /// 32 cleared_puds, 64 cleared_p4ds, 128 vma_exec.
        gather_flags: u8,
        /// Calls that the record stands for, or page batches of an mmu_gather.
        count: u32,
    }
}

impl Event {
    /// An event without arguments.
    pub fn new(kind: EventKind, time_ns: u64, cpu: u16, task: u32) -> Self {
        Self {
            time_ns,
            end_ns: time_ns,
            cpu,
            kind: kind.number(),
            flags: 0,
            task,
            nr: NO_NR,
            a0: 0,
            a1: 0,
            a2: 0,
            a3: 0,
            a4: 0,
            a5: 0,
            ret: 0,
            site: NO_SITE,
        }
    }

    /// The kind; a number that is none reads as [`EventKind::OtherCall`] ([`Recording::verify`] refuses it beforehand).
    pub fn kind(&self) -> EventKind {
        EventKind::from_number(self.kind).unwrap_or(EventKind::OtherCall)
    }

    /// The same with arguments, the first ones given and the others 0.
    #[must_use]
    pub fn with_args(mut self, args: &[u64]) -> Self {
        let at = |index: usize| args.get(index).copied().unwrap_or(0);
        (self.a0, self.a1, self.a2, self.a3, self.a4, self.a5) = (at(0), at(1), at(2), at(3), at(4), at(5));
        self
    }
}

impl Flush {
    /// A record that knows only what, when and where.
    pub fn new(kind: FlushKind, time_ns: u64, cpu: u16, task: u32) -> Self {
        Self {
            time_ns,
            cpu,
            task,
            op_event: -1,
            attribution: Attribution::Unknown.number(),
            request: -1,
            kind: kind.number(),
            reason: NO_REASON,
            pages: NO_PAGES,
            start: 0,
            end: 0,
            stride_shift: 0,
            freed_tables: 0,
            mask: 0,
            tlb_gen: 0,
            mm: NO_MM,
            icpu: NO_CPU,
            pending: 0,
            gather_flags: 0,
            count: 0,
        }
    }
}

/// A thread of the recording.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskInfo {
    /// Thread id. Ids are reused; the index into [`Recording::tasks`] is not.
    pub tid: u32,
    /// Process (thread group) id.
    pub pid: u32,
    /// The last name it had.
    pub comm: String,
}

/// Where a recording comes from and what is known about its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// `perf`, `lab` or `scn`.
    pub source: String,
    /// Name of the imported file, without its folder.
    pub file: String,
    /// Kernel version, if recorded.
    pub kernel: Option<String>,
    /// CPUs: recorded, or one more than the highest that occurs.
    pub smp: u32,
    /// `tlb_single_page_flush_ceiling`, in pages, if recorded.
    pub ceiling_pages: Option<u64>,
    /// Levels of page tables, if known.
    pub levels: Option<u8>,
    /// Whether the CPU used PCIDs, if known.
    pub pcid: Option<bool>,
    /// Transparent huge pages: `always`, `madvise` or `never`, if known.
    pub thp: Option<String>,
    /// Whether a memory cgroup was in use (scenarios).
    pub memcg: bool,
    /// CPU model, if known.
    pub cpu_model: Option<String>,
    /// The image of the program that ran a scenario of the lab, if it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerImage>,
    /// Lines (records) read by the importer.
    pub nr_lines: u64,
    /// Events lost by the recorder, as far as it says so.
    pub nr_lost_events: u64,
    /// Distinct names that were taken for kernel threads (a guess).
    pub nr_kthread_names: u64,
    /// Events that the importer does not know, by name: they are not in the columns.
    pub unknown_events: BTreeMap<String, u64>,
    /// Oddities that the importer met, by name, each explained where it is counted.
    pub counts: BTreeMap<String, u64>,
}

/// Where a static program lies in memory, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerImage {
    /// Areas of its file: first byte, byte after the last, rights as letters of `rwx`.
    pub areas: Vec<(u64, u64, String)>,
    /// The part of its data that is protected once it was written (RELRO).
    pub relro: (u64, u64),
    /// Where the heap begins.
    pub heap: u64,
}

impl RunnerImage {
    /// What an image has to be.
    pub(super) const EXPECTED: &str = "a runner with areas of whole pages that ascend, its relro in one of them, and its heap behind them, below 1 << 44";

    /// Whether it can be mapped.
    pub(super) fn is_sound(&self) -> bool {
        let bounds: Vec<u64> =
            self.areas.iter().flat_map(|(start, end, _)| [*start, *end]).chain([self.heap]).collect();
        let (start, end) = self.relro;
        let holds_relro = |area: &(u64, u64, String)| area.0 <= start && start <= end && end <= area.1;
        bounds.is_sorted()
            && self.heap < 1 << 44
            && bounds.iter().chain([&start, &end]).all(|at| at.is_multiple_of(PAGE_SIZE))
            && self.areas.iter().any(holds_relro)
    }
}

/// A recording: what programs did to their address spaces, and which flushes the kernel did for it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recording {
    /// Where it comes from.
    pub meta: Meta,
    /// Its threads.
    pub tasks: Vec<TaskInfo>,
    /// Names that events refer to by index: files, symbols, texts of steps.
    pub names: Vec<String>,
    /// What happened.
    pub events: EventColumns,
    /// What the kernel did about TLBs.
    pub flushes: FlushColumns,
}

impl Recording {
    /// Events of a kind.
    pub fn nr_events_of(&self, kind: EventKind) -> usize {
        count(&self.events.kind, kind.number())
    }

    /// Flush records of a kind.
    pub fn nr_flushes_of(&self, kind: FlushKind) -> usize {
        count(&self.flushes.kind, kind.number())
    }

    /// Checks that every number that refers to something does: kinds, tasks, names, rows.
    ///
    /// # Errors
    /// One line with the table, the row, what was found and what was expected.
    pub fn verify(&self) -> Result<()> {
        if self.meta.runner.as_ref().is_some_and(|runner| !runner.is_sound()) {
            return Err(Error::Value(format!("meta: found another runner, expected {}", RunnerImage::EXPECTED)));
        }
        for row in 0..self.events.len() {
            self.verify_event(row)?;
        }
        let nr_events = row_number(self.events.len());
        let nr_flushes = row_number(self.flushes.len());
        for row in 0..self.flushes.len() {
            let fail = |what: &str, found: i128, expected: String| Err(bad("flush", row, what, found, &expected));
            let kind = self.flushes.kind[row];
            if FlushKind::from_number(kind).is_none() {
                return fail("kind", kind.into(), format!("one of {} kinds", FlushKind::ALL.len()));
            }
            let attribution = self.flushes.attribution[row];
            if Attribution::from_number(attribution).is_none() {
                return fail("attribution", attribution.into(), format!("below {}", Attribution::ALL.len()));
            }
            let task = self.flushes.task[row];
            if !self.has_task(task) {
                return fail("task", task.into(), format!("below {} or reserved", self.tasks.len()));
            }
            let op_event = self.flushes.op_event[row];
            if !(-1..nr_events).contains(&op_event) {
                return fail("op_event", op_event.into(), format!("-1 or below {nr_events}"));
            }
            let request = self.flushes.request[row];
            if !(-1..nr_flushes).contains(&request) {
                return fail("request", request.into(), format!("-1 or below {nr_flushes}"));
            }
        }
        Ok(())
    }

    fn verify_event(&self, row: usize) -> Result<()> {
        let fail = |what: &str, found: i128, expected: String| Err(bad("event", row, what, found, &expected));
        let number = self.events.kind[row];
        let Some(kind) = EventKind::from_number(number) else {
            return fail("kind", number.into(), format!("one of {} kinds", EventKind::ALL.len()));
        };
        let (begin, end) = (self.events.time_ns[row], self.events.end_ns[row]);
        if end < begin {
            return fail("end_ns", end.into(), format!("at least time_ns {begin}"));
        }
        let task = self.events.task[row];
        if !self.has_task(task) {
            return fail("task", task.into(), format!("below {} or reserved", self.tasks.len()));
        }
        let other_task = match kind {
            EventKind::Switch | EventKind::ProcessFork | EventKind::Wait => Some(self.events.a0[row]),
            EventKind::Fork => Some(self.events.a5[row]).filter(|&child| child != NO_VALUE),
            _ => None,
        };
        if let Some(other) = other_task
            && !u32::try_from(other).is_ok_and(|other| self.has_task(other))
        {
            return fail("second task", other.into(), format!("below {} or reserved", self.tasks.len()));
        }
        let name = match kind {
            EventKind::Exec => self.events.a5[row],
            EventKind::Fault => self.events.a3[row],
            EventKind::StepBegin => self.events.a2[row],
            EventKind::StepFile | EventKind::Mkfile | EventKind::Fsync | EventKind::Ftruncate | EventKind::Fpunch => {
                self.events.a0[row]
            }
            _ => NO_VALUE,
        };
        if name != NO_VALUE && name >= self.names.len() as u64 {
            return fail("name", name.into(), format!("below {}", self.names.len()));
        }
        let site = self.events.site[row];
        if site != NO_SITE && site as usize >= self.names.len() {
            return fail("site", site.into(), format!("below {}", self.names.len()));
        }
        Ok(())
    }

    fn has_task(&self, task: u32) -> bool {
        (task as usize) < self.tasks.len() || task >= TASK_OTHER
    }
}

/// A row as other tables refer to it (-1 is none).
#[expect(clippy::cast_possible_wrap, reason = "a table of 2^63 rows fits no machine")]
pub(super) const fn row_number(row: usize) -> i64 {
    row as i64
}

fn count(kinds: &[u8], kind: u8) -> usize {
    kinds.iter().map(|&number| usize::from(number == kind)).sum()
}

fn bad(table: &str, row: usize, what: &str, found: i128, expected: &str) -> Error {
    Error::Value(format!("{table} {row}: found {what} {found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::super::kinds::TASK_IDLE;
    use super::*;

    fn one(event: Event) -> Recording {
        let mut recording = Recording {
            tasks: vec![TaskInfo { tid: 1, pid: 1, comm: "m".to_owned() }],
            names: vec!["file".to_owned()],
            ..Recording::default()
        };
        recording.events.push(event);
        recording
    }

    #[test]
    fn verify_accepts_reserved_tasks_and_refuses_what_points_nowhere() {
        let fork = Event::new(EventKind::Fork, 5, 0, 0);
        one(Event { a5: NO_VALUE, ..fork }).verify().unwrap();
        one(Event { a0: TASK_IDLE.into(), ..Event::new(EventKind::Switch, 5, 0, 0) }).verify().unwrap();
        let cases = [
            (Event { kind: 250, ..fork }, "event 0: found kind 250, expected one of 42 kinds"),
            (Event { task: 1, ..fork }, "event 0: found task 1, expected below 1 or reserved"),
            (Event { a5: 9, ..fork }, "event 0: found second task 9, expected below 1 or reserved"),
            (Event { end_ns: 4, ..fork }, "event 0: found end_ns 4, expected at least time_ns 5"),
            (Event { a0: 1, ..Event::new(EventKind::Fsync, 5, 0, 0) }, "event 0: found name 1, expected below 1"),
            (Event { site: 1, ..fork }, "event 0: found site 1, expected below 1"),
        ];
        for (event, line) in cases {
            assert_eq!(one(event).verify().unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn verify_checks_flush_records() {
        let mut recording = one(Event::new(EventKind::Munmap, 5, 0, 0));
        recording.flushes.push(Flush { op_event: 0, request: 0, ..Flush::new(FlushKind::MmRange, 6, 0, 0) });
        recording.verify().unwrap();
        recording.flushes.op_event.to_mut()[0] = 1;
        assert_eq!(recording.verify().unwrap_err().to_string(), "flush 0: found op_event 1, expected -1 or below 1");
    }
}
