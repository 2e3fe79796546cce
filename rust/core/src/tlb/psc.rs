//! Paging-structure caches: where a page walk may start instead of at the top.
//!
//! An entry maps the addresses below one page-table entry of an upper level to the table it points to, an opaque id.
//! It belongs to one PCID (never global), and later walks use it without reading the levels above again: that is why
//! a freed page table needs a flush that reaches these caches. Replacement is exact LRU at each level.

use super::entry::Key;
use super::percpu::Tlbs;
use crate::addr::{P4D_SHIFT, PMD_SHIFT, PUD_SHIFT, VirtAddr};

/// Which paging-structure cache, named as in the processor manuals; deepest (fewest steps left to walk) first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PscLevel {
    /// PMD entries: they point to PTE tables (level 0).
    Pde = 0,
    /// PUD entries: they point to PMD tables (level 1).
    Pdpte = 1,
    /// PML4 entries: they point to PUD tables (level 2).
    Pml4e = 2,
    /// PML5 entries: they point to P4D tables (level 3); five levels only.
    Pml5e = 3,
}

impl PscLevel {
    /// All levels, deepest first.
    pub const ALL: [Self; 4] = [Self::Pde, Self::Pdpte, Self::Pml4e, Self::Pml5e];

    /// log2 of the bytes that one entry maps.
    #[inline]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Pde => PMD_SHIFT,
            Self::Pdpte => PUD_SHIFT,
            Self::Pml4e => P4D_SHIFT,
            Self::Pml5e => P4D_SHIFT + 9,
        }
    }

    /// The level of the table that an entry points to; PTE tables are level 0.
    pub const fn table_level(self) -> u8 {
        self as u8
    }

    /// The cache whose entries point to tables of `level`; `None` for the top of a five-level tree and beyond, which
    /// CR3 alone points to.
    pub fn from_table_level(level: u8) -> Option<Self> {
        Self::ALL.get(usize::from(level)).copied()
    }
}

impl Tlbs {
    /// The deepest cached table on the way to `va`, with its level; only that entry counts as used.
    pub fn psc_lookup(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> Option<(PscLevel, u32)> {
        for level in PscLevel::ALL {
            if let Some((_, table_id)) = self.psc[level as usize].hit(cpu, Key::of_table(pcid, va, level.shift())) {
                self.counters[cpu].nr_psc_hits[level as usize] += 1;
                return Some((level, table_id as u32));
            }
        }
        self.counters[cpu].nr_psc_misses += 1;
        None
    }

    /// What [`Self::psc_lookup`] would find, without any trace of having looked.
    pub fn psc_peek(&self, cpu: usize, pcid: u16, va: VirtAddr) -> Option<(PscLevel, u32)> {
        PscLevel::ALL.into_iter().find_map(|level| {
            let (_, table_id) = self.psc[level as usize].peek(cpu, Key::of_table(pcid, va, level.shift()))?;
            Some((level, table_id as u32))
        })
    }

    /// Caches that the walk to `va` found `table_id` through an entry of `level`; an absent cache keeps nothing.
    pub fn psc_insert(&mut self, cpu: usize, pcid: u16, level: PscLevel, va: VirtAddr, table_id: u32) {
        let cache = &mut self.psc[level as usize];
        if !cache.is_absent() {
            let key = Key::of_table(pcid, va, level.shift());
            let displaced = cache.insert(cpu, key, false, u64::from(table_id));
            self.holdings[cpu].insert_psc(key.private, displaced);
        }
    }
}
