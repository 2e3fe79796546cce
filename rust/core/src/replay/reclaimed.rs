//! Which pages reclaim took, from its visits to areas.
//!
//! A record of the lab stands for one or more calls of `try_to_unmap_one`, each a visit to an area where a page could be.
//! Of a record only the first call's address space and address are known; the recordings given merge calls whatever they
//! are about, as long as nothing else was recorded between, those by this repository's lab only of pages in a row in one
//! address space. All areas of a page are visited before those of the next one, so the machine's own reverse map tells
//! which page each call is about: of the pages that could be at the address, the one whose walk explains most visits.

use super::driver::Driver;
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{PageKind, Pages, RmapVisit};
use crate::trace::Recording;
use crate::trace::lab::OWN_RUNNER;

/// Where a call's page could be; none if the record does not say.
type Seen = Option<(MmId, VirtAddr)>;

/// One call of `try_to_unmap_one`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReclaimVisit {
    /// Row of its record.
    pub(super) row: usize,
    /// When what it led to was done, in ns.
    pub(super) done_ns: u64,
    seen: Seen,
    /// The pages that its record may be about: the first, and how many.
    pages: (VirtAddr, u64),
}

impl ReclaimVisit {
    /// The calls that a record stands for, the first one at a place.
    pub(super) fn of_record(
        recording: &Recording,
        row: usize,
        (mm, addr): (MmId, VirtAddr),
        nr_calls: u64,
        done_ns: u64,
    ) -> Vec<Self> {
        let in_a_row = recording.meta.counts.contains_key(OWN_RUNNER);
        let visit = |nr: u64| {
            let seen =
                (nr == 0 || in_a_row).then_some((mm, VirtAddr(addr.0.saturating_add(nr.saturating_mul(PAGE_SIZE)))));
            Self { row, done_ns, seen, pages: (addr, nr_calls) }
        };
        (0..nr_calls).map(visit).collect()
    }

    /// Whether a page could be one of its record's.
    pub(super) const fn covers(&self, page: u64) -> bool {
        page.wrapping_sub(self.pages.0.0) / PAGE_SIZE < self.pages.1
    }
}

/// The LRU list that a page stands on: one list of reclaim comes from one (mm/vmscan.c:`shrink_list`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LruList {
    Anon,
    File,
}

/// A page that may be meant, and how well it fits; the greatest fits best.
struct Candidate {
    pfn: Pfn,
    /// Visits seen that its walk explains.
    nr_explained: usize,
    /// One of those found it mapped.
    is_mapped_seen: bool,
    fit: (bool, bool, usize, bool),
}

/// What was found of a list.
#[derive(Default)]
pub(super) struct Found {
    pages: Vec<Pfn>,
    /// One place of each page where it is mapped.
    pub(super) places: Vec<(u32, u64)>,
    /// The latest page's walk.
    walk: Vec<RmapVisit>,
    /// Where the page of a visit is most likely that no record places.
    guess: Option<(MmId, VirtAddr)>,
    list: Option<LruList>,
}

impl Found {
    /// Whether a visit of the latest page's walk found it mapped.
    pub(super) fn is_mapped_at(&self, visit: &ReclaimVisit) -> bool {
        let is_here =
            |place: (MmId, VirtAddr)| self.walk.iter().any(|visit| (visit.mm, visit.addr) == place && visit.is_mapped);
        visit.seen.is_none_or(is_here)
    }
}

