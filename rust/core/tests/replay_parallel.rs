//! Parallel steps of the kernel lab: led by its records, calls that are interleaved do what the kernel did. The scores may
//! rise, never fall.

use std::path::Path;
use std::sync::Arc;

use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::{lab, replay_traced};
use tlbcore::trace::{EventKind, FlushKind, Recording, import_file};

/// Recording, its parallel entries, those of them that are right in every column.
const SCORES: [(&str, u64, u64); 6] = [
    ("c4_mix_par_02", 198, 198),
    ("c4_mix_par_07", 213, 212),
    ("c4_mix_par_11", 187, 186),
    ("c4_nested_dontneed_600", 314, 308),
    ("c4_nested_free_1024", 298, 290),
    ("c8_mix_par_10", 179, 176),
];

#[test]
fn parallel_entries_are_among_what_the_machine_can_do() {
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.1.json")).unwrap());
    for (name, nr_entries, least) in SCORES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../data/lab/{name}.jsonl.gz"));
        let recording = import_file(&path).unwrap();
        let config = MachineConfig { nr_cpus: recording.meta.smp, levels: 5, pcid: false, ..MachineConfig::default() };
        let (replayed, traced) = replay_traced(&recording, &kernel, &config, true, &mut || false).unwrap();
        let compared = lab::compare(&recording, &traced);
        let parallel = compared.parallel;
        // The end of an address space after a parallel step is counted with it, but is none of its entries.
        let is_exit = |entry: &&lab::ComparedEntry| entry.entry.text == lab::Entry::EXIT_MMAP;
        let nr_exits = compared.entries.iter().filter(|entry| entry.entry.parallel).filter(is_exit).count();
        assert_eq!(parallel.nr_entries, nr_entries, "{name}");
        assert!(parallel.nr_exact >= least, "{name}: {parallel:?}, expected at least {least} exact");
        let steps: usize = replayed.parallel.iter().map(|step| step.nr_entries).sum();
        assert_eq!((steps + nr_exits) as u64, nr_entries, "{name}: entries of the steps");
        assert!(replayed.parallel.iter().all(|step| step.nr_exact <= step.nr_entries && step.nr_schedules > 0));
    }
}

#[test]
fn the_schedules_are_the_same_on_every_run() {
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.1.json")).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/c4_mix_par_07.jsonl.gz");
    let recording = import_file(&path).unwrap();
    let config = MachineConfig { nr_cpus: 4, levels: 5, pcid: false, ..MachineConfig::default() };
    let run = || replay_traced(&recording, &kernel, &config, true, &mut || false).unwrap().0;
    let (one, two) = (run(), run());
    assert_eq!(one.predicted, two.predicted);
    assert_eq!(one.parallel, two.parallel);
    assert_eq!(one.counters, two.counters);
}

/// Which parallel entries are right in every column, by the row in which they begin.
fn exact_entries(recording: &Recording, kernel: &Arc<CompiledKernel>) -> Vec<(usize, bool)> {
    let config = MachineConfig { nr_cpus: recording.meta.smp, levels: 5, pcid: false, ..MachineConfig::default() };
    let (_, traced) = replay_traced(recording, kernel, &config, true, &mut || false).unwrap();
    let entries = lab::compare(recording, &traced).entries;
    let parallel = entries.iter().filter(|compared| compared.entry.parallel);
    parallel.map(|compared| (compared.entry.row, compared.differences.is_empty())).collect()
}

/// The first flush record of a kind in the entry that begins at a row, on whose behalf a task of a scenario flushed.
fn record_in(recording: &Recording, row: usize, kind: FlushKind) -> Option<usize> {
    let (events, flushes) = (&recording.events, &recording.flushes);
    let is_end =
        |other: &usize| events.task[*other] == events.task[row] && events.kind[*other] == EventKind::StepEnd.number();
    let end = (row..events.len()).find(is_end)?;
    let span = events.time_ns[row]..events.time_ns[end];
    let mut records = (0..flushes.len()).filter(|&flush| {
        let of_entry = flushes.task[flush] == events.task[row] && span.contains(&flushes.time_ns[flush]);
        let in_a_region =
            kind != FlushKind::MmRange || (0x1000_0000_0000..0x2000_0000_0000).contains(&flushes.start[flush]);
        of_entry && in_a_region && flushes.kind[flush] == kind.number()
    });
    let first = records.next();
    // The masks of an entry are compared as one.
    first.filter(|_| kind != FlushKind::Multi || records.next().is_none())
}

/// What is within the set would mean nothing if everything was: records that no kernel made are not found in it.
#[test]
fn planted_wrong_records_are_not_among_what_the_machine_can_do() {
    type Plant = fn(&mut Recording, usize);
    let plants: [(&str, FlushKind, Plant); 6] = [
        ("a page more", FlushKind::MmRange, |recording, at| recording.flushes.end.to_mut()[at] += 4096),
        ("one that freed page tables or did not", FlushKind::MmRange, |recording, at| {
            recording.flushes.freed_tables.to_mut()[at] ^= 1;
        }),
        ("a flush that was another's", FlushKind::MmRange, |recording, at| {
            (recording.flushes.start.to_mut()[at], recording.flushes.end.to_mut()[at]) = (0x40_0000, 0x40_1000);
        }),
        ("a CPU less in the mask", FlushKind::Multi, |recording, at| {
            let others = recording.flushes.mask[at] & !(1 << recording.flushes.cpu[at]);
            recording.flushes.mask.to_mut()[at] &= !(others & others.wrapping_neg());
        }),
        ("nested or not", FlushKind::Finish, |recording, at| {
            let pending = &mut recording.flushes.pending.to_mut()[at];
            *pending = if *pending > 1 { 1 } else { 2 };
        }),
        ("a page earlier", FlushKind::MmRange, |recording, at| recording.flushes.start.to_mut()[at] -= 4096),
    ];
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.1.json")).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/c4_mix_par_11.jsonl.gz");
    let recording = import_file(&path).unwrap();
    let exact: Vec<usize> =
        exact_entries(&recording, &kernel).into_iter().filter_map(|(row, exact)| exact.then_some(row)).collect();
    for (name, kind, plant) in plants {
        let mut wrong = recording.clone();
        // Not in every entry, so that what is right stays the rule.
        let records = exact.iter().filter_map(|&row| Some((row, record_in(&recording, row, kind)?)));
        let planted: Vec<(usize, usize)> = records.step_by(6).collect();
        assert!(planted.len() >= 5, "{name}: {planted:?}");
        for (_, record) in &planted {
            plant(&mut wrong, *record);
        }
        let found = exact_entries(&wrong, &kernel);
        for (row, _) in planted {
            assert!(found.contains(&(row, false)), "{name}: the entry at event {row} is said to be exact");
        }
    }
}
