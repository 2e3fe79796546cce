//! Page frames, files with their page caches, and swap slots.
//!
//! Frames are handed out deterministically: the most recently freed first, else the next new number. Small frames count
//! from pfn 16, huge ones are `2^24 + 512 n`; pfn 0 is the zero page and pfn 512 the huge zero page, which have no
//! reference count, no reverse map and are never freed.
//!
//! Invariant: `refcount` of a frame is the number of its mappings, plus 1 in the page cache, plus 1 as swap cache, plus 1
//! for each queue that holds it (a gather, an operation's page list) and each fault that copies it; at 0 it is free. A
//! transient state within one step (a new page that is about to be mapped) holds the mapping's reference already.

mod frames;
mod lru_batch;
mod page;
mod page_cache;
mod swap;

use crate::addr::Pfn;
use crate::error::{Error, Result};

use self::frames::{FIRST_HUGE, FIRST_SMALL, Frames, small_index, small_pfn};
use self::swap::Slot;
use super::rmap::{Mapping, Rmap};

pub use frames::{HUGE_PAGES, HUGE_ZERO_PFN, PART_WORDS, ZERO_PFN, head_of, is_zero_pfn};
pub use page::{Page, PageKind};
pub use page_cache::{File, FileId};

/// All frames, files and swap slots of a machine.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    small: Frames,
    huge: Frames,
    files: Vec<File>,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    nr_freed: u64,
    /// Pages that another call than the one that runs has locked: their swap cache is not to be freed.
    locked: Vec<Pfn>,
    /// By CPU: pages on their way to the LRU; [`ZERO_PFN`] for one that this machine has no record of any more.
    lru_batches: Vec<Vec<Pfn>>,
}

impl Pages {
    /// Allocates a frame with one reference, not mapped.
    ///
    /// # Errors
    /// If the model has no more small frames (64 GiB).
    pub fn alloc(&mut self, kind: PageKind, huge: bool) -> Result<Pfn> {
        let page = Page {
            kind,
            place: None,
            in_page_cache: false,
            dirty: false,
            lazyfree: false,
            ksm: false,
            exclusive: kind == PageKind::Anon,
            lru_cpu: None,
            nr_copied: 0,
            zero_parts: None,
            swap_slot: None,
            refcount: 1,
            rmap: Rmap::Empty,
            anon_mm: None,
        };
        if huge {
            return Ok(Pfn(FIRST_HUGE + HUGE_PAGES * self.huge.put(page) as u64));
        }
        let pfn = small_pfn(self.small.put(page));
        if pfn.0 >= FIRST_HUGE {
            return Err(Error::Value(format!(
                "memory: found more than {} pages of 4 KiB in use, expected at most as many",
                FIRST_HUGE - FIRST_SMALL - HUGE_PAGES
            )));
        }
        Ok(pfn)
    }

