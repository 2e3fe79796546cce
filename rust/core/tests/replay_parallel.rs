//! Parallel steps of the kernel lab: under some schedule the machine does what was recorded.

use std::path::Path;
use std::sync::Arc;

use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::{lab, replay_traced};
use tlbcore::trace::import_file as import;

#[test]
fn report() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab");
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.1.json")).unwrap());
    let only = std::env::var("ONLY").unwrap_or_default();
    for path in names
        .iter()
        .filter(|path| path.to_string_lossy().contains(&only) && path.to_string_lossy().ends_with(".jsonl.gz"))
    {
        let recording = import(path).unwrap();
        let config = MachineConfig {
            nr_cpus: 8,
            levels: recording.meta.levels.unwrap_or(5),
            pcid: false,
            ..MachineConfig::default()
        };
        for follow in [false, true] {
            let begin = std::time::Instant::now();
            let (replayed, traced) = replay_traced(&recording, &kernel, &config, follow, &mut || false).unwrap();
            let compared = lab::compare(&recording, &traced);
            if compared.parallel.nr_entries == 0 {
                break;
            }
            println!(
                "{} follow {follow}: single {:?} parallel {:?}, {} steps, {:?}",
                path.file_name().unwrap().to_string_lossy(),
                compared.single,
                compared.parallel,
                replayed.parallel.len(),
                begin.elapsed()
            );
            if follow && std::env::var("SHOW").is_ok() {
                for entry in compared.entries.iter().filter(|e| e.entry.parallel && !e.differences.is_empty()) {
                    println!(
                        "  step {} it {} task {} {} {:?}",
                        entry.entry.step, entry.entry.iteration, entry.entry.task, entry.entry.text, entry.differences
                    );
                }
                for o in &replayed.parallel {
                    if o.nr_exact < o.nr_entries {
                        println!("   {o:?}");
                    }
                }
                println!("{:?}", replayed.notes);
            }
        }
    }
}
