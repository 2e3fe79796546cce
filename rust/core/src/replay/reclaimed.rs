//! Which pages reclaim took, from its visits to areas.
//!
//! A record of the lab stands for one or more calls of `try_to_unmap_one`, each a visit to an area where a page could be.
//! Of a record only the first call's address space and address are known; the recordings given merge calls whatever they
//! are about, as long as nothing else was recorded between, those by this repository's lab only of pages in a row in one
//! address space. All areas of a page are visited before those of the next one, and a list has pages of one kind, so the
//! machine's own reverse map tells which page each call is about: of the pages that could be at the address, the one is
//! meant whose walk begins there and ends where the record does.

use std::collections::VecDeque;

use super::driver::Driver;
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{PageKind, Pages, RmapVisit};
use crate::trace::lab::OWN_RUNNER;

/// A record of calls in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReclaimRun {
    /// The first call's address space.
    pub(super) mm: MmId,
    /// The first call's page.
    pub(super) addr: VirtAddr,
    /// How many calls.
    pub(super) nr_calls: u64,
}

impl ReclaimRun {
    /// Whether a page could be one of the record's.
    pub(super) const fn covers(&self, page: u64) -> bool {
        page.wrapping_sub(self.addr.0) / PAGE_SIZE < self.nr_calls
    }

    const fn is_at(&self, visit: &RmapVisit) -> bool {
        self.mm.0 == visit.mm.0 && self.addr.0 == visit.addr.0
    }
}

/// A page that may be meant, with the walk of its reverse map (never empty).
struct Candidate {
    pfn: Pfn,
    walk: Vec<RmapVisit>,
}

/// What is known where a page's visits begin.
struct Place<'r> {
    mm: MmId,
    addr: VirtAddr,
    /// Calls of the record that are not told yet.
    nr_left: u64,
    /// The record that follows in the list.
    next: Option<&'r ReclaimRun>,
    /// The address is a record's own, not thought to be the one that follows.
    is_recorded: bool,
}

/// What was found of a list.
#[derive(Default)]
struct Found {
    pages: Vec<Pfn>,
    /// One place of each page where it is mapped.
    places: Vec<(u32, u64)>,
    kind: Option<PageKind>,
    /// Visits of the latest page that did not come yet.
    rest: VecDeque<RmapVisit>,
}

