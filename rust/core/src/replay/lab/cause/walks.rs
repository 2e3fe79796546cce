//! Causes that lie in the caller's own walk, which a reschedule interrupted.

use super::{Cause, Causes, Found, Question};
use crate::replay::lab::columns::Columns;
use crate::replay::lab::entries::Entry;
use crate::trace::{EventKind, FlushKind};

impl Causes<'_> {
    /// The caller was preempted in the entry, tables were looked at more often, and nothing else differs.
    pub(super) fn take_interrupted_walk(&self, question: &mut Question) {
        let preempted = self.preemptions(question);
        let (recorded, model) = (question.sides.recorded.total(), question.sides.model.total());
        let but_for_looks = |columns: &Columns| Columns { batch_pending_calls: 0, ..columns.clone() };
        let is_that = !preempted.is_empty()
            && recorded.batch_pending_calls > model.batch_pending_calls
            && but_for_looks(&recorded) == but_for_looks(&model);
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

    /// The caller was preempted, and its last record before and its first one after are of a table looked at: it was the same
    /// one (mm/memory.c:`zap_pte_range` comes back to it).
    pub(super) fn take_second_looks(&self, question: &mut Question) {
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
    pub(super) fn left_in_exit(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
        let events = &self.recording.events;
        let request = question.sides.rows[at][0];
        let is_before =
            |row: &usize| events.cpu[*row] == cpu && events.time_ns[*row] <= self.recording.flushes.time_ns[request];
        let left = self.preemptions(question).into_iter().find(is_before);
        let left = left.filter(|_| question.entry.text == Entry::EXIT_MMAP);
        left.map(|row| (Cause::Interrupted, vec![row], vec![request]))
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
}
