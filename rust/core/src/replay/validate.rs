//! Holds a replay against the flushes that were recorded, operation by operation.
//!
//! One flush is (thread, operation, strides or full, other CPUs told or not). Per operation the predicted and the recorded
//! flushes are compared as multisets, once with the targets (told or not) and once without. In a recording by perf a flush is what the tracepoint `tlb:tlb_flush` shows of one
//! request; in the lab's it is the request itself, and an operation is a step of the scenario.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::driver::{Replayed, operation_counts};
use super::flushed::FlushSize;
use super::ledger::OpKind;
use crate::flush::FlushKind as ModelKind;
use crate::trace::{EventKind, FlushKind, Recording};

/// One flush as it is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen {
    /// How much.
    pub size: FlushSize,
    /// Whether other CPUs were told.
    pub told: bool,
}

/// How many flushes of both sides agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Flushes both predicted and recorded.
    pub matched: u64,
    /// Recorded, not predicted.
    pub missed: u64,
    /// Predicted, not recorded.
    pub extra: u64,
}

impl Counts {
    /// Of two multisets.
    fn of<T: PartialEq + Copy>(predicted: &[T], recorded: &[T]) -> Self {
        let extra = minus(predicted, recorded).len();
        Self {
            matched: (predicted.len() - extra) as u64,
            missed: minus(recorded, predicted).len() as u64,
            extra: extra as u64,
        }
    }

    /// matched / (matched + missed + extra); 1 if there was nothing.
    #[expect(clippy::cast_precision_loss, reason = "counts of flushes stay far below 2^52")]
    pub fn score(&self) -> f64 {
        let all = self.matched + self.missed + self.extra;
        if all == 0 { 1.0 } else { self.matched as f64 / all as f64 }
    }

    fn add(&mut self, other: &Self) {
        self.matched += other.matched;
        self.missed += other.missed;
        self.extra += other.extra;
    }
}

/// What became of the flushes of one operation or kind of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Score {
    /// Operations.
    pub nr_operations: u64,
    /// Flushes compared by size and by whether other CPUs were told.
    pub with_targets: Counts,
    /// Flushes compared by size alone.
    pub without_targets: Counts,
}

impl Score {
    fn add(&mut self, other: &Self) {
        self.nr_operations += other.nr_operations;
        self.with_targets.add(&other.with_targets);
        self.without_targets.add(&other.without_targets);
    }
}

/// One operation with both lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// Row of its event.
    pub row: usize,
    /// Its kind.
    pub kind: String,
    /// What the model did, sorted.
    pub predicted: Vec<Seen>,
    /// What the kernel did, sorted.
    pub recorded: Vec<Seen>,
}

impl Compared {
    /// Its part of the score.
    pub fn score(&self) -> Score {
        let sizes = |flushes: &[Seen]| flushes.iter().map(|seen| seen.size).collect::<Vec<_>>();
        Score {
            nr_operations: 1,
            with_targets: Counts::of(&self.predicted, &self.recorded),
            without_targets: Counts::of(&sizes(&self.predicted), &sizes(&self.recorded)),
        }
    }

    /// Recorded but not predicted, predicted but not recorded.
    pub fn differences(&self) -> (Vec<Seen>, Vec<Seen>) {
        (minus(&self.recorded, &self.predicted), minus(&self.predicted, &self.recorded))
    }
}

/// The difference of two multisets.
fn minus<T: PartialEq + Copy>(from: &[T], take: &[T]) -> Vec<T> {
    let mut take = take.to_vec();
    let mut left = Vec::new();
    for one in from {
        if let Some(at) = take.iter().position(|other| other == one) {
            take.swap_remove(at);
        } else {
            left.push(*one);
        }
    }
    left
}

/// Operations that differ in the same way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disagreement {
    /// Kind of the operations.
    pub kind: String,
    /// What was recorded and not predicted.
    pub missed: Vec<Seen>,
    /// What was predicted and not recorded.
    pub extra: Vec<Seen>,
    /// How many operations.
    pub nr_operations: u64,
    /// Row of the first one's event.
    pub example_row: usize,
}

/// The outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validation {
    /// Over all operations.
    pub total: Score,
    /// Per kind.
    pub by_operation: BTreeMap<String, Score>,
    /// The operations, by row.
    pub operations: Vec<Compared>,
    /// Recorded flushes that belong to no event, and are not compared.
    pub nr_unattributed: u64,
    /// Whether the recording has any flush to compare with.
    pub has_truth: bool,
}

