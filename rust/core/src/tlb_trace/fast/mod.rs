//! The fast engine: exact LRU and FIFO in passes over blocks of accesses.
//!
//! 1. [`l1`] runs a block through the first level and writes down the keys of its misses, in order;
//! 2. [`stlb`] runs those through the second level and keeps the keys that miss there too, in order;
//! 3. the [`Walker`] counts those.
//!
//! The levels may run apart because nothing goes back: what the second level holds or evicts does not change the first.
//! Every event ends a block. Sets and rows are small arrays in the order of their eviction, newest first, so that the
//! page which a row saw last is the first word of the row: an access to it changes nothing and costs one comparison.
//!
//! Where next to nothing hits the first level, [`scattered`] looks into the second only.
//!
//! Several threads share a long stream by time. Each runs the first level over its part from empty sets, which is right
//! from the moment on that a set is full; [`FirstLevel::stitch`] then puts the sets of the part before under it and takes
//! back the misses that were none. The second level is shared by sets. Where nearly everything misses, threads share all
//! by sets ([`by_set`]).

mod by_set;
mod cascade;
mod compact;
mod dense;
mod key;
mod l1;
mod mixed;
mod ordered;
mod packed;
mod scattered;
mod shared;
mod stlb;
mod walker;

use super::cpu::{Counts, Cpu};
use super::event::EventKind;
use super::page_map::PageMap;
use super::simulation::Machine;
use super::walker::ADDRESS_BITS;
use crate::addr::{PageSize, VirtAddr};
use crate::error::Result;
use crate::tlb::Replacement;

use key::Key;
use l1::FirstLevel;
use stlb::SecondLevel;
use walker::Walker;

/// Accesses of one block, so that its misses stay in the cache.
const BLOCK: usize = 1 << 12;
/// Misses that are worth a pass through the second level.
const NR_KEPT: usize = 1 << 11;

/// Hits of the first level in a block with which a stream counts as scattered.
const MAX_SCATTERED_HITS: usize = 1 << 4;
/// Accesses of a block of such a stream.
const SCATTERED_BLOCK: usize = BLOCK << 1;

/// One CPU.
#[derive(Clone, Debug)]
pub(super) struct FastCpu {
    l1: FirstLevel,
    stlb: SecondLevel,
    walker: Walker,
    pages: PageMap,
    pcid: u16,
    counts: Counts,
    /// The keys that missed the first level, and of these the second.
    misses: Vec<u64>,
    walks: Vec<u64>,
    /// Whether next to nothing hit the first level of late.
    is_scattered: bool,
    /// What [`scattered`] needs is known to be true of both levels.
    is_in_order: bool,
    /// What threads share.
    parts: Vec<shared::Part>,
}

impl FastCpu {
    /// Whether the engine takes a machine: its order of eviction must be one of insertion or of use.
    pub(super) const fn takes(machine: &Machine) -> bool {
        matches!(machine.tlb.replacement, Replacement::Lru | Replacement::Fifo)
    }

    pub(super) fn new(machine: &Machine, pages: PageMap) -> Result<Self> {
        machine.tlb.check()?;
        Ok(Self {
            l1: FirstLevel::new(&machine.tlb),
            stlb: SecondLevel::new(&machine.tlb),
            walker: Walker::new(machine),
            pages,
            pcid: 0,
            counts: Counts::default(),
            misses: Vec::with_capacity(NR_KEPT + BLOCK),
            walks: Vec::with_capacity(NR_KEPT + BLOCK),
            is_scattered: false,
            is_in_order: false,
            parts: Vec::new(),
        })
    }

    /// Takes the misses kept so far through the second level and the walker.
    fn drain_kept(&mut self) {
        let mut misses = std::mem::take(&mut self.misses);
        self.drain(&misses);
        misses.clear();
        self.misses = misses;
    }

    /// Takes misses of the first level through the second and the walker.
    fn drain(&mut self, misses: &[u64]) {
        self.counts.nr_l1_misses += misses.len() as u64;
        self.walks.clear();
        self.stlb.access(misses, &mut self.walks);
        self.count_walks();
    }

    /// Takes what missed both levels through the walker.
    fn count_walks(&mut self) {
        if self.walker.has_caches() {
            for &key in &self.walks {
                self.walker.walk(Key(key), &mut self.counts);
            }
        } else if let Some(size) = self.pages.only() {
            self.walker.walk_many(self.walks.len() as u64, size, &mut self.counts);
        } else {
            let mut by_size = [0; 3];
            for &key in &self.walks {
                by_size[Key(key).size_index()] += 1;
            }
            for (size, nr_walks) in PageSize::ALL.into_iter().zip(by_size) {
                if nr_walks > 0 {
                    self.walker.walk_many(nr_walks, size, &mut self.counts);
                }
            }
        }
    }
}

