//! Replays for Python: one call per recording and kernel, results as read-only arrays and plain structures.

use std::num::NonZero;
use std::sync::Arc;

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};
use tlbcore::error::Error;
use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::lab;
use tlbcore::replay::validate::{Compared, Counts, Score, Seen, Validation, validate};
use tlbcore::replay::{EVENTS_PER_ASKING, Keep};
use tlbcore::replay::{LedgerRow, Predicted, Replayed, Traced, replay_parallel, replay_traced};

use crate::errors::Result;
use crate::trace::Recording;

/// What a recording gave under a kernel.
#[pyclass(frozen, module = "tlbcore._core")]
pub struct Replay {
    inner: Replayed,
    /// What the machine did, event by event, if that was asked for.
    traced: Option<Vec<Traced>>,
    /// Whether flushes and notes were kept one by one.
    keep: Keep,
}

/// Replays a recording under a resolved kernel on a machine (both as JSON text).
///
/// With `traced`, everything that the machine did about flushes is kept for `Replay.lab`; slower, and on one thread. Without
/// `keep_flushes` only sums are kept, and memory does not grow with the recording. `progress` is called now and then with the
/// events done and all of them. Ctrl-C ends it with KeyboardInterrupt, and so does what `progress` raises.
#[pyfunction(
    name = "replay",
    signature = (
        recording, kernel_json, config_json, follow_masks, traced = false, progress = None, threads = 1, keep_flushes = true
    )
)]
#[expect(clippy::too_many_arguments, reason = "those of Python's function")]
pub fn py_replay(
    py: Python<'_>,
    recording: &Recording,
    kernel_json: &str,
    config_json: &str,
    follow_masks: bool,
    traced: bool,
    progress: Option<Bound<'_, PyAny>>,
    threads: usize,
    keep_flushes: bool,
) -> Result<Replay> {
    let threads =
        NonZero::new(threads).ok_or_else(|| Error::Value("threads: found 0, expected one or more".to_owned()))?;
    let kernel = Arc::new(CompiledKernel::from_json(kernel_json)?);
    let config = MachineConfig::from_json(config_json)?;
    let keep = if keep_flushes { Keep::All } else { Keep::Sums };
    let mut interrupted = None;
    let progress = progress.map(Bound::unbind);
    let nr_events = recording.get().events.len();
    let mut nr_asked = 0;
    let inner = py.detach(|| {
        let mut stop = || {
            // The driver asks once for so many events; entries of the lab that ran together may skip one.
            let done = (nr_asked * EVENTS_PER_ASKING).min(nr_events);
            nr_asked += 1;
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |tell| tell.call1(py, (done, nr_events)).map(drop))
            });
            interrupted = told.err();
            interrupted.is_some()
        };
        if traced {
            let both = replay_traced(recording.get(), &kernel, &config, follow_masks, &mut stop);
            return both.map(|(replayed, traced)| (replayed, Some(traced)));
        }
        let replayed = replay_parallel(recording.get(), &kernel, &config, follow_masks, threads, keep, &mut stop);
        replayed.map(|replayed| (replayed, None))
    });
    if let Some(error) = interrupted {
        return Err(error.into());
    }
    let (inner, traced) = inner?;
    Ok(Replay { inner, traced, keep })
}

#[pymethods]
impl Replay {
    /// Events replayed.
    #[getter]
    fn nr_events(&self) -> u64 {
        self.inner.nr_events
    }

