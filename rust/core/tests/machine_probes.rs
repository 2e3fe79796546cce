//! The probe log: which functions are seen, in which order with the flushes, and that it is silent unless asked.

use std::sync::Arc;

use serde_json::json;
use tlbcore::addr::VirtAddr;
use tlbcore::machine::{AccessKind, Machine, MachineConfig, Operation, Outcome, Probe, ProbeHit};
use tlbcore::program::CompiledKernel;

const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;

fn apply(machine: &mut Machine, operation: &Operation) {
    assert!(!matches!(machine.apply(operation).unwrap(), Outcome::Errno(_)), "{operation:?}");
}

/// Two threads of a process with swap, on CPUs 0 and 1; two pages written.
fn machine(probing: bool) -> Machine {
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.18.json")).unwrap());
    let mut machine = Machine::new(&MachineConfig { swap: true, ..MachineConfig::default() }, kernel).unwrap();
    machine.set_probing(probing);
    apply(&mut machine, &Operation::CreateProcess {});
    apply(&mut machine, &Operation::CloneThread { task: 0 });
    for task in 0..2 {
        apply(&mut machine, &Operation::Schedule { cpu: task, task: Some(task) });
    }
    let mmap = json!({"op": "mmap", "task": 0, "addr": BASE, "len": 16 * PAGE, "prot": 3});
    apply(&mut machine, &serde_json::from_value(mmap).unwrap());
    for page in 0..2 {
        apply(&mut machine, &Operation::Access { task: 0, addr: BASE + page * PAGE, kind: AccessKind::Write });
    }
    machine
}

fn probes(machine: &mut Machine) -> Vec<Probe> {
    machine.take_probes().into_iter().map(|hit| hit.probe).collect()
}

#[test]
fn a_reclaim_then_an_unmap_in_order_with_their_flushes() {
    let mut machine = machine(true);
    let fault = |page: u64| Probe::Fault { addr: VirtAddr(BASE + page * PAGE) };
    assert_eq!(probes(&mut machine), [fault(0), fault(1)], "mmap found nothing to unmap");

    apply(&mut machine, &Operation::Reclaim { task: 0, pages: vec![(1, BASE)], proactive: true, goes_on: false });
    let hits = machine.take_probes();
    let unmap_one = Probe::UnmapOne { addr: VirtAddr(BASE) };
    let by = |hit: &ProbeHit| (hit.task, hit.cpu.0, hit.mm.0, hit.nr_requests);
    assert_eq!(hits.iter().map(|hit| hit.probe).collect::<Vec<_>>(), [unmap_one]);
    assert_eq!(by(&hits[0]), (0, 0, 1, 0));
    let flushed = machine.engine().log().len() as u64;
    assert_eq!(flushed, 1, "the deferred flush came after the probe");

    apply(&mut machine, &Operation::Munmap { task: 0, addr: BASE, len: 2 * PAGE });
    let hits = machine.take_probes();
    let gather = Probe::Gather { full: false, pending: 0 };
    let seen: Vec<_> = hits.iter().map(|hit| (hit.probe, hit.nr_requests - flushed)).collect();
    let expected = [(gather, 0), (Probe::BatchedPending { due: true }, 0), (Probe::Finish { pending: 1 }, 1)];
    assert_eq!(seen, expected, "what reclaim left is flushed between the table's lock and the gather's end");
}

#[test]
fn silent_unless_asked() {
    let mut machine = machine(false);
    apply(&mut machine, &Operation::Munmap { task: 0, addr: BASE, len: PAGE });
    assert!(machine.take_probes().is_empty());
    machine.set_probing(true);
    apply(&mut machine, &Operation::Munmap { task: 0, addr: BASE, len: PAGE });
    assert!(machine.take_probes().is_empty(), "nothing mapped, nothing gathered");
    apply(&mut machine, &Operation::Exit { task: 1 });
    assert!(machine.take_probes().is_empty(), "the address space has another user");
    apply(&mut machine, &Operation::Exit { task: 0 });
    assert_eq!(probes(&mut machine).first(), Some(&Probe::ExitMmap));
}
