//! Why an entry may differ for a reason that is outside the model, and the records that show it.
//!
//! A replay knows when a call began, not when inside it each flush was sent and obeyed, and it knows only the processes of
//! the recording. Each rule here looks for such a reason in the records, one request and one CPU at a time, and takes what it
//! explains away from both sides; an entry is explained if nothing is left. The rules excuse nothing (an entry that differs is
//! not exact), they tell where looking for a mistake of the model is worth while.

use rustc_hash::FxHashSet;

use super::columns::Columns;
use super::entries::{Entries, Entry};
use super::parts::Sides;
use super::runner::is_since;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::machine::Probe;
use crate::replay::Traced;
use crate::trace::kinds::{TASK_IDLE, TASK_KTHREAD, TASK_OTHER};
use crate::trace::{EventKind, FlushKind, Recording};

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
    /// Entries that ran at the same time differed before it, and left another state.
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
            Self::RaceBefore => "a race before it ended otherwise",
        }
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

/// In an x86 error code: the fault was a write.
const FAULT_WRITE: u64 = 2;

/// The tracepoint's reason on a CPU that had another address space loaded (`TLB_REMOTE_WRONG_CPU`).
const WRONG_CPU: u8 = 5;

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

    /// The reasons that explain all of an entry's differences; none if something is left. `raced` is the row of the latest
    /// parallel entry before it that is not exact.
    pub(super) fn of(
        &self,
        index: usize,
        sides: (&Columns, &Columns),
        traced: &[Traced],
        raced: Option<usize>,
    ) -> Vec<Reason> {
        let entry = &self.entries.list[index];
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
        raced
            .map(|row| Reason { cause: Cause::RaceBefore, events: vec![row], flushes: Vec::new() })
            .into_iter()
            .collect()
    }

    /// Deferred flushes before which no page of a process of the recording was unmapped since the one before; then, while there
    /// are more than the model has, those that told CPUs where no task of the recording ever was, first those that told no others.
    fn take_foreign_pages(&self, question: &mut Question) {
        self.take_flushes(question, |row| !self.unmaps_own(self.recording.flushes.task[row], row), false);
        let masks = &self.recording.flushes.mask;
        self.take_flushes(question, |row| masks[row] & self.known_cpus == 0, true);
        self.take_flushes(question, |row| masks[row] & !self.known_cpus != 0, true);
    }

    /// Requests of the model for one page that the entry would have cleaned, and that a kernel thread cleaned before: the latest
    /// record about it is that.
    fn take_written_back(&self, question: &mut Question) {
        let flushes = &self.recording.flushes;
        let (begin, _) = self.spans[question.index];
        let mut at = 0;
        while question.sides.model.requests.len() > question.sides.recorded.requests.len()
            && let Some(request) = question.sides.model.requests.get(at)
        {
            let page = match request.flush_list[..] {
                [asked] => asked.range.filter(|(_, nr_strides)| *nr_strides == 1).map(|(start, _)| start),
                _ => None,
            };
            let before = flushes.time_ns.partition_point(|time| *time < begin);
            let about_page = |row: &usize| {
                flushes.kind[*row] == FlushKind::PtepClearFlush.number()
                    && Some(flushes.start[*row] & !(PAGE_SIZE - 1)) == page
            };
            let latest = (0..before).rev().find(about_page).filter(|row| self.is_of_kernel(flushes.task[*row]));
            let Some(latest) = latest else {
                at += 1;
                continue;
            };
            question.sides.model.requests.remove(at);
            let count = &mut question.sides.model.rest.ptep_clear_flush;
            *count = count.saturating_sub(1);
            question.because(Cause::Writeback, &[], &[latest]);
        }
    }

    /// Whether a task is none of the recording.
    fn is_of_kernel(&self, task: u32) -> bool {
        task as usize >= self.recording.tasks.len()
    }

    /// A kernel thread made a request between the caller's request before this one and the CPU's executing this one: whose
    /// generation the CPU finds when it executes either is not known.
    fn beside_writeback(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let flushes = &self.recording.flushes;
        let rows = &question.sides.rows[at];
        let first = at.checked_sub(1).map_or(rows[0], |before| question.sides.rows[before][0]);
        let last = rows.iter().copied().filter(|&row| flushes.cpu[row] == cpu).max()?;
        let asks =
            |row: &usize| flushes.kind[*row] == FlushKind::MmRange.number() && self.is_of_kernel(flushes.task[*row]);
        (first..last).find(asks).map(|asked| (Cause::Writeback, Vec::new(), vec![rows[0], asked, last]))
    }

    /// Flushes of a dirty page before the next one was visited, while there are more than the model has, which puts them off. The
    /// latest fault at the page since it was taken before was a read: nothing but a write without a fault makes such an entry dirty.
    fn take_unseen_writes(&self, question: &mut Question, traced: &[Traced]) {
        let mut at = 0;
        while question.sides.recorded.requests.len() > question.sides.model.requests.len()
            && let Some(rows) = question.sides.rows.get(at)
        {
            let flush = rows[0];
            let found = self.written_since_read(question.entry.task, flush);
            if let Some((fault, visit)) = found.filter(|(_, visit)| self.is_put_off(question, traced, *visit)) {
                question.sides.take_request(at);
                question.because(Cause::UnseenWrite, &[fault, visit], &[flush]);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the model flushed nothing between a visit of an entry and its next one.
    fn is_put_off(&self, question: &Question, traced: &[Traced], visit: usize) -> bool {
        let events = &self.recording.events;
        let page = |addr: u64| addr & !(PAGE_SIZE - 1);
        let same = |row: &usize| {
            events.kind[*row] == EventKind::ReclaimPage.number()
                && events.task[*row] == question.entry.task
                && page(events.a0[*row]) == page(events.a0[visit])
        };
        let nth = (question.entry.row..visit).filter(same).count();
        let is_own = |part: &&Traced| {
            self.entries.of_event(part.row) == Some(question.index) && part.task == question.entry.task
        };
        let hits = traced.iter().filter(is_own).flat_map(|part| &part.probes);
        let visits: Vec<(u64, u64)> = hits
            .filter_map(|hit| match hit.probe {
                Probe::UnmapOne { addr } => Some((page(addr.0), hit.nr_requests)),
                _ => None,
            })
            .collect();
        let of_page = visits.iter().enumerate().filter(|(_, (addr, _))| *addr == page(events.a0[visit]));
        let Some((at, (_, before))) = of_page.into_iter().nth(nth) else { return false };
        visits.get(at + 1).is_some_and(|(_, after)| after == before)
    }

    /// The read fault after which the page was written that a deferred flush is about, and the visit that took it.
    fn written_since_read(&self, task: u32, flush: usize) -> Option<(usize, usize)> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let page = |row: usize| events.a0[row] & !(PAGE_SIZE - 1);
        let before =
            (0..flush).rev().find(|&row| flushes.task[row] == task && flushes.kind[row] != FlushKind::Func.number())?;
        // What is flushed there, as it is dirty, is not the whole list.
        let is_own = flushes.kind[flush] == FlushKind::BatchFlush.number()
            && flushes.kind[before] == FlushKind::UnmapFlushDirty.number();
        let upto = events.time_ns.partition_point(|time| *time <= flushes.time_ns[before]);
        let is_visit = |row: &usize| events.kind[*row] == EventKind::ReclaimPage.number();
        let visit = (0..upto).rev().find(|row| events.task[*row] == task && is_visit(row)).filter(|_| is_own)?;
        let same_page = (0..visit).rev().filter(|&row| page(row) == page(visit));
        let latest = same_page.into_iter().find(|row| {
            let is_fault = events.kind[*row] == EventKind::Fault.number() && pid(events.task[*row]) == pid(task);
            is_fault || is_visit(row)
        })?;
        let is_read = events.kind[latest] == EventKind::Fault.number() && events.a1[latest] & FAULT_WRITE == 0;
        is_read.then_some((latest, visit))
    }

    fn take_flushes(&self, question: &mut Question, is_foreign: impl Fn(usize) -> bool, only_surplus: bool) {
        let mut at = 0;
        while let Some(rows) = question.sides.rows.get(at) {
            let row = rows[0];
            let surplus = question.sides.recorded.requests.len() > question.sides.model.requests.len();
            let is_flush = self.recording.flushes.kind[row] == FlushKind::BatchFlush.number();
            if is_flush && (surplus || !only_surplus) && is_foreign(row) {
                question.sides.take_request(at);
                question.because(Cause::ForeignPages, &[], &[row]);
            } else {
                at += 1;
            }
        }
    }

    /// Whether a task unmapped pages of processes of the recording between its deferred flush before this one and this one.
    fn unmaps_own(&self, task: u32, row: usize) -> bool {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let is_before =
            |other: &usize| flushes.kind[*other] == FlushKind::BatchFlush.number() && flushes.task[*other] == task;
        let since = (0..row).rev().find(is_before).map_or(0, |other| flushes.time_ns[other]);
        let from = events.time_ns.partition_point(|time| *time < since);
        (from..events.len())
            .take_while(|&event| events.time_ns[event] <= flushes.time_ns[row])
            .any(|event| events.task[event] == task && events.kind[event] == EventKind::ReclaimPage.number())
    }

    /// A deferred flush told a CPU where no task of the recording ever was: a page among others was foreign.
    fn is_foreign(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let row = question.sides.rows[at][0];
        let is_batch = self.recording.flushes.kind[row] == FlushKind::BatchFlush.number();
        let is_told = question.sides.recorded.requests[at].mask_cpus & !self.known_cpus & bit(cpu) != 0;
        (is_batch && is_told).then(|| (Cause::ForeignPages, Vec::new(), vec![row]))
    }

    /// Copies of pages that were there before the recording, by a caller that nobody shares them with any more: its child has
    /// copied them within the entry, and yet it copies them itself.
    fn take_held_pages(&self, question: &mut Question) {
        let flushes = &self.recording.flushes;
        let task = question.entry.task;
        let copies = |row: usize| flushes.kind[row] == FlushKind::PtepClearFlush.number();
        let page = |row: usize| flushes.start[row] & !(PAGE_SIZE - 1);
        let (begin, _) = self.spans[question.index];
        let sum = |requests: &[Columns]| requests.iter().map(|request| request.noise_flushes).sum::<u64>();
        let mut at = 0;
        while sum(&question.sides.recorded.requests) > sum(&question.sides.model.requests)
            && let Some(rows) = question.sides.rows.get(at)
        {
            let row = rows[0];
            let own =
                (0..row).rev().find(|&row| flushes.task[row] == task && flushes.kind[row] != FlushKind::Func.number());
            let own = own.filter(|&own| copies(own) && page(own) == page(row));
            let of_child = own.and_then(|own| {
                let earlier = (0..own).rev().take_while(|&row| flushes.time_ns[row] >= begin);
                earlier
                    .into_iter()
                    .find(|&row| copies(row) && page(row) == page(own) && flushes.mm[row] != flushes.mm[own])
            });
            let Some((own, of_child)) = own.zip(of_child) else {
                at += 1;
                continue;
            };
            let made = self.made_elsewhere(own, begin);
            if made.is_none() && !self.is_from_before(question.entry, page(own)) {
                at += 1;
                continue;
            }
            question.sides.take_request(at);
            let count = &mut question.sides.recorded.rest.ptep_clear_flush;
            *count = count.saturating_sub(1);
            match made {
                Some(made) => question.because(Cause::LruBatch, &[], &[made, of_child, own]),
                None => question.because(Cause::HeldPage, &[], &[of_child, own]),
            }
        }
    }

    /// The record of the copy that made a page before a time, which is copied again: on another CPU, on which fewer pages were
    /// written first since than a batch of the LRU takes (31 since v6.9, 15 before).
    fn made_elsewhere(&self, copy: usize, before_ns: u64) -> Option<usize> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let same_page = |row: &usize| {
            flushes.kind[*row] == FlushKind::PtepClearFlush.number()
                && flushes.mm[*row] == flushes.mm[copy]
                && flushes.start[*row] >> PAGE_SHIFT == flushes.start[copy] >> PAGE_SHIFT
        };
        let made = (0..copy).rev().filter(|&row| flushes.time_ns[row] < before_ns).find(same_page)?;
        let first = events.time_ns.partition_point(|time| *time <= flushes.time_ns[made]);
        let adds = |row: &usize| {
            events.cpu[*row] == flushes.cpu[made]
                && events.kind[*row] == EventKind::Fault.number()
                && events.a1[*row] & FAULT_WRITE != 0
        };
        let nr_added = (first..events.len()).take_while(|&row| events.time_ns[row] < before_ns).filter(adds).count();
        let batch = if is_since(self.recording.meta.kernel.as_deref().unwrap_or_default(), (6, 9)) { 31 } else { 15 };
        (flushes.cpu[made] != flushes.cpu[copy] && nr_added < batch).then_some(made)
    }

    /// Whether no record before an entry shows that its process made a page.
    fn is_from_before(&self, entry: &Entry, page: u64) -> bool {
        let events = &self.recording.events;
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let own = pid(entry.task);
        !(0..entry.row).any(|row| {
            let is_fault = events.kind[row] == EventKind::Fault.number() && events.a0[row] & !(PAGE_SIZE - 1) == page;
            is_fault && pid(events.task[row]) == own
        })
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

    /// The switches of an entry at which the caller was preempted in the kernel: `R+`, it could run.
    fn preemptions(&self, question: &Question) -> Vec<usize> {
        let events = &self.recording.events;
        let (begin, end) = self.spans[question.index];
        let first = events.time_ns.partition_point(|time| *time < begin);
        let is_that = |row: &usize| {
            let is_switch = events.kind[*row] == EventKind::Switch.number() && events.task[*row] == question.entry.task;
            is_switch && events.a1[*row] == u64::from(b'R') && events.a2[*row] != 0
        };
        (first..events.len()).take_while(|&row| events.time_ns[row] <= end).filter(is_that).collect()
    }

    /// The caller was preempted, and its last record before and its first one after are of a table looked at: it was the same
    /// one (mm/memory.c:`zap_pte_range` comes back to it).
    fn take_second_looks(&self, question: &mut Question) {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let of_kernel = [FlushKind::Func, FlushKind::TlbFlushEvent].map(FlushKind::number);
        let is_own =
            |row: &usize| flushes.task[*row] == question.entry.task && !of_kernel.contains(&flushes.kind[*row]);
        let looks_around = |row: &usize| {
            let at = flushes.time_ns.partition_point(|time| *time <= events.time_ns[*row]);
            let around = [(0..at).rev().find(is_own)?, (at..flushes.len()).find(is_own)?];
            around.iter().all(|&row| flushes.kind[row] == FlushKind::BatchPending.number()).then_some(around)
        };
        for row in self.preemptions(question) {
            let (recorded, model) = (question.sides.recorded.total(), question.sides.model.total());
            if let Some(around) =
                looks_around(&row).filter(|_| recorded.batch_pending_calls > model.batch_pending_calls)
            {
                question.sides.model.rest.batch_pending_calls += 1;
                question.because(Cause::Interrupted, &[row], &around);
            }
        }
    }

    /// Of an end of an address space: the caller was preempted before the request, so that its CPU, lazy by then, loaded
    /// another one.
    fn left_in_exit(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let events = &self.recording.events;
        let request = question.sides.rows[at][0];
        let is_before =
            |row: &usize| events.cpu[*row] == cpu && events.time_ns[*row] <= self.recording.flushes.time_ns[request];
        let left = self.preemptions(question).into_iter().find(is_before);
        let left = left.filter(|_| question.entry.text == Entry::EXIT_MMAP);
        left.map(|row| (Cause::Interrupted, vec![row], vec![request]))
    }

    /// The caller was preempted in the entry, tables were looked at more often, and nothing differs but that and in how many
    /// parts they were flushed.
    fn take_interrupted_walk(&self, question: &mut Question) {
        let preempted = self.preemptions(question);
        let (recorded, model) = (question.sides.recorded.total(), question.sides.model.total());
        let but_for_parts = |columns: &Columns| Columns {
            batch_pending_calls: 0,
            flush_mmu: 0,
            flush_list: Vec::new(),
            tlb_flush_list: Vec::new(),
            ipi_sends: 0,
            local_flushes: 0,
            ..columns.clone()
        };
        let is_that = !preempted.is_empty()
            && recorded.batch_pending_calls > model.batch_pending_calls
            && but_for_parts(&recorded) == but_for_parts(&model);
        if !is_that {
            return;
        }
        let looks = |row: &usize| {
            self.recording.flushes.kind[*row] == FlushKind::BatchPending.number()
                && self.entries.of_flush(*row) == Some(question.index)
        };
        let looked: Vec<usize> = (0..self.recording.flushes.len()).filter(looks).collect();
        question.sides.model = question.sides.recorded.clone();
        question.because(Cause::Interrupted, &preempted, &looked);
    }

    /// What a CPU did otherwise at the `at`-th request, if a rule explains it.
    fn take_cpu(&self, question: &mut Question, at: usize, cpu: u16) {
        let found = self.is_foreign(question, at, cpu).or_else(|| self.left_unseen(question, at, cpu));
        let found = found.or_else(|| self.left_in_exit(question, at, cpu));
        let found = found.or_else(|| self.switched(question, at, cpu));
        let found = found.or_else(|| self.switched_late(question, at, cpu));
        let found = found.or_else(|| self.is_late(question, at, cpu));
        let found = found.or_else(|| self.beside_writeback(question, at, cpu));
        let found = found.or_else(|| self.has_no_record(question, at, cpu));
        if let Some((cause, events, flushes)) = found {
            question.sides.take_cpu(at, cpu);
            question.because(cause, &events, &flushes);
        }
    }

    /// The latest switch of a CPU before a time, if the CPU runs no task of the recording since.
    fn idle_since(&self, cpu: u16, time_ns: u64) -> Option<usize> {
        let events = &self.recording.events;
        let before = events.time_ns.partition_point(|time| *time < time_ns);
        let is_switch = |row: &usize| events.kind[*row] == EventKind::Switch.number() && events.cpu[*row] == cpu;
        let last = (0..before).rev().find(is_switch)?;
        [TASK_IDLE, TASK_KTHREAD].map(u64::from).contains(&events.a0[last]).then_some(last)
    }

    /// The CPU stands in the model's mask and not in the kernel's, or (since 6.14) is found by the kernel in another address
    /// space, and was idle since before the entry: it was in the mask of an earlier request.
    fn left_unseen(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let (recorded, model) = (&question.sides.recorded.requests[at], &question.sides.model.requests[at]);
        let is_elsewhere = |columns: &Columns| {
            columns.tlb_flush_list.iter().any(|flush| flush.cpu == cpu && flush.reason == WRONG_CPU)
        };
        let is_missing = model.mask_cpus & bit(cpu) != 0 && recorded.mask_cpus & bit(cpu) == 0;
        if !is_missing && (is_elsewhere(model) || !is_elsewhere(recorded)) {
            return None;
        }
        let idles = self.idle_since(cpu, self.spans[question.index].0)?;
        let flushes = &self.recording.flushes;
        let row = question.sides.rows[at][0];
        let seen = |other: &usize| {
            flushes.kind[*other] == FlushKind::MmRange.number()
                && flushes.mm[*other] == flushes.mm[row]
                && flushes.mask[*other] & bit(cpu) != 0
        };
        let last_in_mask = (0..row).rev().find(seen);
        let found = question.sides.rows[at].iter().copied().filter(|&row| flushes.cpu[row] == cpu);
        Some((Cause::UnseenSwitch, vec![idles], last_in_mask.into_iter().chain([row]).chain(found).collect()))
    }

    /// The CPU switched between the caller's record before the request and its record after it.
    fn switched(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let rows = &question.sides.rows[at];
        let task = question.entry.task;
        let is_own_event = |row: &usize| events.task[*row] == task && events.kind[*row] != EventKind::Switch.number();
        let is_own_flush = |row: &usize| {
            flushes.task[*row] == task && flushes.kind[*row] != FlushKind::Func.number() && !rows.contains(row)
        };
        let begin = flushes.time_ns[rows[0]];
        let end = rows.iter().map(|row| flushes.time_ns[*row]).max().unwrap_or(begin);
        let event_before = (0..events.time_ns.partition_point(|time| *time < begin)).rev().find(is_own_event);
        let flush_before = (0..rows[0]).rev().find(is_own_flush);
        let before = event_before.map(|row| events.time_ns[row]).max(flush_before.map(|row| flushes.time_ns[row]));
        let event_after = (events.time_ns.partition_point(|time| *time <= end)..events.len()).find(is_own_event);
        let flush_after = (rows[0] + 1..flushes.len()).find(|row| is_own_flush(row) && flushes.time_ns[*row] >= end);
        let afters = event_after.map(|row| events.time_ns[row]).into_iter();
        let after = afters.chain(flush_after.map(|row| flushes.time_ns[row])).min().unwrap_or(end);
        let before = before.unwrap_or(begin);
        let first = events.time_ns.partition_point(|time| *time < before);
        let switches: Vec<usize> = (first..events.len())
            .take_while(|&row| events.time_ns[row] <= after)
            .filter(|&row| events.kind[row] == EventKind::Switch.number() && events.cpu[row] == cpu)
            .collect();
        let of_cpu = rows[1..].iter().copied().filter(|&row| flushes.cpu[row] == cpu);
        let shown: Vec<usize> = [rows[0]].into_iter().chain(of_cpu).collect();
        (!switches.is_empty()).then_some((Cause::Switch, switches, shown))
    }

    /// The CPU found nothing left to do, and nothing flushed there since a switch that flushed: that took effect only after the
    /// entries were taken out (`sched_switch` is traced before `switch_mm`).
    fn switched_late(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let rows = &question.sides.rows[at];
        let recorded = &question.sides.recorded.requests[at];
        let did_nothing = recorded.tlb_flush_list.iter().any(|flush| flush.cpu == cpu && flush.pages == 0);
        let func = rows[1..].iter().copied().find(|&row| flushes.cpu[row] == cpu).filter(|_| did_nothing)?;
        let does = |row: &usize| {
            let kind = FlushKind::from_number(flushes.kind[*row]);
            flushes.cpu[*row] == cpu && matches!(kind, Some(FlushKind::Func | FlushKind::TlbFlushEvent))
        };
        let last = (0..func).rev().find(does)?;
        let switch = usize::try_from(flushes.op_event[last]).ok()?;
        let is_switch = flushes.kind[last] == FlushKind::TlbFlushEvent.number()
            && events.kind[switch] == EventKind::Switch.number()
            && events.cpu[switch] == cpu;
        is_switch.then(|| (Cause::Switch, vec![switch], vec![rows[0], func]))
    }

    /// The CPU did all that was due where the model does one request's pages, and another task had made the next request of
    /// the address space before it did.
    fn is_late(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let flushes = &self.recording.flushes;
        let rows = &question.sides.rows[at];
        let (recorded, model) = (&question.sides.recorded.requests[at], &question.sides.model.requests[at]);
        let pages = |columns: &Columns| -> Vec<(u8, i64)> {
            let of_cpu = columns.tlb_flush_list.iter().filter(|flush| flush.cpu == cpu);
            of_cpu.map(|flush| (flush.reason, flush.pages)).collect()
        };
        let does_all = matches!((&pages(recorded)[..], &pages(model)[..]), ([(why, -1)], [(other, _)]) if why == other);
        let func = rows[1..].iter().copied().find(|&row| flushes.cpu[row] == cpu)?;
        let next = (rows[0] + 1..func).find(|&row| {
            flushes.kind[row] == FlushKind::MmRange.number()
                && flushes.mm[row] == flushes.mm[rows[0]]
                && flushes.task[row] != flushes.task[rows[0]]
        });
        next.filter(|_| does_all).map(|next| (Cause::Late, Vec::new(), vec![rows[0], next, func]))
    }

    /// The CPU ran a task of the recording, was told, and left no record.
    fn has_no_record(&self, question: &Question, at: usize, cpu: u16) -> Option<(Cause, Vec<usize>, Vec<usize>)> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let (recorded, model) = (&question.sides.recorded.requests[at], &question.sides.model.requests[at]);
        let rows = &question.sides.rows[at];
        let was_told = recorded.mask_cpus & model.ran_cpus & !recorded.ran_cpus & bit(cpu) != 0;
        let before = events.time_ns.partition_point(|time| *time <= flushes.time_ns[rows[0]]);
        let is_switch = |row: &usize| events.kind[*row] == EventKind::Switch.number() && events.cpu[*row] == cpu;
        let last = (0..before).rev().find(is_switch)?;
        let runs = events.a0[last] != u64::from(TASK_OTHER)
            && ![TASK_IDLE, TASK_KTHREAD].map(u64::from).contains(&events.a0[last]);
        (was_told && runs).then(|| (Cause::NoRecord, vec![last], vec![rows[0]]))
    }
}

fn bit(cpu: u16) -> u64 {
    1u64.checked_shl(u32::from(cpu)).unwrap_or(0)
}

/// The columns of an entry as a recording has them that shows nothing of its flushes: its faults.
fn without_flushes(model: &Columns) -> Columns {
    Columns { faults: model.faults, unmap_one: model.unmap_one, ..Columns::default() }
}
