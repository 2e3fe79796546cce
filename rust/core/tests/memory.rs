//! What the largest machine takes: 4096 CPUs, each TLB and paging-structure cache full, within a GiB.

use std::sync::Arc;

use tlbcore::addr::{PageSize, Pfn, VirtAddr, Vpn};
use tlbcore::machine::{Machine, MachineConfig};
use tlbcore::program::CompiledKernel;
use tlbcore::tlb::{PscLevel, TlbEntry};

const NR_CPUS: usize = 4096;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn four_thousand_full_cpus_fit_into_a_gibibyte() {
    let kernel = Arc::new(CompiledKernel::from_json(include_str!("data/linux-6.18.json")).unwrap());
    let config = MachineConfig { nr_cpus: NR_CPUS as u32, pcid: true, ..MachineConfig::default() };
    let before = resident();
    let mut machine = Machine::new(&config, kernel).unwrap();
    assert!(resident() - before < 64 << 20, "CPUs that never ran take next to nothing");
    let geometry = config.tlb;
    let nr_slots = [geometry.l1_4k, geometry.l1_2m, geometry.l1_1g, geometry.stlb.array(), geometry.stlb_1g];
    let nr_slots: u32 = nr_slots.iter().map(|array| array.entries).sum();
    let tlbs = machine.engine_mut().tlbs_mut().unwrap();
    for cpu in 0..NR_CPUS {
        // The shared second level last, so that it is full of small pages.
        for (size, nr_pages) in [(PageSize::Size1G, 16), (PageSize::Size2M, 32), (PageSize::Size4K, 1536)] {
            for page in 0..nr_pages {
                let vpn = Vpn(page * size.base_pages());
                let rights = TlbEntry {
                    vpn,
                    pfn: Pfn(1 << 30 | vpn.0),
                    size,
                    write: true,
                    user: true,
                    dirty: false,
                    nx: true,
                    global: false,
                };
                tlbs.insert(cpu, 1, rights);
            }
        }
        for (level, nr_tables) in [(PscLevel::Pde, 32), (PscLevel::Pdpte, 4), (PscLevel::Pml4e, 2)] {
            for table in 0..nr_tables {
                tlbs.psc_insert(cpu, 1, level, VirtAddr(u64::from(table) << level.shift()), table);
            }
        }
        assert_eq!((tlbs.nr_entries(cpu), tlbs.nr_psc_entries(cpu)), (nr_slots, 38), "CPU {cpu} is full");
    }
    let taken = resident() - before;
    assert!(taken < 1 << 30, "{} MiB", taken >> 20);
    assert!(taken > u64::from(nr_slots) * 16 * NR_CPUS as u64, "a full slot takes 16 bytes: {} MiB", taken >> 20);
}
