//! Operations on address ranges, a table at a time: each PTE table's part is one slice. A huge page that the range
//! covers in whole is changed as one entry; one covered in part is split first, as Linux does.
//!
//! They change entries only: what a cleared entry referred to (frame, swap slot) is the caller's to give back, what may
//! be cached of it the caller's to flush.

use super::arena::{PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, table_index};
use super::cursor::{TableCursor, TableVisit};
use super::entry::Pte;
use super::prot::Prot;
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

impl PageTables {
    /// Maps `range` to consecutive frames from `first_pfn` on with the rights of `prot`, whatever its entries were.
    ///
    /// # Errors
    /// When `range` is not of whole pages in user space, or a huge page stands in the way (what lies below it is mapped).
    pub fn map_range(&mut self, root: TableId, range: VaRange, first_pfn: Pfn, prot: Prot) -> Result<RangeSummary> {
        self.check_pages(range)?;
        let mut summary = RangeSummary::default();
        let mut va = range.start;
        let template = Pte::new(Pfn(0), prot);
        while va < range.end {
            let table = self.alloc_pte_table(root, va)?;
            let part = self.range(table).intersect(range);
            let first = Pfn(first_pfn.0 + ((va.0 - range.start.0) >> PAGE_SHIFT));
            self.update_part(table, part, &mut summary, |i, _| template.with_pfn(Pfn(first.0 + i)));
            va = part.end;
        }
        Ok(summary)
    }

    /// Gives the present entries of `range` the rights of `prot` ([`Pte::modify`]).
    pub fn protect_range(&mut self, root: TableId, range: VaRange, prot: Prot) -> RangeSummary {
        self.change_range(root, range, |pte| if pte.is_present() { pte.modify(prot) } else { pte })
    }

    /// Empties each entry of `range`, of whatever form; tables stay.
    pub fn clear_range(&mut self, root: TableId, range: VaRange) -> RangeSummary {
        self.change_range(root, range, |_| Pte::NONE)
    }

    /// Takes the dirty bit of the present entries of `range` ([`Pte::mk_clean`]); the write bit stays.
    pub fn mkclean_range(&mut self, root: TableId, range: VaRange) -> RangeSummary {
        self.change_range(root, range, |pte| if pte.is_present() { pte.mk_clean() } else { pte })
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
            if self.table(from)[source.clone()].iter().any(|entry| !entry.is_none()) {
                let to = self.alloc_pte_table(root, to_va)?;
                let first = table_index(to_va, PTE_LEVEL);
                for offset in 0..nr_entries {
                    let entry = self.get(from, from_index + offset);
                    self.set(to, first + offset, entry);
                }
                self.update(from, source, |_, _| Pte::NONE);
            }
            done += (nr_entries as u64) << PAGE_SHIFT;
        }
        Ok(())
    }

    /// Changes each entry of `range` that is not none.
    fn change_range(&mut self, root: TableId, range: VaRange, change: impl Fn(Pte) -> Pte) -> RangeSummary {
        let mut summary = RangeSummary::default();
        let mut cursor = TableCursor::new(root, range);
        while let Some(visit) = cursor.next(self) {
            let (table, index, level, part) = match visit {
                TableVisit::PteTable { id, range } => {
                    let change_used = |_, pte: Pte| if pte.is_none() { pte } else { change(pte) };
                    self.update_part(id, range, &mut summary, change_used);
                    continue;
                }
                TableVisit::HugePmd { range, table, index } => (table, index, PMD_LEVEL, range),
                TableVisit::HugePud { range, table, index } => (table, index, PUD_LEVEL, range),
            };
            let old = self.get(table, index);
            if part.len_bytes() == 1 << entry_shift(level) {
                let new = change(old);
                summary.note(part.start.0, entry_shift(level), old, new);
                self.set(table, index, new);
            } else {
                self.split_entry(table, level, index, old);
                cursor.addr = part.start;
            }
        }
        summary
    }

    /// Rewrites the entries of `part`, which lies in the PTE table `id`: `change(page of the part, entry)`.
    #[inline]
    fn update_part(
        &mut self,
        id: TableId,
        part: VaRange,
        summary: &mut RangeSummary,
        change: impl Fn(u64, Pte) -> Pte,
    ) {
        let start = part.start.align_down(PAGE_SHIFT);
        let first = table_index(start, PTE_LEVEL);
        let nr_entries = ((part.end.align_up(PAGE_SHIFT).0 - start.0) >> PAGE_SHIFT) as usize;
        self.update(id, first..first + nr_entries, |index, old| {
            let page = (index - first) as u64;
            let new = change(page, old);
            summary.note(start.0 + (page << PAGE_SHIFT), PAGE_SHIFT, old, new);
            new
        });
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
            if let Some(page) = entries.iter().position(|entry| !entry.is_none()) {
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
