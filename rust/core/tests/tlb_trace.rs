//! The fast engine of address traces against the plain one: random machines, page sizes, streams and events.

use proptest::prelude::*;
use tlbcore::addr::{Levels, PageSize};
use tlbcore::tlb::{ArrayGeometry, PscScope, Replacement, StlbGeometry, TlbGeometry};
use tlbcore::tlb_trace::{Counts, Engine, Event, EventKind, Machine, PageMap, Simulation, Stream};

const MIB: u64 = 1 << 20;
const BASE: u64 = 0x7f00_0000_0000;

/// An array of at most `max_sets` sets; one in six is absent.
fn array(max_sets: u32) -> impl Strategy<Value = ArrayGeometry> {
    let ways = prop_oneof![3 => Just(4_u32), 1 => Just(6), 1 => Just(8), 2 => 1..=16_u32];
    (ways, 1..=max_sets, prop::bool::weighted(0.7), 0..6).prop_map(|(ways, nr_sets, power, absent)| {
        let nr_sets = if power { nr_sets.next_power_of_two() } else { nr_sets };
        if absent == 0 { ArrayGeometry::ABSENT } else { ArrayGeometry::new(ways * nr_sets, ways) }
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let first = (array(20), array(5), array(3));
    let second = (array(40), array(4), 0..8_u8);
    let caches = (array(4), array(2), array(2));
    let rest = (prop::bool::weighted(0.25), any::<bool>(), 0..3_usize);
    (first, second, caches, rest).prop_map(|(first, (stlb, stlb_1g, holds), caches, (fifo, five, scope))| {
        let giant = holds & 4 != 0 && stlb_1g.entries == 0;
        let huge = holds & 2 != 0;
        let stlb = StlbGeometry {
            holds_4k: holds & 1 != 0 || !(huge || giant),
            holds_2m: huge,
            holds_1g: giant,
            ..StlbGeometry::new(stlb.entries, stlb.ways)
        };
        let tlb = TlbGeometry {
            l1_4k: first.0,
            l1_2m: first.1,
            l1_1g: first.2,
            stlb,
            stlb_1g,
            pde_cache: caches.0,
            pdpte_cache: caches.1,
            pml4e_cache: caches.2,
            pml5e_cache: ArrayGeometry::ABSENT,
            replacement: if fifo { Replacement::Fifo } else { Replacement::Lru },
            invlpg_drops_psc: [PscScope::All, PscScope::Covering, PscScope::None][scope],
        };
        Machine { tlb, levels: if five { Levels::Five } else { Levels::Four } }
    })
}

/// Everywhere one size, or 4 KiB with a region of 2 MiB and one of 1 GiB pages.
fn pages() -> impl Strategy<Value = PageMap> {
    (0..5_usize).prop_map(|kind| match kind {
        0 | 1 => PageMap::uniform(PageSize::Size4K),
        2 => PageMap::uniform([PageSize::Size2M, PageSize::Size1G][kind % 2]),
        _ => {
            let huge = (BASE + 2 * MIB, BASE + 8 * MIB, PageSize::Size2M);
            let giant = (BASE + 1024 * MIB, BASE + 4096 * MIB, PageSize::Size1G);
            PageMap::new(PageSize::Size4K, vec![giant, huge]).expect("aligned and disjoint")
        }
    })
}

/// Pages that a program stays on for a while, then jumps from: near, far, at the border of 47 bits, above it.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (0..60_u64, 0..4096_u64).prop_map(|(page, byte)| BASE + (page << 12 | byte)),
        8 => (0..4096_u64).prop_map(|page| BASE + (page << 12)),
        3 => (0..4096_u64).prop_map(|piece| BASE + piece * 3 * MIB),
        1 => (0..16_u64).prop_map(|page| (1 << 47) - (page << 12)),
    ]
}

fn addresses() -> impl Strategy<Value = Vec<u64>> {
    let runs = prop::collection::vec((address(), 1..6_usize), 0..600);
    let far = prop::option::weighted(0.1, (0..1000_usize, 1_u64 << 47..1 << 57));
    (runs, far).prop_map(|(runs, far)| {
        let mut all: Vec<u64> = runs.into_iter().flat_map(|(address, times)| vec![address; times]).collect();
        if let Some((at, address)) = far
            && !all.is_empty()
        {
            let at = at % all.len();
            all[at] = address;
        }
        all
    })
}

fn kind() -> impl Strategy<Value = EventKind> {
    let pcid = prop_oneof![6 => 0..3_u16, 1 => 0..4096_u16];
    prop_oneof![
        6 => pcid.clone().prop_map(EventKind::Switch),
        2 => pcid.clone().prop_map(EventKind::FlushPcid),
        1 => Just(EventKind::FlushCurrent),
        1 => Just(EventKind::FlushAll),
        3 => (pcid, address()).prop_map(|(pcid, address)| EventKind::Invalidate { pcid, address }),
        3 => address().prop_map(EventKind::InvalidateCurrent),
    ]
}

