//! What the machine keeps of an address space, a task and a CPU beside their parts in the flush engine.

use crate::addr::{VaRange, VirtAddr, Vpn};
use crate::cpumask::{CpuId, CpuMask};
use crate::flush::MmId;
use crate::page_table::TableId;

use super::vma::VmaTree;

/// Where the heap begins (`mm->start_brk`).
pub const START_BRK: VirtAddr = VirtAddr(0x5555_5580_0000);
/// Below which `mmap` looks for room (`mm->mmap_base`).
pub const MMAP_BASE: VirtAddr = VirtAddr(0x7fff_f7ff_f000);
/// The lowest address that `mmap` chooses.
pub const MMAP_MIN: VirtAddr = VirtAddr(0x1000);

/// `mm->tlb_flush_batched`: what reclaim left unflushed here. With a flag, pending is 1 or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushBatched {
    /// Entries that reclaim cleared without a flush.
    pub pending: u32,
    /// How many of them were flushed since.
    pub flushed: u32,
}

/// An address space (`struct mm_struct`).
#[derive(Clone, Debug)]
pub struct Mm {
    /// The top page table.
    pub root: TableId,
    /// The areas.
    pub vmas: VmaTree,
    /// Operations that changed entries and will flush (`tlb_flush_pending`).
    pub tlb_flush_pending: u32,
    /// Reclaim's flushes outstanding, counted.
    pub tlb_flush_batched: FlushBatched,
    /// The same as a set of CPUs (consolidated schemes only).
    pub tlb_flush_batched_cpumask: CpuMask,
    /// The generation up to which deferred flushes are known to be done.
    pub tlb_gen_completed: u64,
    /// The generation that completes the deferred flushes of the whole mm.
    pub defer_gen: u64,
    /// The end of the heap.
    pub brk: VirtAddr,
    /// Tasks that use it.
    pub mm_users: u32,
    /// Those that it descends from by fork, the first one first.
    pub ancestors: Vec<MmId>,
}

impl Mm {
    /// An empty address space of one user.
    pub fn new(root: TableId, no_cpus: CpuMask) -> Self {
        Self {
            root,
            vmas: VmaTree::default(),
            tlb_flush_pending: 0,
            tlb_flush_batched: FlushBatched::default(),
            tlb_flush_batched_cpumask: no_cpus,
            tlb_gen_completed: 1,
            defer_gen: 0,
            brk: START_BRK,
            mm_users: 1,
            ancestors: Vec::new(),
        }
    }

    /// The heap, in whole pages.
    pub fn heap(&self) -> VaRange {
        VaRange::new(START_BRK, self.brk.align_up(crate::addr::PAGE_SHIFT))
    }
}

/// Flushes that a task deferred (`current->tlb_ubc`).
#[derive(Clone, Debug)]
pub struct TlbUbc {
    /// Whom the deferred flush must reach.
    pub cpumask: CpuMask,
    /// Something is deferred.
    pub flush_required: bool,
    /// One of the entries was dirty, so that the flush must come before its page is written.
    pub writable: bool,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its address space.
    pub mm: MmId,
    /// Where it runs, or ran last.
    pub cpu: CpuId,
    /// Whether it runs.
    pub running: bool,
    /// Whether a call of it has begun and not ended.
    pub in_call: bool,
    /// The flushes it deferred.
    pub tlb_ubc: TlbUbc,
}

/// What the machine keeps of a CPU.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// The task that runs; none = idle or a kernel thread.
    pub curr: Option<u32>,
    /// The lazy-MMU section, if the architecture has any.
    pub lazy_mmu: LazyMmuBatch,
}

/// What a CPU collected in lazy-MMU mode (sparc64's `tlb_batch`, powerpc's `ppc64_tlb_batch`, Xen's `mc_buffer`).
#[derive(Clone, Debug, Default)]
pub struct LazyMmuBatch {
    /// Inside `arch_enter_lazy_mmu_mode`.
    pub active: bool,
    /// Of which mm the entries are.
    pub mm: MmId,
    /// Entries to invalidate.
    pub pages: Vec<Vpn>,
    /// Multicalls queued.
    pub nr_calls: u64,
}