impl Driver<'_> {
    /// The pages that a list's records are about: one place of each where it is mapped.
    pub(super) fn reclaimed_pages(&mut self, runs: &[ReclaimRun]) -> Result<Vec<(u32, u64)>> {
        let mut found = Found::default();
        for (number, run) in runs.iter().enumerate() {
            self.pages_of_run(run, runs.get(number + 1), &mut found)?;
        }
        Ok(found.places)
    }

    fn pages_of_run(&mut self, run: &ReclaimRun, next: Option<&ReclaimRun>, found: &mut Found) -> Result<()> {
        let mut place = Place { mm: run.mm, addr: run.addr, nr_left: run.nr_calls, next, is_recorded: true };
        if found.rest.front().is_some_and(|visit| run.is_at(visit)) {
            self.consume(&mut place, found);
            place.addr = VirtAddr(run.addr.0 + PAGE_SIZE);
            place.is_recorded = false;
        }
        found.rest.clear();
        let end = self.machine.vma_at(run.mm, run.addr).map_or(run.addr, |vma| vma.end);
        while place.nr_left > 0 && place.addr < end {
            if place.is_recorded || next.is_none_or(|next| (next.mm, next.addr) != (place.mm, place.addr)) {
                let mut candidate = self.candidate(&place, found)?;
                if candidate.is_none() && place.is_recorded && self.adopt_reclaimed(place.mm, place.addr)? {
                    candidate = self.candidate(&place, found)?;
                }
                if let Some(Candidate { pfn, walk }) = candidate {
                    found.kind = found.kind.or_else(|| self.machine.page(pfn).map(|page| page.kind));
                    found.pages.push(pfn);
                    found.places.extend(walk.iter().find(|visit| visit.is_mapped).map(|v| (v.mm.0, v.addr.0)));
                    found.rest = walk.into();
                    self.consume(&mut place, found);
                } else if place.is_recorded {
                    place.nr_left -= 1;
                }
            }
            place.addr.0 += PAGE_SIZE;
            place.is_recorded = false;
        }
        Ok(())
    }

    /// Takes the visits that the record stands for off the latest page's.
    fn consume(&self, place: &mut Place<'_>, found: &mut Found) {
        // A lab that merges pages in a row has one visit of each in a record.
        let limit = if self.merges_rows() { 1 } else { place.nr_left };
        let nr = (found.rest.len() as u64).min(limit);
        found.rest.drain(..nr as usize);
        place.nr_left -= nr;
    }

    fn merges_rows(&self) -> bool {
        self.recording.meta.counts.contains_key(OWN_RUNNER)
    }

    /// The page that is meant at a place, by the least that speaks against it.
    fn candidate(&mut self, place: &Place<'_>, found: &Found) -> Result<Option<Candidate>> {
        self.split_if_seen_in_parts(place)?;
        let mut best: Option<(u32, Candidate)> = None;
        for pfn in self.machine.pages_like(place.mm, place.addr) {
            let kind = self.machine.page(pfn).map(|page| page.kind);
            if found.pages.contains(&pfn) || found.kind.is_some_and(|of_list| kind != Some(of_list)) {
                continue;
            }
            let Some(walk) = self.walk_from(place, pfn, kind == Some(PageKind::Anon)) else { continue };
            let against = self.against(place, &walk);
            if best.as_ref().is_none_or(|(least, _)| against < *least) {
                best = Some((against, Candidate { pfn, walk }));
            }
        }
        Ok(best.map(|(_, candidate)| candidate))
    }

    /// The walk of a page that begins at a place, if one can; where an anonymous page was made is taken from there.
    fn walk_from(&mut self, place: &Place<'_>, pfn: Pfn, is_anon: bool) -> Option<Vec<RmapVisit>> {
        let begins = |walk: &[RmapVisit]| walk.first().is_some_and(|v| (v.mm, v.addr) == (place.mm, place.addr));
        let walk = self.machine.rmap_walk(pfn);
        if begins(&walk) {
            return Some(walk);
        }
        if !is_anon || !place.is_recorded || walk.is_empty() {
            return None;
        }
        let before = self.machine.page(pfn)?.anon_mm?;
        let mut origins = vec![place.mm];
        origins.extend(self.machine.mm(place.mm)?.ancestors.iter().rev());
        for origin in origins {
            self.machine.correct_anon_mm(pfn, origin);
            let walk = self.machine.rmap_walk(pfn);
            if begins(&walk) {
                return Some(walk);
            }
        }
        self.machine.correct_anon_mm(pfn, before);
        None
    }

    /// How much speaks against a page.
    fn against(&self, place: &Place<'_>, walk: &[RmapVisit]) -> u32 {
        let nr_visits = walk.len() as u64;
        let follows = |page: u64| place.next.is_some_and(|n| n.mm == place.mm && n.addr.0 == place.addr.0 + page);
        if self.merges_rows() && nr_visits > 1 {
            // The page's other areas come next.
            return if place.nr_left == 1 && place.next.is_some_and(|n| n.is_at(&walk[1])) { 0 } else { 4 };
        }
        match nr_visits.cmp(&place.nr_left) {
            std::cmp::Ordering::Equal => 0,
            // More pages belong to the record; but one that begins the next record is none of them.
            std::cmp::Ordering::Less => 1 + 4 * u32::from(follows(PAGE_SIZE)),
            std::cmp::Ordering::Greater => {
                let goes_on = place.next.is_some_and(|next| next.is_at(&walk[place.nr_left as usize]));
                if goes_on { 0 } else { 4 }
            }
        }
    }

    /// A visit to a part of a huge page, or to its first part and then the next, says that it was split before.
    fn split_if_seen_in_parts(&mut self, place: &Place<'_>) -> Result<()> {
        for pfn in self.machine.pages_like(place.mm, place.addr) {
            if !Pages::is_huge(pfn) {
                continue;
            }
            let walk = self.machine.rmap_walk(pfn);
            let is_whole = walk.iter().any(|visit| (visit.mm, visit.addr) == (place.mm, place.addr));
            let next_part = place.next.is_some_and(|n| n.addr.0 == place.addr.0 + PAGE_SIZE);
            let goes_on = next_part || place.nr_left > walk.len() as u64;
            if (!is_whole || goes_on) && self.machine.split_folio_unseen(pfn)? {
                self.note("huge page that was split unseen");
            }
        }
        Ok(())
    }
}
