//! Random geometries and events, and an event's effect on the TLBs beside the model or alone.

use proptest::prelude::*;
use tlbcore::addr::{PageSize, Pfn, VaRange, VirtAddr};
use tlbcore::tlb::{
    ArrayGeometry, Dropped, PscLevel, PscScope, Replacement, StlbGeometry, TlbEntry, TlbGeometry, Tlbs,
};

use crate::model::{Item, Model};

pub const NR_CPUS: usize = 3;
const PCIDS: [u16; 3] = [0, 6, 4095];

#[derive(Clone, Debug)]
pub enum Op {
    /// A look-up; a miss looks into the paging-structure caches, fills them, and inserts this entry.
    Access {
        va: u64,
        size: PageSize,
        bits: u32,
    },
    Lookup {
        va: u64,
    },
    Insert {
        va: u64,
        size: PageSize,
        bits: u32,
    },
    PscInsert {
        va: u64,
        level: PscLevel,
        table_id: u32,
    },
    Dirty {
        va: u64,
    },
    InvalidatePage {
        va: u64,
        scope: PscScope,
    },
    InvalidateRange {
        start: u64,
        len: u64,
        shift: u32,
        scope: PscScope,
    },
    FlushPcid,
    FlushNonglobal,
    FlushAll,
}

/// Addresses that meet often: few pages near each other, some a table or more away, at odd bytes.
pub fn address() -> impl Strategy<Value = u64> {
    let far = prop_oneof![
        Just(0_u64),
        Just(0x7f00_0000_0000),
        Just(0x7f00_4000_0000),
        Just(0x40_0000_0000),
        Just(1 << 55),
        Just((1 << 56) - (8 << 20))
    ];
    (far, 0..3_u64, 0..24_u64, prop_oneof![Just(0), 0..4096_u64])
        .prop_map(|(far, huge, page, byte)| far + (huge << 21) + (page << 12) + byte)
}

pub fn size() -> impl Strategy<Value = PageSize> {
    prop_oneof![6 => Just(PageSize::Size4K), 2 => Just(PageSize::Size2M), 1 => Just(PageSize::Size1G)]
}

pub fn scope() -> impl Strategy<Value = PscScope> {
    prop_oneof![Just(PscScope::All), Just(PscScope::Covering), Just(PscScope::None)]
}

pub fn op() -> impl Strategy<Value = Op> {
    let level = (0..4_u8).prop_map(|level| PscLevel::from_table_level(level).expect("four levels"));
    prop_oneof![
        40 => (address(), size(), any::<u32>()).prop_map(|(va, size, bits)| Op::Access { va, size, bits }),
        20 => address().prop_map(|va| Op::Lookup { va }),
        15 => (address(), size(), any::<u32>()).prop_map(|(va, size, bits)| Op::Insert { va, size, bits }),
        8 => (address(), level, 0..9_u32).prop_map(|(va, level, table_id)| Op::PscInsert { va, level, table_id }),
        5 => address().prop_map(|va| Op::Dirty { va }),
        5 => (address(), scope()).prop_map(|(va, scope)| Op::InvalidatePage { va, scope }),
        5 => (address(), prop_oneof![0..100_000_u64, (0..24_u64).prop_map(|pages| pages << 12)], 12..22_u32, scope())
            .prop_map(|(start, len, shift, scope)| Op::InvalidateRange { start, len, shift, scope }),
        2 => (address(), Just(1 << 23), prop_oneof![Just(12), Just(21)], scope())
            .prop_map(|(start, len, shift, scope)| Op::InvalidateRange { start, len, shift, scope }),
        1 => Just(Op::FlushPcid),
        1 => Just(Op::FlushNonglobal),
        1 => Just(Op::FlushAll),
    ]
}

