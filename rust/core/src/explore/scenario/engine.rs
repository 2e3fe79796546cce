//! What a scenario says of the flush engine.

use serde::Deserialize;

/// What the flush engine has beyond requests that all CPUs answer, and bugs that it once had.
#[expect(clippy::struct_excessive_bools, reason = "each is a word of a scenario, and they go together in any way")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSpec {
    /// A flush request with generation 0 (reclaim's batch) counts as an old one and is skipped (aa44284960d5).
    pub gen_zero_is_old: bool,
    /// `tlb_flush_pending` is a bool, not a count (before 16af97dc5a89).
    pub tlb_flush_pending_is_bool: bool,
    /// No bug: flushes have generations, a mask says who is asked, and a handler has steps; without it each flush asks all.
    pub generations: bool,
    /// No bug: with generations, user CPUs switch to another address space and come back.
    pub switches: bool,
    /// No bug: with generations, user CPUs go idle and stay lazily in the address space.
    pub lazy: bool,
    /// No bug: CPUs without generations that keep translations of an address space that is not loaded, and judge by
    /// `active_mm` whether a request is for the one that is.
    pub by_active_mm: bool,
    /// No bug: arm64. Invalidations (TLBI) are broadcast, arrive at any time, and a DSB waits for those of its own CPU.
    pub tlbi: bool,
    /// `flush_tlb_batched_pending()` is but a DSB (before 4b634918384c).
    pub batched_pending_is_dsb: bool,
    /// Lazy-MMU sections do not keep the task on its CPU, whose batch they fill (before b9ef323ea168).
    pub lazy_mmu_preempts: bool,
    /// Lazy-MMU sections nest in one of the caller's, which ends after the page-table lock, and the end of the inner one leaves
    /// the batch to the outer one (no kernel had it: v7.0 counts sections, and drains at each end).
    pub inner_lazy_mmu_keeps_batch: bool,
    /// The batched flush of reclaim names physical addresses where virtual ones are meant (version 5 of 2015).
    pub batch_flushes_physical: bool,
    /// `switch_mm()` sets its bit in `mm_cpumask` after it loaded CR3 (as before 71b3c126e611 others could see it).
    pub mask_after_cr3: bool,
    /// `switch_mm_irqs_off()` reads the generation before it says that it switches (as before 83b0177a6c48).
    pub gen_before_loaded_mm: bool,
    /// A deferred flush raises the generation only if nobody did since it was deferred (RFC 15/20).
    pub bumps_once_per_deferral: bool,
    /// A CPU clears its bit in the mask of outstanding flushes after the full flush, not before (RFC 20/20).
    pub clears_batched_late: bool,
    /// A lazy CPU is not asked even if tables are freed (before b956575bed91).
    pub lazy_is_never_asked: bool,
    /// `use_mm()` takes interrupts between `active_mm` and the switch (before d53c3dfb23c4).
    pub irqs_on_in_use_mm: bool,
    /// The end of a nested gather forgets that it has tables to free (before 7a30df49f63a).
    pub nested_finish_forgets_tables: bool,
    /// A table for which the gather gets no batch is freed without a flush (before 0ed1325967ab).
    pub lone_table_freed_unflushed: bool,
    /// No bug: a gather of a whole address space asks for no flush unless it frees tables (arm64: the ASID is not used again
    /// before all is flushed).
    pub fullmm_is_not_flushed: bool,
    /// No bug: each page may be the last that a gather has room for (`tlb_next_batch()` finds none): the walk of the table is
    /// left, what was gathered is flushed and freed, and the walk goes on.
    pub batches_fill: bool,
    /// `free_pgtables()` takes a driver's VMA out of the reverse map before the flush (before b67fbebd4cf9).
    pub pfnmap_unlinked_unflushed: bool,
    /// The flush of freed tables is told by the last VMA whether instructions were fetched there, and then leaves the way to
    /// tables of executable memory cached (the series of 2021, on architectures that ask).
    pub table_flush_trusts_last_vma: bool,
}

impl EngineSpec {
    /// Whether user CPUs have more than TLBs that answer.
    pub const fn is_detailed(&self) -> bool {
        self.generations || self.switches || self.lazy || self.by_active_mm
    }
}
