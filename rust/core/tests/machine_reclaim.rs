//! Reclaim and what it leaves behind: lists in parts, pages in swap that others have too, and a reverse map that is
//! walked in the kernel's order. The kernels are the resolved ones that the Python package writes (`tests/data`).

use std::sync::Arc;

use tlbcore::addr::VirtAddr;
use tlbcore::flush::{FlushKind, FlushRequest, MmId};
use tlbcore::machine::{AccessKind, Machine, MachineConfig, Operation, Outcome};
use tlbcore::program::CompiledKernel;

const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
const KERNELS: [(&str, &str); 3] = [
    ("linux-5.10", include_str!("data/linux-5.10.json")),
    ("linux-6.1", include_str!("data/linux-6.1.json")),
    ("linux-6.18", include_str!("data/linux-6.18.json")),
];

/// A machine whose task 0 runs on CPU 0 and has eight pages at `BASE`.
fn machine(kernel: &str) -> Machine {
    let kernel = Arc::new(CompiledKernel::from_json(kernel).unwrap());
    let mut machine = Machine::new(&MachineConfig::default(), kernel).unwrap();
    machine.apply(&Operation::CreateProcess {}).unwrap();
    machine.apply(&Operation::Schedule { cpu: 0, task: Some(0) }).unwrap();
    machine.apply(&mmap(BASE, None)).unwrap();
    machine
}

fn mmap(addr: u64, file: Option<u32>) -> Operation {
    Operation::Mmap {
        task: 0,
        addr,
        len: 8 * PAGE,
        prot: 3,
        shared: file.is_some(),
        fixed: true,
        noreplace: false,
        populate: false,
        growsdown: false,
        file,
        pgoff: 0,
    }
}

fn flushes_of(machine: &mut Machine, operation: &Operation) -> Vec<FlushRequest> {
    machine.engine_mut().take_log();
    assert!(!matches!(machine.apply(operation).unwrap(), Outcome::Errno(_)), "{operation:?}");
    machine.check_consistency().unwrap();
    machine.engine_mut().take_log().0
}

const fn access(task: u32, addr: u64, kind: AccessKind) -> Operation {
    Operation::Access { task, addr, kind }
}

const fn reclaim(pages: Vec<(u32, u64)>, goes_on: bool) -> Operation {
    Operation::Reclaim { task: 0, pages, proactive: true, goes_on }
}

#[test]
fn a_list_that_goes_on_is_flushed_at_its_end_only() {
    for (name, kernel) in KERNELS {
        let mut machine = machine(kernel);
        machine.apply(&Operation::CloneThread { task: 0 }).unwrap();
        machine.apply(&Operation::Schedule { cpu: 1, task: Some(1) }).unwrap();
        let read_back = |machine: &mut Machine| {
            machine.apply(&access(0, BASE, AccessKind::Write)).unwrap();
            machine.apply(&reclaim(vec![(1, BASE)], false)).unwrap();
            machine.apply(&access(0, BASE, AccessKind::Read)).unwrap();
        };
        read_back(&mut machine); // clean now, so that its flush can wait for the end of the list
        assert!(flushes_of(&mut machine, &reclaim(vec![(1, BASE)], true)).is_empty(), "{name}");
        let end = flushes_of(&mut machine, &reclaim(Vec::new(), false));
        assert_eq!(end.iter().map(|request| request.kind).collect::<Vec<_>>(), [FlushKind::Batch], "{name}");
        assert!(flushes_of(&mut machine, &reclaim(Vec::new(), false)).is_empty(), "{name}: nothing is left");
        read_back(&mut machine);
        assert_eq!(flushes_of(&mut machine, &reclaim(vec![(1, BASE)], false)).len(), 1, "{name}: its own end");
    }
}

#[test]
fn a_page_that_another_has_in_swap_is_copied_in_the_fault_that_reads_it_back() {
    for (name, kernel) in KERNELS {
        for (forks, nr_flushes) in [(true, 1), (false, 0)] {
            let mut machine = machine(kernel);
            machine.apply(&access(0, BASE, AccessKind::Write)).unwrap();
            if forks {
                machine.apply(&Operation::Fork { task: 0 }).unwrap();
            }
            machine.apply(&reclaim(vec![(1, BASE)], false)).unwrap();
            let before = machine.counters().nr_faults;
            let flushes = flushes_of(&mut machine, &access(0, BASE, AccessKind::Write));
            assert_eq!(flushes.len(), nr_flushes, "{name}, forks: {forks}");
            assert_eq!(machine.counters().nr_faults - before, 1, "{name}, forks: {forks}");
            assert!(machine.leaf(MmId(1), VirtAddr(BASE)).unwrap().0.write(), "{name}");
        }
    }
}

