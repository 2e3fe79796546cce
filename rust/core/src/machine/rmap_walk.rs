//! How the kernel finds who maps a page (mm/rmap.c:`rmap_walk`): it visits the areas where the page could be, not the
//! entries that map it.
//!
//! The areas stand in an interval tree by the page index of their first page: those of the file for its pages, for
//! anonymous memory those of the address space that the page was made in and of what was forked from it since. The walk
//! ends when nobody maps the page any more. Among areas with the same first index the tree has the order in which they
//! came in ([`Birth`](super::vma::Birth)).

use crate::addr::{PAGE_SIZE, Pfn, VaRange, VirtAddr};
use crate::flush::MmId;
use crate::page_table::TableCursor;

use super::pages::{HUGE_PAGES, PageKind, Pages};
use super::rmap::Mapping;
use super::vma::Vma;
use super::{Machine, Mm};

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

/// The walk ends where nobody maps the page any more (mm/rmap.c:`folio_not_mapped`).
fn until_unmapped(areas: Vec<(u64, RmapVisit)>) -> Vec<RmapVisit> {
    let nr_visited = areas.iter().rposition(|(_, visit)| visit.is_mapped).map_or(0, |last| last + 1);
    areas.into_iter().take(nr_visited).map(|(_, visit)| visit).collect()
}

/// Where an area stands among those that begin with the same page, in the tree of anonymous memory or of its file.
const fn place_in_tree(vma: &Vma, is_anon: bool) -> (u64, u64, u64) {
    if is_anon { (vma.born.of_anon, 0, 0) } else { vma.born.of_file }
}

impl Machine {
    /// The mappings of a page in the order in which a walk meets them.
    pub(super) fn mappings_by_index(&self, pfn: Pfn) -> Vec<Mapping> {
        let mut list = self.pages.get(pfn).map_or(Vec::new(), |page| page.rmap.as_slice().to_vec());
        if list.len() > 1 {
            let is_anon = self.pages.get(pfn).is_some_and(|page| page.kind == PageKind::Anon);
            list.sort_by_cached_key(|mapping| {
                let vma = self.vma_at(mapping.mm, mapping.addr);
                (
                    vma.map_or((u64::MAX, (0, 0, 0)), |vma| (vma.pgoff, place_in_tree(vma, is_anon))),
                    mapping.mm,
                    mapping.addr,
                )
            });
        }
        list
    }

    /// The areas that a walk of a page's reverse map visits until nobody maps it, in order.
    pub fn rmap_walk(&self, pfn: Pfn) -> Vec<RmapVisit> {
        until_unmapped(self.areas_of(pfn))
    }

    /// The same for a walk of which, by evidence, a place is seen first; none if that cannot be. Areas of `hidden` address
    /// spaces are not seen. Among areas of a file with the same first index, in several address spaces, only evidence
    /// tells the first.
    pub fn rmap_walk_from(&self, pfn: Pfn, place: (MmId, VirtAddr), hidden: &[MmId]) -> Option<Vec<RmapVisit>> {
        let mut areas = self.areas_of(pfn);
        let at = areas.iter().position(|(_, visit)| (visit.mm, visit.addr) == place)?;
        let is_seen = |(_, visit): &(u64, RmapVisit)| !hidden.contains(&visit.mm);
        let is_anon = self.pages.get(pfn)?.kind == PageKind::Anon;
        let may_begin = |first: &usize| *first == at || !is_anon && *first < at && areas[*first].0 == areas[at].0;
        let first = areas.iter().position(is_seen).filter(may_begin)?;
        areas[first..=at].rotate_right(1);
        let mut walk = until_unmapped(areas);
        walk.retain(|visit| !hidden.contains(&visit.mm));
        walk.first().is_some_and(|visit| (visit.mm, visit.addr) == place).then_some(walk)
    }

