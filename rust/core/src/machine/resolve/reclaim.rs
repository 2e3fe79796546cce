//! Reclaim and migration: lists of pages by where they are mapped.

use crate::addr::{Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, Frame};
use super::super::operation::{Operation, Outcome};
use super::super::pages::PageKind;
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
        while next < pages.len() {
            let places = &pages[next..pages.len().min(next + list_len)];
            next += places.len();
            let mut frame = self.frame(ProgramName::ShrinkFolioList, by, mm, args)?;
            for (id, addr) in places {
                if let Some(pfn) = self.mapped_page(*id, *addr).filter(|pfn| self.can_reclaim(*pfn)) {
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