/// Small arrays, absent ones, odd numbers of sets, full associativity.
pub fn array() -> impl Strategy<Value = ArrayGeometry> {
    prop_oneof![
        1 => Just(ArrayGeometry::ABSENT),
        2 => (1..9_u32).prop_map(ArrayGeometry::fully_associative),
        4 => (1..7_u32, 1..5_u32).prop_map(|(nr_sets, ways)| ArrayGeometry::new(nr_sets * ways, ways)),
        1 => Just(ArrayGeometry::new(130, 2)),
    ]
}

pub fn geometry(replacement: Replacement) -> impl Strategy<Value = TlbGeometry> {
    let l1 = (array(), array(), array());
    let stlb = (array(), 1..8_u32, array());
    (l1, stlb, (array(), array(), array(), array())).prop_map(move |(l1, (stlb, holds, stlb_1g), psc)| {
        let holds_1g = holds & 4 != 0;
        TlbGeometry {
            l1_4k: l1.0,
            l1_2m: l1.1,
            l1_1g: l1.2,
            stlb: StlbGeometry {
                holds_4k: holds & 1 != 0,
                holds_2m: holds & 2 != 0,
                holds_1g,
                ..StlbGeometry::new(stlb.entries, stlb.ways)
            },
            stlb_1g: if holds_1g { ArrayGeometry::ABSENT } else { stlb_1g },
            pde_cache: psc.0,
            pdpte_cache: psc.1,
            pml4e_cache: psc.2,
            pml5e_cache: psc.3,
            replacement,
            invlpg_drops_psc: PscScope::All,
        }
    })
}

pub fn entry(va: u64, size: PageSize, bits: u32) -> TlbEntry {
    TlbEntry {
        write: bits & 1 != 0,
        user: bits & 2 != 0,
        dirty: bits & 4 != 0,
        nx: bits & 8 != 0,
        global: bits & 0x70 == 0,
        ..TlbEntry::user_data(VirtAddr(va).vpn(), Pfn(u64::from(bits >> 8)), size)
    }
}

pub type Event = (usize, u16, Op);

pub fn events(nr: usize) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0..NR_CPUS, prop::sample::select(&PCIDS[..]), op()), 1..nr)
}

