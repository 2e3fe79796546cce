//! Laws of the TLBs: random events on several CPUs, compared one by one with a model so plain that it can be read.

mod events;
mod model;

use proptest::prelude::*;
use tlbcore::addr::{PageSize, Pfn, VaRange, VirtAddr, Vpn};
use tlbcore::tlb::{
    ArrayGeometry, CachedEntry, PscLevel, PscScope, Replacement, StlbGeometry, TlbEntry, TlbGeometry, Tlbs,
};

use events::{Event, NR_CPUS, Op, apply, events, geometry, run_blindly};
use model::Model;

fn same_as_model(geometry: TlbGeometry, events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut tlbs = Tlbs::new(&geometry, NR_CPUS).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let mut model = Model::new(geometry, NR_CPUS);
    for event in events {
        let cpu = event.0;
        apply(&mut tlbs, &mut model, event)?;
        prop_assert_eq!(tlbs.entries(cpu), model.entries(cpu));
        prop_assert_eq!(tlbs.psc_entries(cpu), model.psc_entries(cpu));
        let nr_entries: usize = model.arrays(cpu).map(|array| array.items().count()).sum();
        prop_assert_eq!(tlbs.nr_entries(cpu) as usize, nr_entries);
        prop_assert_eq!(tlbs.nr_psc_entries(cpu) as usize, model.psc_entries(cpu).len());
    }
    for cpu in 0..NR_CPUS {
        let (counters, expected) = (tlbs.counters(cpu), &model.cpus[cpu]);
        prop_assert_eq!(counters.nr_l1_hits, expected.nr_l1_hits);
        prop_assert_eq!(counters.nr_stlb_hits, expected.nr_stlb_hits);
        prop_assert_eq!(counters.nr_misses, expected.nr_misses);
        prop_assert_eq!(counters.nr_psc_hits, expected.nr_psc_hits);
        prop_assert_eq!(counters.nr_psc_misses, expected.nr_psc_misses);
    }
    Ok(())
}

