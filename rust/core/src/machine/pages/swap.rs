//! Swap slots and the swap cache.

use crate::addr::Pfn;

use super::Pages;

/// A swap slot in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// Swap entries that name it.
    nr_entries: u32,
    /// Not on the free list.
    in_use: bool,
    /// The page that is its swap cache.
    pub(super) cached: Option<Pfn>,
}

impl Pages {
    /// Drops a reference of a mapping that is gone; an unmapped page whose slot no swap entry names leaves the swap cache
    /// first (mm/swap_state.c:`free_swap_cache`).
    #[inline]
    pub fn put_ref_and_swap_cache(&mut self, pfn: Pfn) {
        if let Some(slot) = self.get(pfn).and_then(|page| page.swap_slot) {
            self.free_swap_cache(slot);
        }
        self.put_ref(pfn);
    }

    /// Says which pages calls other than the one that runs have locked.
    pub(in crate::machine) fn set_locked(&mut self, locked: impl Iterator<Item = Pfn>) {
        self.locked.clear();
        self.locked.extend(locked);
    }

    /// Frees the swap cache of a page that was locked when its last swap entry went.
    pub(in crate::machine) fn free_unused_swap_cache(&mut self, pfn: Pfn) {
        if let Some(slot) = self.get(pfn).and_then(|page| page.swap_slot) {
            self.free_swap_cache(slot);
        }
    }

    /// Takes an unmapped page out of the swap cache of a slot that no swap entry names.
    fn free_swap_cache(&mut self, slot: u32) {
        let Slot { nr_entries, cached, .. } = self.slots[slot as usize - 1];
        if let (0, Some(pfn)) = (nr_entries, cached)
            && !self.locked.contains(&pfn)
            && self.get(pfn).is_some_and(|page| page.rmap.is_empty())
        {
            self.leave_swap_cache(pfn);
        }
    }

    /// Makes the page swap cache of a new slot, unless it has one (`add_to_swap`).
    pub fn add_to_swap(&mut self, pfn: Pfn) {
        if self.get(pfn).is_none_or(|page| page.swap_slot.is_some()) {
            return;
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32
        });
        self.slots[slot as usize - 1].in_use = true;
        self.enter_swap_cache(pfn, slot);
        if let Some(page) = self.slot_mut(pfn) {
            page.dirty = true;
        }
    }

    /// Makes the page the swap cache of a slot, with the cache's reference.
    pub fn enter_swap_cache(&mut self, pfn: Pfn, slot: u32) {
        self.slots[slot as usize - 1].cached = Some(pfn);
        if let Some(page) = self.slot_mut(pfn) {
            page.swap_slot = Some(slot);
            page.refcount += 1;
        }
    }

    /// Takes a page out of the swap cache and drops that reference; the slot is free if no entry names it.
    pub fn leave_swap_cache(&mut self, pfn: Pfn) {
        let Some(slot) = self.slot_mut(pfn).and_then(|page| page.swap_slot.take()) else {
            return;
        };
        self.slots[slot as usize - 1].cached = None;
        self.release_slot_if_unused(slot);
        self.put_ref(pfn);
    }

    /// One more swap entry names the slot (`swap_duplicate`).
    pub fn swap_duplicate(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries += 1;
        }
    }

    /// One swap entry less names the slot; the swap cache stays (`swap_free`).
    pub fn swap_free(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries = found.nr_entries.saturating_sub(1);
            self.release_slot_if_unused(slot);
        }
    }

    /// As [`Self::swap_free`]; with the last entry an unmapped page leaves the swap cache (`free_swap_and_cache`).
    pub fn free_swap_and_cache(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut((slot as usize).wrapping_sub(1)) {
            found.nr_entries = found.nr_entries.saturating_sub(1);
            self.free_swap_cache(slot);
            self.release_slot_if_unused(slot);
        }
    }

    fn release_slot_if_unused(&mut self, slot: u32) {
        let found = self.slots[slot as usize - 1];
        if found.in_use && found.nr_entries == 0 && found.cached.is_none() {
            self.slots[slot as usize - 1].in_use = false;
            self.free_slots.push(slot);
        }
    }

    /// Swap entries that name the slot.
    pub fn swap_count(&self, slot: u32) -> u32 {
        self.slots.get((slot as usize).wrapping_sub(1)).map_or(0, |found| found.nr_entries)
    }

    /// The page that is the slot's swap cache.
    pub fn swap_cache_of(&self, slot: u32) -> Option<Pfn> {
        self.slots.get((slot as usize).wrapping_sub(1))?.cached
    }

    /// The slots in use by number, each with its number of swap entries.
    pub fn swap_slots(&self) -> impl Iterator<Item = (u32, u32)> {
        (1_u32..).zip(&self.slots).filter(|(_, slot)| slot.in_use).map(|(number, slot)| (number, slot.nr_entries))
    }
}

#[cfg(test)]
mod tests {
    use crate::addr::VirtAddr;
    use crate::flush::MmId;

    use super::super::super::rmap::Mapping;
    use super::super::PageKind;
    use super::*;

    fn at(addr: u64) -> Mapping {
        Mapping { mm: MmId(1), addr: VirtAddr(addr) }
    }

    #[test]
    fn a_slot_lives_as_long_as_an_entry_or_the_cache() {
        let mut pages = Pages::default();
        let pfn = pages.alloc(PageKind::Anon, false).unwrap();
        pages.add_rmap(pfn, at(0x1000));
        pages.add_to_swap(pfn);
        pages.add_to_swap(pfn);
        assert_eq!(pages.swap_slots().collect::<Vec<_>>(), [(1, 0)]);
        pages.swap_duplicate(1);
        pages.remove_rmap(pfn, at(0x1000));
        pages.put_ref_and_swap_cache(pfn);
        assert_eq!(pages.get(pfn).unwrap().refcount, 1, "the swap cache keeps it while an entry names the slot");
        pages.leave_swap_cache(pfn);
        assert!(pages.get(pfn).is_none());
        assert_eq!(pages.swap_slots().collect::<Vec<_>>(), [(1, 1)]);
        pages.free_swap_and_cache(1);
        assert_eq!(pages.swap_slots().count(), 0);
        let other = pages.alloc(PageKind::Anon, false).unwrap();
        pages.add_to_swap(other);
        assert_eq!(pages.get(other).unwrap().swap_slot, Some(1));
    }
}