/// Runs one event on both and compares what they tell.
pub fn apply(tlbs: &mut Tlbs, model: &mut Model, (cpu, pcid, op): Event) -> Result<(), TestCaseError> {
    match op {
        Op::Lookup { va } => {
            prop_assert_eq!(tlbs.psc_peek(cpu, pcid, VirtAddr(va)), tlbs.psc_lookup(cpu, pcid, VirtAddr(va)));
            model.psc_lookup(cpu, pcid, va);
            let peeked = tlbs.peek(cpu, pcid, VirtAddr(va));
            prop_assert_eq!(peeked, model.lookup(cpu, pcid, va));
            prop_assert_eq!(peeked, tlbs.lookup(cpu, pcid, VirtAddr(va)));
        }
        Op::Access { va, size, bits } => {
            let found = tlbs.lookup(cpu, pcid, VirtAddr(va));
            prop_assert_eq!(found, model.lookup(cpu, pcid, va));
            if found.is_none() {
                let start = tlbs.psc_lookup(cpu, pcid, VirtAddr(va));
                prop_assert_eq!(start, model.psc_lookup(cpu, pcid, va));
                let new = entry(va, size, bits);
                tlbs.insert(cpu, pcid, new);
                model.insert(cpu, pcid, new);
            }
        }
        Op::Insert { va, size, bits } => {
            tlbs.insert(cpu, pcid, entry(va, size, bits));
            model.insert(cpu, pcid, entry(va, size, bits));
        }
        Op::PscInsert { va, level, table_id } => {
            tlbs.psc_insert(cpu, pcid, level, VirtAddr(va), table_id);
            let start = va >> level.shift() << level.shift();
            let item = Item { owner: Some(pcid), start, shift: level.shift(), payload: table_id };
            model.cpus[cpu].psc[level as usize].insert(pcid, item);
        }
        Op::Dirty { va } => {
            prop_assert_eq!(tlbs.update_dirty(cpu, pcid, VirtAddr(va)), model.update_dirty(cpu, pcid, va));
        }
        Op::InvalidatePage { va, scope } => {
            let dropped = tlbs.invalidate_page_with(cpu, pcid, VirtAddr(va), scope);
            prop_assert_eq!(dropped, model.invalidate_page(cpu, pcid, va, scope));
        }
        Op::InvalidateRange { start, len, shift, scope } => {
            let range = VaRange::new(VirtAddr(start), VirtAddr(start + len));
            prop_assert_eq!(tlbs.contains_in_range(cpu, pcid, range), model.contains_in_range(cpu, pcid, range));
            prop_assert_eq!(tlbs.contains_tables_in(cpu, pcid, range), model.contains_tables_in(cpu, pcid, range));
            let mut expected = Dropped::default();
            for va in (start..start + len).step_by(1 << shift) {
                let dropped = model.invalidate_page(cpu, pcid, va, scope);
                expected.nr_tlb += dropped.nr_tlb;
                expected.nr_psc += dropped.nr_psc;
            }
            prop_assert_eq!(tlbs.invalidate_range_with(cpu, pcid, range.start, range.end, shift, scope), expected);
        }
        Op::FlushPcid => {
            let nr_tlb = model.drop_tlb(cpu, |item| item.owner == Some(pcid));
            let nr_psc = model.drop_psc(cpu, |item| item.owner == Some(pcid));
            prop_assert_eq!(tlbs.flush_pcid(cpu, pcid), Dropped { nr_tlb, nr_psc });
        }
        Op::FlushNonglobal => {
            let nr_tlb = model.drop_tlb(cpu, |item| item.owner.is_some());
            prop_assert_eq!(tlbs.flush_all_nonglobal(cpu), Dropped { nr_tlb, nr_psc: model.drop_psc(cpu, |_| true) });
        }
        Op::FlushAll => {
            let nr_tlb = model.drop_tlb(cpu, |_| true);
            prop_assert_eq!(tlbs.flush_all(cpu), Dropped { nr_tlb, nr_psc: model.drop_psc(cpu, |_| true) });
        }
    }
    Ok(())
}

/// Runs one event without a model and returns what it told.
pub fn run_blindly(tlbs: &mut Tlbs, cpu: usize, pcid: u16, op: &Op) -> String {
    match *op {
        Op::Lookup { va } => format!("{:?}", tlbs.lookup(cpu, pcid, VirtAddr(va))),
        Op::Access { va, size, bits } => {
            let found = tlbs.lookup(cpu, pcid, VirtAddr(va));
            if found.is_none() {
                tlbs.insert(cpu, pcid, entry(va, size, bits));
            }
            format!("{found:?}")
        }
        Op::Insert { va, size, bits } => {
            tlbs.insert(cpu, pcid, entry(va, size, bits));
            String::new()
        }
        Op::PscInsert { va, level, table_id } => {
            tlbs.psc_insert(cpu, pcid, level, VirtAddr(va), table_id);
            String::new()
        }
        Op::Dirty { va } => tlbs.update_dirty(cpu, pcid, VirtAddr(va)).to_string(),
        Op::InvalidatePage { va, scope } => format!("{:?}", tlbs.invalidate_page_with(cpu, pcid, VirtAddr(va), scope)),
        Op::InvalidateRange { start, len, shift, scope } => {
            let (start, end) = (VirtAddr(start), VirtAddr(start + len));
            format!("{:?}", tlbs.invalidate_range_with(cpu, pcid, start, end, shift, scope))
        }
        Op::FlushPcid => format!("{:?}", tlbs.flush_pcid(cpu, pcid)),
        Op::FlushNonglobal => format!("{:?}", tlbs.flush_all_nonglobal(cpu)),
        Op::FlushAll => format!("{:?}", tlbs.flush_all(cpu)),
    }
}
