//! What the flush engine did: requests, tracepoints, and counters that stay when logging is off.

use std::ops::AddAssign;

use serde::{Serialize, Serializer};

use super::context::MmId;
use super::logged_mask::LoggedMask;
use crate::addr::VirtAddr;
use crate::cpumask::CpuId;

/// Why a CPU flushed (`enum tlb_flush_reason` of `include/linux/mm_types.h`, in its order).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TlbFlushReason {
    /// It switched to an mm whose entries in its slot were outdated (`TLB_FLUSH_ON_TASK_SWITCH`).
    TaskSwitch = 0,
    /// Another CPU asked for it (`TLB_REMOTE_SHOOTDOWN`).
    RemoteShootdown = 1,
    /// It asked itself, for several mms (`TLB_LOCAL_SHOOTDOWN`).
    LocalShootdown = 2,
    /// It asked itself, for one mm (`TLB_LOCAL_MM_SHOOTDOWN`).
    LocalMmShootdown = 3,
    /// It told others (`TLB_REMOTE_SEND_IPI`).
    RemoteSendIpi = 4,
    /// It was told of an mm that it does not have loaded (`TLB_REMOTE_WRONG_CPU`).
    RemoteWrongCpu = 5,
}

/// The request of a [`TlbFlushEvent`] that belongs to none.
pub const NO_REQUEST: i64 = -1;

/// One hit of the tracepoint `tlb:tlb_flush`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TlbFlushEvent {
    /// The number of the request, counted from 0 over the life of the engine; [`NO_REQUEST`] for a task switch.
    pub request: i64,
    /// Where it happened.
    #[serde(serialize_with = "cpu_number")]
    pub cpu: CpuId,
    /// Why.
    #[serde(serialize_with = "reason_number")]
    pub reason: TlbFlushReason,
    /// Strides that were invalidated; for [`TlbFlushReason::RemoteSendIpi`] 4 KiB pages of the range; -1 = all.
    pub pages: i64,
}

/// What kind of request it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlushKind {
    /// `flush_tlb_mm_range`.
    MmRange,
    /// `arch_tlbbatch_flush`.
    Batch,
    /// The invalidations of single entries that lazy-MMU mode collected.
    LazyMmu,
}

/// One request to flush, and what became of it. Serialized with the keys of the flush log, masks as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlushRequest {
    /// The index of the operation that asked.
    pub op: u32,
    /// The task that asked.
    pub task: u32,
    /// The CPU that asked.
    #[serde(serialize_with = "cpu_number")]
    pub cpu: CpuId,
    /// What was asked.
    pub kind: FlushKind,
    /// Of which mm; none for a batch, which concerns several.
    #[serde(serialize_with = "mm_number")]
    pub mm: Option<MmId>,
    /// The first byte to flush, after the ceiling was applied.
    #[serde(serialize_with = "address")]
    pub start: VirtAddr,
    /// The byte after the last, after the ceiling was applied; [`super::TLB_FLUSH_ALL`] = a full flush.
    #[serde(serialize_with = "address")]
    pub end: VirtAddr,
    /// `start` as the caller gave it.
    #[serde(serialize_with = "address")]
    pub range_start: VirtAddr,
    /// `end` as the caller gave it.
    #[serde(serialize_with = "address")]
    pub range_end: VirtAddr,
    /// log2 of the bytes from one invalidation to the next; 0 for a batch.
    pub stride_shift: u32,
    /// Page tables were freed: lazy CPUs must be told too.
    pub freed_tables: bool,
    /// The mm's generation that this request made; 0 = none.
    #[serde(rename = "gen")]
    pub new_tlb_gen: u64,
    /// Invalidations asked of each CPU: strides, or entries of a lazy-MMU batch; -1 = all. Not serialized.
    #[serde(skip)]
    pub pages: i64,
    /// `mm_cpumask` before (the batch's mask for a batch).
    pub mask: LoggedMask,
    /// The mask held another CPU, so the way of remote flushes was taken (even if it then told nobody).
    pub remote: bool,
    /// CPUs that got an IPI.
    pub told: LoggedMask,
    /// Lazy CPUs that were spared.
    pub lazy_skipped: LoggedMask,
    /// Lazy CPUs, the requesting one included, that switched to `init_mm` for it.
    pub lazy_left: LoggedMask,
    /// CPUs, the requesting one included, that were asked and had another mm (or `init_mm`) loaded.
    pub gone: LoggedMask,
    /// CPUs of `told` that had flushed already: their generation was that of the mm, or newer. Not serialized.
    #[serde(skip)]
    pub up_to_date: LoggedMask,
    /// CPUs of `told` that held no entry of what was asked for just before. Empty, and without meaning, if the
    /// contents of TLBs are not modelled.
    pub nothing_cached: LoggedMask,
}

