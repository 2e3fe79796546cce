//! Reclaim, migration and KSM: lists of pages by where they are mapped.

use crate::addr::{Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::page_table::Pte;
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, Frame};
use super::super::operation::{Errno, Operation, Outcome};
use super::super::pages::{Page, PageKind, Pages};
use super::stage::{Stage, Todo};

impl Machine {
    /// The page mapped at a place now; not a zero page.
    fn mapped_page(&self, mm: u32, addr: u64) -> Option<Pfn> {
        let addr = VirtAddr(addr);
        let (pte, _) = self.leaf(MmId(mm), addr).filter(|_| addr < self.user_end())?;
        Self::page_of(pte).filter(|pfn| self.pages.get(*pfn).is_some())
    }

    /// Puts a page on the operation's list, once; not one that another call has taken.
    pub(in super::super) fn list_page(&mut self, frame: &mut Frame, pfn: Pfn) {
        if !frame.page_list.contains(&pfn) && self.isolates(frame.by.op, pfn) {
            self.pages.get_ref(pfn);
            frame.page_list.push(pfn);
        }
    }

    /// Whether there is a place for what the page holds: anonymous memory needs swap (mm/vmscan.c:
    /// `can_reclaim_anon_pages()`), unless its content may be lost.
    pub(in crate::machine) fn can_reclaim(&self, pfn: Pfn) -> bool {
        let page = self.pages.get(pfn);
        self.has_swap || page.is_none_or(|page| page.kind != PageKind::Anon || page.lazyfree)
    }

    /// The next list of pages to reclaim, looked up now.
    pub(super) fn reclaim(&mut self, by: Initiator, mm: MmId, operation: &Operation, mut next: usize) -> Result<Stage> {
        let Operation::Reclaim { pages, proactive, goes_on, .. } = operation else {
            return Ok(Stage::Done(Outcome::None));
        };
        let args = Args { proactive: *proactive, goes_on: *goes_on, ..Args::default() };
        let list_len = self.kernel.constants.swap_cluster_max as usize;
        if next == 0 && !pages.is_empty() {
            self.lru_add_drain(by.cpu); // mm/vmscan.c:shrink_inactive_list
        }
        while next < pages.len() {
            let places = &pages[next..pages.len().min(next + list_len)];
            next += places.len();
            let mut frame = self.frame(ProgramName::ShrinkFolioList, by, mm, args)?;
            for (id, addr) in places {
                if let Some(pfn) = self.mapped_page(*id, *addr).filter(|pfn| self.can_reclaim(*pfn)) {
                    // What reclaim has found was on the LRU.
                    if let Some(cpu) = self.pages.get(pfn).and_then(|page| page.lru_cpu) {
                        self.lru_add_drain(cpu);
                    }
                    self.list_page(&mut frame, pfn);
                }
            }
            if !frame.page_list.is_empty() {
                return Ok(Stage::Run(frame, Todo::Reclaim { next }));
            }
        }
        if !goes_on && self.task(by.task)?.tlb_ubc.flush_required {
            // The end of a list whose pages came before.
            let frame = self.frame(ProgramName::ShrinkFolioList, by, mm, args)?;
            return Ok(Stage::Run(frame, Todo::Reclaim { next }));
        }
        Ok(Stage::Done(Outcome::None))
    }

    /// The anonymous pages of a range that are mapped here only, by address.
    pub(super) fn ksm_merge(&mut self, by: Initiator, mm: MmId, addr: u64, len: u64) -> Result<Stage> {
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) => range,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        self.lru_add_drain_all(); // mm/ksm.c:scan_get_next_rmap_item
        let mut frame = self.frame(ProgramName::KsmMerge, by, mm, Args { range, ..Args::default() })?;
        let small = |(at, _, pte): (VirtAddr, u32, Pte)| {
            let in_range = range.start <= at && at < range.end;
            Self::page_of(pte).filter(|pfn| in_range && !Pages::is_huge(*pfn))
        };
        for pfn in self.leaves(mm).into_iter().filter_map(small) {
            let is_own = |page: &Page| page.kind == PageKind::Anon && page.rmap.len() == 1;
            if self.pages.get(pfn).is_some_and(is_own) && !frame.page_list.contains(&pfn) {
                self.pages.get_ref(pfn);
                frame.page_list.push(pfn);
            }
        }
        if frame.page_list.is_empty() {
            return Ok(Stage::Done(Outcome::None));
        }
        Ok(Stage::run(frame, Outcome::None))
    }

    pub(super) fn migrate(&mut self, by: Initiator, mm: MmId, pages: &[(u32, u64)]) -> Result<Stage> {
        let mut frame = self.frame(ProgramName::MigratePages, by, mm, Args::default())?;
        for (id, addr) in pages {
            if let Some(pfn) = self.mapped_page(*id, *addr) {
                self.list_page(&mut frame, pfn);
            }
        }
        if frame.page_list.is_empty() {
            return Ok(Stage::Done(Outcome::None));
        }
        Ok(Stage::run(frame, Outcome::None))
    }
}
