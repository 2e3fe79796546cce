//! Laws of the page tables against a plain model: a sorted map from page number to entry.
//!
//! A huge page is 512 pages in the model, each with its own frame and the PSE bit still set, so that the model knows
//! nothing of tables; a split takes the bit away. Ranges lie where tables meet: at 1 GiB, 512 GiB, 256 TiB and the end
//! of user space.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tlbcore::addr::{Levels, PAGE_SIZE, PMD_SIZE, PUD_SIZE, PageSize, Pfn, VaRange, VirtAddr, Vpn};
use tlbcore::page_table::{FreedKind, PageTables, Prot, Pte, RangeSummary, TableCursor, TableId, TableVisit};
use tlbcore::page_table::{PTE_LEVEL, entry_shift, table_index};

/// Pages of the windows in which addresses are drawn.
const WINDOW_PAGES: u64 = 4 * 512;

#[derive(Clone, Debug)]
enum Op {
    Map { first: Place, nr_pages: u64, pfn: u64, prot: usize },
    Protect { first: Place, nr_pages: u64, prot: usize },
    Clear { first: Place, nr_pages: u64 },
    MkClean { first: Place, nr_pages: u64 },
    Move { from: Place, to: Place, nr_pages: u64 },
    SetHuge { at: Place, pfn: u64 },
    SetEntry { at: Place, form: usize },
    Split { at: Place },
    Unmap { first: Place, nr_pages: u64 },
}

/// A window and a page in it.
type Place = (usize, u64);

const PROTS: [Prot; 4] = [Prot::NONE, Prot::READONLY, Prot::SHARED, Prot::SHARED_EXEC];

fn place() -> impl Strategy<Value = Place> {
    // Half of the places begin a PTE table: whole-table paths would be rare otherwise.
    (0..4usize, prop_oneof![(0..4u64).prop_map(|table| table * 512), 0..WINDOW_PAGES])
}

fn nr_pages() -> impl Strategy<Value = u64> {
    prop_oneof![1..20u64, (1..4u64).prop_map(|tables| tables * 512), 1..WINDOW_PAGES]
}

fn op() -> impl Strategy<Value = Op> {
    let prot = || 0..PROTS.len();
    prop_oneof![
        3 => (place(), nr_pages(), 0..1u64 << 20, prot())
            .prop_map(|(first, nr_pages, pfn, prot)| Op::Map { first, nr_pages, pfn, prot }),
        1 => (place(), nr_pages(), prot()).prop_map(|(first, nr_pages, prot)| Op::Protect { first, nr_pages, prot }),
        1 => (place(), nr_pages()).prop_map(|(first, nr_pages)| Op::Clear { first, nr_pages }),
        1 => (place(), nr_pages()).prop_map(|(first, nr_pages)| Op::MkClean { first, nr_pages }),
        3 => (place(), place(), nr_pages()).prop_map(|(from, to, nr_pages)| Op::Move { from, to, nr_pages }),
        2 => (place(), 0..1u64 << 11).prop_map(|(at, pfn)| Op::SetHuge { at, pfn: pfn << 9 }),
        2 => (place(), 0..3usize).prop_map(|(at, form)| Op::SetEntry { at, form }),
        1 => place().prop_map(|at| Op::Split { at }),
        3 => (place(), nr_pages()).prop_map(|(first, nr_pages)| Op::Unmap { first, nr_pages }),
    ]
}

struct Pair {
    tables: PageTables,
    root: TableId,
    model: BTreeMap<u64, Pte>,
    /// Pages in use since their last unmap, as VMAs would say: neighbours keep their tables though they are empty.
    in_use: BTreeSet<u64>,
}

impl Pair {
    fn new(levels: Levels) -> Self {
        let mut tables = PageTables::new(levels);
        let root = tables.alloc_root();
        Self { tables, root, model: BTreeMap::new(), in_use: BTreeSet::new() }
    }

    /// The page number of a place. The last window ends where user space does; each other has a boundary in its middle.
    fn vpn(&self, (window, page): Place) -> u64 {
        let end = self.tables.levels().user_end().0 / PAGE_SIZE;
        let boundary = [1 << 18, 1 << 27, 1 << 36][window.min(2)];
        let start = if window == 3 || boundary >= end { end - WINDOW_PAGES } else { boundary - WINDOW_PAGES / 2 };
        start + page
    }

