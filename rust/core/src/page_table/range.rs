//! Operations on address ranges, a table at a time: each PTE table's part is one slice. A huge page that the range
//! covers in whole is changed as one entry; one covered in part is split first, as Linux does.
//!
//! They change entries only: what a cleared entry referred to (frame, swap slot) is the caller's to give back, what may
//! be cached of it the caller's to flush.

use super::arena::{PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, table_index};
use super::cursor::{TableCursor, TableVisit};
use super::entry::Pte;
use super::prot::Prot;
use super::sweep::{self, Swept};
use crate::addr::{PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE, Pfn, VaRange, VirtAddr};
use crate::error::{Error, Result};

/// What a range operation met and did, in 4 KiB pages: a 2 MiB page counts 512.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RangeSummary {
    /// Pages that were present (hardware-present or protnone).
    pub nr_present: u64,
    /// Pages whose entry has another value now.
    pub nr_changed: u64,
    /// Pages that were present and dirty.
    pub nr_dirty: u64,
    /// Pages that were present and young.
    pub nr_young: u64,
    /// From the first byte of the first changed page to the byte after the last one; empty when none changed.
    pub changed: VaRange,
}

impl RangeSummary {
    /// Takes in that the entry of `1 << shift` bytes at `va` went from `old` to `new`.
    #[inline]
    fn note(&mut self, va: u64, shift: u32, old: Pte, new: Pte) {
        let nr_pages = 1 << (shift - PAGE_SHIFT);
        if old.is_present() {
            self.nr_present += nr_pages;
            self.nr_dirty += if old.dirty() { nr_pages } else { 0 };
            self.nr_young += if old.young() { nr_pages } else { 0 };
        }
        if old != new {
            if self.nr_changed == 0 {
                self.changed.start = VirtAddr(va);
            }
            self.nr_changed += nr_pages;
            self.changed.end = VirtAddr(va + (1 << shift));
        }
    }
}

impl RangeSummary {
    /// Takes in a pass over entries of 4 KiB from `start` on.
    fn add(&mut self, start: VirtAddr, swept: &Swept) {
        self.nr_present += swept.nr_present;
        self.nr_dirty += swept.nr_dirty;
        self.nr_young += swept.nr_young;
        if swept.nr_changed > 0 {
            if self.nr_changed == 0 {
                self.changed.start = VirtAddr(start.0 + (swept.first_changed << PAGE_SHIFT));
            }
            self.nr_changed += swept.nr_changed;
            self.changed.end = VirtAddr(start.0 + (swept.end_changed << PAGE_SHIFT));
        }
    }
}

impl PageTables {
    /// Maps `range` to consecutive frames from `first_pfn` on with the rights of `prot`, whatever its entries were.
    ///
    /// # Errors
    /// When `range` is not of whole pages in user space, or a huge page stands in the way (what lies below it is mapped).
    pub fn map_range(&mut self, root: TableId, range: VaRange, first_pfn: Pfn, prot: Prot) -> Result<RangeSummary> {
        self.check_pages(range)?;
        let mut summary = RangeSummary::default();
        let mut va = range.start;
        while va < range.end {
            let table = self.alloc_pte_table(root, va)?;
            let part = self.range(table).intersect(range);
            let first = Pfn(first_pfn.0.wrapping_add((va.0 - range.start.0) >> PAGE_SHIFT));
            self.sweep_part(table, part, &mut summary, |entries| sweep::map(entries, first, prot));
            va = part.end;
        }
        Ok(summary)
    }

    /// Gives the present entries of `range` the rights of `prot` ([`Pte::modify`]).
    pub fn protect_range(&mut self, root: TableId, range: VaRange, prot: Prot) -> RangeSummary {
        let one = |pte: Pte| if pte.is_present() { pte.modify(prot) } else { pte };
        self.change_range(root, range, one, |entries| sweep::protect(entries, prot))
    }

    /// Empties each entry of `range`, of whatever form; tables stay.
    pub fn clear_range(&mut self, root: TableId, range: VaRange) -> RangeSummary {
        self.change_range(root, range, |_| Pte::NONE, sweep::clear)
    }