/// Sums over all requests since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
pub struct FlushCounters {
    /// Requests of every kind.
    pub nr_flush_requests: u64,
    /// Requests to flush the whole address space.
    pub nr_flush_full: u64,
    /// The other requests.
    pub nr_flush_ranged: u64,
    /// Invalidations that ranged requests asked of each CPU.
    pub nr_flush_pages: u64,
    /// Requests whose mask held another CPU.
    pub nr_flush_remote: u64,
    /// IPIs: CPUs told.
    pub nr_ipis: u64,
    /// CPUs told that were lazy and left the mm.
    pub nr_told_lazy: u64,
    /// CPUs told that had another mm loaded.
    pub nr_told_gone: u64,
    /// CPUs told that held nothing of what was asked for (0 if the contents of TLBs are not modelled).
    pub nr_told_nothing_cached: u64,
    /// Lazy CPUs spared.
    pub nr_lazy_skipped: u64,
    /// Flushes that requesting CPUs did in their own TLBs.
    pub nr_local_flushes: u64,
    /// Lazy-MMU batches that were issued.
    pub nr_lazy_mmu_drains: u64,
    /// Entries in those batches.
    pub nr_lazy_mmu_entries: u64,
}

impl AddAssign for FlushCounters {
    fn add_assign(&mut self, other: Self) {
        let Self {
            nr_flush_requests,
            nr_flush_full,
            nr_flush_ranged,
            nr_flush_pages,
            nr_flush_remote,
            nr_ipis,
            nr_told_lazy,
            nr_told_gone,
            nr_told_nothing_cached,
            nr_lazy_skipped,
            nr_local_flushes,
            nr_lazy_mmu_drains,
            nr_lazy_mmu_entries,
        } = other;
        self.nr_flush_requests += nr_flush_requests;
        self.nr_flush_full += nr_flush_full;
        self.nr_flush_ranged += nr_flush_ranged;
        self.nr_flush_pages += nr_flush_pages;
        self.nr_flush_remote += nr_flush_remote;
        self.nr_ipis += nr_ipis;
        self.nr_told_lazy += nr_told_lazy;
        self.nr_told_gone += nr_told_gone;
        self.nr_told_nothing_cached += nr_told_nothing_cached;
        self.nr_lazy_skipped += nr_lazy_skipped;
        self.nr_local_flushes += nr_local_flushes;
        self.nr_lazy_mmu_drains += nr_lazy_mmu_drains;
        self.nr_lazy_mmu_entries += nr_lazy_mmu_entries;
    }
}

/// Requests, tracepoints and counters.
#[derive(Clone, Debug, Default)]
pub(super) struct FlushLog {
    pub(super) requests: Vec<FlushRequest>,
    pub(super) events: Vec<TlbFlushEvent>,
    pub(super) counters: FlushCounters,
    /// The counters when the log was last handed out.
    pub(super) counters_taken: FlushCounters,
    pub(super) is_off: bool,
}

impl FlushLog {
    #[inline]
    pub(super) fn event(&mut self, request: i64, cpu: CpuId, reason: TlbFlushReason, pages: i64) {
        if !self.is_off {
            self.events.push(TlbFlushEvent { request, cpu, reason, pages });
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn cpu_number<S: Serializer>(cpu: &CpuId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(cpu.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn reason_number<S: Serializer>(reason: &TlbFlushReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*reason as u8)
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn mm_number<S: Serializer>(mm: &Option<MmId>, serializer: S) -> Result<S::Ok, S::Error> {
    mm.map(|mm| mm.0).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn address<S: Serializer>(address: &VirtAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(address.0)
}
