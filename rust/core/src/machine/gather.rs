//! `struct mmu_gather`: what one operation removed and has not flushed yet (mm/mmu_gather.c, asm-generic/tlb.h).
//!
//! The gather only remembers; flushing and freeing are the machine's. Its capacity decides where a long zap flushes, so
//! it follows the kernel's batches exactly: a bundle inside the gather, then batches of one page each.

use crate::addr::{P4D_SHIFT, PAGE_SHIFT, PMD_SHIFT, PUD_SHIFT, Pfn, VaRange, VirtAddr};
use crate::page_table::TableId;

use super::rmap::Mapping;

/// How many pages a gather holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatherLimits {
    /// Places in the gather itself (`MMU_GATHER_BUNDLE`).
    pub bundle: u32,
    /// Places in an allocated batch (`MAX_GATHER_BATCH`).
    pub batch: u32,
    /// Batches that may be allocated (`MAX_GATHER_BATCH_COUNT`).
    pub batch_count: u32,
    /// Places of the gather and of each batch that stay free.
    pub spare: u32,
}

/// What a flush of the gather asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatherFlush {
    /// The range; none = the whole address space.
    pub range: Option<VaRange>,
    /// log2 of the smallest size of entry that was removed.
    pub stride_shift: u32,
    /// Page tables were removed.
    pub freed_tables: bool,
}

/// The gather of one running operation.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the kernel's structure")]
pub struct MmuGather {
    limits: GatherLimits,
    light: bool,
    fullmm: bool,
    freed_tables: bool,
    cleared_ptes: bool,
    cleared_pmds: bool,
    cleared_puds: bool,
    cleared_p4ds: bool,
    need_flush_all: bool,
    delayed_rmap: bool,
    start: u64,
    end: u64,
    pages: Vec<Pfn>,
    /// Places taken in the bundle or batch that is filled, and which batch that is; 0 is the bundle.
    nr_taken: u32,
    nr_batch: u32,
    /// Pages of a huge page that follow in a run whose places are taken, and whether they were the last ones.
    run_left: u32,
    is_run_last: bool,
    delayed: Vec<(Pfn, Mapping)>,
    tables: Vec<TableId>,
}

impl MmuGather {
    /// An empty gather (`tlb_gather_mmu`, `tlb_gather_mmu_fullmm`); a light one cannot hold pages.
    pub fn new(limits: GatherLimits, fullmm: bool, light: bool) -> Self {
        let mut gather = Self {
            limits,
            light,
            fullmm,
            freed_tables: false,
            cleared_ptes: false,
            cleared_pmds: false,
            cleared_puds: false,
            cleared_p4ds: false,
            need_flush_all: false,
            delayed_rmap: false,
            start: 0,
            end: 0,
            pages: Vec::new(),
            nr_taken: 0,
            nr_batch: 0,
            run_left: 0,
            is_run_last: false,
            delayed: Vec::new(),
            tables: Vec::new(),
        };
        gather.reset_range();
        gather
    }

    /// `__tlb_reset_range`: nothing is outstanding any more; `fullmm` stays.
    pub fn reset_range(&mut self) {
        (self.start, self.end) = if self.fullmm { (u64::MAX, u64::MAX) } else { (u64::MAX, 0) };
        self.need_flush_all = false;
        self.freed_tables = false;
        self.cleared_ptes = false;
        self.cleared_pmds = false;
        self.cleared_puds = false;
        self.cleared_p4ds = false;
    }

    fn adjust_range(&mut self, range: VaRange) {
        self.start = self.start.min(range.start.0);
        self.end = self.end.max(range.end.0);
    }

    /// PTEs of `range` were removed or changed (`tlb_flush_pte_range`).
    #[inline]
    pub fn flush_pte_range(&mut self, range: VaRange) {
        self.adjust_range(range);
        self.cleared_ptes = true;
    }

    /// The PTE at `addr` was removed or changed (`tlb_remove_tlb_entry`).
    #[inline]
    pub fn remove_tlb_entry(&mut self, addr: VirtAddr) {
        self.flush_pte_range(VaRange::new(addr, VirtAddr(addr.0 + (1 << PAGE_SHIFT))));
    }

    /// The huge PMD around `addr` was removed or changed (`tlb_remove_pmd_tlb_entry`).
    pub fn remove_pmd_tlb_entry(&mut self, addr: VirtAddr) {
        let start = addr.align_down(PMD_SHIFT);
        self.adjust_range(VaRange::new(start, VirtAddr(start.0 + (1 << PMD_SHIFT))));
        self.cleared_pmds = true;
    }

    /// All that an entry one level above a PMD table maps was taken out (`tlb_flush_pud_range`).
    pub fn remove_pud_entry(&mut self, addr: VirtAddr) {
        let start = addr.align_down(PUD_SHIFT);
        self.adjust_range(VaRange::new(start, VirtAddr(start.0 + (1 << PUD_SHIFT))));
        self.cleared_puds = true;
    }

