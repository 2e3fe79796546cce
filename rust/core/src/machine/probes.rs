//! The probe log: what the machine did around its flushes, at the places where a kernel would be probed.
//!
//! The flush log says what was asked of TLBs; this one says who was about to ask: gathers, deferred flushes, entries
//! cleared by reclaim (`arch_tlbbatch_flush` itself is a request of its own kind there). Its purpose is to be held against recordings of real kernels, so a probe stands where the function
//! of that name begins. Off unless asked for: a replay that nobody compares pays one branch per hit.

use crate::addr::VirtAddr;
use crate::cpumask::CpuId;
use crate::flush::{Initiator, MmId};

use super::Machine;

/// Which function was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// `tlb_gather_mmu`, or with `full` `tlb_gather_mmu_fullmm`; `pending` is `tlb_flush_pending` before it.
    Gather {
        /// The gather is for the whole address space.
        full: bool,
        /// `mm->tlb_flush_pending` at entry, without this gather.
        pending: u32,
    },
    /// `tlb_finish_mmu`; more than one pending makes it nested.
    Finish {
        /// `mm->tlb_flush_pending` at entry, this gather included.
        pending: u32,
    },
    /// `tlb_flush_mmu` by another than `tlb_finish_mmu` (which has it inlined): a gather that was full or forced.
    FlushMmu,
    /// `flush_tlb_batched_pending`.
    BatchedPending {
        /// Reclaim had left entries unflushed, so that it flushes.
        due: bool,
    },
    /// `ptep_clear_flush`.
    PtepClearFlush {
        /// The page.
        addr: VirtAddr,
    },
    /// `pmdp_huge_clear_flush`.
    PmdpClearFlush {
        /// The huge page.
        addr: VirtAddr,
    },
    /// `try_to_unmap_one`.
    UnmapOne {
        /// The page, in the address space that maps it.
        addr: VirtAddr,
    },
    /// `exit_mmap`.
    ExitMmap,
    /// A page fault of user space was handled.
    Fault {
        /// The page.
        addr: VirtAddr,
    },
}

/// One hit of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeHit {
    /// The index of the operation that came here.
    pub op: u32,
    /// The task.
    pub task: u32,
    /// The CPU.
    pub cpu: CpuId,
    /// The address space that it is about.
    pub mm: MmId,
    /// Flush requests made before it, over the life of the machine: the request with this number came after.
    pub nr_requests: u64,
    /// Where.
    pub probe: Probe,
}

/// Hits so far, if anybody wants them.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeLog(Option<Vec<ProbeHit>>);

impl Machine {
    /// Switches the probe log on or off (as at first); either way it is empty afterwards.
    pub fn set_probing(&mut self, on: bool) {
        self.probes = ProbeLog(on.then(Vec::new));
    }

    /// Hands out the hits since the last time, in order.
    pub fn take_probes(&mut self) -> Vec<ProbeHit> {
        self.probes.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether hits are kept.
    pub(super) const fn is_probing(&self) -> bool {
        self.probes.0.is_some()
    }

    /// A probe was hit.
    #[inline]
    pub(super) fn hit(&mut self, by: Initiator, mm: MmId, probe: Probe) {
        if let Some(hits) = &mut self.probes.0 {
            let nr_requests = self.engine.counters().nr_flush_requests;
            hits.push(ProbeHit { op: by.op, task: by.task, cpu: by.cpu, mm, nr_requests, probe });
        }
    }
}
