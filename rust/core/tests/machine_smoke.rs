//! Whole operations on whole kernels, with the flushes that they must make: exact ranges, strides and freed tables. The
//! kernels are the resolved ones that the Python package writes (`tests/data`).

use std::sync::Arc;

use tlbcore::addr::VirtAddr;
use tlbcore::cpumask::CpuId;
use tlbcore::flush::{FlushKind, FlushRequest, MmId, TLB_FLUSH_ALL};
use tlbcore::machine::{AccessKind, Advice, Errno, Machine, MachineConfig, Operation, Outcome};
use tlbcore::program::{CompiledKernel, Thp};

const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

fn kernel(name: &str) -> Arc<CompiledKernel> {
    let text = match name {
        "linux-5.10" => include_str!("data/linux-5.10.json"),
        "linux-6.1" => include_str!("data/linux-6.1.json"),
        "linux-6.18" => include_str!("data/linux-6.18.json"),
        _ => include_str!("data/consolidated.json"),
    };
    Arc::new(CompiledKernel::from_json(text).unwrap())
}

/// A machine with one process, whose task 0 runs on CPU 0.
struct Bench {
    machine: Machine,
}

impl Bench {
    fn new(name: &str) -> Self {
        Self::with(name, &MachineConfig::default())
    }

    fn with(name: &str, config: &MachineConfig) -> Self {
        let mut bench = Self { machine: Machine::new(config, kernel(name)).unwrap() };
        assert_eq!(bench.apply(&Operation::CreateProcess {}), Outcome::Value(0));
        bench.schedule(0, Some(0));
        bench
    }

    fn apply(&mut self, operation: &Operation) -> Outcome {
        let outcome = self.machine.apply(operation).unwrap();
        self.machine.check_consistency().unwrap();
        outcome
    }

    fn schedule(&mut self, cpu: u32, task: Option<u32>) {
        self.apply(&Operation::Schedule { cpu, task });
    }

    fn mmap(&mut self, addr: u64, len: u64, prot: u32) {
        let fixed = Operation::Mmap {
            task: 0,
            addr,
            len,
            prot,
            shared: false,
            fixed: true,
            noreplace: false,
            populate: false,
            growsdown: false,
            file: None,
            pgoff: 0,
        };
        assert_eq!(self.apply(&fixed), Outcome::Value(addr));
    }

    fn access(&mut self, task: u32, addr: u64, kind: AccessKind) -> Outcome {
        self.apply(&Operation::Access { task, addr, kind })
    }

    fn write(&mut self, addr: u64) {
        assert_eq!(self.access(0, addr, AccessKind::Write), Outcome::None);
    }

    fn munmap(&mut self, addr: u64, len: u64) -> Vec<FlushRequest> {
        self.flushes_of(&Operation::Munmap { task: 0, addr, len })
    }

    /// The requests that an operation makes.
    fn flushes_of(&mut self, operation: &Operation) -> Vec<FlushRequest> {
        self.machine.engine_mut().take_log();
        let outcome = self.apply(operation);
        assert!(!matches!(outcome, Outcome::Errno(_)), "{operation:?}: {outcome:?}");
        self.machine.engine_mut().take_log().0
    }
}

/// What a request asked for: range as given, stride, freed tables.
fn asked(request: &FlushRequest) -> (u64, u64, u32, bool) {
    (request.range_start.0, request.range_end.0, request.stride_shift, request.freed_tables)
}

fn all_asked(requests: &[FlushRequest]) -> Vec<(u64, u64, u32, bool)> {
    requests.iter().map(asked).collect()
}

#[test]
fn munmap_flushes_the_hull_of_what_was_touched() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 32 * PAGE, 3);
    for page in [1, 9, 10, 13, 30] {
        bench.write(BASE + page * PAGE);
    }
    let flushes = bench.munmap(BASE + 8 * PAGE, 16 * PAGE);
    assert_eq!(all_asked(&flushes), [(BASE + 9 * PAGE, BASE + 14 * PAGE, 12, false)]);
    assert_eq!(flushes[0].kind, FlushKind::MmRange);
    assert_eq!(bench.machine.pages().iter().count(), 2);
    assert_eq!(bench.machine.counters().nr_page_frees, 3);
}

#[test]
fn munmap_of_untouched_memory_flushes_nothing() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 32 * PAGE, 3);
    bench.write(BASE);
    assert!(bench.munmap(BASE + 8 * PAGE, 16 * PAGE).is_empty());
}

