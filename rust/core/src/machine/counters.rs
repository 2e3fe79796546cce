//! What a machine counts: the engine's sums and its own.

use std::ops::AddAssign;

use serde::Serialize;

use crate::flush::FlushCounters;

use super::Machine;

/// Sums over all operations since the machine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// The flush engine's.
    #[serde(flatten)]
    pub flush: FlushCounters,
    /// Times that a changed hardware-present entry was found to need no flush.
    pub nr_flush_avoided: u64,
    /// TLB entries made after a walk.
    pub nr_tlb_fills: u64,
    /// Page faults handled.
    pub nr_faults: u64,
    /// Flushes of what reclaim had left unflushed in an mm.
    pub nr_batched_pending_flushes: u64,
    /// Gathers opened, with a page list.
    pub nr_gathers: u64,
    /// Gathers opened without a page list.
    pub nr_light_gathers: u64,
    /// Gathers that ended while another operation had flushes pending in the mm, and flushed everything.
    pub nr_nested_finishes: u64,
    /// Deferred flushes of reclaim and migration that were done.
    pub nr_tlb_batch_flushes: u64,
    /// Pages freed; a huge page counts once.
    pub nr_page_frees: u64,
    /// Page tables freed, top tables not counted.
    pub nr_table_frees: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self {
            flush,
            nr_flush_avoided,
            nr_tlb_fills,
            nr_faults,
            nr_batched_pending_flushes,
            nr_gathers,
            nr_light_gathers,
            nr_nested_finishes,
            nr_tlb_batch_flushes,
            nr_page_frees,
            nr_table_frees,
        } = other;
        self.flush += flush;
        self.nr_flush_avoided += nr_flush_avoided;
        self.nr_tlb_fills += nr_tlb_fills;
        self.nr_faults += nr_faults;
        self.nr_batched_pending_flushes += nr_batched_pending_flushes;
        self.nr_gathers += nr_gathers;
        self.nr_light_gathers += nr_light_gathers;
        self.nr_nested_finishes += nr_nested_finishes;
        self.nr_tlb_batch_flushes += nr_tlb_batch_flushes;
        self.nr_page_frees += nr_page_frees;
        self.nr_table_frees += nr_table_frees;
    }
}

impl Machine {
    /// The sums so far.
    pub fn counters(&self) -> Counters {
        Counters { flush: *self.engine.counters(), nr_page_frees: self.pages.nr_freed(), ..self.counters }
    }
}
