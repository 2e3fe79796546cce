//! How many entries one CPU holds for each PCID, so that a flush of a PCID that left nothing behind costs nothing and
//! any other ends as soon as it has found them all.
//!
//! Stamping a PCID with a generation would make its flush O(1), but dead entries would then stay in the sets, and every
//! fill would have to tell them from live ones to keep recency exact; a scan of the sets in use is cheaper over a run.

use super::entry::tag_pcid;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PcidCount {
    pcid: u16,
    nr_tlb: u32,
    nr_psc: u32,
}

/// Entries of one CPU by owner; the sum over all arrays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Holdings {
    nr_global: u32,
    /// Sorted by PCID; only those that own something. Kernels use few PCIDs per CPU (Linux 6), so this stays short.
    pcids: Vec<PcidCount>,
}

impl Holdings {
    fn get(&self, pcid: u16) -> Option<&PcidCount> {
        let at = self.pcids.binary_search_by_key(&pcid, |count| count.pcid).ok()?;
        Some(&self.pcids[at])
    }

    fn change(&mut self, pcid: u16, change: impl FnOnce(&mut PcidCount)) {
        let found = self.pcids.binary_search_by_key(&pcid, |count| count.pcid);
        let at = found.unwrap_or_else(|at| {
            self.pcids.insert(at, PcidCount { pcid, nr_tlb: 0, nr_psc: 0 });
            at
        });
        let count = &mut self.pcids[at];
        change(count);
        if count.nr_tlb == 0 && count.nr_psc == 0 {
            self.pcids.remove(at);
        }
    }

    /// Translations that only `pcid` may use.
    pub(super) fn nr_private(&self, pcid: u16) -> u32 {
        self.get(pcid).map_or(0, |count| count.nr_tlb)
    }

    /// Translations that `pcid` may use, global ones included.
    pub(super) fn nr_usable(&self, pcid: u16) -> u32 {
        self.nr_private(pcid) + self.nr_global
    }

    /// Paging-structure entries of `pcid`.
    pub(super) fn nr_psc(&self, pcid: u16) -> u32 {
        self.get(pcid).map_or(0, |count| count.nr_psc)
    }

    /// Translations in all.
    pub(super) fn nr_tlb(&self) -> u32 {
        self.nr_global + self.pcids.iter().map(|count| count.nr_tlb).sum::<u32>()
    }

    /// Translations that are not global.
    pub(super) fn nr_nonglobal(&self) -> u32 {
        self.nr_tlb() - self.nr_global
    }

    /// Paging-structure entries in all.
    pub(super) fn nr_psc_all(&self) -> u32 {
        self.pcids.iter().map(|count| count.nr_psc).sum()
    }

    /// A translation came, and another may have gone for it.
    pub(super) fn insert_tlb(&mut self, tag: u64, displaced: Option<u64>) {
        if displaced == Some(tag) {
            return;
        }
        match tag_pcid(tag) {
            Some(pcid) => self.change(pcid, |count| count.nr_tlb += 1),
            None => self.nr_global += 1,
        }
        if let Some(displaced) = displaced {
            self.remove_tlb(displaced);
        }
    }

    /// A translation went.
    pub(super) fn remove_tlb(&mut self, tag: u64) {
        match tag_pcid(tag) {
            Some(pcid) => self.change(pcid, |count| count.nr_tlb -= 1),
            None => self.nr_global -= 1,
        }
    }

    /// A paging-structure entry came, and another may have gone for it.
    pub(super) fn insert_psc(&mut self, tag: u64, displaced: Option<u64>) {
        if displaced == Some(tag) {
            return;
        }
        if let Some(pcid) = tag_pcid(tag) {
            self.change(pcid, |count| count.nr_psc += 1);
        }
        if let Some(pcid) = displaced.and_then(tag_pcid) {
            self.change(pcid, |count| count.nr_psc -= 1);
        }
    }

    /// Of the translations that `pcid` can use, so many of its own and so many global ones went.
    pub(super) fn remove_usable(&mut self, pcid: u16, nr_private: u32, nr_global: u32) {
        self.nr_global -= nr_global;
        if nr_private > 0 {
            self.change(pcid, |count| count.nr_tlb -= nr_private);
        }
    }

    /// So many paging-structure entries of `pcid` went.
    pub(super) fn remove_tables(&mut self, pcid: u16, nr_psc: u32) {
        if nr_psc > 0 {
            self.change(pcid, |count| count.nr_psc -= nr_psc);
        }
    }

    /// Everything that has an owner went.
    pub(super) fn clear_nonglobal(&mut self) {
        self.pcids.clear();
    }
}
