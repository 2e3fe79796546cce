//! Page walks: how many page-table entries each reads, given what the paging-structure caches hold.
//!
//! A walk starts below the deepest cached entry on its way (only that one counts as used) and then caches every entry
//! that it read and that points to a table.

use super::cpu::Counts;
use super::event::EventKind;
use super::simulation::Machine;
use crate::addr::{PageSize, VirtAddr};
use crate::error::Result;
use crate::tlb::{ArrayGeometry, PscLevel, StlbGeometry, TlbGeometry, Tlbs};

/// Addresses that page tables of five levels map have at most this many bits.
pub(super) const ADDRESS_BITS: u32 = 57;

/// Counts the walks of one CPU.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    /// Only the paging-structure caches of the machine; none if it has none, and walks need no state.
    caches: Option<Tlbs>,
    levels: u8,
}

impl Walker {
    pub(super) fn new(machine: &Machine) -> Result<Self> {
        let only_caches = TlbGeometry {
            l1_4k: ArrayGeometry::ABSENT,
            l1_2m: ArrayGeometry::ABSENT,
            l1_1g: ArrayGeometry::ABSENT,
            stlb: StlbGeometry::new(0, 0),
            stlb_1g: ArrayGeometry::ABSENT,
            ..machine.tlb
        };
        let caches = if only_caches.slots_per_cpu() == 0 { None } else { Some(Tlbs::new(&only_caches, 1)?) };
        Ok(Self { caches, levels: machine.levels as u8 })
    }

    /// A walk to `va`, which a page of `size` maps.
    pub(super) fn walk(&mut self, pcid: u16, va: VirtAddr, size: PageSize, counts: &mut Counts) {
        let leaf = size as usize;
        let top = usize::from(self.levels) - 1;
        let nr_loads = match &mut self.caches {
            None => top + 1 - leaf,
            Some(caches) => {
                let found = caches.psc_lookup(0, pcid, va).map_or(top, |(level, _)| level as usize);
                for level in &PscLevel::ALL[leaf..found] {
                    caches.psc_insert(0, pcid, *level, va, 0);
                }
                found + 1 - leaf
            }
        };
        counts.nr_walks += 1;
        counts.walks_by_loads[nr_loads - 1] += 1;
        counts.walks_by_size[leaf] += 1;
    }

    /// What an event drops from the caches.
    pub(super) fn event(&mut self, kind: EventKind, current: u16) {
        let Some(caches) = &mut self.caches else { return };
        match kind {
            EventKind::Switch(_) => {}
            EventKind::FlushPcid(pcid) => {
                caches.flush_pcid(0, pcid);
            }
            EventKind::FlushCurrent => {
                caches.flush_pcid(0, current);
            }
            EventKind::FlushAll => {
                caches.flush_all(0);
            }
            EventKind::Invalidate { pcid, address } => {
                caches.invalidate_page(0, pcid, VirtAddr(address));
            }
            EventKind::InvalidateCurrent(address) => {
                caches.invalidate_page(0, current, VirtAddr(address));
            }
        }
    }
}