    /// The machine's counters, by name.
    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let value = serde_json::to_value(self.inner.counters).map_err(|e| Error::Value(e.to_string()))?;
        to_python(py, &value)
    }

    /// Sums per kind of operation: name -> counter -> value.
    #[getter]
    fn by_operation<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let rows: Map<String, Value> =
            self.inner.ledger.rows().map(|(kind, row)| (kind.to_owned(), ledger_row(row))).collect();
        to_python(py, &Value::Object(rows))
    }

    /// What had to be assumed or passed over: text -> how often.
    #[getter]
    fn notes<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        to_python(py, &json!(self.inner.notes))
    }

    /// The same, one by one: (row of the event, text).
    #[getter]
    fn noted(&self) -> Result<Vec<(usize, &'static str)>> {
        self.one_by_one()?;
        Ok(self.inner.noted.clone())
    }

    /// The flushes that the model did, as columns: name -> array.
    fn flushes<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        self.one_by_one()?;
        let columns = PyDict::new(py);
        let all = &self.inner.predicted;
        macro_rules! column {
            ($name:literal, $value:expr) => {
                let value: fn(&Predicted) -> _ = $value;
                columns.set_item($name, PyArray1::from_iter(py, all.iter().map(value)))?;
            };
        }
        column!("op_event", |f| f.op_event as u64);
        column!("task", |f| f.task);
        column!("cpu", |f| f.cpu.0);
        column!("pages", |f| f.requested.pages());
        column!("remote", |f| f.remote);
        column!("start", |f| f.start);
        column!("end", |f| f.end);
        column!("stride_shift", |f| f.stride_shift);
        column!("freed_tables", |f| f.freed_tables);
        column!("mask", |f| f.mask);
        column!("told", |f| f.told);
        column!("told_lazy", |f| f.told_lazy);
        column!("told_gone", |f| f.told_gone);
        column!("told_up_to_date", |f| f.told_up_to_date);
        column!("told_nothing_cached", |f| f.told_nothing_cached);
        column!("lazy_skipped", |f| f.lazy_skipped);
        Ok(columns)
    }

    /// Holds the replay against the flushes of its recording: a plain structure with `matched`, `missed`, `extra`,
    /// `score`, the same four in `without_targets`, `by_operation`, `disagreements` (the `limit` largest groups), `nr_unattributed`, `has_truth`.
    fn validate<'py>(&self, py: Python<'py>, recording: &Recording, limit: usize) -> Result<Bound<'py, PyAny>> {
        self.one_by_one()?;
        let value = py.detach(|| {
            let validation = validate(recording.get(), &self.inner);
            validation_value(&validation, recording.get(), limit)
        });
        to_python(py, &value)
    }

    /// Holds a traced replay of a recording of the kernel lab against it, entry by entry and column by column.
    ///
    /// A plain structure with `single` and `parallel` (nr_entries, nr_exact, nr_explained), `by_operation` (both of each) and
    /// `differences`: the entries that differ, with both sides.
    fn lab<'py>(&self, py: Python<'py>, recording: &Recording) -> Result<Bound<'py, PyAny>> {
        let Some(traced) = &self.traced else {
            return Err(Error::Value("replay: found one that was not traced, expected traced=True".to_owned()).into());
        };
        let value = py.detach(|| crate::lab::validation_value(&lab::compare(recording.get(), traced), recording.get()));
        to_python(py, &value)
    }

    /// The operations with both lists of flushes: (row, kind, predicted, recorded, matched, missed, extra,
    /// and these three in `without_targets`) each; or only those where the lists differ.
    #[pyo3(signature = (recording, *, only_differing=false))]
    fn operations<'py>(
        &self,
        py: Python<'py>,
        recording: &Recording,
        only_differing: bool,
    ) -> Result<Bound<'py, PyAny>> {
        self.one_by_one()?;
        let value = py.detach(|| {
            let validation = validate(recording.get(), &self.inner);
            let chosen = |operation: &&Compared| !only_differing || operation.predicted != operation.recorded;
            Value::Array(validation.operations.iter().filter(chosen).map(operation_value).collect())
        });
        to_python(py, &value)
    }
}

impl Replay {
    fn one_by_one(&self) -> Result<()> {
        match self.keep {
            Keep::All => Ok(()),
            Keep::Sums => {
                let what = "replay: found one that kept sums only, expected keep_flushes=True";
                Err(Error::Value(what.to_owned()).into())
            }
        }
    }
}