#[test]
fn a_freed_pte_table_is_in_the_range() {
    let mut bench = Bench::new("linux-6.18");
    for offset in [0, 4 * MIB, 8 * MIB] {
        bench.mmap(BASE + offset, 8 * PAGE, 3);
        bench.write(BASE + offset + 3 * PAGE);
    }
    let target = BASE + 4 * MIB;
    let flushes = bench.munmap(target, 8 * PAGE);
    assert_eq!(all_asked(&flushes), [(target, target + 4 * PAGE, 12, true)]);
    assert_eq!(bench.machine.counters().nr_table_frees, 1);
}

#[test]
fn four_levels_free_a_folded_p4d_even_where_nothing_was_touched() {
    let far = 1 << 40;
    for (levels, expected) in [(4, vec![(far, far + PAGE, 12, true)]), (5, vec![])] {
        let config = MachineConfig { levels, ..MachineConfig::default() };
        let mut bench = Bench::with("linux-6.18", &config);
        bench.mmap(BASE, PAGE, 3);
        bench.mmap(0x10_0000, PAGE, 3);
        bench.mmap(far, 2 * PAGE, 3);
        assert_eq!(all_asked(&bench.munmap(far, 2 * PAGE)), expected, "{levels} levels");
    }
}

#[test]
fn a_long_zap_flushes_when_the_gather_is_full() {
    let mut bench = Bench::new("linux-6.18");
    let nr_pages = 10_000;
    bench.mmap(BASE - MIB, PAGE, 3);
    bench.mmap(BASE, (nr_pages + 600) * PAGE, 3);
    for page in 0..nr_pages {
        bench.machine.apply(&Operation::Access { task: 0, addr: BASE + page * PAGE, kind: AccessKind::Write }).unwrap();
    }
    bench.write(BASE + (nr_pages + 599) * PAGE);
    let flushes = bench.munmap(BASE, nr_pages * PAGE);
    // The bundle of 8 and 19 batches of 510, of each of which a place stays free (mm/mmu_gather.c, since v6.9).
    let full = 7 + 19 * 509;
    let tables = nr_pages / 512;
    assert_eq!(tables, 19);
    // The second flush begins with the rest of the pages, and takes in the PTE tables freed, all of them.
    assert_eq!(all_asked(&flushes), [(BASE, BASE + full * PAGE, 12, false), (BASE, BASE + nr_pages * PAGE, 12, true),]);
    assert_eq!(bench.machine.counters().nr_page_frees, nr_pages);
}

#[test]
fn mprotect_flushes_what_changed() {
    for (name, back) in [("linux-6.18", 1), ("linux-6.1", 1), ("consolidated", 0)] {
        let mut bench = Bench::new(name);
        bench.mmap(BASE, 16 * PAGE, 3);
        for page in 2..6 {
            bench.write(BASE + page * PAGE);
        }
        let protect = |prot| Operation::Mprotect { task: 0, addr: BASE, len: 16 * PAGE, prot };
        let flushes = bench.flushes_of(&protect(1));
        assert_eq!(all_asked(&flushes), [(BASE + 2 * PAGE, BASE + 6 * PAGE, 12, false)], "{name}");
        assert_eq!(bench.access(0, BASE + 2 * PAGE, AccessKind::Write), Outcome::Errno(Errno::Sigsegv));
        assert_eq!(bench.flushes_of(&protect(3)).len(), back, "{name}");
        let avoided = bench.machine.counters().nr_flush_avoided;
        assert_eq!(avoided, if back == 0 { 4 } else { 0 }, "{name}");
        bench.write(BASE + 2 * PAGE);
    }
}

#[test]
fn mprotect_of_5_10_flushes_its_whole_range() {
    let mut bench = Bench::new("linux-5.10");
    bench.mmap(BASE, 16 * PAGE, 3);
    bench.write(BASE + 2 * PAGE);
    let flushes = bench.flushes_of(&Operation::Mprotect { task: 0, addr: BASE, len: 16 * PAGE, prot: 1 });
    assert_eq!(all_asked(&flushes), [(BASE, BASE + 16 * PAGE, 12, false)]);
}

fn mremap(old: u64, old_len: u64, new_len: u64, new: u64) -> Operation {
    Operation::Mremap { task: 0, old, old_len, new_len, maymove: true, fixed: new != 0, dontunmap: false, new }
}

