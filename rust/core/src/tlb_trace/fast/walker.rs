//! Page walks with paging-structure caches of the fast engine's own kind of array.
//!
//! A walk looks into the caches from the deepest up to the first that hits, and then fills those that did not: so an
//! access that puts in what misses, cache after cache up to the first hit, is the whole walk.

use super::key::Key;
use super::ordered::Ordered;
use crate::addr::{PageSize, VirtAddr};
use crate::tlb::{PscLevel, PscScope};
use crate::tlb_trace::cpu::Counts;
use crate::tlb_trace::event::EventKind;
use crate::tlb_trace::simulation::Machine;

/// Counts the walks of one CPU.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    /// Deepest first.
    caches: [Ordered; 4],
    has_caches: bool,
    /// The levels of page tables below the uppermost: so many caches may be used.
    top: usize,
    scope: PscScope,
}

/// The key of the entry of a cache on the way to an address; caches are apart, so that it names no level.
fn key_in(level: usize, pcid: u16, va: VirtAddr) -> Key {
    Key::of(pcid, va.0 >> PscLevel::ALL[level].shift())
}

impl Walker {
    pub(super) fn new(machine: &Machine) -> Self {
        let tlb = &machine.tlb;
        let caches = [tlb.pde_cache, tlb.pdpte_cache, tlb.pml4e_cache, tlb.pml5e_cache];
        Self {
            caches: caches.map(|geometry| Ordered::new(geometry, true)),
            has_caches: caches.iter().any(|geometry| geometry.entries > 0),
            top: machine.levels as usize - 1,
            scope: tlb.invlpg_drops_psc,
        }
    }

    /// Whether walks depend on those before them.
    pub(super) const fn has_caches(&self) -> bool {
        self.has_caches
    }

    /// A walk to the page of a key.
    pub(super) fn walk(&mut self, key: Key, counts: &mut Counts) {
        let (leaf, pcid, va) = (key.size_index(), key.pcid(), key.address());
        let mut found = self.top;
        for level in leaf..self.top {
            let cache = &mut self.caches[level];
            if !cache.is_absent() && cache.access(key_in(level, pcid, va)) {
                found = level;
                break;
            }
        }
        counts.nr_walks += 1;
        counts.walks_by_loads[found - leaf] += 1;
        counts.walks_by_size[leaf] += 1;
    }

    /// As many walks to pages of one size, where there are no caches.
    pub(super) fn walk_many(&self, nr_walks: u64, size: PageSize, counts: &mut Counts) {
        debug_assert!(!self.has_caches);
        let leaf = size as usize;
        counts.nr_walks += nr_walks;
        counts.walks_by_loads[self.top - leaf] += nr_walks;
        counts.walks_by_size[leaf] += nr_walks;
    }

    /// What an event drops.
    pub(super) fn event(&mut self, kind: EventKind, current: u16) {
        match kind {
            EventKind::Switch(_) => {}
            EventKind::FlushPcid(pcid) => self.flush_pcid(pcid),
            EventKind::FlushCurrent => self.flush_pcid(current),
            EventKind::FlushAll => self.caches.iter_mut().for_each(Ordered::flush_all),
            EventKind::Invalidate { pcid, address } => self.invalidate(pcid, address),
            EventKind::InvalidateCurrent(address) => self.invalidate(current, address),
        }
    }

    fn flush_pcid(&mut self, pcid: u16) {
        self.caches.iter_mut().for_each(|cache| cache.flush_pcid(pcid));
    }

    fn invalidate(&mut self, pcid: u16, address: u64) {
        match self.scope {
            PscScope::All => self.flush_pcid(pcid),
            PscScope::Covering => {
                for (level, cache) in self.caches.iter_mut().enumerate() {
                    cache.invalidate(key_in(level, pcid, VirtAddr(address)));
                }
            }
            PscScope::None => {}
        }
    }
}
