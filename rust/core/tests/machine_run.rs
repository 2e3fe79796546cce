//! The operation `run`: programs that are not the kernel's, with the flushes that they make and what is refused.

use std::sync::Arc;

use serde_json::{Value, json};
use tlbcore::machine::{AccessKind, Errno, Machine, MachineConfig, Operation, Outcome};
use tlbcore::program::CompiledKernel;

const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;

/// A process with sixteen written pages, whose task 0 runs on CPU 0.
fn machine() -> Machine {
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.18.json")).unwrap());
    let mut machine = Machine::new(&MachineConfig::default(), kernel).unwrap();
    machine.apply(&Operation::CreateProcess {}).unwrap();
    machine.apply(&Operation::Schedule { cpu: 0, task: Some(0) }).unwrap();
    let mmap = json!({"op": "mmap", "task": 0, "addr": BASE, "len": 16 * PAGE, "prot": 3});
    machine.apply(&serde_json::from_value(mmap).unwrap()).unwrap();
    for page in 0..16 {
        let access = Operation::Access { task: 0, addr: BASE + page * PAGE, kind: AccessKind::Write };
        assert_eq!(machine.apply(&access).unwrap(), Outcome::None);
    }
    machine
}

fn run(addr: u64, len: u64, steps: Value) -> Operation {
    Operation::Run { task: 0, addr, len, prot: None, steps }
}

/// Write-protects what is selected.
fn wrprotect() -> Value {
    json!({"step": "for_each_vma", "body": [{"step": "for_each_table", "body": [
        {"step": "lock", "lock": "ptl", "mode": "write"},
        {"step": "for_each_pte", "filter": "present", "body": [{"step": "ptep_set_wrprotect"}]},
        {"step": "flush_tlb_range", "range": "table"},
        {"step": "unlock", "lock": "ptl"},
    ]}]})
}

#[test]
fn a_program_works_on_the_range_and_on_those_that_it_selects() {
    let mut machine = machine();
    let at = json!({"step": "select_range_at", "addr": BASE + 8 * PAGE, "len": 2 * PAGE, "prot": null});
    let steps = json!([wrprotect(), at, wrprotect()]);
    assert_eq!(machine.apply(&run(BASE, 3 * PAGE, steps)).unwrap(), Outcome::None);
    machine.check_consistency().unwrap();
    let ranges: Vec<_> =
        machine.engine().log().iter().map(|r| ((r.start.0 - BASE) / PAGE, r.end.0 - r.start.0)).collect();
    assert_eq!(ranges, [(0, 3 * PAGE), (8, 2 * PAGE)]);
    let state = machine.state();
    let ptes = state["mms"][1]["ptes"].as_array().unwrap();
    let protected: Vec<_> =
        (0..16).filter(|page| !ptes[*page][2].as_str().unwrap().split(' ').any(|flag| flag == "W")).collect();
    assert_eq!(protected, [0, 1, 2, 8, 9]);
}

#[test]
fn rights_change_only_if_there_are_new_ones() {
    let fixup = json!([{"step": "for_each_vma", "body": [
        {"step": "when", "if": "prot_changed", "then": [{"step": "flush_tlb_mm"}]},
        {"step": "mprotect_fixup"},
    ]}]);
    let mut machine = machine();
    let vmas = machine.state()["mms"][1]["vmas"].clone();
    machine.apply(&run(BASE, PAGE, fixup.clone())).unwrap();
    assert_eq!((machine.state()["mms"][1]["vmas"].clone(), machine.engine().log().len()), (vmas, 0));
    machine.apply(&Operation::Run { task: 0, addr: BASE, len: PAGE, prot: Some(1), steps: fixup }).unwrap();
    assert_eq!(machine.state()["mms"][1]["vmas"].as_array().unwrap().len(), 2);
    assert_eq!(machine.engine().log().len(), 1);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut machine = machine();
    let before = machine.state();
    let refused = [
        (json!([{"step": "dup_mm"}]), "custom[0]", "dup_mm has no meaning in custom"),
        (json!([{"step": "flush_tlb_mm"}, {"step": "flush_all"}]), "custom[1]", "found step flush_all"),
        (json!([{"step": "lock", "lock": "mmap_lock", "mode": "read"}]), "custom[1]", "still held at the end"),
        (json!([{"step": "select_range_at", "addr": 5, "len": 1}]), "custom[0]", "page-aligned"),
        (json!([{"step": "select_range_at", "addr": 0, "len": 0}]), "custom[0]", "a length within user space"),
        (json!([{"step": "select_range_at", "addr": 0, "len": 1, "prot": 9}]), "custom[0]", "prot: found 9"),
        (json!([{"step": "select_range_at", "addr": 0}]), "custom[0]", "len: found null"),
        (json!([{"step": "for_each_rmap_vma", "body": []}]), "custom[0]", "no meaning in a program run by hand"),
        (json!({"step": "flush_tlb_mm"}), "custom", "found no list"),
    ];
    for (steps, path, what) in refused {
        let message = machine.apply(&run(BASE, PAGE, steps)).unwrap_err().to_string();
        assert!(message.contains(path) && message.contains(what), "{message}");
    }
    let flush = json!([{"step": "flush_tlb_mm"}]);
    for (addr, len, errno) in
        [(BASE + 1, PAGE, Errno::Einval), (BASE, 0, Errno::Einval), (1 << 60, PAGE, Errno::Enomem)]
    {
        assert_eq!(machine.apply(&run(addr, len, flush.clone())).unwrap(), Outcome::Errno(errno));
    }
    assert_eq!((machine.state(), machine.engine().log().len()), (before, 0));
}

#[test]
fn a_kernel_has_no_program_of_that_name() {
    let mut kernel: Value = serde_json::from_str(include_str!("data/linux-6.18.json")).unwrap();
    kernel["programs"]["custom"] = json!([]);
    assert!(CompiledKernel::from_value(&kernel).unwrap_err().to_string().contains("unknown program custom"));
    kernel["programs"].as_object_mut().unwrap().remove("custom");
    kernel["programs"]["munmap"] = json!([{"step": "select_range_at", "addr": 0, "len": 1}]);
    assert!(CompiledKernel::from_value(&kernel).unwrap_err().to_string().contains("only in custom"));
}
