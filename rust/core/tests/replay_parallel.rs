//! Parallel steps of the kernel lab: led by its records, calls that are interleaved do what the kernel did. The scores may
//! rise, never fall.

use std::path::Path;
use std::sync::Arc;

use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::{lab, replay_traced};
use tlbcore::trace::import_file;

/// Recording, its parallel entries, those of them that are right in every column.
const SCORES: [(&str, u64, u64); 6] = [
    ("c4_mix_par_02", 198, 181),
    ("c4_mix_par_07", 213, 207),
    ("c4_mix_par_11", 187, 180),
    ("c4_nested_dontneed_600", 314, 308),
    ("c4_nested_free_1024", 298, 288),
    ("c8_mix_par_10", 179, 174),
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