    /// A table was taken out of the tree: `level` is its own (0 = PTE table), `addr` where the freeing walk stood
    /// (`pte_free_tlb` and its sisters, each recorded one level up).
    pub fn free_table(&mut self, level: u8, addr: VirtAddr, table: Option<TableId>) {
        self.adjust_range(VaRange::new(addr, VirtAddr(addr.0 + (1 << PAGE_SHIFT))));
        self.freed_tables = true;
        match level {
            0 => self.cleared_pmds = true,
            1 => self.cleared_puds = true,
            2 => self.cleared_p4ds = true,
            _ => {}
        }
        self.tables.extend(table);
    }

    /// What nested gathers make of this one: everything must go (`tlb_finish_mmu` with `mm_tlb_flush_nested`).
    pub fn force_full(&mut self) {
        self.fullmm = true;
        self.reset_range();
        self.freed_tables = true;
    }

    /// The whole address space must go with the next flush.
    pub fn need_flush_all(&mut self) {
        self.need_flush_all = true;
        self.cleared_ptes = true;
    }

    /// Takes over a page's reference; tells whether that was the last place.
    pub fn queue_page(&mut self, pfn: Pfn) -> bool {
        self.queue_run(pfn, 1)
    }

    /// The same for the first of `nr_pages` pages of one huge page in a row, which take two places together
    /// (`__tlb_remove_folio_pages_size`), and for those that follow it: of them the last one tells.
    pub fn queue_run(&mut self, pfn: Pfn, nr_pages: u32) -> bool {
        self.pages.push(pfn);
        if self.run_left > 0 {
            self.run_left -= 1;
        } else {
            self.run_left = nr_pages.saturating_sub(1);
            self.is_run_last = self.takes_last(if nr_pages > 1 { 2 } else { 1 });
        }
        self.run_left == 0 && self.is_run_last
    }

    /// Whether pages that follow the one queued last belong to its run.
    pub const fn is_in_run(&self) -> bool {
        self.run_left > 0
    }

    /// Takes places; `tlb_next_batch`: a batch that is full is followed by another unless there are too many, or, while rmaps
    /// are delayed, unless it is the bundle (only the bundle and one batch are searched for delayed rmaps).
    fn takes_last(&mut self, nr_places: u32) -> bool {
        if self.light {
            return true;
        }
        let GatherLimits { bundle, batch, batch_count, spare } = self.limits;
        let size = if self.nr_batch == 0 { bundle } else { batch };
        self.nr_taken += nr_places;
        if self.nr_taken < size.saturating_sub(spare) {
            return false;
        }
        let has_next = self.nr_batch < batch_count && batch > spare && !(self.delayed_rmap && self.nr_batch > 0);
        if has_next {
            (self.nr_batch, self.nr_taken) = (self.nr_batch + 1, 0);
        }
        !has_next
    }

    /// Pages queued.
    pub fn nr_pages(&self) -> usize {
        self.pages.len()
    }

    /// The next queued page has its rmap removed after the flush (`tlb_delay_rmap`).
    pub fn delay_rmap(&mut self) {
        self.delayed_rmap = true;
    }

    /// Notes a mapping whose rmap goes with [`Self::take_delayed`].
    pub fn note_delayed(&mut self, pfn: Pfn, mapping: Mapping) {
        self.delayed_rmap = true;
        self.delayed.push((pfn, mapping));
    }

    /// The delayed rmaps, in order; none are delayed any more (`tlb_flush_rmaps`).
    pub fn take_delayed(&mut self) -> Vec<(Pfn, Mapping)> {
        self.delayed_rmap = false;
        std::mem::take(&mut self.delayed)
    }

    /// The queued tables, in order (`tlb_table_flush`).
    pub fn take_tables(&mut self) -> Vec<TableId> {
        std::mem::take(&mut self.tables)
    }

    /// The queued pages, in order (`tlb_batch_pages_flush`).
    pub fn take_pages(&mut self) -> Vec<Pfn> {
        (self.nr_taken, self.nr_batch) = (0, 0);
        std::mem::take(&mut self.pages)
    }

    /// What is to be flushed, if anything is outstanding; resets the range (`tlb_flush_mmu_tlbonly`).
    pub fn take_flush(&mut self) -> Option<GatherFlush> {
        let cleared = self.cleared_ptes || self.cleared_pmds || self.cleared_puds || self.cleared_p4ds;
        if !self.freed_tables && !cleared {
            return None;
        }
        let flush = GatherFlush {
            range: (!self.fullmm && !self.need_flush_all)
                .then(|| VaRange::new(VirtAddr(self.start), VirtAddr(self.end))),
            stride_shift: self.stride_shift(),
            freed_tables: self.freed_tables,
        };
        self.reset_range();
        Some(flush)
    }