    /// Takes the dirty bit of the present entries of `range` ([`Pte::mk_clean`]); the write bit stays.
    pub fn mkclean_range(&mut self, root: TableId, range: VaRange) -> RangeSummary {
        let one = |pte: Pte| if pte.is_present() { pte.mk_clean() } else { pte };
        self.change_range(root, range, one, sweep::mkclean)
    }

    /// Moves what `len` bytes from `old_start` map to `new_start`, entries unchanged and of whatever form: whole PTE
    /// tables and 2 MiB pages as such where both addresses allow, else entry by entry (a huge page in the way is split).
    ///
    /// # Errors
    /// When the ranges are not of whole pages in user space, overlap, or something is mapped at the new place. Nothing
    /// moves then.
    pub fn move_range(&mut self, root: TableId, old_start: VirtAddr, new_start: VirtAddr, len: u64) -> Result<()> {
        let old = self.sized_range(old_start, len)?;
        let new = self.sized_range(new_start, len)?;
        if !old.intersect(new).is_empty() {
            return Err(Error::Value(format!(
                "move of {len:#x} bytes from {old_start} to {new_start}: found an overlap, expected none"
            )));
        }
        if let Some(va) = self.first_mapped(root, new) {
            return Err(Error::Value(format!("address {va}: found a page mapped, expected a free place to move to")));
        }
        let mut cursor = TableCursor::new(root, old);
        while let Some(visit) = cursor.next(self) {
            let part = visit.range();
            let to = VirtAddr(new_start.0 + (part.start.0 - old_start.0));
            let whole = part.start.is_aligned(PMD_SHIFT) && to.is_aligned(PMD_SHIFT) && part.len_bytes() == PMD_SIZE;
            match visit {
                TableVisit::HugePud { table, index, .. } => {
                    self.split_entry(table, PUD_LEVEL, index, self.get(table, index));
                    cursor.addr = part.start;
                }
                TableVisit::HugePmd { .. } if whole && self.drop_empty_table(root, to) => {
                    self.move_pmd(root, part.start, to)?;
                }
                TableVisit::HugePmd { table, index, .. } => {
                    self.split_entry(table, PMD_LEVEL, index, self.get(table, index));
                    cursor.addr = part.start;
                }
                TableVisit::PteTable { .. } if whole && self.pmd_entry(root, to).is_none() => {
                    self.move_pmd(root, part.start, to)?;
                }
                TableVisit::PteTable { id, .. } => self.move_part(root, id, part, to)?,
            }
        }
        Ok(())
    }

    /// Moves the entries of a part of one PTE table, a slice for each table at the new place.
    fn move_part(&mut self, root: TableId, from: TableId, part: VaRange, new_start: VirtAddr) -> Result<()> {
        let mut done = 0;
        while done < part.len_bytes() {
            let to_va = VirtAddr(new_start.0 + done);
            let from_index = table_index(VirtAddr(part.start.0 + done), PTE_LEVEL);
            let table_left = PTRS_PER_TABLE - table_index(to_va, PTE_LEVEL);
            let nr_entries = (((part.len_bytes() - done) >> PAGE_SHIFT) as usize).min(table_left);
            let source = from_index..from_index + nr_entries;
            if !sweep::are_none(&self.table(from)[source.clone()]) {
                let to = self.alloc_pte_table(root, to_va)?;
                let first = table_index(to_va, PTE_LEVEL);
                let entries = *self.table(from);
                let nr_moved =
                    self.sweep(from, source.clone(), sweep::clear, |swept| (swept.nr_were_used, 0)).nr_were_used;
                // Nothing was mapped at the new place.
                let put = |to: &mut [Pte]| to.copy_from_slice(&entries[source]);
                self.sweep(to, first..first + nr_entries, put, |()| (0, nr_moved));
            }
            done += (nr_entries as u64) << PAGE_SHIFT;
        }
        Ok(())
    }

