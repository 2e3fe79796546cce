//! Causes that lie in what one CPU ran when it was told, or was not.

use super::{Cause, Causes, Found, Question, bit};
use crate::flush::TlbFlushReason;
use crate::replay::lab::columns::Columns;
use crate::trace::kinds::{TASK_IDLE, TASK_KTHREAD, TASK_OTHER};
use crate::trace::{EventKind, FlushKind};

/// The tracepoint's reasons of the flush of a switch, and on a CPU that had another address space loaded.
const TASK_SWITCH: u8 = TlbFlushReason::TaskSwitch as u8;
const WRONG_CPU: u8 = TlbFlushReason::RemoteWrongCpu as u8;

impl Causes<'_> {
    /// What a CPU did otherwise at the `at`-th request, if a rule explains it.
    pub(super) fn take_cpu(&self, question: &mut Question, at: usize, cpu: u16) {
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

    /// The CPU was idle since before the entry, and loaded another address space meanwhile: it stands in the model's mask and not
    /// in the kernel's, and flushed when it next switched to a task; or (since 6.14) the kernel finds it in another one.
    fn left_unseen(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
        let (recorded, model) = (&question.sides.recorded.requests[at], &question.sides.model.requests[at]);
        let is_elsewhere = |columns: &Columns| {
            columns.tlb_flush_list.iter().any(|flush| flush.cpu == cpu && flush.reason == WRONG_CPU)
        };
        let is_missing = model.mask_cpus & bit(cpu) != 0 && recorded.mask_cpus & bit(cpu) == 0;
        if !is_missing && (is_elsewhere(model) || !is_elsewhere(recorded)) {
            return None;
        }
        let idles = self.idle_since(cpu, self.spans[question.index].0)?;
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let row = question.sides.rows[at][0];
        let is_switch = |event: &usize| events.kind[*event] == EventKind::Switch.number() && events.cpu[*event] == cpu;
        let later = events.time_ns.partition_point(|time| *time <= flushes.time_ns[row]);
        let back = (later..events.len()).find(is_switch).and_then(|switch| self.flush_of_switch(switch));
        if is_missing && back.is_none() {
            return None;
        }
        let seen = |other: &usize| {
            flushes.kind[*other] == FlushKind::MmRange.number()
                && flushes.mm[*other] == flushes.mm[row]
                && flushes.mask[*other] & bit(cpu) != 0
        };
        let last_in_mask = (0..row).rev().find(seen);
        let found = question.sides.rows[at].iter().copied().filter(|&row| flushes.cpu[row] == cpu);
        let shown = last_in_mask.into_iter().chain([row]).chain(found).chain(back.filter(|_| is_missing));
        Some((Cause::UnseenSwitch, vec![idles], shown.collect()))
    }

    /// The record of the flush with which a switch came.
    fn flush_of_switch(&self, switch: usize) -> Option<usize> {
        let flushes = &self.recording.flushes;
        (0..flushes.len()).find(|&row| {
            flushes.kind[row] == FlushKind::TlbFlushEvent.number()
                && flushes.reason[row] == TASK_SWITCH
                && usize::try_from(flushes.op_event[row]) == Ok(switch)
        })
    }

    /// The latest switch of a CPU before a time, if the CPU runs no task of the recording since.
    fn idle_since(&self, cpu: u16, time_ns: u64) -> Option<usize> {
        let events = &self.recording.events;
        let before = events.time_ns.partition_point(|time| *time < time_ns);
        let is_switch = |row: &usize| events.kind[*row] == EventKind::Switch.number() && events.cpu[*row] == cpu;
        let last = (0..before).rev().find(is_switch)?;
        [TASK_IDLE, TASK_KTHREAD].map(u64::from).contains(&events.a0[last]).then_some(last)
    }

    /// The CPU switched between the caller's record before the request and its own execution, or, if it executed nothing, the
    /// caller's next record: by then the targets were chosen.
    fn switched(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let rows = &question.sides.rows[at];
        let task = question.entry.task;
        let is_own_event = |row: &usize| events.task[*row] == task && events.kind[*row] != EventKind::Switch.number();
        let is_own_flush = |row: &usize| flushes.task[*row] == task && !rows.contains(row);
        let begin = flushes.time_ns[rows[0]];
        let event_before = (0..events.time_ns.partition_point(|time| *time < begin)).rev().find(is_own_event);
        let flush_before = (0..rows[0]).rev().find(is_own_flush);
        let before = event_before.map(|row| events.time_ns[row]).max(flush_before.map(|row| flushes.time_ns[row]));
        let of_cpu: Vec<usize> = rows[1..].iter().copied().filter(|&row| flushes.cpu[row] == cpu).collect();
        let event_after = (events.time_ns.partition_point(|time| *time <= begin)..events.len()).find(is_own_event);
        let flush_after = (rows[0] + 1..flushes.len()).find(|row| flushes.task[*row] == task);
        let afters = event_after.map(|row| events.time_ns[row]).into_iter();
        let next = afters.chain(flush_after.map(|row| flushes.time_ns[row])).min().unwrap_or(begin);
        let after = of_cpu.iter().map(|row| flushes.time_ns[*row]).max().unwrap_or(next);
        let first = events.time_ns.partition_point(|time| *time < before.unwrap_or(begin));
        let switches: Vec<usize> = (first..events.len())
            .take_while(|&row| events.time_ns[row] <= after)
            .filter(|&row| events.kind[row] == EventKind::Switch.number() && events.cpu[row] == cpu)
            .collect();
        let shown: Vec<usize> = [rows[0]].into_iter().chain(of_cpu).collect();
        (!switches.is_empty()).then_some((Cause::Switch, switches, shown))
    }

    /// The CPU found nothing left to do, and nothing flushed there since a switch that flushed: that took effect only after the
    /// entries were taken out (`sched_switch` is traced before `switch_mm`).
    fn switched_late(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
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
    fn is_late(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
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
    fn has_no_record(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
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