impl Validation {
    /// Disagreements, the largest groups (by flushes) first, at most `limit`.
    pub fn disagreements(&self, limit: usize) -> Vec<Disagreement> {
        let mut groups: Vec<Disagreement> = Vec::new();
        let mut index: FxHashMap<(&str, Vec<Seen>, Vec<Seen>), usize> = FxHashMap::default();
        for operation in &self.operations {
            let (missed, extra) = operation.differences();
            if missed.is_empty() && extra.is_empty() {
                continue;
            }
            let key = (operation.kind.as_str(), missed.clone(), extra.clone());
            let at = *index.entry(key).or_insert_with(|| {
                let kind = operation.kind.clone();
                groups.push(Disagreement { kind, missed, extra, nr_operations: 0, example_row: operation.row });
                groups.len() - 1
            });
            groups[at].nr_operations += 1;
        }
        let weight = |group: &Disagreement| group.nr_operations * (group.missed.len() + group.extra.len()) as u64;
        groups.sort_by_key(|group| (std::cmp::Reverse(weight(group)), group.example_row));
        groups.truncate(limit);
        groups
    }
}

/// Compares a replay with the flushes of its recording.
pub fn validate(recording: &Recording, replayed: &Replayed) -> Validation {
    let operation_of = Operations::of(recording);
    let is_lab = recording.nr_flushes_of(FlushKind::MmRange) > 0 || recording.meta.source == "lab";
    let mut compared: BTreeMap<usize, Compared> = operation_of
        .rows(recording)
        .map(|row| {
            let kind = Operations::kind(recording, row);
            (row, Compared { row, kind, predicted: Vec::new(), recorded: Vec::new() })
        })
        .collect();
    let entry = |row: usize, compared: &mut BTreeMap<usize, Compared>, predicted: bool, seen: Seen| {
        let kind = || Operations::kind(recording, row);
        let operation = compared.entry(row).or_insert_with(|| Compared {
            row,
            kind: kind(),
            predicted: Vec::new(),
            recorded: Vec::new(),
        });
        if predicted { operation.predicted.push(seen) } else { operation.recorded.push(seen) }
    };
    for flush in &replayed.predicted {
        let size = if is_lab { (flush.kind != ModelKind::LazyMmu).then_some(flush.requested) } else { flush.traced };
        if let Some(size) = size {
            let row = operation_of.row(flush.op_event);
            entry(row, &mut compared, true, Seen { size, told: flush.remote });
        }
    }
    let mut nr_unattributed = 0;
    let recorded = if is_lab { requests_of_lab(recording) } else { requests_of_perf(recording) };
    let has_truth = !recorded.is_empty();
    for (op_event, seen) in recorded {
        match usize::try_from(op_event) {
            Ok(row) => entry(operation_of.row(row), &mut compared, false, seen),
            Err(_) => nr_unattributed += 1,
        }
    }
    let mut by_operation: BTreeMap<String, Score> = BTreeMap::new();
    let mut total = Score::default();
    let mut operations: Vec<Compared> = compared.into_values().collect();
    for operation in &mut operations {
        operation.predicted.sort_unstable();
        operation.recorded.sort_unstable();
        let score = operation.score();
        total.add(&score);
        by_operation.entry(operation.kind.clone()).or_default().add(&score);
    }
    Validation { total, by_operation, operations, nr_unattributed, has_truth }
}

/// Which event stands for the operation that an event belongs to: in a scenario the step; for the end of a task its exit
/// call, if it made one (kernels differ in whether the address space goes before or after `sched_process_exit`); else
/// itself.
struct Operations {
    part_of: FxHashMap<usize, usize>,
}

impl Operations {
    fn of(recording: &Recording) -> Self {
        let mut part_of = FxHashMap::default();
        let mut open: FxHashMap<u32, usize> = FxHashMap::default();
        let mut exiting: FxHashMap<u32, usize> = FxHashMap::default();
        for row in 0..recording.events.len() {
            let task = recording.events.task[row];
            match EventKind::from_number(recording.events.kind[row]) {
                Some(EventKind::StepBegin) => {
                    open.insert(task, row);
                }
                Some(EventKind::StepEnd) => {
                    open.remove(&task);
                }
                kind => {
                    if matches!(kind, Some(EventKind::ExitCall | EventKind::ExitGroup)) {
                        exiting.insert(task, row);
                    }
                    let call = exiting.get(&task).filter(|_| kind == Some(EventKind::Exit));
                    if let Some(whole) = open.get(&task).or(call) {
                        part_of.insert(row, *whole);
                    }
                }
            }
        }
        Self { part_of }
    }

    fn row(&self, event: usize) -> usize {
        self.part_of.get(&event).copied().unwrap_or(event)
    }