impl Cpu for FastCpu {
    fn access(&mut self, addresses: &[u64], nr_threads: usize) -> std::result::Result<(), usize> {
        let mut done = 0;
        if shared::is_worth(self, addresses, nr_threads) {
            // What kind of stream it is, its first block tells.
            self.access_alone(&addresses[..BLOCK])?;
            done = BLOCK;
        }
        while shared::is_worth(self, &addresses[done..], nr_threads) {
            match shared::access(self, &addresses[done..], nr_threads) {
                0 => break,
                nr_more => done += nr_more,
            }
        }
        self.access_alone(&addresses[done..]).map_err(|at| done + at)
    }

    fn event(&mut self, kind: EventKind) {
        self.is_in_order = false;
        match kind {
            EventKind::Switch(pcid) => self.pcid = pcid,
            EventKind::FlushPcid(pcid) => self.flush_pcid(pcid),
            EventKind::FlushCurrent => self.flush_pcid(self.pcid),
            EventKind::FlushAll => {
                self.l1.flush_all();
                self.stlb.flush_all();
            }
            EventKind::Invalidate { pcid, address } => self.invalidate(pcid, address),
            EventKind::InvalidateCurrent(address) => self.invalidate(self.pcid, address),
        }
        self.walker.event(kind, self.pcid);
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

impl FastCpu {
    fn access_alone(&mut self, addresses: &[u64]) -> std::result::Result<(), usize> {
        let mut done = 0;
        while done < addresses.len() {
            let rest = &addresses[done..];
            let (result, nr) = if self.is_scattered {
                let nr = rest.len().min(SCATTERED_BLOCK);
                (self.access_scattered(&rest[..nr]), nr)
            } else {
                let nr = rest.len().min(BLOCK);
                (self.access_levels(&rest[..nr]), nr)
            };
            result.map_err(|at| done + at)?;
            done += nr;
        }
        self.drain_kept();
        Ok(())
    }

    /// At most a block of accesses, level by level.
    fn access_levels(&mut self, block: &[u64]) -> std::result::Result<(), usize> {
        self.is_in_order = false;
        let nr_before = self.misses.len();
        let bits = self.l1.access(&self.pages, self.pcid, block, &mut self.misses);
        if bits >> ADDRESS_BITS != 0 {
            return Err(block.iter().position(|address| address >> ADDRESS_BITS != 0).unwrap_or(0));
        }
        self.counts.nr_accesses += block.len() as u64;
        if block.len() == BLOCK {
            let nr_hits = BLOCK - (self.misses.len() - nr_before);
            self.is_scattered = nr_hits <= MAX_SCATTERED_HITS;
        }
        if self.misses.len() >= NR_KEPT {
            self.drain_kept();
        }
        Ok(())
    }

    /// The same where next to nothing hits the first level: from one hit to the next.
    fn access_scattered(&mut self, block: &[u64]) -> std::result::Result<(), usize> {
        let (mut done, mut nr_stops) = (0, 0);
        while done < block.len() {
            let nr_done = if block.len() - done >= scattered::MIN_ACCESSES && nr_stops < MAX_SCATTERED_HITS {
                scattered::access(self, &block[done..])
            } else {
                0
            };
            done += nr_done;
            nr_stops += 1;
            // Where it can do nothing, what stands in its way may be gone after some accesses.
            let nr_more = if nr_done > 0 { 1 } else { scattered::MIN_ACCESSES };
            let levels = &block[done..block.len().min(done + nr_more)];
            self.access_levels(levels).map_err(|at| done + at)?;
            done += levels.len();
        }
        self.is_scattered = nr_stops < MAX_SCATTERED_HITS;
        Ok(())
    }

    fn flush_pcid(&mut self, pcid: u16) {
        self.l1.flush_pcid(pcid);
        self.stlb.flush_pcid(pcid);
    }

    fn invalidate(&mut self, pcid: u16, address: u64) {
        // A page has one size as long as the simulation lasts.
        let key = Key::new(pcid, VirtAddr(address), self.pages.size_of(address));
        self.l1.invalidate(key);
        self.stlb.invalidate(key);
    }
}