/// Geometries that the policies without a model can have: tree PLRU needs powers of two.
fn plru_geometry(replacement: Replacement) -> TlbGeometry {
    TlbGeometry {
        l1_4k: ArrayGeometry::new(24, 8),
        l1_2m: ArrayGeometry::new(2, 1),
        stlb: StlbGeometry::new(12, 4),
        replacement,
        ..TlbGeometry::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn lru_equals_the_model(geometry in geometry(Replacement::Lru), events in events(150)) {
        same_as_model(geometry, events)?;
    }

    #[test]
    fn fifo_equals_the_model(geometry in geometry(Replacement::Fifo), events in events(150)) {
        same_as_model(geometry, events)?;
    }

    /// The edges of ranges: one entry at a time, page-aligned ranges that just reach or miss it, by probes and by scan.
    #[test]
    fn ranges_are_exact_at_their_edges(page in 0..8_u64, huge in any::<bool>(), first in 0..8_u64, len in 1..8_u64,
                                       wide in any::<bool>()) {
        let size = if huge { PageSize::Size2M } else { PageSize::Size4K };
        // Wide ranges have more strides than the CPU has entries, narrow ones just one stride.
        let shift = if wide { 12 } else { size.shift() };
        let len = if wide { len } else { 1 };
        let range = VaRange::new(VirtAddr(first << size.shift()), VirtAddr((first + len) << size.shift()));
        let is_in = (first..first + len).contains(&page);
        let mut tlbs = Tlbs::new(&TlbGeometry::default(), 1).expect("valid");
        tlbs.insert(0, 3, TlbEntry::user_data(VirtAddr(page << size.shift()).vpn(), Pfn(9), size));
        tlbs.psc_insert(0, 3, PscLevel::Pde, VirtAddr(page << 21), 5);
        prop_assert_eq!(tlbs.contains_in_range(0, 3, range), is_in);
        prop_assert_eq!(tlbs.contains_tables_in(0, 3, range), if huge { is_in } else { page == 0 });
        let dropped = tlbs.invalidate_range_with(0, 3, range.start, range.end, shift, PscScope::Covering);
        prop_assert_eq!(dropped.nr_tlb, if is_in { 2 } else { 0 });
        prop_assert_eq!(dropped.nr_psc, u32::from(if huge { is_in } else { page == 0 }));
    }

    /// With two ways the tree is one bit that names the other way: exact LRU.
    #[test]
    fn tree_plru_of_two_ways_is_lru(nr_sets in 1..6_u32, pages in prop::collection::vec(0..30_u64, 1..200)) {
        let array = ArrayGeometry::new(nr_sets * 2, 2);
        let lru = TlbGeometry { l1_4k: array, stlb: StlbGeometry::new(0, 0), ..TlbGeometry::default() };
        let mut tlbs = [Replacement::Lru, Replacement::TreePlru]
            .map(|replacement| Tlbs::new(&TlbGeometry { replacement, ..lru }, 1).expect("valid"));
        for page in pages {
            let [found, found_plru] = tlbs.each_mut().map(|tlbs| {
                let found = tlbs.lookup(0, 1, Vpn(page).addr());
                if found.is_none() {
                    tlbs.insert(0, 1, TlbEntry::user_data(Vpn(page), Pfn(page), PageSize::Size4K));
                }
                found
            });
            prop_assert_eq!(found, found_plru);
        }
    }

    /// What holds for every policy: an entry just inserted is there, sets never overflow, an entry that fits is not
    /// evicted while a way is empty, what leaves is gone, and equal runs are equal.
    #[test]
    fn other_policies_keep_the_laws(random in any::<bool>(), seed: u64, events in events(200)) {
        let replacement = if random { Replacement::Random { seed } } else { Replacement::TreePlru };
        let geometry = plru_geometry(replacement);
        let mut tlbs = [(); 2].map(|()| Tlbs::new(&geometry, NR_CPUS).expect("valid"));
        for (cpu, pcid, op) in events {
            let outcome = tlbs.each_mut().map(|tlbs| run_blindly(tlbs, cpu, pcid, &op));
            prop_assert_eq!(&outcome[0], &outcome[1]);
            if let Op::Access { va, .. } | Op::Insert { va, .. } = op {
                prop_assert!(tlbs[0].peek(cpu, pcid, VirtAddr(va)).is_some());
            }
            if let Op::InvalidatePage { va, .. } = op {
                prop_assert!(tlbs[0].peek(cpu, pcid, VirtAddr(va)).is_none());
            }
            let entries = tlbs[0].entries(cpu);
            prop_assert_eq!(&entries, &tlbs[1].entries(cpu));
            let copies: u32 = entries.iter().map(|cached| u32::from(cached.in_l1) + u32::from(cached.in_stlb)).sum();
            prop_assert_eq!(copies, tlbs[0].nr_entries(cpu));
            for set in 0..3 {
                let in_set = |cached: &&CachedEntry| cached.entry.size == PageSize::Size4K && cached.entry.vpn.0 % 3 == set;
                prop_assert!(entries.iter().filter(in_set).filter(|cached| cached.in_l1).count() <= 8);
                prop_assert!(entries.iter().filter(in_set).filter(|cached| cached.in_stlb).count() <= 4);
            }
        }
    }

    /// Nothing is evicted while ways are empty, and a full set stays full.
    #[test]
    fn other_policies_fill_empty_ways_first(random in any::<bool>(), seed: u64, gap in 0..8_u64, nr in 8..40_u64) {
        let replacement = if random { Replacement::Random { seed } } else { Replacement::TreePlru };
        let geometry = TlbGeometry { l1_4k: ArrayGeometry::new(8, 8), stlb: StlbGeometry::new(0, 0), replacement,
                                     ..TlbGeometry::default() };
        let mut tlbs = Tlbs::new(&geometry, 1).expect("valid");
        let page = |n| TlbEntry::user_data(Vpn(n), Pfn(n), PageSize::Size4K);
        (0..8).for_each(|n| tlbs.insert(0, 1, page(n)));
        prop_assert_eq!(tlbs.nr_entries(0), 8);
        tlbs.invalidate_page(0, 1, Vpn(gap).addr());
        tlbs.insert(0, 1, page(100));
        prop_assert!((0..8).all(|n| n == gap || tlbs.peek(0, 1, Vpn(n).addr()).is_some()));
        (200..200 + nr).for_each(|n| tlbs.insert(0, 1, page(n)));
        prop_assert_eq!(tlbs.nr_entries(0), 8);
    }
}

/// The arrays of many CPUs fit in memory, and absurd ones are refused in one line.
#[test]
fn memory_is_bounded() {
    let geometry = TlbGeometry::default();
    assert!(geometry.slots_per_cpu() * 16 * 4096 < 120 << 20);
    let mut tlbs = Tlbs::new(&geometry, 4096).expect("valid");
    tlbs.insert(4095, 1, TlbEntry::user_data(Vpn(1), Pfn(1), PageSize::Size4K));
    assert_eq!((tlbs.nr_entries(4095), tlbs.nr_entries(4094)), (2, 0));

    let huge = TlbGeometry { stlb: StlbGeometry::new(65_536, 16), ..geometry };
    let error = Tlbs::new(&huge, 1 << 20).expect_err("too large").to_string();
    assert!(
        error.starts_with("TLB geometry: found ") && error.contains("for 1048576 CPUs, expected at most"),
        "{error}"
    );
    let bad = TlbGeometry { l1_4k: ArrayGeometry::new(64, 0), ..geometry };
    let error = Tlbs::new(&bad, 1).expect_err("invalid").to_string();
    assert_eq!(error, "TLB geometry: l1_4k.ways: found 0, expected a divisor of the 64 entries");
}
