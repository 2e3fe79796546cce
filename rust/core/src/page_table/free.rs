//! The order in which Linux frees the page tables of an unmapped range, and which of them: mm/memory.c,
//! `free_pgd_range` and the functions below it.
//!
//! `floor` and `ceiling` bound what may be freed: a table goes only when the whole range it maps lies between them,
//! because the mappings on either side use it otherwise. `ceiling` 0 means the top of the address space; the tests
//! `end - 1 > ceiling - 1` wrap on purpose.
//!
//! With four levels the P4D level is folded into the PGD, but the walk passes through it: it "frees" a P4D table for
//! each PGD entry that floor and ceiling allow, present or not, for `pgd_none()` is constantly false there. No memory
//! goes, yet the flush that follows is told so; [`FreedKind::FoldedP4d`] reports it.

use super::arena::{
    P4D_LEVEL, PGD_LEVEL, PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, table_index,
};
use super::entry::Pte;
use crate::addr::{Levels, PMD_SHIFT, PMD_SIZE, VirtAddr};

/// Which table left the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreedKind {
    /// A PTE table (`pte_free_tlb`).
    Pte(TableId),
    /// A PMD table (`pmd_free_tlb`).
    Pmd(TableId),
    /// A PUD table (`pud_free_tlb`).
    Pud(TableId),
    /// A P4D table (`p4d_free_tlb` with five levels).
    P4d(TableId),
    /// The P4D of four levels, which is no table (`p4d_free_tlb` all the same).
    FoldedP4d,
}

impl FreedKind {
    /// The table, which [`PageTables::free_table`] is still to be called for.
    #[inline]
    pub const fn table(self) -> Option<TableId> {
        match self {
            Self::Pte(id) | Self::Pmd(id) | Self::Pud(id) | Self::P4d(id) => Some(id),
            Self::FoldedP4d => None,
        }
    }
}

/// A table that left the tree, and the address that Linux passes to its `..._free_tlb`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freed {
    /// Which table.
    pub kind: FreedKind,
    /// Where the table's range begins: a PTE table's is where the walk stands, which began at a multiple of 2 MiB.
    pub addr: VirtAddr,
}

/// What stays the same on the way down.
struct Walk<'a> {
    floor: u64,
    ceiling: u64,
    freed: &'a mut dyn FnMut(Freed),
}

impl Walk<'_> {
    /// The common end of the functions below `free_pgd_range`: where the table of `1 << table_shift` bytes around `start`
    /// begins, if it may go after a walk that ended at `end`.
    fn table_may_go(&self, start: u64, end: u64, table_shift: u32) -> Option<u64> {
        let start = start >> table_shift << table_shift;
        if start < self.floor {
            return None;
        }
        let mut ceiling = self.ceiling;
        if ceiling != 0 {
            ceiling = ceiling >> table_shift << table_shift;
            if ceiling == 0 {
                return None;
            }
        }
        (end.wrapping_sub(1) <= ceiling.wrapping_sub(1)).then_some(start)
    }
}

impl PageTables {
    /// Takes the tables that `addr..end` leaves without use out of the tree, lowest first in walk order, and reports each
    /// to `freed`. They stay allocated until [`PageTables::free_table`]. A huge page in the range is passed over; entries
    /// still in a PTE table are lost with it. An `end` beyond user space counts as its end.
    pub fn free_pgd_range(
        &mut self,
        root: TableId,
        addr: VirtAddr,
        end: VirtAddr,
        floor: VirtAddr,
        ceiling: VirtAddr,
        freed: &mut dyn FnMut(Freed),
    ) {
        let mut addr = addr.align_down(PMD_SHIFT).0;
        let mut end = end.min(self.levels().user_end()).0;
        if addr < floor.0 {
            addr = addr.wrapping_add(PMD_SIZE);
            if addr == 0 {
                return;
            }
        }
        let mut pmd_ceiling = ceiling.0;
        if pmd_ceiling != 0 {
            pmd_ceiling = ceiling.align_down(PMD_SHIFT).0;
            if pmd_ceiling == 0 {
                return;
            }
        }
        if end.wrapping_sub(1) > pmd_ceiling.wrapping_sub(1) {
            end = end.saturating_sub(PMD_SIZE);
        }
        if addr >= end {
            return;
        }
        let mut walk = Walk { floor: floor.0, ceiling: pmd_ceiling, freed };
        if self.levels() == Levels::Five {
            self.free_entries(&mut walk, root, PGD_LEVEL, addr, end);
        } else {
            self.free_folded(&mut walk, root, addr, end);
        }
    }

