//! How the kernel finds who maps a page (mm/rmap.c:`rmap_walk`): it visits the areas where the page could be, not the
//! entries that map it.
//!
//! The areas stand in an interval tree by the page index of their first page: those of the file for its pages, for
//! anonymous memory those of the address space that the page was made in and of what was forked from it since. The walk
//! ends when nobody maps the page any more. Among areas with the same first index the tree has the order in which they
//! came in; the order of address spaces stands for it here.

use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::flush::MmId;

use super::Machine;
use super::pages::{HUGE_PAGES, PageKind, Pages};
use super::rmap::Mapping;
use super::vma::Vma;

/// One area that a walk of the reverse map visits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RmapVisit {
    /// The address space.
    pub mm: MmId,
    /// Where the page is, or would be.
    pub addr: VirtAddr,
    /// Whether it is mapped in this area.
    pub is_mapped: bool,
}

impl Machine {
    /// The mappings of a page in the order in which a walk meets them.
    pub(super) fn mappings_by_index(&self, pfn: Pfn) -> Vec<Mapping> {
        let mut list = self.pages.get(pfn).map_or(Vec::new(), |page| page.rmap.as_slice().to_vec());
        if list.len() > 1 {
            list.sort_by_cached_key(|mapping| {
                let first = self.vma_at(mapping.mm, mapping.addr).map_or(u64::MAX, |vma| vma.pgoff);
                (first, mapping.mm, mapping.addr)
            });
        }
        list
    }

    /// The areas that a walk of a page's reverse map visits until nobody maps it, in order.
    pub fn rmap_walk(&self, pfn: Pfn) -> Vec<RmapVisit> {
        let Some(page) = self.pages.get(pfn) else { return Vec::new() };
        let Some((index, of)) = self.index_of_page(pfn) else { return Vec::new() };
        let nr_pages = if Pages::is_huge(pfn) { HUGE_PAGES } else { 1 };
        let is_anon = page.kind == PageKind::Anon;
        let mut visits = Vec::new();
        for (id, mm) in self.live_mms() {
            let in_family = !is_anon || page.anon_mm.is_none_or(|first| id == first || mm.ancestors.contains(&first));
            let could_hold = |vma: &&Vma| {
                let kind_fits = !is_anon || vma.anon_vma && !vma.is_shared();
                let end = vma.pgoff + (vma.end.0 - vma.start.0) / PAGE_SIZE;
                vma.file == of.file && kind_fits && index < end && vma.pgoff < index + nr_pages
            };
            for vma in mm.vmas.iter().filter(|_| in_family).filter(could_hold) {
                let addr = VirtAddr(vma.start.0 + index.saturating_sub(vma.pgoff) * PAGE_SIZE);
                let stands_here = |mapping: &Mapping| mapping.mm == id && vma.range().contains(mapping.addr);
                let is_mapped = page.rmap.as_slice().iter().any(stands_here);
                visits.push((vma.pgoff, RmapVisit { mm: id, addr, is_mapped }));
            }
        }
        visits.sort_by_key(|(first, visit)| (*first, visit.mm, visit.addr));
        let nr_visited = visits.iter().rposition(|(_, visit)| visit.is_mapped).map_or(0, |last| last + 1);
        visits.into_iter().take(nr_visited).map(|(_, visit)| visit).collect()
    }

    /// The index of a mapped page's (first) page in the areas that map it, and one of those.
    fn index_of_page(&self, pfn: Pfn) -> Option<(u64, Vma)> {
        let mapping = *self.pages.get(pfn)?.rmap.as_slice().first()?;
        let vma = *self.vma_at(mapping.mm, mapping.addr)?;
        let (pte, _) = self.leaf(mapping.mm, mapping.addr)?;
        Some((vma.index_of(mapping.addr).checked_sub(pte.pfn().0.checked_sub(pfn.0)?)?, vma))
    }

    /// The pages that could be meant when reclaim visits an address: those in areas that hold the same page of the same
    /// file, or of memory that was there when the process forked. Each once, that of the address itself first.
    pub fn pages_like(&self, mm: MmId, addr: VirtAddr) -> Vec<Pfn> {
        let mut pages = Vec::new();
        let Some(vma) = self.vma_at(mm, addr).copied() else { return pages };
        let index = vma.index_of(addr);
        let places = self.live_mms().flat_map(|(id, mm)| {
            let holds = move |other: &&Vma| other.file == vma.file && other.is_shared() == vma.is_shared();
            mm.vmas.iter().filter(holds).filter_map(move |other| {
                let at = VirtAddr(other.start.0 + index.checked_sub(other.pgoff)? * PAGE_SIZE);
                other.range().contains(at).then_some((id, at))
            })
        });
        for (mm, addr) in [(mm, addr)].into_iter().chain(places) {
            let pte = self.leaf(mm, addr).map(|(pte, _)| pte).filter(|pte| pte.is_present());
            let page = pte.and_then(Self::page_of).filter(|pfn| self.pages.get(*pfn).is_some());
            pages.extend(page.filter(|pfn| !pages.contains(pfn)));
        }
        pages
    }

    /// Evidence that a page is found from an address space: its walk begins there or further up.
    pub fn correct_anon_mm(&mut self, pfn: Pfn, mm: MmId) {
        if let Some(page) = self.pages.get_mut(pfn) {
            page.anon_mm = Some(mm);
        }
    }

    /// A frame as this machine has it, by evidence of the whole page.
    pub fn page(&self, pfn: Pfn) -> Option<&super::pages::Page> {
        self.pages.get(pfn)
    }
}