#[test]
fn mremap_flushes_each_table() {
    let mut bench = Bench::new("linux-6.18");
    let (old, new) = (BASE + PAGE, BASE + 64 * MIB + PAGE);
    bench.mmap(old, 2 * MIB, 3);
    bench.write(old);
    bench.write(BASE + 2 * MIB);
    let frames = bench.machine.leaf(MmId(1), VirtAddr(old)).unwrap().0.pfn();
    let flushes = bench.flushes_of(&mremap(old, 2 * MIB, 2 * MIB, new));
    assert_eq!(
        all_asked(&flushes)[..2],
        [(old, BASE + 2 * MIB, 12, true), (BASE + 2 * MIB, BASE + 2 * MIB + PAGE, 12, true),]
    );
    assert!(bench.machine.leaf(MmId(1), VirtAddr(old)).is_none());
    let moved = bench.machine.leaf(MmId(1), VirtAddr(new)).unwrap().0;
    assert_eq!(moved.pfn(), frames);
    assert!(moved.soft_dirty());
}

#[test]
fn mremap_moves_whole_tables() {
    let mut bench = Bench::new("linux-6.18");
    let (old, new) = (BASE, BASE + 64 * MIB);
    bench.mmap(old, 4 * MIB, 3);
    bench.write(old + 5 * PAGE);
    bench.write(old + 3 * MIB);
    let flushes = bench.flushes_of(&mremap(old, 4 * MIB, 4 * MIB, new));
    assert_eq!(all_asked(&flushes)[..2], [(old, old + 2 * MIB, 12, true), (old + 2 * MIB, old + 4 * MIB, 12, true)]);
    assert!(bench.machine.leaf(MmId(1), VirtAddr(new + 5 * PAGE)).is_some());
    bench.write(new + 3 * MIB);
}

#[test]
fn mremap_grows_shrinks_and_refuses() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 8 * PAGE, 3);
    assert_eq!(bench.apply(&mremap(BASE, 8 * PAGE, 16 * PAGE, 0)), Outcome::Value(BASE));
    bench.write(BASE + 15 * PAGE);
    assert_eq!(bench.apply(&mremap(BASE, 16 * PAGE, 4 * PAGE, 0)), Outcome::Value(BASE));
    assert_eq!(bench.access(0, BASE + 5 * PAGE, AccessKind::Read), Outcome::Errno(Errno::Sigsegv));
    bench.mmap(BASE + 4 * PAGE, PAGE, 1);
    bench.write(BASE);
    let Outcome::Value(moved) = bench.apply(&mremap(BASE, 4 * PAGE, 32 * PAGE, 0)) else {
        panic!("it could move");
    };
    assert_eq!(moved, 0x7fff_f7ff_f000 - 32 * PAGE);
    assert!(bench.machine.leaf(MmId(1), VirtAddr(moved)).is_some());
    let overlap = mremap(moved, 4 * PAGE, 4 * PAGE, moved + PAGE);
    assert_eq!(bench.apply(&overlap), Outcome::Errno(Errno::Einval));
    let past_end = mremap(moved, 40 * PAGE, 41 * PAGE, 0);
    assert_eq!(bench.apply(&past_end), Outcome::Errno(Errno::Efault));
}

#[test]
fn fork_flushes_once_and_the_first_write_copies() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 4 * PAGE, 3);
    bench.write(BASE);
    let flushes = bench.flushes_of(&Operation::Fork { task: 0 });
    assert_eq!(flushes.len(), 1);
    assert_eq!(flushes[0].end, TLB_FLUSH_ALL);
    let page = bench.machine.leaf(MmId(1), VirtAddr(BASE)).unwrap().0.pfn();
    assert_eq!(bench.machine.pages().get(page).unwrap().refcount, 2);
    let flushes = bench.flushes_of(&Operation::Access { task: 0, addr: BASE, kind: AccessKind::Write });
    assert_eq!(all_asked(&flushes), [(BASE, BASE + PAGE, 12, false)]);
    assert_ne!(bench.machine.leaf(MmId(1), VirtAddr(BASE)).unwrap().0.pfn(), page);
    // The child is the only user now: it writes in place.
    bench.schedule(1, Some(1));
    let write = Operation::Access { task: 1, addr: BASE, kind: AccessKind::Write };
    assert!(bench.flushes_of(&write).is_empty());
    assert_eq!(bench.machine.leaf(MmId(2), VirtAddr(BASE)).unwrap().0.pfn(), page);
}