/// A stream and its events, sorted.
fn stream() -> impl Strategy<Value = (Vec<u64>, Vec<Event>)> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), kind()), 0..30);
    (addresses(), places).prop_map(|(addresses, places)| {
        let mut events: Vec<Event> =
            places.into_iter().map(|(at, kind)| Event { at: at.index(addresses.len() + 1) as u64, kind }).collect();
        events.sort_by_key(|event| event.at);
        (addresses, events)
    })
}

fn counts(
    machine: &Machine,
    pages: &PageMap,
    streams: &[(Vec<u64>, Vec<Event>)],
    nr_threads: usize,
    engine: Engine,
) -> Vec<Counts> {
    let mut simulation = Simulation::new(machine, pages, streams.len(), nr_threads, engine).expect("a valid machine");
    let streams: Vec<_> = streams.iter().map(|(addresses, events)| Stream { addresses, events }).collect();
    simulation.run(&streams, &mut || false).expect("sorted events, addresses of 57 bits");
    simulation.counts()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn fast_is_plain(machine in machine(), pages in pages(), stream in stream()) {
        let streams = [stream];
        let plain = counts(&machine, &pages, &streams, 1, Engine::Plain);
        prop_assert_eq!(counts(&machine, &pages, &streams, 1, Engine::Auto), plain);
    }

    #[test]
    fn cpus_and_threads_share_nothing(
        machine in machine(),
        pages in pages(),
        streams in prop::collection::vec(stream(), 1..4),
        nr_threads in 1..5_usize,
    ) {
        let together = counts(&machine, &pages, &streams, nr_threads, Engine::Auto);
        for (stream, counts_of_one) in streams.into_iter().zip(together) {
            prop_assert_eq!(counts(&machine, &pages, &[stream], 1, Engine::Auto), [counts_of_one]);
        }
    }

    #[test]
    fn pieces_are_the_whole(machine in machine(), stream in addresses(), cut in any::<prop::sample::Index>()) {
        let pages = PageMap::uniform(PageSize::Size4K);
        let whole = counts(&machine, &pages, &[(stream.clone(), Vec::new())], 1, Engine::Auto);
        let mut simulation = Simulation::new(&machine, &pages, 1, 1, Engine::Auto).unwrap();
        let (head, tail) = stream.split_at(cut.index(stream.len() + 1));
        for addresses in [head, tail] {
            simulation.run(&[Stream { addresses, events: &[] }], &mut || false).unwrap();
        }
        prop_assert_eq!(simulation.counts(), whole);
    }
}