    #[inline]
    fn slot(&self, pfn: Pfn) -> Option<&Page> {
        if pfn.0 >= FIRST_HUGE {
            self.huge.slots.get(((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)?.as_ref()
        } else if is_zero_pfn(pfn) {
            None
        } else {
            self.small.slots.get(small_index(pfn))?.as_ref()
        }
    }

    #[inline]
    fn slot_mut(&mut self, pfn: Pfn) -> Option<&mut Page> {
        if pfn.0 >= FIRST_HUGE {
            self.huge.slots.get_mut(((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)?.as_mut()
        } else if is_zero_pfn(pfn) {
            None
        } else {
            self.small.slots.get_mut(small_index(pfn))?.as_mut()
        }
    }

    /// The page of a frame; none for zero pages and free frames.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Option<&Page> {
        self.slot(pfn)
    }

    /// The page of a frame, to change it; none for zero pages and free frames.
    #[inline]
    pub fn get_mut(&mut self, pfn: Pfn) -> Option<&mut Page> {
        self.slot_mut(pfn)
    }

    /// Something is written to a frame.
    pub fn write_part(&mut self, pfn: Pfn) {
        let part = (pfn.0 % HUGE_PAGES) as usize;
        if let Some(parts) = self.slot_mut(head_of(pfn)).and_then(|page| page.zero_parts.as_mut()) {
            parts[part / 64] &= !(1 << (part % 64));
        }
    }

    /// Whether a part of a huge page is known to be zero still.
    pub fn is_zero_part(&self, pfn: Pfn) -> bool {
        let part = (pfn.0 % HUGE_PAGES) as usize;
        let parts = self.get(head_of(pfn)).and_then(|page| page.zero_parts.as_ref());
        parts.is_some_and(|parts| parts[part / 64] >> (part % 64) & 1 != 0)
    }

    /// Whether a huge page was ever made.
    pub fn has_huge(&self) -> bool {
        !self.huge.slots.is_empty()
    }

    /// Whether the frame is huge.
    #[inline]
    pub const fn is_huge(pfn: Pfn) -> bool {
        pfn.0 >= FIRST_HUGE || pfn.0 == HUGE_ZERO_PFN.0
    }

    /// How many frames were freed so far.
    pub const fn nr_freed(&self) -> u64 {
        self.nr_freed
    }

    /// Takes a reference (nothing for zero pages).
    #[inline]
    pub fn get_ref(&mut self, pfn: Pfn) {
        if let Some(page) = self.slot_mut(pfn) {
            page.refcount += 1;
        }
    }

    /// Drops a reference; the last one frees the frame (`folio_put`).
    #[inline]
    pub fn put_ref(&mut self, pfn: Pfn) {
        let Some(page) = self.slot_mut(pfn) else {
            return;
        };
        page.refcount = page.refcount.saturating_sub(1);
        if page.refcount == 0 {
            self.free(pfn);
        }
    }

    fn free(&mut self, pfn: Pfn) {
        self.nr_freed += 1;
        // The batch keeps the frame until it is emptied; nothing else knows it any more.
        if let Some(cpu) = self.get(pfn).and_then(|page| page.lru_cpu)
            && let Some(waiting) = self.lru_batches[cpu.index()].iter_mut().find(|waiting| **waiting == pfn)
        {
            *waiting = ZERO_PFN;
        }
        let (frames, index) = if pfn.0 >= FIRST_HUGE {
            (&mut self.huge, ((pfn.0 - FIRST_HUGE) / HUGE_PAGES) as usize)
        } else {
            (&mut self.small, small_index(pfn))
        };
        frames.slots[index] = None;
        frames.free.push(index as u32);
    }

    /// Adds a mapping and its reference (nothing for zero pages).
    #[inline]
    pub fn map(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.anon_mm.get_or_insert(mapping.mm);
            page.rmap.add(mapping);
            page.refcount += 1;
        }
    }

    /// Adds a mapping whose reference is there already.
    #[inline]
    pub fn add_rmap(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.anon_mm.get_or_insert(mapping.mm);
            page.rmap.add(mapping);
        }
    }

    /// Replaces one mapping of a huge page by `nr` of 4 KiB each, in its place in the order, with their references.
    pub fn split_mapping(&mut self, pfn: Pfn, mapping: Mapping, nr: u32) {
        if let Some(page) = self.slot_mut(pfn)
            && page.rmap.split(mapping, nr)
        {
            page.refcount += nr - 1;
        }
    }

    /// Removes a mapping, not its reference.
    #[inline]
    pub fn remove_rmap(&mut self, pfn: Pfn, mapping: Mapping) {
        if let Some(page) = self.slot_mut(pfn) {
            page.rmap.remove(mapping);
        }
    }

    /// The pages in use, by frame number.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, &Page)> {
        let small =
            self.small.slots.iter().enumerate().filter_map(|(index, page)| Some((small_pfn(index), page.as_ref()?)));
        let huge = self
            .huge
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, page)| Some((Pfn(FIRST_HUGE + HUGE_PAGES * index as u64), page.as_ref()?)));
        small.chain(huge)
    }

    /// Puts `new` where `old` stood in page cache and swap cache, with everything known of it (`folio_migrate_mapping`).
    pub fn replace(&mut self, old: Pfn, new: Pfn) {
        let Some(from) = self.slot_mut(old) else {
            return;
        };
        let in_page_cache = std::mem::take(&mut from.in_page_cache);
        let swap_slot = from.swap_slot.take();
        let (kind, place, dirty, lazyfree, ksm) = (from.kind, from.place, from.dirty, from.lazyfree, from.ksm);
        let (exclusive, zero_parts) = (from.exclusive, from.zero_parts.take());
        let nr_moved = u32::from(in_page_cache) + u32::from(swap_slot.is_some());
        if let Some(to) = self.slot_mut(new) {
            (to.kind, to.place, to.dirty, to.lazyfree, to.ksm) = (kind, place, dirty, lazyfree, ksm);
            (to.in_page_cache, to.swap_slot, to.exclusive) = (in_page_cache, swap_slot, exclusive);
            to.zero_parts = zero_parts;
            to.refcount += nr_moved;
        }
        if let (true, Some((file, index))) = (in_page_cache, place) {
            self.files[file.0 as usize - 1].pages.insert(index, new);
        }
        if let Some(slot) = swap_slot {
            self.slots[slot as usize - 1].cached = Some(new);
        }
        (0..nr_moved).for_each(|_| self.put_ref(old));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_last_freed_first() {
        let mut pages = Pages::default();
        let first: Vec<u64> = (0..3).map(|_| pages.alloc(PageKind::Anon, false).unwrap().0).collect();
        assert_eq!(first, [16, 17, 18]);
        pages.put_ref(Pfn(16));
        pages.put_ref(Pfn(18));
        assert_eq!(pages.nr_freed(), 2);
        let again: Vec<u64> = (0..3).map(|_| pages.alloc(PageKind::Anon, false).unwrap().0).collect();
        assert_eq!(again, [18, 16, 19]);
        assert_eq!(pages.alloc(PageKind::Anon, true).unwrap().0, 1 << 24);
        assert_eq!(pages.alloc(PageKind::Anon, true).unwrap().0, (1 << 24) + 512);
    }

    #[test]
    fn small_frames_leave_out_the_huge_zero_page() {
        let mut pages = Pages::default();
        let last = (0..497).map(|_| pages.alloc(PageKind::Anon, false).unwrap()).last();
        assert_eq!(last, Some(Pfn(1024)));
        assert_eq!(pages.iter().map(|(pfn, _)| pfn.0).filter(|pfn| (512..1024).contains(pfn)).count(), 0);
    }

    #[test]
    fn migration_takes_everything_over() {
        let mut pages = Pages::default();
        let file = pages.create_file(true, Some(8));
        let old = pages.find_get_page(file, 3).unwrap();
        pages.get_mut(old).unwrap().dirty = true;
        let new = pages.alloc(PageKind::Anon, false).unwrap();
        pages.replace(old, new);
        assert!(pages.get(old).is_none());
        let page = pages.get(new).unwrap();
        assert_eq!((page.kind, page.dirty, page.refcount), (PageKind::Shmem, true, 2));
        assert_eq!(pages.file(file).unwrap().pages[&3], new);
    }
}