#[test]
fn exit_frees_everything_with_one_full_flush() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 600 * PAGE, 3);
    bench.mmap(0x10_0000, 4 * PAGE, 3);
    for page in [0, 1, 599] {
        bench.write(BASE + page * PAGE);
    }
    bench.write(0x10_0000);
    let flushes = bench.flushes_of(&Operation::Exit { task: 0 });
    assert_eq!(flushes.len(), 1);
    assert_eq!((flushes[0].end, flushes[0].freed_tables), (TLB_FLUSH_ALL, true));
    assert_eq!(bench.machine.pages().iter().count(), 0);
    assert_eq!(bench.machine.tables().nr_tables(), 0);
    assert_eq!(bench.machine.live_mms().count(), 0);
    assert_eq!(bench.machine.cpu(CpuId(0)).unwrap().curr, None);
}

#[test]
fn other_cpus_of_the_mm_are_told_and_lazy_ones_spared() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 32 * PAGE, 3);
    bench.apply(&Operation::CloneThread { task: 0 });
    bench.apply(&Operation::CloneThread { task: 0 });
    bench.schedule(1, Some(1));
    bench.schedule(2, Some(2));
    bench.write(BASE);
    bench.write(BASE + 8 * PAGE);
    assert_eq!(bench.access(1, BASE + 8 * PAGE, AccessKind::Read), Outcome::None);
    bench.schedule(2, None);
    let flushes = bench.munmap(BASE + 8 * PAGE, PAGE);
    assert_eq!(flushes.len(), 1);
    assert_eq!(flushes[0].mask.to_string(), "0-2");
    assert_eq!(flushes[0].told.to_string(), "1");
    assert_eq!(flushes[0].lazy_skipped.to_string(), "2");
    assert_eq!(flushes[0].nothing_cached.to_string(), "");
}

#[test]
fn reclaim_defers_and_the_page_comes_back() {
    for name in ["linux-5.10", "linux-6.18", "consolidated"] {
        let mut bench = Bench::new(name);
        bench.mmap(BASE, 64 * PAGE, 3);
        bench.apply(&Operation::CloneThread { task: 0 });
        bench.schedule(1, Some(1));
        let pages: Vec<(u32, u64)> = (0..40).map(|page| (1, BASE + page * PAGE)).collect();
        for (_, addr) in &pages {
            bench.write(*addr);
        }
        let flushes = bench.flushes_of(&Operation::Reclaim { task: 0, pages, proactive: false, goes_on: false });
        // Anonymous pages are dirty: each needs its flush before it is written out, and one flush is enough for each.
        assert!(flushes.iter().all(|request| request.kind == FlushKind::Batch), "{name}");
        assert_eq!(flushes.len(), 40, "{name}");
        assert_eq!(bench.machine.pages().iter().count(), 0, "{name}");
        assert_eq!(bench.machine.pages().swap_slots().count(), 40, "{name}");
        bench.write(BASE + 3 * PAGE);
        assert_eq!(bench.machine.pages().swap_slots().count(), 39, "{name}");
        // What reclaim left unflushed must be flushed before the next walk of the table believes its entries.
        let flushes = bench.munmap(BASE, 64 * PAGE);
        assert_eq!(flushes[0].end, TLB_FLUSH_ALL, "{name}");
        assert_eq!(bench.machine.counters().nr_batched_pending_flushes, 1, "{name}");
        assert_eq!(bench.machine.pages().swap_slots().count(), 0, "{name}");
    }
}