    /// The areas where a page could be, in the order of a walk, each with its first index.
    fn areas_of(&self, pfn: Pfn) -> Vec<(u64, RmapVisit)> {
        let Some(page) = self.pages.get(pfn) else { return Vec::new() };
        let Some((index, of)) = self.index_of_page(pfn) else { return Vec::new() };
        let nr_pages = if Pages::is_huge(pfn) { HUGE_PAGES } else { 1 };
        let is_anon = page.kind == PageKind::Anon;
        let mut visits = Vec::new();
        for (id, mm) in self.live_mms() {
            let in_family = !is_anon || page.anon_mm.is_none_or(|first| id == first || mm.ancestors.contains(&first));
            let could_hold = |vma: &&Vma| {
                let kind_fits = !is_anon || vma.anon_vma.is_some() && !vma.is_shared();
                let end = vma.pgoff + (vma.end.0 - vma.start.0) / PAGE_SIZE;
                vma.file == of.file && kind_fits && index < end && vma.pgoff < index + nr_pages
            };
            for vma in mm.vmas.iter().filter(|_| in_family).filter(could_hold) {
                let addr = VirtAddr(vma.start.0 + index.saturating_sub(vma.pgoff) * PAGE_SIZE);
                let stands_here = |mapping: &Mapping| mapping.mm == id && vma.range().contains(mapping.addr);
                let is_mapped = page.rmap.as_slice().iter().any(stands_here);
                visits.push((vma.pgoff, place_in_tree(vma, is_anon), RmapVisit { mm: id, addr, is_mapped }));
            }
        }
        visits.sort_by_key(|(first, born, visit)| (*first, *born, visit.mm, visit.addr));
        visits.into_iter().map(|(first, _, visit)| (first, visit)).collect()
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
        let places = self.areas_like(&vma).filter_map(|(id, _, other)| {
            let at = VirtAddr(other.start.0 + index.checked_sub(other.pgoff)? * PAGE_SIZE);
            other.range().contains(at).then_some((id, at))
        });
        for (mm, addr) in [(mm, addr)].into_iter().chain(places) {
            pages.extend(self.page_at(mm, addr).filter(|pfn| !pages.contains(pfn)));
        }
        pages
    }

    /// The areas that hold the same file, or memory that was there when the process forked.
    fn areas_like(&self, vma: &Vma) -> impl Iterator<Item = (MmId, &Mm, &Vma)> {
        let file = vma.file;
        self.live_mms().flat_map(move |(id, mm)| {
            mm.vmas.iter().filter(move |other| other.file == file).map(move |other| (id, mm, other))
        })
    }

    /// The first address, from this one on in its area, for which [`Machine::pages_like`] could find a page: some area like it
    /// has a page table there.
    pub fn next_like(&self, mm: MmId, addr: VirtAddr) -> Option<VirtAddr> {
        let vma = self.vma_at(mm, addr).copied()?;
        let (first, end) = (vma.index_of(addr), vma.index_of(vma.end));
        let next = self.areas_like(&vma).filter_map(|(_, mm, other)| {
            let (from, to) = (first.max(other.pgoff), end.min(other.index_of(other.end)));
            if from >= to {
                return None;
            }
            let at = |index: u64| VirtAddr(other.start.0 + (index - other.pgoff) * PAGE_SIZE);
            let mut cursor = TableCursor::new(mm.root, VaRange::new(at(from), at(to)));
            cursor.next(&self.tables).map(|visit| other.index_of(visit.range().start))
        });
        next.min().map(|index| VirtAddr(vma.start.0 + (index - vma.pgoff) * PAGE_SIZE))
    }

    /// The page mapped at an address; not a zero page.
    pub fn page_at(&self, mm: MmId, addr: VirtAddr) -> Option<Pfn> {
        let pte = self.leaf(mm, addr).map(|(pte, _)| pte).filter(|pte| pte.is_present())?;
        Self::page_of(pte).filter(|pfn| self.pages.get(*pfn).is_some())
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
