//! The columns of recorded entries are those of the lab's own table, `data/lab/ops.csv.gz`, for every recording there.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tlbcore::replay::lab::{CpuFlush, Entries, recorded_columns};
use tlbcore::trace::import_file;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab")
}

/// The rows of the table by config and scenario, each as column -> text.
fn table() -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(data().join("ops.csv.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut rows: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    for line in lines {
        let cells = header.iter().zip(line.split(',')).map(|(name, cell)| ((*name).to_owned(), cell.to_owned()));
        let row: BTreeMap<String, String> = cells.collect();
        rows.entry(format!("{}_{}", row["config"], row["scenario"])).or_default().push(row);
    }
    rows
}

/// What other CPUs did comes in any order.
fn sorted(list: &str) -> Vec<CpuFlush> {
    let mut flushes: Vec<CpuFlush> = list
        .split(';')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let mut numbers = item.split(':').map(|number| number.parse::<i64>().unwrap());
            let mut next = || numbers.next().unwrap();
            CpuFlush { cpu: next().try_into().unwrap(), pages: next(), reason: next().try_into().unwrap() }
        })
        .collect();
    flushes.sort_unstable();
    flushes
}

#[test]
fn recorded_columns_are_those_of_the_lab_s_own_table() {
    let mut nr_rows = 0;
    for (name, rows) in table() {
        let recording = import_file(&data().join(format!("{name}.jsonl.gz"))).unwrap();
        let entries = Entries::of(&recording);
        let columns = recorded_columns(&recording, &entries);
        // The table lists the ends of address spaces where they came; so do the times here.
        let mut found: BTreeMap<(u64, u64, String, String), _> = BTreeMap::new();
        for (entry, columns) in entries.list.iter().zip(columns) {
            let actor = recording.tasks[entry.task as usize].comm.clone();
            found.insert((entry.step, entry.iteration, actor, entry.text.clone()), (entry.clone(), columns));
        }
        assert_eq!(found.len(), rows.len(), "{name}: entries");
        for row in &rows {
            let number = |column: &str| row[column].parse::<u64>().unwrap();
            let key = (number("step"), number("it"), row["actor"].clone(), row["op"].clone());
            let (entry, columns) = found.get(&key).unwrap_or_else(|| panic!("{name}: no entry {key:?}"));
            assert_eq!(u64::from(entry.cpu), number("cpu"), "{name} {key:?}: cpu");
            assert_eq!(u64::from(entry.parallel), number("parallel"), "{name} {key:?}: parallel");
            for (column, text) in columns.texts() {
                if column == "tlb_flush_list" {
                    assert_eq!(columns.tlb_flush_list, sorted(&row[column]), "{name} {key:?}: {column}");
                } else {
                    assert_eq!(text, row[column], "{name} {key:?}: {column}");
                }
            }
            nr_rows += 1;
        }
    }
    assert_eq!(nr_rows, 5852);
}
