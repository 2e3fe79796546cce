//! The constants of a kernel that the machine needs; `docs/machine.md` section 1 lists them with their meaning.

use serde::{Deserialize, Serialize};

/// When a CPU's bit leaves `mm_cpumask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpumaskRule {
    /// When the CPU switches away (before 6.14).
    Eager,
    /// By a flush that finds the mm gone (Linux kernel commit 209954cbc7d0, in v6.14).
    Lazy,
}

/// Which CPUs of the mask a flush without freed tables spares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShouldFlushTlb {
    /// Lazy ones (`tlb_is_not_lazy`).
    IsLazy,
    /// Lazy ones and those with another mm loaded (`should_flush_tlb`, 6.14).
    LoadedMm,
}

/// How reclaim's outstanding flushes are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchedPending {
    /// `bool tlb_flush_batched` (before 5.17).
    Flag,
    /// A pending and a flushed count (Linux kernel commit 5ee2fa2f0636, in v5.17).
    Counter,
    /// A mask of CPUs (patch 20 of the 2021 series).
    Cpumask,
}

/// At which grain an operation knows that another has flushes outstanding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingTracking {
    /// The count `mm->tlb_flush_pending`.
    Mm,
    /// A generation per mm.
    MmGen,
    /// A generation per VMA (patch 15).
    Vma,
    /// A generation per page table (patch 16).
    Table,
}

/// What the arch lazy-MMU mode batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LazyMmu {
    /// Nothing (native x86).
    None,
    /// Invalidations, one per PTE (sparc64, powerpc hash).
    PerPte,
    /// PTE updates as multicalls (Xen PV).
    Multicall,
}

/// Transparent huge pages for anonymous memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thp {
    /// Never.
    Never,
    /// Where madvise asked for them.
    Madvise,
    /// Wherever they fit.
    Always,
}

/// The constants of a kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about a kernel version")]
pub struct Constants {
    /// A flush of more strides than this becomes a full one.
    pub tlb_single_page_flush_ceiling: u64,
    /// PCID slots per CPU.
    pub tlb_nr_dyn_asids: u16,
    /// Pages that a gather holds before it allocates.
    pub gather_bundle: u32,
    /// Pages per allocated batch of a gather.
    pub gather_batch: u32,
    /// Batches that a gather may allocate.
    pub gather_batch_count: u32,
    /// When a CPU's bit leaves `mm_cpumask`.
    pub mm_cpumask_rule: CpumaskRule,
    /// Which CPUs a flush spares.
    pub should_flush_tlb: ShouldFlushTlb,
    /// At most one trimming flush per mm in this time (lazy rule).
    pub trim_cpumask_interval_ns: u64,
    /// `flush_tlb_func` returns at once when the request's generation was reached.
    pub flush_skips_old_gen: bool,
    /// What `flush_tlb_range()` passes as `freed_tables`.
    pub flush_tlb_range_freed_tables: bool,
    /// The local flush comes before the remote ones.
    pub local_flush_first: bool,
    /// How reclaim's outstanding flushes are remembered.
    pub batched_pending: BatchedPending,
    /// At which grain operations see each other's outstanding flushes.
    pub pending_tracking: PendingTracking,
    /// What the arch lazy-MMU mode batches.
    pub lazy_mmu: LazyMmu,
    /// Entries that a lazy-MMU batch holds.
    pub lazy_mmu_batch: u32,
    /// Window of `do_fault_around`, in pages.
    pub fault_around_pages: u32,
    /// Pages per reclaim list.
    pub swap_cluster_max: u32,
    /// When an anonymous page is written in place instead of copied.
    pub cow_reuse: CowReuse,
    /// When a page that comes back from swap becomes writable, if it has no other user.
    pub swap_in_mkwrite: SwapInMkwrite,
    /// mremap may move whole PTE tables.
    pub pmd_move: bool,
    /// mremap may move whole PMD tables.
    pub pud_move: bool,
    /// Transparent huge pages.
    pub thp: Thp,
}

/// When an anonymous page is written in place instead of copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CowReuse {
    /// When it is mapped once.
    Mapcount,
}

/// When a page that comes back from swap becomes writable, if it has no other user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapInMkwrite {
    /// When the fault is a write.
    WriteFault,
    /// On a read as well.
    Exclusive,
}

impl Constants {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// One line that names the constant, what it is and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        let at_least_one = [
            ("tlb_nr_dyn_asids", u64::from(self.tlb_nr_dyn_asids)),
            ("gather_bundle", u64::from(self.gather_bundle)),
            ("swap_cluster_max", u64::from(self.swap_cluster_max)),
            ("fault_around_pages", u64::from(self.fault_around_pages)),
        ];
        for (name, value) in at_least_one {
            if value == 0 {
                return Err(format!("constant {name} is 0, expected at least 1"));
            }
        }
        if self.fault_around_pages > 512 || !self.fault_around_pages.is_power_of_two() {
            return Err(format!(
                "constant fault_around_pages is {}, expected a power of two up to 512",
                self.fault_around_pages
            ));
        }
        if self.tlb_nr_dyn_asids > 4094 {
            return Err(format!("constant tlb_nr_dyn_asids is {}, expected at most 4094", self.tlb_nr_dyn_asids));
        }
        if self.lazy_mmu != LazyMmu::None && self.lazy_mmu_batch == 0 {
            return Err("constant lazy_mmu_batch is 0, expected at least 1 with a lazy_mmu".to_owned());
        }
        Ok(())
    }
}