#[test]
fn a_page_in_the_swap_cache_is_not_written_in_place_while_a_child_has_it_in_swap() {
    for (name, kernel) in KERNELS {
        let mut machine = machine(kernel);
        machine.apply(&access(0, BASE, AccessKind::Write)).unwrap();
        machine.apply(&Operation::Fork { task: 0 }).unwrap();
        machine.apply(&reclaim(vec![(1, BASE)], false)).unwrap();
        machine.apply(&access(0, BASE, AccessKind::Read)).unwrap();
        let page = machine.leaf(MmId(1), VirtAddr(BASE)).unwrap().0.pfn();
        assert_eq!(flushes_of(&mut machine, &access(0, BASE, AccessKind::Write)).len(), 1, "{name}");
        assert_ne!(machine.leaf(MmId(1), VirtAddr(BASE)).unwrap().0.pfn(), page, "{name}");
    }
}

#[test]
fn a_child_inherits_what_reclaim_left_unflushed() {
    for (name, kernel) in KERNELS {
        for (reclaims, nr_flushes) in [(true, 1), (false, 0)] {
            let mut machine = machine(kernel);
            machine.apply(&Operation::CloneThread { task: 0 }).unwrap();
            machine.apply(&Operation::Schedule { cpu: 1, task: Some(1) }).unwrap();
            machine.apply(&access(0, BASE, AccessKind::Write)).unwrap();
            machine.apply(&access(0, BASE + PAGE, AccessKind::Write)).unwrap();
            if reclaims {
                machine.apply(&reclaim(vec![(1, BASE)], false)).unwrap();
            }
            let Outcome::Value(child) = machine.apply(&Operation::Fork { task: 0 }).unwrap() else { panic!("{name}") };
            let child = u32::try_from(child).unwrap();
            machine.apply(&Operation::Schedule { cpu: 2, task: Some(child) }).unwrap();
            let before = machine.counters().nr_batched_pending_flushes;
            machine.apply(&Operation::Munmap { task: child, addr: BASE, len: 8 * PAGE }).unwrap();
            assert_eq!(machine.counters().nr_batched_pending_flushes - before, nr_flushes, "{name}: {reclaims}");
        }
    }
}

#[test]
fn the_older_of_two_areas_of_the_same_pages_is_visited_first() {
    for (name, kernel) in KERNELS {
        for areas in [[BASE + 32 * PAGE, BASE + 16 * PAGE], [BASE + 16 * PAGE, BASE + 32 * PAGE]] {
            let mut machine = machine(kernel);
            let Outcome::Value(file) =
                machine.apply(&Operation::CreateFile { shmem: false, nr_pages: Some(8) }).unwrap()
            else {
                panic!("{name}: a file has a number");
            };
            for addr in areas {
                machine.apply(&mmap(addr, Some(u32::try_from(file).unwrap()))).unwrap();
                machine.apply(&access(0, addr, AccessKind::Read)).unwrap();
            }
            let flushes = flushes_of(&mut machine, &reclaim(vec![(1, BASE + 16 * PAGE)], false));
            let order: Vec<u64> = flushes.iter().map(|request| request.range_start.0).collect();
            assert_eq!(order, areas, "{name}");
        }
    }
}

#[test]
fn shared_memory_that_is_read_back_from_swap_is_dirty() {
    for (name, kernel) in KERNELS {
        for (writes, punches, is_dirty) in [(true, false, true), (true, true, false), (false, false, false)] {
            let mut machine = machine(kernel);
            let Outcome::Value(file) =
                machine.apply(&Operation::CreateFile { shmem: true, nr_pages: Some(8) }).unwrap()
            else {
                panic!("{name}: no file");
            };
            let file = u32::try_from(file).unwrap();
            machine.apply(&mmap(BASE, Some(file))).unwrap();
            let first = if writes { AccessKind::Write } else { AccessKind::Read };
            machine.apply(&access(0, BASE, first)).unwrap();
            machine.apply(&reclaim(vec![(1, BASE)], false)).unwrap();
            assert!(!machine.leaf(MmId(1), VirtAddr(BASE)).is_some_and(|(pte, _)| pte.is_present()), "{name}: taken");
            if punches {
                let hole = Operation::Truncate { task: 0, file, from_page: 0, nr_pages: Some(1) };
                machine.apply(&hole).unwrap();
            }
            machine.apply(&access(0, BASE, AccessKind::Read)).unwrap();
            machine.check_consistency().unwrap();
            let (pte, _) = machine.leaf(MmId(1), VirtAddr(BASE)).unwrap();
            assert_eq!(machine.page(pte.pfn()).unwrap().dirty, is_dirty, "{name}: {writes} {punches}");
            // Whoever reads a dirty page may write it without a fault since v6.16, and the entry is dirty already.
            assert_eq!(pte.dirty(), is_dirty && name == "linux-6.18", "{name}: {writes} {punches}");
        }
    }
}