    /// The rows that are operations, whether they flushed or not.
    fn rows<'r>(&'r self, recording: &'r Recording) -> impl Iterator<Item = usize> + 'r {
        (0..recording.events.len()).filter(|row| {
            let kind = recording.events.get(*row).kind();
            kind == EventKind::StepBegin
                || (operation_counts(kind) && kind != EventKind::ReclaimPage && !self.part_of.contains_key(row))
        })
    }

    /// A step's kind is the first word of its text after repetitions.
    fn kind(recording: &Recording, row: usize) -> String {
        let event = recording.events.get(row);
        if event.kind() == EventKind::StepBegin {
            let text = recording.names.get(usize::try_from(event.a2).unwrap_or(usize::MAX));
            let mut words = text.map(String::as_str).unwrap_or_default().split_whitespace();
            return words.find(|w| *w != "rep" && w.parse::<u64>().is_err()).unwrap_or("step").to_owned();
        }
        OpKind::of(recording, row).name()
    }
}

/// Each request of the lab's kernel: the range and the mask that `flush_tlb_mm_range` was called with, and deferred flushes.
fn requests_of_lab(recording: &Recording) -> Vec<(i64, Seen)> {
    let ceiling = recording.meta.ceiling_pages.unwrap_or(33);
    let mut requests = Vec::new();
    for row in 0..recording.flushes.len() {
        let flush = recording.flushes.get(row);
        let own = 1u64.checked_shl(u32::from(flush.cpu)).unwrap_or(0);
        let told = flush.mask & !own != 0;
        match FlushKind::from_number(flush.kind) {
            Some(FlushKind::MmRange) => {
                let strides = flush.end.wrapping_sub(flush.start) >> flush.stride_shift;
                let full = flush.end == u64::MAX || strides > ceiling;
                let size = if full { FlushSize::Full } else { FlushSize::Strides(strides) };
                requests.push((flush.op_event, Seen { size, told }));
            }
            Some(FlushKind::BatchFlush) => requests.push((flush.op_event, Seen { size: FlushSize::Full, told })),
            _ => {}
        }
    }
    requests
}

/// Each request of which the tracepoint shows something on the CPU that asked.
pub(super) fn requests_of_perf(recording: &Recording) -> Vec<(i64, Seen)> {
    const LOCAL: [u8; 2] = [2, 3];
    const SEND: u8 = 4;
    let mut requests: Vec<(i64, Seen)> = Vec::new();
    let mut of_row: FxHashMap<i64, usize> = FxHashMap::default();
    for row in 0..recording.flushes.len() {
        let flush = recording.flushes.get(row);
        if flush.kind != FlushKind::TlbFlushEvent.number() || !(LOCAL.contains(&flush.reason) || flush.reason == SEND) {
            continue;
        }
        let size = FlushSize::from_pages(flush.pages);
        let request = if flush.request < 0 { i64::try_from(row).unwrap_or(-1) } else { flush.request };
        if let Some(&at) = of_row.get(&request) {
            if LOCAL.contains(&flush.reason) {
                requests[at].1.size = size;
            }
            requests[at].1.told |= flush.reason == SEND;
            continue;
        }
        of_row.insert(request, requests.len());
        requests.push((flush.op_event, Seen { size, told: flush.reason == SEND }));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen(strides: u64, told: bool) -> Seen {
        Seen { size: FlushSize::Strides(strides), told }
    }

    fn compared(predicted: &[Seen], recorded: &[Seen]) -> Compared {
        Compared { row: 0, kind: "munmap".to_owned(), predicted: predicted.to_vec(), recorded: recorded.to_vec() }
    }

    #[test]
    fn flushes_are_compared_as_multisets() {
        let one = compared(&[seen(1, true), seen(1, true), seen(7, false)], &[seen(1, true), seen(8, false)]);
        assert_eq!(one.differences(), (vec![seen(8, false)], vec![seen(1, true), seen(7, false)]));
        let counts = one.score().with_targets;
        assert_eq!(counts, Counts { matched: 1, missed: 1, extra: 2 });
        assert!((counts.score() - 0.25).abs() < 1e-12);
        assert!((Counts::default().score() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn whether_others_were_told_is_part_of_a_flush_with_targets_only() {
        let one = compared(&[seen(1, false)], &[seen(1, true)]);
        assert_eq!(one.differences(), (vec![seen(1, true)], vec![seen(1, false)]));
        assert_eq!(one.score().with_targets, Counts { matched: 0, missed: 1, extra: 1 });
        assert_eq!(one.score().without_targets, Counts { matched: 1, missed: 0, extra: 0 });
    }
}
