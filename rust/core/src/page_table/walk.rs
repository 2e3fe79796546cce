//! The walk that the CPU does on a TLB miss, entry by entry, from the root or from a table that a paging-structure cache
//! named.
//!
//! It reads what is there now, through a freed or reused table too if a stale pointer led to it, and believes the caller
//! on the level, as hardware does. It checks no rights and sets no bits unless told to.

use super::arena::{PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, leaf_size, table_index};
use super::entry::Pte;
use crate::addr::{PageSize, VirtAddr};

/// One entry that a walk read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkStep {
    /// The table.
    pub table: TableId,
    /// The entry's index in it.
    pub index: u16,
    /// The level at which the walk took the table to be.
    pub level: u8,
    /// The entry as read.
    pub entry: Pte,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkEnd {
    /// At a hardware-present entry that maps a page of this size.
    Leaf(PageSize),
    /// At an entry that is not hardware-present: a page fault.
    NotPresent,
    /// At an entry that names no table, or maps more than 1 GiB: only a walk through reused memory finds one.
    Garbage,
}

/// The most entries that one walk reads.
const MAX_STEPS: usize = 5;

/// What a walk read, highest level first. It reads one entry at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    steps: [WalkStep; MAX_STEPS],
    nr_steps: u8,
    /// How it ended.
    pub end: WalkEnd,
}

impl Walk {
    /// The entries read, highest level first.
    #[inline]
    pub fn steps(&self) -> &[WalkStep] {
        &self.steps[..usize::from(self.nr_steps)]
    }

    /// The entry at which it ended.
    #[inline]
    pub const fn last(&self) -> WalkStep {
        self.steps[self.nr_steps as usize - 1]
    }

    /// The entry that maps the page, if the walk came to one.
    #[inline]
    pub const fn leaf(&self) -> Option<(Pte, PageSize)> {
        match self.end {
            WalkEnd::Leaf(size) => Some((self.last().entry, size)),
            WalkEnd::NotPresent | WalkEnd::Garbage => None,
        }
    }
}

impl PageTables {
    /// Walks from the top table.
    #[inline]
    pub fn walk(&self, root: TableId, va: VirtAddr) -> Walk {
        self.walk_from(root, self.levels().top(), va)
    }

    /// Walks from `table`, taken to be at `level` (0: a PTE table). A number that this arena never gave out is a bug of
    /// the caller, and panics.
    #[inline]
    pub fn walk_from(&self, table: TableId, level: u8, va: VirtAddr) -> Walk {
        let unread = WalkStep { table, index: 0, level, entry: Pte::NONE };
        let mut walk = Walk { steps: [unread; MAX_STEPS], nr_steps: 0, end: WalkEnd::NotPresent };
        let (mut table, mut level) = (table, level);
        loop {
            let index = table_index(va, level);
            let entry = self.get(table, index);
            walk.steps[usize::from(walk.nr_steps)] = WalkStep { table, index: index as u16, level, entry };
            walk.nr_steps += 1;
            if !entry.is_hw_present() {
                return walk;
            }
            if level == PTE_LEVEL || entry.huge() {
                walk.end = if level <= PUD_LEVEL { WalkEnd::Leaf(leaf_size(level)) } else { WalkEnd::Garbage };
                return walk;
            }
            table = entry.table_id();
            if !self.has_block(table) {
                walk.end = WalkEnd::Garbage;
                return walk;
            }
            level -= 1;
        }
    }

    /// Sets A in the leaf for `va` below `table` (at `level`; the root's is `levels().top()`), as the CPU does when it
    /// fills the TLB. Returns the leaf as it is now; none when no hardware-present one is there.
    #[inline]
    pub fn set_accessed(&mut self, table: TableId, level: u8, va: VirtAddr) -> Option<Pte> {
        self.mark_leaf(table, level, va, |pte| Some(pte.mk_young()))
    }

    /// Sets A and D in the leaf for `va` below `table` (at `level`), as the CPU does at a write, if the leaf allows
    /// writes. Returns the leaf as it is now; none when no hardware-present writable one is there.
    #[inline]
    pub fn set_dirty(&mut self, table: TableId, level: u8, va: VirtAddr) -> Option<Pte> {
        self.mark_leaf(table, level, va, |pte| pte.write().then(|| pte.mk_young().mk_dirty()))
    }

    #[inline]
    fn mark_leaf(&mut self, table: TableId, level: u8, va: VirtAddr, mark: impl Fn(Pte) -> Option<Pte>) -> Option<Pte> {
        let walk = self.walk_from(table, level, va);
        walk.leaf()?;
        let last = walk.last();
        let new = mark(last.entry)?;
        self.set(last.table, usize::from(last.index), new);
        Some(new)
    }