fn ledger_row(row: &LedgerRow) -> Value {
    json!({
        "nr_operations": row.nr_operations,
        "nr_flush_requests": row.nr_flush_requests,
        "nr_flush_full": row.nr_flush_full,
        "nr_flush_pages": row.nr_flush_pages,
        "nr_flush_remote": row.nr_flush_remote,
        "nr_ipis": row.nr_ipis,
        "nr_told_lazy": row.nr_told_lazy,
        "nr_told_gone": row.nr_told_gone,
        "nr_told_nothing_cached": row.nr_told_nothing_cached,
        "nr_lazy_skipped": row.nr_lazy_skipped,
    })
}

/// Counts with targets stand at the top, those without below.
fn score_value(score: &Score) -> Map<String, Value> {
    let mut object = counts_value(&score.with_targets);
    object.insert("nr_operations".to_owned(), json!(score.nr_operations));
    object.insert("without_targets".to_owned(), Value::Object(counts_value(&score.without_targets)));
    object
}

fn counts_value(counts: &Counts) -> Map<String, Value> {
    let all = [
        ("matched", json!(counts.matched)),
        ("missed", json!(counts.missed)),
        ("extra", json!(counts.extra)),
        ("score", json!(counts.score())),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn seen_value(list: &[Seen]) -> Value {
    list.iter().map(|seen| json!({"pages": seen.size.pages(), "told": seen.told})).collect()
}

fn operation_value(operation: &Compared) -> Value {
    let score = operation.score();
    let (with, without) = (score.with_targets, score.without_targets);
    json!({
        "row": operation.row,
        "kind": operation.kind,
        "predicted": seen_value(&operation.predicted),
        "recorded": seen_value(&operation.recorded),
        "matched": with.matched,
        "missed": with.missed,
        "extra": with.extra,
        "without_targets": {"matched": without.matched, "missed": without.missed, "extra": without.extra},
    })
}

fn validation_value(validation: &Validation, recording: &tlbcore::trace::Recording, limit: usize) -> Value {
    let mut object = score_value(&validation.total);
    let by_operation: Map<String, Value> =
        validation.by_operation.iter().map(|(kind, score)| (kind.clone(), Value::Object(score_value(score)))).collect();
    let disagreements: Vec<Value> = validation
        .disagreements(limit)
        .iter()
        .map(|group| {
            let event = recording.events.get(group.example_row);
            let task = recording.tasks.get(event.task as usize);
            json!({
                "kind": group.kind,
                "missed": seen_value(&group.missed),
                "extra": seen_value(&group.extra),
                "nr_operations": group.nr_operations,
                "example": {
                    "event": group.example_row,
                    "time_ns": event.time_ns,
                    "cpu": event.cpu,
                    "tid": task.map(|t| t.tid),
                    "comm": task.map(|t| t.comm.clone()),
                    "arguments": [event.a0, event.a1, event.a2, event.a3],
                    "name": step_name(recording, group.example_row),
                },
            })
        })
        .collect();
    object.insert("by_operation".to_owned(), Value::Object(by_operation));
    object.insert("disagreements".to_owned(), Value::Array(disagreements));
    object.insert("nr_unattributed".to_owned(), json!(validation.nr_unattributed));
    object.insert("has_truth".to_owned(), json!(validation.has_truth));
    Value::Object(object)
}

fn step_name(recording: &tlbcore::trace::Recording, row: usize) -> String {
    let event = recording.events.get(row);
    if event.kind() == tlbcore::trace::EventKind::StepBegin {
        let name = usize::try_from(event.a2).ok().and_then(|index| recording.names.get(index));
        return name.cloned().unwrap_or_default();
    }
    event.kind().name().to_owned()
}

fn to_python<'py>(py: Python<'py>, value: &Value) -> Result<Bound<'py, PyAny>> {
    let loads = py.import("json")?.getattr("loads")?;
    Ok(loads.call1((value.to_string(),))?)
}
