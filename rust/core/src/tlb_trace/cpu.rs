//! What one CPU came to, and what an engine offers for one.

use std::ops::AddAssign;

use super::event::EventKind;

/// The most levels of page tables that a walk reads.
pub(super) const MAX_LOADS: usize = 5;

/// What the accesses of a CPU came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Counts {
    /// Accesses.
    pub nr_accesses: u64,
    /// Accesses that the first level did not answer.
    pub nr_l1_misses: u64,
    /// Accesses that neither level answered: page walks.
    pub nr_walks: u64,
    /// Walks by how many page-table entries they read: `[0]` is those that read one.
    pub walks_by_loads: [u64; MAX_LOADS],
    /// Walks by the size of the page that they found.
    pub walks_by_size: [u64; 3],
}

impl Counts {
    /// Accesses that the first level answered.
    pub const fn nr_l1_hits(&self) -> u64 {
        self.nr_accesses - self.nr_l1_misses
    }

    /// Accesses that the second level answered.
    pub const fn nr_stlb_hits(&self) -> u64 {
        self.nr_l1_misses - self.nr_walks
    }

    /// Page-table entries that all walks read.
    pub fn nr_walk_loads(&self) -> u64 {
        (1..).zip(self.walks_by_loads).map(|(nr_loads, nr_walks): (u64, u64)| nr_loads * nr_walks).sum()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.nr_accesses += other.nr_accesses;
        self.nr_l1_misses += other.nr_l1_misses;
        self.nr_walks += other.nr_walks;
        for (sum, one) in self.walks_by_loads.iter_mut().zip(other.walks_by_loads) {
            *sum += one;
        }
        for (sum, one) in self.walks_by_size.iter_mut().zip(other.walks_by_size) {
            *sum += one;
        }
    }
}

/// The TLBs of one CPU, as both engines offer them.
pub(super) trait Cpu: Send {
    /// Accesses with no event between them.
    ///
    /// # Errors
    /// The index of an address that no page table maps; after that the counts mean nothing.
    fn access(&mut self, addresses: &[u64], nr_threads: usize) -> std::result::Result<(), usize>;

    /// An event; it was checked.
    fn event(&mut self, kind: EventKind);

    /// What the accesses came to so far.
    fn counts(&self) -> Counts;
}