    /// `tlb_get_unmap_shift`.
    const fn stride_shift(&self) -> u32 {
        if self.cleared_ptes {
            PAGE_SHIFT
        } else if self.cleared_pmds {
            PMD_SHIFT
        } else if self.cleared_puds {
            PUD_SHIFT
        } else if self.cleared_p4ds {
            P4D_SHIFT
        } else {
            PAGE_SHIFT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flush::MmId;

    const LINUX: GatherLimits = GatherLimits { bundle: 8, batch: 510, batch_count: 19, spare: 0 };

    fn range(start: u64, end: u64) -> VaRange {
        VaRange::new(VirtAddr(start), VirtAddr(end))
    }

    /// How many pages fit until the gather says that it is full.
    fn capacity(gather: &mut MmuGather) -> u64 {
        (1..20_000).find(|n| gather.queue_page(Pfn(*n))).unwrap()
    }

    #[test]
    fn holds_9698_pages() {
        let mut gather = MmuGather::new(LINUX, false, false);
        assert_eq!(capacity(&mut gather), 9698);
        assert_eq!(gather.take_pages().len(), 9698);
        assert_eq!(capacity(&mut gather), 9698, "an emptied gather starts with its bundle");
    }

    #[test]
    fn a_place_that_stays_free_costs_one_page_in_each_batch() {
        let mut gather = MmuGather::new(GatherLimits { spare: 1, ..LINUX }, false, false);
        assert_eq!(capacity(&mut gather), 7 + 19 * 509);
    }

    #[test]
    fn a_run_of_a_huge_page_takes_two_places_and_is_not_cut() {
        let mut gather = MmuGather::new(GatherLimits { bundle: 4, batch: 0, batch_count: 0, spare: 1 }, false, false);
        let run = |gather: &mut MmuGather| (0..512).map(|n| gather.queue_run(Pfn(n), 512)).collect::<Vec<_>>();
        assert!(run(&mut gather).iter().all(|is_last| !is_last));
        assert!(!gather.is_in_run());
        let second = run(&mut gather);
        assert_eq!(second.iter().position(|is_last| *is_last), Some(511));
        assert_eq!(gather.take_pages().len(), 1024);
    }

    #[test]
    fn delayed_rmaps_stop_it_at_the_end_of_a_batch() {
        let mut gather = MmuGather::new(LINUX, false, false);
        gather.delay_rmap();
        assert_eq!(capacity(&mut gather), 518);
        gather.take_pages();
        assert!(gather.take_delayed().is_empty());
        assert_eq!(capacity(&mut gather), 9698, "removing the rmaps lifts the bound");
    }

    #[test]
    fn a_light_gather_holds_no_page() {
        assert_eq!(capacity(&mut MmuGather::new(LINUX, false, true)), 1);
    }

    #[test]
    fn the_range_is_the_hull_and_the_stride_the_smallest() {
        let mut gather = MmuGather::new(LINUX, false, false);
        assert_eq!(gather.take_flush(), None);
        gather.remove_pmd_tlb_entry(VirtAddr(0x40_1000));
        let pmd = GatherFlush { range: Some(range(0x40_0000, 0x60_0000)), stride_shift: 21, freed_tables: false };
        assert_eq!(gather.clone().take_flush(), Some(pmd));
        gather.remove_tlb_entry(VirtAddr(0x80_0000));
        let both = GatherFlush { range: Some(range(0x40_0000, 0x80_1000)), stride_shift: 12, freed_tables: false };
        assert_eq!(gather.take_flush(), Some(both));
        assert_eq!(gather.take_flush(), None);
    }

    #[test]
    fn a_freed_table_is_an_entry_of_the_level_above() {
        for (level, shift) in [(0, 21), (1, 30), (2, 39), (3, 12)] {
            let mut gather = MmuGather::new(LINUX, false, false);
            gather.free_table(level, VirtAddr(0x20_0000), None);
            let flush =
                GatherFlush { range: Some(range(0x20_0000, 0x20_1000)), stride_shift: shift, freed_tables: true };
            assert_eq!(gather.take_flush(), Some(flush));
        }
    }

    #[test]
    fn nested_and_fullmm_gathers_ask_for_everything() {
        let everything = GatherFlush { range: None, stride_shift: 12, freed_tables: true };
        let mut gather = MmuGather::new(LINUX, false, false);
        gather.force_full();
        assert_eq!(gather.take_flush(), Some(everything));
        let mut full = MmuGather::new(LINUX, true, false);
        assert_eq!(full.take_flush(), None);
        full.remove_tlb_entry(VirtAddr(0x1000));
        let only_entries = GatherFlush { freed_tables: false, ..everything };
        assert_eq!(full.take_flush(), Some(only_entries));
        assert_eq!(full.take_flush(), None);
    }

    #[test]
    fn delayed_rmaps_keep_their_order() {
        let mut gather = MmuGather::new(LINUX, false, false);
        let mapping = |addr| Mapping { mm: MmId(1), addr: VirtAddr(addr) };
        gather.note_delayed(Pfn(20), mapping(0x2000));
        gather.note_delayed(Pfn(19), mapping(0x1000));
        let delayed: Vec<u64> = gather.take_delayed().iter().map(|(pfn, _)| pfn.0).collect();
        assert_eq!(delayed, [20, 19]);
    }
}
