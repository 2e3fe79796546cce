//! A flush of an mm that one CPU uses, the usual case of a replay, takes no memory from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tlbcore::addr::{PageSize, Pfn, VirtAddr};
use tlbcore::cpumask::CpuId;
use tlbcore::flush::{Engine, FlushRules, Initiator};
use tlbcore::tlb::{TlbEntry, TlbGeometry};

thread_local! {
    static NR_ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting takes no memory itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NR_ALLOCATIONS.with(|nr| nr.set(nr.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of 1000 flushes of an mm that runs on the last of `nr_cpus` CPUs, after a few to warm up.
fn nr_allocations(nr_cpus: u32, log: bool, rules: FlushRules) -> u64 {
    let mut engine = Engine::new(nr_cpus, Some(&TlbGeometry::default()), true, rules).unwrap();
    engine.set_logging(log);
    let mm = engine.new_context(0);
    let cpu = CpuId(nr_cpus as u16 - 1);
    engine.switch_mm(cpu, mm);
    let by = Initiator { op: 0, task: 0, cpu };
    let mut flush = |nr: u64| {
        for at in 0..nr {
            let addr = VirtAddr((at % 50) << 12);
            let pcid = engine.loaded_pcid(cpu);
            let entry = TlbEntry::user_data(addr.vpn(), Pfn(1), PageSize::Size4K);
            engine.tlbs_mut().unwrap().insert(cpu.index(), pcid, entry);
            engine.flush_tlb_page(by, mm, addr, at);
        }
    };
    flush(100);
    let before = NR_ALLOCATIONS.get();
    flush(1000);
    NR_ALLOCATIONS.get() - before
}

#[test]
fn a_local_flush_does_not_allocate() {
    for rules in [FlushRules::LINUX_5_10, FlushRules::LINUX_6_18] {
        for nr_cpus in [1, 64, 1024] {
            assert_eq!(nr_allocations(nr_cpus, false, rules), 0, "{nr_cpus} CPUs");
        }
        // The log itself grows by doubling: no allocation for each request, however many CPUs there are. (A growing
        // vector reallocates in place or anew: its default here counts each as one.)
        assert!(nr_allocations(1024, true, rules) <= 8);
    }
}
