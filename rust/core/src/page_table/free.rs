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
    /// For a PTE table where the walk stood; for the others where the table's range begins.
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
        let mut walk = Walk {
            floor: floor.0,
            ceiling: pmd_ceiling,
            freed,
        };
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
                (walk.freed)(Freed {
                    kind: FreedKind::FoldedP4d,
                    addr: VirtAddr(start),
                });
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
                    (walk.freed)(Freed {
                        kind: freed_kind(child, level - 1),
                        addr: VirtAddr(start),
                    });
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