    fn range(&self, first: Place, nr_pages: u64) -> VaRange {
        let start = Vpn(self.vpn(first)).addr();
        VaRange::new(start, VirtAddr(start.0 + nr_pages * PAGE_SIZE).min(self.tables.levels().user_end()))
    }

    fn pages(range: VaRange) -> std::ops::Range<u64> {
        range.start.0 / PAGE_SIZE..range.end.0 / PAGE_SIZE
    }

    fn is_huge(&self, vpn: u64) -> bool {
        self.model.get(&vpn).is_some_and(|pte| pte.is_present() && pte.huge())
    }

    /// Splits, in the model, the huge page of `vpn` if there is one.
    fn split_model(&mut self, vpn: u64) {
        if self.is_huge(vpn) {
            let first = vpn & !511;
            for pte in self.model.range_mut(first..first + 512).map(|(_, pte)| pte) {
                *pte = pte.clear_huge();
            }
        }
    }

    /// Splits, in the model, what `range` covers in part only.
    fn split_ends(&mut self, range: VaRange) {
        let pages = Self::pages(range);
        if !pages.start.is_multiple_of(512) {
            self.split_model(pages.start);
        }
        if !pages.end.is_multiple_of(512) {
            self.split_model(pages.end - 1);
        }
    }

    /// Changes the model's entries in `range`; returns what the tables' summary must say.
    fn change_model(&mut self, range: VaRange, change: impl Fn(Pte) -> Pte) -> RangeSummary {
        self.split_ends(range);
        let mut expected = RangeSummary::default();
        let mapped: Vec<_> = self.model.range(Self::pages(range)).map(|(&vpn, &pte)| (vpn, pte)).collect();
        for (vpn, old) in mapped {
            let new = change(old);
            note(&mut expected, vpn, old, new);
            if new.is_none() {
                self.model.remove(&vpn)
            } else {
                self.model.insert(vpn, new)
            };
        }
        expected
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Map { first, nr_pages, pfn, prot } => self.map(self.range(first, nr_pages), pfn, PROTS[prot]),
            Op::Protect { first, nr_pages, prot } => {
                let (range, prot) = (self.range(first, nr_pages), PROTS[prot]);
                let expected = self.change_model(range, |pte| if pte.is_present() { pte.modify(prot) } else { pte });
                assert_eq!(self.tables.protect_range(self.root, range, prot), expected);
            }
            Op::Clear { first, nr_pages } => {
                let range = self.range(first, nr_pages);
                let expected = self.change_model(range, |_| Pte::NONE);
                assert_eq!(self.tables.clear_range(self.root, range), expected);
            }
            Op::MkClean { first, nr_pages } => {
                let range = self.range(first, nr_pages);
                let expected = self.change_model(range, |pte| if pte.is_present() { pte.mk_clean() } else { pte });
                assert_eq!(self.tables.mkclean_range(self.root, range), expected);
            }
            Op::Move { from, to, nr_pages } => self.relocate(from, to, nr_pages),
            Op::SetHuge { at, pfn } => self.set_huge(Vpn(self.vpn(at) & !511), pfn),
            Op::SetEntry { at, form } => self.set_entry(self.vpn(at), form),
            Op::Split { at } => {
                let vpn = self.vpn(at);
                let huge = self.is_huge(vpn);
                self.split_model(vpn);
                assert_eq!(self.tables.split_huge_pmd(self.root, Vpn(vpn).addr()).is_ok(), huge);
            }
            Op::Unmap { first, nr_pages } => self.unmap(self.range(first, nr_pages)),
        }
    }

    fn map(&mut self, range: VaRange, pfn: u64, prot: Prot) {
        let mut expected = Some(RangeSummary::default());
        self.in_use.extend(Self::pages(range));
        for (i, vpn) in Self::pages(range).enumerate() {
            if self.is_huge(vpn) {
                expected = None;
                break;
            }
            let new = Pte::new(Pfn(pfn + i as u64), prot);
            let old = self.model.insert(vpn, new).unwrap_or(Pte::NONE);
            note(expected.as_mut().expect("set until the break"), vpn, old, new);
        }
        assert_eq!(self.tables.map_range(self.root, range, Pfn(pfn), prot).ok(), expected);
    }

    fn relocate(&mut self, from: Place, to: Place, nr_pages: u64) {
        let (old, new) = (self.vpn(from), self.vpn(to));
        let end = self.tables.levels().user_end().0 / PAGE_SIZE;
        let fits = old.max(new) + nr_pages <= end && old.abs_diff(new) >= nr_pages;
        let free = self.model.range(new..new + nr_pages).next().is_none();
        let result = self.tables.move_range(self.root, Vpn(old).addr(), Vpn(new).addr(), nr_pages * PAGE_SIZE);
        assert_eq!(result.is_ok(), fits && free, "{result:?}");
        if result.is_err() {
            return;
        }
        self.in_use.extend(new..new + nr_pages);
        let range = VaRange::new(Vpn(old).addr(), Vpn(old + nr_pages).addr());
        self.split_ends(range);
        for vpn in old..old + nr_pages {
            if old.abs_diff(new) % 512 != 0 {
                self.split_model(vpn);
            }
        }
        for vpn in old..old + nr_pages {
            if let Some(pte) = self.model.remove(&vpn) {
                self.model.insert(new + (vpn - old), pte);
            }
        }
    }

    fn set_huge(&mut self, first: Vpn, pfn: u64) {
        let pte = Pte::new(Pfn(pfn), Prot::SHARED).mk_dirty();
        self.in_use.extend(first.0..first.0 + 512);
        let table_there = self.tables.pte_table(self.root, first.addr()).is_some();
        let result = self.tables.set_huge(self.root, first.addr(), PageSize::Size2M, pte);
        assert_eq!(result.is_ok(), !table_there);
        if !table_there {
            let pages = (0..512).map(|i| (first.0 + i, pte.mk_huge().with_pfn(Pfn(pfn + i))));
            self.model.extend(pages);
        }
    }

    fn set_entry(&mut self, vpn: u64, form: usize) {
        let pte = [Pte::NONE, Pte::swap(vpn & 0xff).mk_soft_dirty(), Pte::migration(Pfn(3)).mk_write()][form];
        self.in_use.insert(vpn);
        let table = self.tables.alloc_pte_table(self.root, Vpn(vpn).addr());
        assert_eq!(table.is_err(), self.is_huge(vpn));
        let Ok(table) = table else { return };
        self.tables.set(table, table_index(Vpn(vpn).addr(), PTE_LEVEL), pte);
        if pte.is_none() {
            self.model.remove(&vpn)
        } else {
            self.model.insert(vpn, pte)
        };
    }

    /// munmap: clear, then free the tables that the neighbours in use leave.
    fn unmap(&mut self, range: VaRange) {
        let expected = self.change_model(range, |_| Pte::NONE);
        assert_eq!(self.tables.clear_range(self.root, range), expected);
        let pages = Self::pages(range);
        self.in_use.retain(|vpn| !pages.contains(vpn));
        let floor = self.in_use.range(..pages.start).next_back().map_or(0, |vpn| (vpn + 1) * PAGE_SIZE);
        let ceiling = self.in_use.range(pages.end..).next().map_or(0, |vpn| vpn * PAGE_SIZE);
        self.free(range, floor, ceiling, true);
    }

    /// Frees the tables of `range` and compares with all tables that lie between floor and ceiling and meet the range.
    fn free(&mut self, range: VaRange, floor: u64, ceiling: u64, expect_empty: bool) {
        let expected = self.tables_to_free(range, floor, ceiling);
        let mut freed = Vec::new();
        let (floor, ceiling) = (VirtAddr(floor), VirtAddr(ceiling));
        self.tables.free_pgd_range(self.root, range.start, range.end, floor, ceiling, &mut |item| freed.push(item));
        let found: Vec<_> = freed.iter().map(|item| (kind_level(item.kind), item.kind.table(), item.addr.0)).collect();
        assert_eq!(found, expected, "{range:?} floor {floor} ceiling {ceiling}");
        for id in freed.iter().filter_map(|item| item.kind.table()) {
            assert!(!expect_empty || self.tables.nr_used(id) == 0, "table {id:?} freed with live entries");
            self.tables.free_table(id);
        }
    }

    /// By brute force: (level, table, base), in the order in which a depth-first walk leaves them. A folded P4D has no
    /// table and comes after the PUD table of the same range.
    fn tables_to_free(&self, range: VaRange, floor: u64, ceiling: u64) -> Vec<(u8, Option<TableId>, u64)> {
        let ceiling = if ceiling == 0 { u64::MAX } else { ceiling };
        let mut all = Vec::new();
        self.list(self.root, self.tables.levels().top(), &mut all);
        all.retain(|&(_, table, _)| table != Some(self.root));
        if self.tables.levels() == Levels::Four {
            all.extend((0..256u64).map(|entry| (3, None, entry << 39)));
        }
        let end = |level: u8, base: u64| {
            base + (1 << (if level == 3 && all_four(&self.tables) { 39 } else { entry_shift(level) + 9 }))
        };
        all.retain(|&(level, _, base)| {
            let table_end = end(level, base);
            range.start.0 < table_end && base < range.end.0 && floor <= base && table_end <= ceiling
        });
        all.sort_by_key(|&(level, _, base)| (end(level, base), level));
        all
    }

    fn list(&self, id: TableId, level: u8, all: &mut Vec<(u8, Option<TableId>, u64)>) {
        assert_eq!(self.tables.level(id), level);
        assert!(self.tables.is_allocated(id));
        all.push((level, Some(id), self.tables.base(id).0));
        let entries = self.tables.table(id);
        assert_eq!(self.tables.nr_used(id), entries.iter().filter(|entry| !entry.is_none()).count());
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| level > 0 && entry.is_table()) {
            let base = self.tables.base(id).0 + ((index as u64) << entry_shift(level));
            assert_eq!(self.tables.base(entry.table_id()).0, base);
            self.list(entry.table_id(), level - 1, all);
        }
    }

    /// Tables and model say the same, through the cursor and through single look-ups; no table is lost.
    fn compare(&self) {
        let user = VaRange::new(VirtAddr(0), self.tables.levels().user_end());
        let mut found = BTreeMap::new();
        let mut cursor = TableCursor::new(self.root, user);
        while let Some(visit) = cursor.next(&self.tables) {
            match visit {
                TableVisit::PteTable { id, range } => {
                    assert_eq!(range, self.tables.range(id));
                    let entries = self.tables.table(id).iter().enumerate().filter(|(_, pte)| !pte.is_none());
                    found.extend(entries.map(|(i, &pte)| (range.start.vpn().0 + i as u64, pte)));
                }
                TableVisit::HugePmd { range, table, index } => {
                    assert_eq!(range.len_bytes(), PMD_SIZE);
                    let pte = self.tables.get(table, index);
                    let pages = (0..512).map(|i| (range.start.vpn().0 + i, pte.with_pfn(Pfn(pte.pfn().0 + i))));
                    found.extend(pages);
                }
                TableVisit::HugePud { .. } => panic!("no 1 GiB page was made"),
            }
        }
        assert!(found == self.model, "tables and model differ");
        for (&vpn, &pte) in self.model.iter().step_by(97) {
            let (leaf, size) = self.tables.leaf(self.root, Vpn(vpn).addr()).expect("in the model");
            assert_eq!(leaf.with_pfn(PageTables::frame_in_leaf(leaf, size, Vpn(vpn).addr())), pte);
            let walked = self.tables.walk(self.root, Vpn(vpn).addr()).leaf();
            assert_eq!(walked, pte.is_hw_present().then_some((leaf, size)));
        }
        let mut all = Vec::new();
        self.list(self.root, self.tables.levels().top(), &mut all);
        assert_eq!(all.len(), self.tables.nr_tables(), "a table is in no tree");
        assert_eq!(all.len(), self.tables.nr_tables_under(self.root));
    }
}

