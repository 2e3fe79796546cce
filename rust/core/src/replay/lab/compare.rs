//! Holds the entries of a replay against those of its recording.

use std::collections::BTreeMap;

use super::cause::{Causes, Reason};
use super::columns::{Columns, Difference};
use super::entries::{Entries, Entry};
use super::model::model_columns;
use super::recorded::recorded_columns;
use crate::replay::Traced;
use crate::trace::Recording;

/// Entries that agree in every column, of how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exactness {
    /// All entries.
    pub nr_entries: u64,
    /// Those without a difference.
    pub nr_exact: u64,
    /// Those that differ, with a cause outside the model.
    pub nr_explained: u64,
}

/// One entry with both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComparedEntry {
    /// Which.
    pub entry: Entry,
    /// What the kernel did.
    pub recorded: Columns,
    /// What the model did.
    pub model: Columns,
    /// Where they differ; empty if nowhere.
    pub differences: Vec<Difference>,
    /// What outside the model explains all of their difference, with the records that show it; empty if something is left.
    pub reasons: Vec<Reason>,
}

/// The outcome for a recording.
#[derive(Clone, Debug, Default)]
pub struct LabValidation {
    /// Every entry, in the order in which they began.
    pub entries: Vec<ComparedEntry>,
    /// Steps that ran alone.
    pub single: Exactness,
    /// Steps that ran at the same time as others.
    pub parallel: Exactness,
    /// By operation: alone, at the same time as others.
    pub by_operation: BTreeMap<String, (Exactness, Exactness)>,
}

/// Compares one entry.
pub fn compare_entry(entry: &Entry, recorded: Columns, model: Columns) -> ComparedEntry {
    let differences = recorded.differences(&model);
    ComparedEntry { entry: entry.clone(), recorded, model, differences, reasons: Vec::new() }
}

/// Compares every entry of a recording of the lab with what a replay traced.
pub fn compare(recording: &Recording, traced: &[Traced]) -> LabValidation {
    let entries = Entries::of(recording);
    let sides = recorded_columns(recording, &entries).into_iter().zip(model_columns(traced, &entries));
    let causes = Causes::new(recording, &entries);
    let mut validation = LabValidation::default();
    for (entry, (recorded, model)) in entries.list.iter().zip(sides) {
        let mut compared = compare_entry(entry, recorded, model);
        if !compared.differences.is_empty() {
            compared.reasons = causes.of(&compared, &validation.entries, traced);
        }
        let of_operation = validation.by_operation.entry(entry.operation().to_owned()).or_default();
        let both = if entry.parallel {
            [&mut validation.parallel, &mut of_operation.1]
        } else {
            [&mut validation.single, &mut of_operation.0]
        };
        for sum in both {
            sum.nr_entries += 1;
            sum.nr_exact += u64::from(compared.differences.is_empty());
            sum.nr_explained += u64::from(!compared.reasons.is_empty());
        }
        validation.entries.push(compared);
    }
    validation
}