    /// The frame number of the 4 KiB page of `va` within the leaf `pte` of `size`.
    #[inline]
    pub const fn frame_in_leaf(pte: Pte, size: PageSize, va: VirtAddr) -> crate::addr::Pfn {
        crate::addr::Pfn(pte.pfn().0 + ((va.0 & (size.bytes() - 1)) >> entry_shift(PTE_LEVEL)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Levels, Pfn, VaRange};
    use crate::page_table::{PMD_LEVEL, Prot};

    const VA: VirtAddr = VirtAddr(0x1234_5678_9000);

    fn mapped(levels: Levels) -> (PageTables, TableId) {
        let mut tables = PageTables::new(levels);
        let root = tables.alloc_root();
        let range = VaRange::new(VA, VirtAddr(VA.0 + 0x1000));
        tables.map_range(root, range, Pfn(42), Prot::SHARED).expect("free place");
        (tables, root)
    }

    #[test]
    fn each_level_is_read_once() {
        for levels in [Levels::Four, Levels::Five] {
            let (tables, root) = mapped(levels);
            let walk = tables.walk(root, VA);
            let read: Vec<u8> = walk.steps().iter().map(|step| step.level).collect();
            assert_eq!(read, (0..=levels.top()).rev().collect::<Vec<_>>());
            assert_eq!(walk.steps()[0].table, root);
            assert_eq!(walk.last().table, tables.pte_table(root, VA).expect("mapped"));
            assert_eq!(walk.leaf(), Some((Pte::new(Pfn(42), Prot::SHARED), PageSize::Size4K)));
            let beside = tables.walk(root, VirtAddr(VA.0 + 0x1000));
            assert_eq!((beside.end, beside.steps().len()), (WalkEnd::NotPresent, walk.steps().len()));
            assert_eq!(tables.walk(root, VirtAddr(0)).steps().len(), levels as usize - 3, "a none top entry ends it");
        }
    }

    #[test]
    fn a_lower_start_reads_less_and_finds_the_same() {
        let (tables, root) = mapped(Levels::Four);
        let full = tables.walk(root, VA);
        for (nr_above, step) in full.steps().iter().enumerate() {
            let walk = tables.walk_from(step.table, step.level, VA);
            assert_eq!(walk.leaf(), full.leaf());
            assert_eq!(walk.steps(), &full.steps()[nr_above..]);
        }
    }

    #[test]
    fn a_stale_start_reads_what_memory_holds() {
        let (mut tables, root) = mapped(Levels::Four);
        let stale = tables.detach_pte_table(root, VA).expect("mapped");
        assert_eq!(tables.walk(root, VA).end, WalkEnd::NotPresent);
        tables.free_table(stale);
        assert!(tables.walk_from(stale, PTE_LEVEL, VA).leaf().is_some(), "freed, not reused yet");
        assert_eq!(tables.alloc_root(), stale, "last in, first out");
        assert_eq!(tables.walk_from(stale, PTE_LEVEL, VA).end, WalkEnd::NotPresent);
        tables.set(stale, table_index(VA, PMD_LEVEL), Pte::new(Pfn(1 << 30), Prot::SHARED));
        assert_eq!(tables.walk_from(stale, PMD_LEVEL, VA).end, WalkEnd::Garbage);
    }

    #[test]
    fn marks_go_to_the_leaf_alone() {
        let (mut tables, root) = mapped(Levels::Five);
        let pte = tables.pte_table(root, VA).expect("mapped");
        let old = Pte::new(Pfn(42), Prot::SHARED).mk_old();
        tables.set(pte, table_index(VA, PTE_LEVEL), old);
        assert_eq!(tables.set_accessed(root, 4, VA), Some(old.mk_young()));
        assert_eq!(tables.set_dirty(pte, 0, VA), Some(old.mk_young().mk_dirty()));
        assert_eq!(tables.leaf(root, VA), Some((old.mk_young().mk_dirty(), PageSize::Size4K)));
        tables.set(pte, table_index(VA, PTE_LEVEL), old.wrprotect());
        assert_eq!(tables.set_dirty(root, 4, VA), None);
        assert_eq!(tables.set_accessed(root, 4, VirtAddr(0)), None);
        assert_eq!(tables.leaf(root, VA), Some((old.wrprotect(), PageSize::Size4K)));
    }

    #[test]
    fn frames_inside_a_huge_page() {
        let pte = Pte::new(Pfn(0x400), Prot::SHARED).mk_huge();
        assert_eq!(PageTables::frame_in_leaf(pte, PageSize::Size2M, VirtAddr(0x20_3fff)), Pfn(0x403));
        assert_eq!(PageTables::frame_in_leaf(pte, PageSize::Size4K, VirtAddr(0x20_3fff)), Pfn(0x400));
    }
}
