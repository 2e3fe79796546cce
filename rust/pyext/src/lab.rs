//! The comparison of lab entries as plain structures.

use serde_json::{Map, Value, json};
use tlbcore::replay::lab::{Columns, ComparedEntry, Exactness, LabValidation, Reason};
use tlbcore::trace::Recording;

/// All of it; of the entries only those that differ.
pub fn validation_value(validation: &LabValidation, recording: &Recording) -> Value {
    let by_operation: Map<String, Value> = validation
        .by_operation
        .iter()
        .map(|(name, (single, parallel))| {
            (name.clone(), json!({ "single": exactness(single), "parallel": exactness(parallel) }))
        })
        .collect();
    let differing = validation.entries.iter().filter(|compared| !compared.differences.is_empty());
    json!({
        "single": exactness(&validation.single),
        "parallel": exactness(&validation.parallel),
        "by_operation": by_operation,
        "differences": differing.map(|compared| entry(compared, recording)).collect::<Vec<_>>(),
    })
}

fn exactness(sums: &Exactness) -> Value {
    json!({ "nr_entries": sums.nr_entries, "nr_exact": sums.nr_exact, "nr_explained": sums.nr_explained })
}

fn entry(compared: &ComparedEntry, recording: &Recording) -> Value {
    let entry = &compared.entry;
    json!({
        "event": entry.row,
        "step": entry.step,
        "iteration": entry.iteration,
        "actor": recording.tasks.get(entry.task as usize).map(|task| task.comm.clone()),
        "cpu": entry.cpu,
        "text": entry.text,
        "parallel": entry.parallel,
        "reasons": compared.reasons.iter().map(reason).collect::<Vec<_>>(),
        "columns": compared.differences.iter().map(|difference| difference.column).collect::<Vec<_>>(),
        "recorded": columns(&compared.recorded),
        "model": columns(&compared.model),
    })
}

fn reason(reason: &Reason) -> Value {
    let lies_in = if reason.cause.is_timing() { "timing" } else { "recording" };
    json!({
        "name": reason.cause.word(),
        "cause": reason.cause.name(),
        "lies_in": lies_in,
        "events": reason.events,
        "flushes": reason.flushes,
    })
}

fn columns(columns: &Columns) -> Value {
    let texts = columns.texts().into_iter();
    Value::Object(texts.map(|(name, text)| (name.to_owned(), Value::String(text))).collect())
}