#[test]
fn dirty_file_pages_are_cleaned_page_by_page() {
    let mut bench = Bench::new("linux-6.18");
    let Outcome::Value(file) = bench.apply(&Operation::CreateFile { shmem: false, nr_pages: Some(64) }) else {
        panic!("a file has an id");
    };
    let map = Operation::Mmap {
        task: 0,
        addr: BASE,
        len: 64 * PAGE,
        prot: 3,
        shared: true,
        fixed: true,
        noreplace: false,
        populate: false,
        growsdown: false,
        file: Some(file as u32),
        pgoff: 0,
    };
    bench.apply(&map);
    assert_eq!(bench.access(0, BASE + 20 * PAGE, AccessKind::Read), Outcome::None);
    assert_eq!(bench.machine.leaves(MmId(1)).len(), 16, "the fault maps what is around it");
    for page in [3, 20, 40] {
        bench.write(BASE + page * PAGE);
    }
    let flushes = bench.flushes_of(&Operation::Fsync { task: 0, file: file as u32, from_page: 0, nr_pages: None });
    let page_at = |page: u64| (BASE + page * PAGE, BASE + (page + 1) * PAGE, 12, false);
    assert_eq!(all_asked(&flushes), [page_at(3), page_at(20), page_at(40)]);
    assert!(
        bench.flushes_of(&Operation::Fsync { task: 0, file: file as u32, from_page: 0, nr_pages: None }).is_empty()
    );
    let past_the_end = Operation::Mmap {
        task: 0,
        addr: BASE + 256 * MIB,
        len: 2 * PAGE,
        prot: 1,
        shared: false,
        fixed: true,
        noreplace: false,
        populate: false,
        growsdown: false,
        file: Some(file as u32),
        pgoff: 63,
    };
    bench.apply(&past_the_end);
    assert_eq!(bench.access(0, BASE + 256 * MIB, AccessKind::Read), Outcome::None);
    let after = bench.access(0, BASE + 256 * MIB + PAGE, AccessKind::Read);
    assert_eq!(after, Outcome::Errno(Errno::Sigbus));
}

#[test]
fn huge_pages_fault_split_and_collapse() {
    let config = MachineConfig { thp: Some(Thp::Always), ..MachineConfig::default() };
    let mut bench = Bench::with("linux-6.18", &config);
    bench.mmap(BASE, 8 * MIB, 3);
    bench.write(BASE + 5 * PAGE);
    assert_eq!(bench.machine.leaves(MmId(1)).len(), 1);
    bench.write(BASE + 2 * MIB);
    bench.write(BASE + 6 * MIB);
    // Whole huge pages: entries of 2 MiB.
    let flushes = bench.munmap(BASE + 2 * MIB, 2 * MIB);
    assert_eq!(all_asked(&flushes), [(BASE + 2 * MIB, BASE + 4 * MIB, 21, false)]);
    // A part of one: it is split first, with a flush of its own.
    let flushes = bench.munmap(BASE + PAGE, PAGE);
    assert_eq!(flushes.len(), 2);
    assert_eq!(asked(&flushes[0]).0, BASE);
    assert_eq!(asked(&flushes[1]), (BASE + PAGE, BASE + 2 * PAGE, 12, false));
    assert_eq!(bench.machine.leaves(MmId(1)).len(), 512);
    let advice = Operation::Madvise { task: 0, addr: BASE + 4 * MIB, len: 2 * MIB, advice: Advice::Nohugepage };
    assert_eq!(bench.apply(&advice), Outcome::None);
    bench.write(BASE + 4 * MIB + 7 * PAGE);
    let collapse = Operation::Collapse { task: 0, addr: BASE + 5 * MIB };
    let flushes = bench.flushes_of(&collapse);
    assert_eq!(flushes.len(), 1);
    assert_eq!(asked(&flushes[0]), (BASE + 4 * MIB, BASE + 6 * MIB, 12, true));
    let (_, size) = bench.machine.leaf(MmId(1), VirtAddr(BASE + 5 * MIB)).unwrap();
    assert_eq!(size.bytes(), 2 * MIB);
}

#[test]
fn steps_can_be_run_one_by_one_and_machines_cloned() {
    let mut bench = Bench::new("linux-6.18");
    bench.mmap(BASE, 4 * PAGE, 3);
    bench.write(BASE);
    let mut other = bench.machine.clone();
    let munmap = Operation::Munmap { task: 0, addr: BASE, len: 4 * PAGE };
    bench.apply(&munmap);
    assert_ne!(bench.machine.state(), other.state());
    other.apply(&munmap).unwrap();
    assert_eq!(bench.machine.state(), other.state());
}

#[test]
fn what_makes_no_sense_is_an_error_of_the_caller() {
    let mut bench = Bench::new("linux-6.18");
    let not_running = Operation::Munmap { task: 7, addr: BASE, len: PAGE };
    let error = bench.machine.apply(&not_running).unwrap_err().to_string();
    assert_eq!(error, "task 7: found none, expected a live task");
    let no_cpu = Operation::Schedule { cpu: 9, task: Some(0) };
    let error = bench.machine.apply(&no_cpu).unwrap_err().to_string();
    assert_eq!(error, "CPU 9: found 4 CPUs, expected a number below that");
    let unaligned = Operation::Munmap { task: 0, addr: 1, len: PAGE };
    assert_eq!(bench.apply(&unaligned), Outcome::Errno(Errno::Einval));
}