impl Driver<'_> {
    /// Finds the page that the first of these visits is about; tells how many are.
    pub(super) fn reclaimed_page(&mut self, visits: &[ReclaimVisit], found: &mut Found) -> Result<usize> {
        let seen: Vec<Seen> = visits.iter().map(|visit| visit.seen).collect();
        let nr_explained = match seen.first().copied().flatten() {
            Some(place) => {
                let nr_explained = self.page_visited(place, &seen, found)?;
                found.guess = Some((place.0, VirtAddr(place.1.0 + PAGE_SIZE)));
                nr_explained
            }
            None => self.page_guessed(&seen, found)?,
        };
        Ok(nr_explained.max(1))
    }

    /// Finds the page that the first visit is about, and how many visits are.
    fn page_visited(&mut self, place: (MmId, VirtAddr), seen: &[Seen], found: &mut Found) -> Result<usize> {
        let goes_on =
            seen.get(1).is_some_and(|next| next.is_none_or(|next| next == (place.0, VirtAddr(place.1.0 + PAGE_SIZE))));
        self.split_if_seen_in_parts(place, goes_on)?;
        let is_swapped_out = self.machine.leaf(place.0, place.1).is_some_and(|(pte, _)| pte.swap_slot().is_some());
        // A page that only address spaces without records map is less likely than one that was read back unseen.
        let likely = self.candidate(place, seen, found).filter(|candidate| candidate.is_mapped_seen || !is_swapped_out);
        if let Some(candidate) = likely {
            return Ok(self.take(&candidate, found));
        }
        let same_address = |seen: &Seen| seen.filter(|(_, addr)| *addr == place.1).map(|(mm, _)| mm);
        let next: Vec<MmId> = seen[1..].iter().map_while(same_address).collect();
        if self.machine.page_at(place.0, place.1).is_some() || !self.adopt_reclaimed(place.0, place.1, &next)? {
            return Ok(1);
        }
        Ok(self.candidate(place, seen, found).map_or(1, |candidate| self.take(&candidate, found)))
    }

    /// A visit of which no place is known: most likely to the next page by address, which stands next on the LRU list.
    fn page_guessed(&mut self, seen: &[Seen], found: &mut Found) -> Result<usize> {
        let told = seen.iter().find_map(|place| *place);
        while let Some((mm, from)) = found.guess {
            // Areas can be as large as an address space, and are mostly empty then.
            let Some(addr) = self.machine.next_like(mm, from) else {
                found.guess = None;
                break;
            };
            found.guess = Some((mm, VirtAddr(addr.0 + PAGE_SIZE)));
            if told == Some((mm, addr)) {
                continue;
            }
            self.split_if_seen_in_parts((mm, addr), true)?;
            if let Some(candidate) = self.candidate((mm, addr), seen, found) {
                return Ok(self.take(&candidate, found));
            }
        }
        Ok(1)
    }

    fn take(&self, candidate: &Candidate, found: &mut Found) -> usize {
        found.pages.push(candidate.pfn);
        found.walk = self.machine.rmap_walk(candidate.pfn);
        let mapping = self.machine.page(candidate.pfn).and_then(|page| page.rmap.as_slice().first());
        found.places.extend(mapping.map(|mapping| (mapping.mm.0, mapping.addr.0)));
        found.list = found.list.or_else(|| self.lru_list(candidate.pfn));
        candidate.nr_explained
    }

    fn lru_list(&self, pfn: Pfn) -> Option<LruList> {
        self.machine.page(pfn).map(|page| match page.kind {
            PageKind::Anon if page.lazyfree => LruList::File,
            PageKind::Anon | PageKind::Shmem => LruList::Anon,
            PageKind::File => LruList::File,
        })
    }

    /// The page that is meant at a place: one of the list's kind, whose whole walk was seen, the longest; of equals the one
    /// that is mapped there.
    fn candidate(&mut self, place: (MmId, VirtAddr), seen: &[Seen], found: &Found) -> Option<Candidate> {
        let mapped = self.machine.page_at(place.0, place.1);
        let mut best: Option<Candidate> = None;
        for pfn in self.machine.pages_like(place.0, place.1) {
            if found.pages.contains(&pfn) {
                continue;
            }
            let is_here = mapped == Some(pfn);
            let walk = self.walk_from(place, pfn).or_else(|| {
                let visit = RmapVisit { mm: place.0, addr: place.1, is_mapped: true };
                is_here.then(|| vec![visit])
            });
            let Some(walk) = walk else { continue };
            // Of a tie, the machine does not know which area comes first; a walk's visits are seen in any order.
            let rest = &walk[1..];
            let explains =
                |place: &&Seen| place.is_none_or(|(mm, addr)| rest.iter().any(|v| (v.mm, v.addr) == (mm, addr)));
            let nr_explained = 1 + seen[1..].iter().take(rest.len()).take_while(explains).count();
            let is_whole = nr_explained == walk.len();
            let fits_list = found.list.is_none() || found.list == self.lru_list(pfn);
            let fit = (is_whole, fits_list, nr_explained, is_here);
            if best.as_ref().is_none_or(|best| fit > best.fit) {
                let is_mapped_seen = walk[..nr_explained].iter().any(|visit| visit.is_mapped);
                best = Some(Candidate { pfn, nr_explained, is_mapped_seen, fit });
            }
        }
        best
    }

    /// The walk of a page that begins at a place, if one can; where an anonymous page was made is taken from there.
    fn walk_from(&mut self, place: (MmId, VirtAddr), pfn: Pfn) -> Option<Vec<RmapVisit>> {
        let hidden = self.unnamed_mms();
        let walk = self.machine.rmap_walk_from(pfn, place, &hidden);
        if walk.is_some() || self.machine.page(pfn)?.kind != PageKind::Anon {
            return walk;
        }
        let before = self.machine.page(pfn)?.anon_mm?;
        let mut origins = vec![place.0];
        origins.extend(self.machine.mm(place.0)?.ancestors.iter().rev());
        for origin in origins {
            self.machine.correct_anon_mm(pfn, origin);
            let walk = self.machine.rmap_walk_from(pfn, place, &hidden);
            if walk.is_some() {
                return walk;
            }
        }
        self.machine.correct_anon_mm(pfn, before);
        None
    }

    /// A visit to a part of a huge page, or to its first part and then the next, says that it was split before.
    fn split_if_seen_in_parts(&mut self, place: (MmId, VirtAddr), goes_on: bool) -> Result<()> {
        let hidden = self.unnamed_mms();
        for pfn in self.machine.pages_like(place.0, place.1) {
            if !Pages::is_huge(pfn) {
                continue;
            }
            let is_whole = self.machine.rmap_walk_from(pfn, place, &hidden).is_some();
            if (!is_whole || goes_on) && self.machine.split_folio_unseen(pfn)? {
                self.note("huge page that was split unseen");
            }
        }
        Ok(())
    }
}