fn all_four(tables: &PageTables) -> bool {
    tables.levels() == Levels::Four
}

fn kind_level(kind: FreedKind) -> u8 {
    match kind {
        FreedKind::Pte(_) => 0,
        FreedKind::Pmd(_) => 1,
        FreedKind::Pud(_) => 2,
        FreedKind::P4d(_) | FreedKind::FoldedP4d => 3,
    }
}

fn note(summary: &mut RangeSummary, vpn: u64, old: Pte, new: Pte) {
    summary.nr_present += u64::from(old.is_present());
    summary.nr_dirty += u64::from(old.is_present() && old.dirty());
    summary.nr_young += u64::from(old.is_present() && old.young());
    if old != new {
        if summary.nr_changed == 0 {
            summary.changed.start = Vpn(vpn).addr();
        }
        summary.nr_changed += 1;
        summary.changed.end = Vpn(vpn + 1).addr();
    }
}

fn levels() -> impl Strategy<Value = Levels> {
    prop_oneof![Just(Levels::Four), Just(Levels::Five)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_follow_the_model(levels in levels(), ops in prop::collection::vec(op(), 1..24)) {
        let mut pair = Pair::new(levels);
        for op in &ops {
            pair.apply(op);
            pair.compare();
        }
        // Exit: all goes, and the root alone is left.
        pair.unmap(VaRange::new(VirtAddr(0), levels.user_end()));
        pair.compare();
        prop_assert_eq!(pair.tables.nr_tables(), 1);
        pair.tables.free_table(pair.root);
        prop_assert_eq!(pair.tables.nr_tables(), 0);
    }

    #[test]
    fn freeing_follows_floor_and_ceiling(
        levels in levels(),
        mapped in prop::collection::vec((place(), 1..600u64), 1..6),
        first in place(),
        nr_pages in 1..1u64 << 20,
        below in prop_oneof![Just(0u64), 0..2000u64, 0..1u64 << 30],
        above in prop_oneof![Just(0u64), 0..2000u64, 0..1u64 << 30],
        bounded in any::<(bool, bool)>(),
    ) {
        let mut pair = Pair::new(levels);
        for &(place, nr_pages) in &mapped {
            pair.map(pair.range(place, nr_pages), 1, Prot::SHARED);
        }
        let range = pair.range(first, nr_pages);
        let floor = if bounded.0 { range.start.0.saturating_sub(below * PAGE_SIZE) } else { 0 };
        let ceiling = if bounded.1 { range.end.0 + above * PAGE_SIZE } else { 0 };
        pair.free(range, floor, ceiling, false);
    }

    #[test]
    fn a_pud_moves_with_all_below(levels in levels(), pages in prop::collection::btree_set(0..1u64 << 18, 1..20)) {
        let mut pair = Pair::new(levels);
        let (old, new) = (3 * PUD_SIZE, 700 * PUD_SIZE);
        for &page in &pages {
            let start = VirtAddr(old + page * PAGE_SIZE);
            pair.map(VaRange::new(start, VirtAddr(start.0 + PAGE_SIZE)), page, Prot::SHARED);
        }
        let entry = pair.tables.move_pud(pair.root, VirtAddr(old), VirtAddr(new)).expect("free place");
        prop_assert!(entry.is_table());
        let shift = (new - old) / PAGE_SIZE;
        pair.model = std::mem::take(&mut pair.model).into_iter().map(|(vpn, pte)| (vpn + shift, pte)).collect();
        pair.compare();
        prop_assert!(pair.tables.move_pud(pair.root, VirtAddr(old), VirtAddr(new)).is_err());
        pair.tables.free_tree(pair.root);
        prop_assert_eq!(pair.tables.nr_tables(), 0);
    }
}

#[test]
fn a_gigabyte_page_splits_as_far_as_needed() {
    let mut tables = PageTables::new(Levels::Four);
    let root = tables.alloc_root();
    let pte = Pte::new(Pfn(0x4_0000), Prot::SHARED).mk_dirty();
    tables.set_huge(root, VirtAddr(PUD_SIZE), PageSize::Size1G, pte).expect("free place");
    assert_eq!(tables.nr_tables(), 2);
    assert!(tables.alloc_pte_table(root, VirtAddr(PUD_SIZE)).is_err());

    let page = VaRange::new(VirtAddr(PUD_SIZE + PMD_SIZE), VirtAddr(PUD_SIZE + PMD_SIZE + PAGE_SIZE));
    let summary = tables.clear_range(root, page);
    assert_eq!(summary, RangeSummary { nr_present: 1, nr_changed: 1, nr_dirty: 1, nr_young: 1, changed: page });
    assert_eq!(tables.nr_tables(), 4);
    assert_eq!(tables.leaf(root, page.start), None);
    let beside = (pte.with_pfn(Pfn(0x4_0201)), PageSize::Size4K);
    assert_eq!(tables.leaf(root, page.end), Some(beside));
    let huge = (pte.with_pfn(Pfn(0x4_0400)).mk_huge(), PageSize::Size2M);
    assert_eq!(tables.leaf(root, VirtAddr(PUD_SIZE + 2 * PMD_SIZE)), Some(huge));

    let whole = VaRange::new(VirtAddr(PUD_SIZE), VirtAddr(2 * PUD_SIZE));
    assert_eq!(tables.clear_range(root, whole).nr_changed, (1 << 18) - 1);
}

#[test]
fn a_table_leaves_and_comes_back() {
    let mut tables = PageTables::new(Levels::Five);
    let root = tables.alloc_root();
    let va = VirtAddr(5 * PMD_SIZE);
    tables.map_range(root, VaRange::new(va, VirtAddr(va.0 + PMD_SIZE)), Pfn(9), Prot::READONLY).expect("free place");
    let table = tables.detach_pte_table(root, va).expect("mapped");
    assert_eq!((tables.detach_pte_table(root, va), tables.leaf(root, va)), (None, None));
    assert_eq!((tables.nr_used(table), tables.nr_tables()), (512, 5));
    tables.set_pmd_entry(root, va, Pte::migration(Pfn(1))).expect("none there");
    let refused = tables.attach_pte_table(root, va, table).expect_err("occupied");
    assert_eq!(refused.to_string(), "address 0xa00000: found the page `migration pfn=0x1` at level 1, expected none");
    tables.set_pmd_entry(root, va, Pte::NONE).expect("no table there");
    let other = VirtAddr(va.0 + PMD_SIZE);
    tables.attach_pte_table(root, other, table).expect("free place");
    assert_eq!(tables.base(table), other);
    assert_eq!(tables.leaf(root, other), Some((Pte::new(Pfn(9), Prot::READONLY), PageSize::Size4K)));
}

#[test]
fn an_invalidated_huge_page_splits_with_its_old_bits() {
    let mut tables = PageTables::new(Levels::Four);
    let root = tables.alloc_root();
    let va = VirtAddr(PMD_SIZE);
    tables.set_huge(root, va, PageSize::Size2M, Pte::new(Pfn(0x200), Prot::SHARED).mk_dirty()).expect("free place");
    let old = tables.pmd_entry(root, va);
    tables.set_pmd_entry(root, va, old.mk_invalid()).expect("no table there");
    let table = tables.split_huge_pmd_as(root, va, old).expect("a huge page");
    assert_eq!(tables.get(table, 511).to_string(), "P W U A D NX pfn=0x3ff");
    let twice = tables.split_huge_pmd(root, va).expect_err("split already");
    assert_eq!(twice.to_string(), "address 0x200000: found a PTE table, expected a 2 MiB page");
}

#[test]
fn generation_words_go_with_the_table() {
    let mut tables = PageTables::new(Levels::Four);
    let root = tables.alloc_root();
    let table = tables.alloc_pte_table(root, VirtAddr(0)).expect("free place");
    tables.set_defer_gen(table, 7);
    tables.move_pmd(root, VirtAddr(0), VirtAddr(PMD_SIZE)).expect("free place");
    assert_eq!((tables.pte_table(root, VirtAddr(PMD_SIZE)), tables.defer_gen(table)), (Some(table), 7));
    let id = tables.detach_pte_table(root, VirtAddr(PMD_SIZE)).expect("moved there");
    tables.free_table(id);
    assert_eq!(tables.alloc_pte_table(root, VirtAddr(0)).expect("free place"), id);
    assert_eq!(tables.defer_gen(id), 0);
}
