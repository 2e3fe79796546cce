//! Random operations on every kernel: after each one, page tables, reverse maps and reference counts agree; when all
//! tasks have ended nothing is left but page caches; two runs are equal to the last bit.

mod machine_draw;

use std::sync::Arc;

use tlbcore::flush::MmId;
use tlbcore::machine::{Machine, MachineConfig, Operation};
use tlbcore::program::CompiledKernel;

use crate::machine_draw::{Draw, KERNELS, configurations, draw_operation};

fn run(text: &str, config: &MachineConfig, seed: u64, nr_ops: u32) -> Machine {
    let kernel = Arc::new(CompiledKernel::from_json(text).unwrap());
    let name = kernel.name.clone();
    let mut machine = Machine::new(config, kernel).unwrap();
    let mut draw = Draw(seed);
    machine.apply(&Operation::CreateProcess {}).unwrap();
    for shmem in [false, true] {
        machine.apply(&Operation::CreateFile { shmem, nr_pages: Some(600) }).unwrap();
    }
    machine.apply(&Operation::Schedule { cpu: 0, task: Some(0) }).unwrap();
    let mut nr_tasks = 1;
    for number in 0..nr_ops {
        let task = (0..nr_tasks).find(|task| machine.task(*task).is_ok_and(|found| found.running) && !draw.chance(2));
        let operation = draw_operation(&mut draw, task.unwrap_or(0), nr_tasks);
        let is_new = matches!(operation, Operation::Fork { .. } | Operation::CloneThread { .. });
        let before = machine.nr_ops();
        match machine.apply(&operation) {
            Ok(_) => nr_tasks += u32::from(is_new),
            // Only the choice of a task that does not run can be wrong.
            Err(error) => assert!(
                error.to_string().contains("not running") || error.to_string().contains("running on CPU"),
                "{name}, seed {seed}, operation {number} {operation:?}: {error}"
            ),
        }
        assert_eq!(machine.nr_ops(), before + 1);
        if let Err(error) = machine.check_consistency() {
            panic!("{name}, seed {seed}, after operation {number} {operation:?}: {error}");
        }
    }
    machine
}

#[test]
fn tables_reverse_maps_and_references_agree() {
    for text in KERNELS {
        for config in configurations() {
            for seed in 0..6 {
                let mut machine = run(text, &config, seed, 250);
                for task in 0..16 {
                    if machine.task(task).is_ok() {
                        machine.apply(&Operation::Exit { task }).unwrap();
                    }
                }
                assert_eq!(machine.live_mms().count(), 0);
                assert_eq!(machine.tables().nr_tables(), 0, "seed {seed}");
                assert_eq!(machine.pages().swap_slots().count(), 0, "seed {seed}");
                assert!(machine.pages().iter().all(|(_, page)| page.in_page_cache && page.refcount == 1));
            }
        }
    }
}

#[test]
fn runs_are_reproducible() {
    for text in KERNELS {
        let config = MachineConfig::default();
        let (one, two) = (run(text, &config, 7, 300), run(text, &config, 7, 300));
        assert_eq!(one.state(), two.state());
        assert_eq!(one.counters(), two.counters());
        assert_eq!(one.engine().log(), two.engine().log());
        assert!(one.mm(MmId(1)).is_some());
    }
}

/// The random operations reach what they should: a counter that stays at 0 would mean that nothing was tested.
#[test]
fn every_part_is_reached() {
    for text in KERNELS {
        let counters = run(text, &MachineConfig::default(), 7, 2000).counters();
        let reached = [
            counters.flush.nr_flush_full,
            counters.flush.nr_flush_ranged,
            counters.flush.nr_ipis,
            counters.nr_tlb_fills,
            counters.nr_faults,
            counters.nr_batched_pending_flushes,
            counters.nr_gathers,
            counters.nr_tlb_batch_flushes,
            counters.nr_page_frees,
            counters.nr_table_frees,
        ];
        assert!(reached.iter().all(|count| *count > 0), "{counters:?}");
    }
}
