//! Changes to the tree itself: a huge page becomes a table, a table leaves or enters the tree, a table moves to another
//! address with all it maps.

use super::arena::{PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, table_index};
use super::entry::Pte;
use crate::addr::{PTRS_PER_TABLE, Pfn, VirtAddr};
use crate::error::{Error, Result};

impl PageTables {
    /// Puts a PTE table in the place of the 2 MiB page at `va`: 512 entries with its bits (without PSE) and consecutive
    /// frames. A migration entry becomes 512 of them.
    ///
    /// # Errors
    /// When no 2 MiB page is there.
    pub fn split_huge_pmd(&mut self, root: TableId, va: VirtAddr) -> Result<TableId> {
        self.split_huge_pmd_as(root, va, self.pmd_entry(root, va))
    }

    /// As [`Self::split_huge_pmd`], with the bits and frame of `pte` rather than of the entry in place: after
    /// `pmdp_invalidate` they are those of the entry it took out.
    ///
    /// # Errors
    /// When no 2 MiB page is there (the entry in place may be one in any form).
    pub fn split_huge_pmd_as(&mut self, root: TableId, va: VirtAddr, pte: Pte) -> Result<TableId> {
        let found = self.pmd_entry(root, va);
        match self.table_at(root, va, PMD_LEVEL) {
            Some(pmd) if !found.is_none() && !found.is_table() => {
                Ok(self.split_entry(pmd, PMD_LEVEL, table_index(va, PMD_LEVEL), pte))
            }
            _ => {
                let found = if found.is_table() { "a PTE table" } else { "none" };
                Err(Error::Value(format!("address {va}: found {found}, expected a 2 MiB page")))
            }
        }
    }

    /// Puts a table of 512 pages like `pte` in the place of the huge entry `index` of `table` (at `level`).
    pub(super) fn split_entry(&mut self, table: TableId, level: u8, index: usize, pte: Pte) -> TableId {
        let va = VirtAddr(self.base(table).0 + ((index as u64) << entry_shift(level)));
        let child = self.alloc_table(level - 1, va);
        let small = if level == PMD_LEVEL { pte.clear_huge() } else { pte };
        let (first, step) = (pte.pfn().0, 1 << (9 * u32::from(level - 1)));
        self.update(child, 0..PTRS_PER_TABLE, |i, _| small.with_pfn(Pfn(first + i as u64 * step)));
        self.set(table, index, Pte::table(child));
        child
    }

    /// Takes the PTE table for `va` out of the tree (`pmd_clear`): its PMD entry becomes none, the table keeps its
    /// entries and stays allocated until [`Self::free_table`]. None when no PTE table is there.
    pub fn detach_pte_table(&mut self, root: TableId, va: VirtAddr) -> Option<TableId> {
        let pmd = self.table_at(root, va, PMD_LEVEL)?;
        let index = table_index(va, PMD_LEVEL);
        let entry = self.get(pmd, index);
        if !entry.is_table() {
            return None;
        }
        self.set(pmd, index, Pte::NONE);
        Some(entry.table_id())
    }

    /// Puts a detached PTE table at `va` (`pmd_populate`), with missing upper tables allocated; it maps the addresses
    /// there from now on.
    ///
    /// # Errors
    /// When the PMD entry is not none, or a 1 GiB page stands in the way.
    pub fn attach_pte_table(&mut self, root: TableId, va: VirtAddr, table: TableId) -> Result<()> {
        let pmd = self.alloc_table_at(root, va, PMD_LEVEL)?;
        self.expect_none(pmd, va, PMD_LEVEL)?;
        self.set_bases(table, PTE_LEVEL, va.align_down(entry_shift(PMD_LEVEL)));
        self.set(pmd, table_index(va, PMD_LEVEL), Pte::table(table));
        Ok(())
    }

    /// Moves the PMD entry of `old` to `new`: a whole PTE table (`move_normal_pmd`) or a 2 MiB page (`move_huge_pmd`).
    /// Returns the entry.
    ///
    /// # Errors
    /// When an address is not a multiple of 2 MiB, the old entry is none, the new one is not, or a 1 GiB page stands in
    /// the way at `new`. Nothing moves then.
    pub fn move_pmd(&mut self, root: TableId, old: VirtAddr, new: VirtAddr) -> Result<Pte> {
        self.move_entry(root, old, new, PMD_LEVEL)
    }

    /// Moves the PUD entry of `old` to `new`: a whole PMD table with its PTE tables (`move_normal_pud`), or a 1 GiB
    /// page. Returns the entry.
    ///
    /// # Errors
    /// As [`Self::move_pmd`], with 1 GiB.
    pub fn move_pud(&mut self, root: TableId, old: VirtAddr, new: VirtAddr) -> Result<Pte> {
        self.move_entry(root, old, new, PUD_LEVEL)
    }

    fn move_entry(&mut self, root: TableId, old: VirtAddr, new: VirtAddr, level: u8) -> Result<Pte> {
        let shift = entry_shift(level);
        for va in [old, new] {
            if !va.is_aligned(shift) {
                return Err(Error::Value(format!("address {va}: expected a multiple of {:#x}", 1u64 << shift)));
            }
        }
        let from = self.table_at(root, old, level).map(|table| (table, self.get(table, table_index(old, level))));
        let Some((from, entry)) = from.filter(|(_, entry)| !entry.is_none()) else {
            return Err(Error::Value(format!(
                "address {old}: found none at level {level}, expected a table or a page"
            )));
        };
        let to = self.alloc_table_at(root, new, level)?;
        self.expect_none(to, new, level)?;
        self.set(from, table_index(old, level), Pte::NONE);
        self.set(to, table_index(new, level), entry);
        if entry.is_table() {
            self.set_bases(entry.table_id(), level - 1, new);
        }
        Ok(entry)
    }

    fn expect_none(&self, table: TableId, va: VirtAddr, level: u8) -> Result<()> {
        let found = self.get(table, table_index(va, level));
        if found.is_none() {
            return Ok(());
        }
        let found = if found.is_table() { "a table".to_owned() } else { format!("the page `{found}`") };
        Err(Error::Value(format!("address {va}: found {found} at level {level}, expected none")))
    }

    /// Tells a table and those below it that the addresses they map begin at `base`.
    fn set_bases(&mut self, id: TableId, level: u8, base: VirtAddr) {
        self.set_base(id, base);
        if level == PTE_LEVEL {
            return;
        }
        for index in 0..PTRS_PER_TABLE {
            let entry = self.get(id, index);
            if entry.is_table() {
                let child_base = VirtAddr(base.0 + ((index as u64) << entry_shift(level)));
                self.set_bases(entry.table_id(), level - 1, child_base);
            }
        }
    }
}