    /// The PGD walk with four levels: each entry, present or not, holds one folded P4D.
    fn free_folded(&mut self, walk: &mut Walk<'_>, root: TableId, mut addr: u64, end: u64) {
        let shift = entry_shift(P4D_LEVEL);
        while addr < end {
            let next = next_boundary(addr, end, shift);
            self.free_entries(walk, root, P4D_LEVEL, addr, next);
            if let Some(start) = walk.table_may_go(addr, next, shift) {
                (walk.freed)(Freed { kind: FreedKind::FoldedP4d, addr: VirtAddr(start) });
            }
            addr = next;
        }
    }

    /// One walk over entries of `table` (at `level`): below each that points to a table, then that table itself if it may
    /// go (`free_pmd_range` at the PMD level, and so on up).
    fn free_entries(&mut self, walk: &mut Walk<'_>, table: TableId, level: u8, mut addr: u64, end: u64) {
        let shift = entry_shift(level);
        while addr < end {
            let next = next_boundary(addr, end, shift);
            let index = table_index(VirtAddr(addr), level);
            let entry = self.get(table, index);
            if entry.is_table() {
                let child = entry.table_id();
                let start = if level == PMD_LEVEL {
                    Some(addr) // a PTE table goes always; the caller of the walk saw to floor and ceiling
                } else {
                    self.free_entries(walk, child, level - 1, addr, next);
                    walk.table_may_go(addr, next, shift)
                };
                if let Some(start) = start {
                    self.set(table, index, Pte::NONE);
                    (walk.freed)(Freed { kind: freed_kind(child, level - 1), addr: VirtAddr(start) });
                }
            }
            addr = next;
        }
    }
}

const fn freed_kind(id: TableId, level: u8) -> FreedKind {
    match level {
        PTE_LEVEL => FreedKind::Pte(id),
        PMD_LEVEL => FreedKind::Pmd(id),
        PUD_LEVEL => FreedKind::Pud(id),
        _ => FreedKind::P4d(id),
    }
}

