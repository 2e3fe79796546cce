use std::sync::Arc;
use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::{lab::Entries, replay_traced};
use tlbcore::trace::import_file;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let rec = import_file(std::path::Path::new(&a[1])).unwrap();
    let step: u64 = a[2].parse().unwrap();
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("../tests/data/linux-6.1.json")).unwrap());
    let config = MachineConfig {
        nr_cpus: rec.meta.smp,
        pcid: false,
        swap: true,
        levels: rec.meta.levels.unwrap_or(5),
        ..MachineConfig::default()
    };
    let (_, traced) = replay_traced(&rec, &kernel, &config, false, &mut || false).unwrap();
    let entries = Entries::of(&rec);
    for t in traced {
        if entries.of_event(t.row).is_some_and(|e| entries.list[e].step == step) {
            println!("row {} {:?} task {}", t.row, rec.events.get(t.row).kind(), t.task);
            for r in &t.requests {
                println!("   req {:x}..{:x} {:?} mask {:?}", r.range_start.0, r.range_end.0, r.kind, r.mask.words());
            }
            for p in &t.probes {
                println!("   {:?} mm {} before {}", p.probe, p.mm.0, p.nr_requests);
            }
        }
    }
}