    /// Changes each entry of `range`: that of a huge page by `one`, a run of others by `sweep`, which does the same to each.
    fn change_range(
        &mut self,
        root: TableId,
        range: VaRange,
        one: impl Fn(Pte) -> Pte,
        sweep: impl Fn(&mut [Pte]) -> Swept,
    ) -> RangeSummary {
        let mut summary = RangeSummary::default();
        let mut cursor = TableCursor::new(root, range);
        while let Some(visit) = cursor.next(self) {
            let (table, index, level, part) = match visit {
                TableVisit::PteTable { id, range } => {
                    self.sweep_part(id, range, &mut summary, &sweep);
                    continue;
                }
                TableVisit::HugePmd { range, table, index } => (table, index, PMD_LEVEL, range),
                TableVisit::HugePud { range, table, index } => (table, index, PUD_LEVEL, range),
            };
            let old = self.get(table, index);
            if part.len_bytes() == 1 << entry_shift(level) {
                let new = one(old);
                summary.note(part.start.0, entry_shift(level), old, new);
                self.set(table, index, new);
            } else {
                self.split_entry(table, level, index, old);
                cursor.addr = part.start;
            }
        }
        summary
    }

    /// Rewrites the entries of `part`, which lies in the PTE table `id`.
    fn sweep_part(
        &mut self,
        id: TableId,
        part: VaRange,
        summary: &mut RangeSummary,
        sweep: impl FnOnce(&mut [Pte]) -> Swept,
    ) {
        let start = part.start.align_down(PAGE_SHIFT);
        let first = table_index(start, PTE_LEVEL);
        let nr_entries = ((part.end.align_up(PAGE_SHIFT).0 - start.0) >> PAGE_SHIFT) as usize;
        let used = |swept: &Swept| (swept.nr_were_used, swept.nr_used);
        let swept = self.sweep(id, first..first + nr_entries, sweep, used);
        summary.add(start, &swept);
    }

    /// The first address of `range` that has an entry other than none.
    fn first_mapped(&self, root: TableId, range: VaRange) -> Option<VirtAddr> {
        let mut cursor = TableCursor::new(root, range);
        while let Some(visit) = cursor.next(self) {
            let TableVisit::PteTable { id, range: part } = visit else {
                return Some(visit.range().start);
            };
            let first = table_index(part.start, PTE_LEVEL);
            let nr_entries = (part.len_bytes() >> PAGE_SHIFT) as usize;
            let entries = &self.table(id)[first..first + nr_entries];
            if !sweep::are_none(entries)
                && let Some(page) = entries.iter().position(|entry| !entry.is_none())
            {
                return Some(VirtAddr(part.start.0 + ((page as u64) << PAGE_SHIFT)));
            }
        }
        None
    }

    /// Whether the PMD entry at `va` is none, after freeing an empty PTE table that stood there (a huge page needs it).
    fn drop_empty_table(&mut self, root: TableId, va: VirtAddr) -> bool {
        if let Some(table) = self.pte_table(root, va).filter(|&table| self.nr_used(table) == 0) {
            self.detach_pte_table(root, va);
            self.free_table(table);
        }
        self.pmd_entry(root, va).is_none()
    }

    /// The range of so many pages from an address on.
    ///
    /// # Errors
    /// When it is not of whole pages in user space.
    pub fn range_of_pages(&self, start: VirtAddr, nr_pages: u64) -> Result<VaRange> {
        self.sized_range(start, nr_pages.saturating_mul(1 << PAGE_SHIFT))
    }

    fn sized_range(&self, start: VirtAddr, len: u64) -> Result<VaRange> {
        let range = VaRange::new(start, VirtAddr(start.0.saturating_add(len)));
        self.check_pages(range)?;
        Ok(range)
    }

    fn check_pages(&self, range: VaRange) -> Result<()> {
        self.levels().check(range.start)?;
        self.levels().check(range.end)?;
        for va in [range.start, range.end] {
            if !va.is_aligned(PAGE_SHIFT) {
                return Err(Error::Value(format!("address {va}: expected a multiple of 0x1000")));
            }
        }
        Ok(())
    }
}