/// Stretches of whole blocks, each local or scattered; in scattered ones some accesses go back to a page of shortly before.
fn long_stream() -> impl Strategy<Value = Vec<u64>> {
    let stretch = (2..16_u32, 1..400_u64, 1_000..9_000_usize, any::<u64>());
    prop::collection::vec(stretch, 1..6).prop_map(|stretches| {
        let mut all: Vec<u64> = Vec::new();
        for (log_pages, back_each, len, seed) in stretches {
            let mut state = seed;
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            for _ in 0..len {
                let page = BASE + (next(1 << (log_pages + 5)) << 12);
                let back = usize::try_from(next(200)).unwrap_or(0) + 1;
                let address = if log_pages > 9 && next(back_each) == 0 && back <= all.len() {
                    all[all.len() - back]
                } else {
                    page
                };
                all.push(address + next(4096) - address % 4096);
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_loop_is_plain(machine in machine(), usual_first in 0..4_usize, addresses in long_stream(), mixed in any::<bool>(),
                          place in any::<prop::sample::Index>()) {
        let first = [machine.tlb.l1_4k, ArrayGeometry::new(64, 4), ArrayGeometry::new(96, 6), ArrayGeometry::new(128, 8)];
        let mut machine = machine;
        machine.tlb.l1_4k = first[usual_first];
        if usual_first > 0 {
            machine.tlb.stlb = StlbGeometry::new(1536, 12);
            machine.tlb.replacement = Replacement::Lru;
        }
        let huge = (BASE + 2 * MIB, BASE + 8 * MIB, PageSize::Size2M);
        let pages = if mixed { PageMap::new(PageSize::Size4K, vec![huge]).unwrap() } else { PageMap::uniform(PageSize::Size4K) };
        let at = place.index(addresses.len()) as u64;
        let events = vec![
            Event { at, kind: EventKind::InvalidateCurrent(addresses[at as usize]) },
            Event { at, kind: EventKind::Switch(3) },
        ];
        let streams = [(addresses, events)];
        prop_assert_eq!(
            counts(&machine, &pages, &streams, 1, Engine::Auto),
            counts(&machine, &pages, &streams, 1, Engine::Plain)
        );
    }
}

fn usual() -> Machine {
    Machine { tlb: TlbGeometry::default(), levels: Levels::Four }
}

/// A sequence without a pattern, so that both loops of the first level and the packed second level come in.
fn scattered(nr_pages: u64, len: usize) -> Vec<u64> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..len).map(|_| BASE + ((next() % nr_pages) << 12)).collect()
}

#[test]
fn many_contexts_outgrow_the_packed_array() {
    let addresses = scattered(300, 200_000);
    let switch = |at| Event { at: at as u64, kind: EventKind::Switch((at / 1000) as u16 % 40) };
    let events = (0..addresses.len()).step_by(1000).map(switch).collect();
    let streams = [(addresses, events)];
    let pages = PageMap::uniform(PageSize::Size4K);
    let plain = counts(&usual(), &pages, &streams, 1, Engine::Plain);
    assert_eq!(counts(&usual(), &pages, &streams, 1, Engine::Auto), plain);
    assert!(plain[0].nr_stlb_hits() > 10_000 && plain[0].nr_walks > 10_000, "{plain:?}");
}

/// Machines with and without paging-structure caches, whose walks must stay in order.
fn machines() -> [Machine; 3] {
    let with_caches = usual();
    let mut without = usual();
    for array in [&mut without.tlb.pde_cache, &mut without.tlb.pdpte_cache, &mut without.tlb.pml4e_cache] {
        *array = ArrayGeometry::ABSENT;
    }
    let mut odd = without;
    odd.tlb.l1_4k = ArrayGeometry::new(63, 7);
    odd.tlb.stlb = StlbGeometry::new(300, 3);
    [with_caches, without, odd]
}

#[test]
fn threads_share_a_stream() {
    for machine in machines() {
        for nr_pages in [3, 50, 200, 20_000] {
            // Long enough to be cut, with a stretch at the end that is not.
            let mut addresses = scattered(nr_pages, 1 << 18);
            addresses.extend(scattered(nr_pages / 2 + 1, 1 << 18));
            addresses.extend(scattered(20_000, 1 << 17));
            addresses.extend(scattered(nr_pages, 1000));
            let events = vec![
                Event { at: 10, kind: EventKind::Switch(7) },
                Event { at: 20, kind: EventKind::FlushAll },
                Event { at: 500_000, kind: EventKind::InvalidateCurrent(BASE) },
            ];
            let streams = [(addresses, events)];
            let huge = (BASE + 2 * MIB, BASE + 8 * MIB, PageSize::Size2M);
            for pages in [PageMap::uniform(PageSize::Size4K), PageMap::new(PageSize::Size4K, vec![huge]).unwrap()] {
                let one = counts(&machine, &pages, &streams, 1, Engine::Auto);
                assert_eq!(counts(&machine, &pages, &streams, 1, Engine::Plain), one, "{nr_pages} pages");
                for nr_threads in 2..=4 {
                    assert_eq!(counts(&machine, &pages, &streams, nr_threads, Engine::Auto), one, "{nr_pages} pages");
                }
            }
        }
    }
}

#[test]
fn threads_find_the_address_that_is_none() {
    let pages = PageMap::uniform(PageSize::Size4K);
    for (at, bits) in [(300_000, 57), (3, 60), (399_999, 63)] {
        let mut addresses = scattered(100, 400_000);
        addresses[at] = 1 << bits;
        let mut simulation = Simulation::new(&machines()[1], &pages, 1, 2, Engine::Auto).unwrap();
        let error = simulation.run(&[Stream { addresses: &addresses, events: &[] }], &mut || false).unwrap_err();
        assert!(error.to_string().starts_with(&format!("access {at} of CPU 0: found address")), "{error}");
    }
    // Wide ones that page tables do map.
    let mut addresses = scattered(100, 400_000);
    addresses[300_000] = 1 << 50;
    let streams = [(addresses, Vec::new())];
    let one = counts(&machines()[1], &pages, &streams, 1, Engine::Plain);
    assert_eq!(counts(&machines()[1], &pages, &streams, 2, Engine::Auto), one);
}

#[test]
fn what_cannot_be_is_refused() {
    let pages = PageMap::uniform(PageSize::Size4K);
    let error = |addresses: &[u64], events: &[Event]| {
        let mut simulation = Simulation::new(&usual(), &pages, 1, 1, Engine::Auto).unwrap();
        simulation.run(&[Stream { addresses, events }], &mut || false).unwrap_err().to_string()
    };
    let event = |at, kind| Event { at, kind };
    assert_eq!(
        error(&[1, 2, 1 << 57], &[]),
        "access 2 of CPU 0: found address 0x200000000000000, expected at most 57 bits"
    );
    assert_eq!(
        error(&[1, 2], &[event(3, EventKind::FlushAll)]),
        "event 0 of CPU 0: found place 3, expected one from 0 to 2: sorted, within the accesses"
    );
    assert_eq!(
        error(&[1, 2], &[event(2, EventKind::FlushAll), event(1, EventKind::FlushAll)]),
        "event 1 of CPU 0: found place 1, expected one from 2 to 2: sorted, within the accesses"
    );
    assert!(
        error(&[], &[event(0, EventKind::Switch(4096))]).contains("found Switch(4096), expected a PCID below 4096")
    );
}
