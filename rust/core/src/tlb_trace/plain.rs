//! The plain engine: the arrays of [`crate::tlb`], access by access. It is the meaning that the fast one must keep.

use super::cpu::{Counts, Cpu};
use super::event::EventKind;
use super::page_map::PageMap;
use super::simulation::Machine;
use super::walker::{ADDRESS_BITS, Walker};
use crate::addr::{Pfn, VirtAddr};
use crate::error::Result;
use crate::tlb::{TlbEntry, Tlbs};

/// One CPU.
#[derive(Clone, Debug)]
pub(super) struct PlainCpu {
    tlbs: Tlbs,
    walker: Walker,
    pages: PageMap,
    pcid: u16,
    counts: Counts,
}

impl PlainCpu {
    pub(super) fn new(machine: &Machine, pages: PageMap) -> Result<Self> {
        Ok(Self {
            tlbs: Tlbs::new(&machine.tlb, 1)?,
            walker: Walker::new(machine)?,
            pages,
            pcid: 0,
            counts: Counts::default(),
        })
    }
}

impl Cpu for PlainCpu {
    fn access(&mut self, addresses: &[u64], _nr_threads: usize) -> std::result::Result<(), usize> {
        for (at, &address) in addresses.iter().enumerate() {
            if address >> ADDRESS_BITS != 0 {
                return Err(at);
            }
            self.counts.nr_accesses += 1;
            let va = VirtAddr(address);
            let size = self.pages.size_of(address);
            let l1_hits = self.tlbs.counters(0).nr_l1_hits;
            let found = self.tlbs.lookup(0, self.pcid, va);
            self.counts.nr_l1_misses += u64::from(self.tlbs.counters(0).nr_l1_hits == l1_hits);
            if found.is_none() {
                self.walker.walk(self.pcid, va, size, &mut self.counts);
                self.tlbs.insert(0, self.pcid, TlbEntry::user_data(va.vpn(), Pfn(0), size));
            }
        }
        Ok(())
    }

    fn event(&mut self, kind: EventKind) {
        match kind {
            EventKind::Switch(pcid) => self.pcid = pcid,
            EventKind::FlushPcid(pcid) => {
                self.tlbs.flush_pcid(0, pcid);
            }
            EventKind::FlushCurrent => {
                self.tlbs.flush_pcid(0, self.pcid);
            }
            EventKind::FlushAll => {
                self.tlbs.flush_all(0);
            }
            EventKind::Invalidate { pcid, address } => {
                self.tlbs.invalidate_page(0, pcid, VirtAddr(address));
            }
            EventKind::InvalidateCurrent(address) => {
                self.tlbs.invalidate_page(0, self.pcid, VirtAddr(address));
            }
        }
        self.walker.event(kind, self.pcid);
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