/// `pmd_addr_end` and the like: the next boundary of `1 << shift` bytes after `addr`, or `end` if that comes first.
const fn next_boundary(addr: u64, end: u64, shift: u32) -> u64 {
    let boundary = ((addr >> shift) + 1) << shift;
    if boundary < end { boundary } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Pfn, VaRange};
    use crate::page_table::Prot;

    const ADDR: u64 = 0x1000_0000_0000;
    /// A stack top's guard gap below the end of the four-level user half, as a process has it.
    const CEILING: u64 = 0x7fff_f000_0000;

    fn freed_names(levels: Levels, map: bool, addr: u64, floor: u64, ceiling: u64) -> Vec<(&'static str, u64)> {
        let mut tables = PageTables::new(levels);
        let root = tables.alloc_root();
        let range = VaRange::new(VirtAddr(addr), VirtAddr(addr + 0x1000));
        if map {
            tables.map_range(root, range, Pfn(1), Prot::SHARED).expect("free place");
            assert_eq!(tables.clear_range(root, range).nr_changed, 1);
        }
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        tables.free_pgd_range(root, range.start, range.end, VirtAddr(floor), VirtAddr(ceiling), &mut |freed| {
            let name = match freed.kind {
                FreedKind::Pte(_) => "pte",
                FreedKind::Pmd(_) => "pmd",
                FreedKind::Pud(_) => "pud",
                FreedKind::P4d(_) => "p4d",
                FreedKind::FoldedP4d => "folded",
            };
            names.push((name, freed.addr.0));
            ids.extend(freed.kind.table());
        });
        let nr_before = tables.nr_tables();
        for &id in &ids {
            assert_eq!(tables.nr_used(id), 0, "a freed table is empty");
            tables.free_table(id);
        }
        assert_eq!(tables.nr_tables(), nr_before - ids.len());
        assert_eq!(tables.nr_tables_under(root), tables.nr_tables(), "what was not reported is still in the tree");
        names
    }

    #[test]
    fn last_mapping_with_four_levels_frees_all_and_the_folded_p4d() {
        let freed = freed_names(Levels::Four, true, ADDR, 0, CEILING);
        assert_eq!(freed, [("pte", ADDR), ("pmd", ADDR), ("pud", ADDR), ("folded", ADDR)]);
    }

    #[test]
    fn last_mapping_with_five_levels_keeps_the_p4d_below_a_four_level_ceiling() {
        assert_eq!(freed_names(Levels::Five, true, ADDR, 0, CEILING), [("pte", ADDR), ("pmd", ADDR), ("pud", ADDR)]);
        let high = 0x00ff_ffff_ffff_f000;
        let all = [("pte", ADDR), ("pmd", ADDR), ("pud", ADDR), ("p4d", 0)];
        assert_eq!(freed_names(Levels::Five, true, ADDR, 0, high), all);
        assert_eq!(freed_names(Levels::Five, true, ADDR, 0, 0), all);
    }

    #[test]
    fn an_untouched_mapping_frees_a_folded_p4d_only() {
        assert_eq!(freed_names(Levels::Four, false, ADDR, 0, CEILING), [("folded", ADDR)]);
        assert_eq!(freed_names(Levels::Four, false, ADDR + 0x1234_5000, 0, 0), [("folded", ADDR)]);
        assert_eq!(freed_names(Levels::Five, false, ADDR, 0, CEILING), []);
    }

    #[test]
    fn neighbours_keep_the_tables_that_they_share() {
        let addr = ADDR + 0x4040_1000; // in the second PUD entry's third PTE table
        let pte = ("pte", ADDR + 0x4040_0000);
        let freed = |floor, ceiling| freed_names(Levels::Four, true, addr, floor, ceiling);
        assert_eq!(freed(addr, 0), [], "a neighbour in the same PTE table below");
        assert_eq!(freed(0, addr + 0x1000), [], "and above");
        assert_eq!(freed(ADDR + 0x4040_0000, 0), [pte], "in the PTE table before");
        assert_eq!(freed(0, ADDR + 0x4060_0000), [pte], "in the PTE table after");
        let pmd = ("pmd", ADDR + 0x4000_0000);
        assert_eq!(freed(ADDR + 0x4000_0000, 0), [pte, pmd], "in the PMD table before");
        assert_eq!(freed(0, ADDR + 0x8000_0000), [pte, pmd], "in the PMD table after");
        let rest = [("pud", ADDR), ("folded", ADDR)];
        assert_eq!(freed(ADDR, ADDR + (1 << 39)), [&[pte, pmd][..], &rest].concat(), "in other PUD tables");
    }

    #[test]
    fn a_ceiling_below_the_first_table_frees_nothing() {
        assert_eq!(freed_names(Levels::Four, true, 0x1000, 0, 0x3000), []);
        assert_eq!(freed_names(Levels::Four, true, 0x1000, 0, 0x20_0000), [("pte", 0)]);
    }

    #[test]
    fn a_huge_page_in_the_range_is_passed_over() {
        let mut tables = PageTables::new(Levels::Four);
        let root = tables.alloc_root();
        tables
            .set_huge(root, VirtAddr(ADDR), crate::addr::PageSize::Size2M, Pte::new(Pfn(0), Prot::SHARED))
            .expect("none");
        let mut freed = Vec::new();
        let end = VirtAddr(ADDR + 0x20_0000);
        // The floor and ceiling of neighbours in the same PMD table, so that only PTE tables could go.
        tables.free_pgd_range(root, VirtAddr(ADDR), end, VirtAddr(ADDR), end, &mut |f| freed.push(f));
        assert_eq!(freed, []);
        assert!(tables.pmd_entry(root, VirtAddr(ADDR)).huge());
    }
}
