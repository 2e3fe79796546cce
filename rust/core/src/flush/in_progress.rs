//! A request to flush taken apart: begun (generation, mask, targets), executed CPU by CPU, ended.
//!
//! [`Engine::flush_tlb_mm_range`] and [`Engine::arch_tlbbatch_flush`] do all of it at once. In a kernel other requests come
//! in between: they raise the generation, so that a CPU that executes `flush_tlb_func` late flushes everything and the
//! handler of the other request finds nothing left to do (arch/x86/mm/tlb.c:`flush_tlb_func`).

use super::context::MmId;
use super::engine::{Engine, Initiator, TLB_FLUSH_ALL};
use super::log::{FlushKind, NO_REQUEST, TlbFlushEvent, TlbFlushReason};
use super::logged_mask::LoggedMask;
use super::multi::{FlushTlbInfo, Reached};
use super::rules::LazyMmu;
use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::cpumask::{CpuId, CpuMask};

/// A request that was made and that some CPUs have not executed yet.
#[derive(Clone, Debug)]
pub struct FlushInProgress {
    by: Initiator,
    kind: FlushKind,
    info: FlushTlbInfo,
    range: (VirtAddr, VirtAddr),
    mask: LoggedMask,
    reached: Reached,
    /// CPUs that have not executed `flush_tlb_func` yet: the requesting one first, then ascending.
    waiting: Vec<CpuId>,
    /// Tracepoints so far; they get the number of the request when it ends.
    events: Vec<TlbFlushEvent>,
    /// The requesting CPU flushes before it tells the others (`local_flush_first`).
    local_first: bool,
}

impl FlushInProgress {
    /// The CPUs that have not executed it yet: the requesting one first, then ascending.
    pub fn waiting(&self) -> &[CpuId] {
        &self.waiting
    }

    /// Who asked.
    pub const fn initiator(&self) -> Initiator {
        self.by
    }

    /// How many CPUs were asked, the requesting one included.
    fn nr_asked(&self) -> usize {
        self.reached.told.len() + usize::from(self.reached.includes_self())
    }

    /// The generation that it made; 0 for a batch.
    pub const fn new_tlb_gen(&self) -> u64 {
        self.info.new_tlb_gen
    }
}

impl Engine {
    /// The first part of [`Self::flush_tlb_mm_range`]: the new generation, and who has to flush. Nothing with per-PTE
    /// lazy-MMU mode.
    #[expect(clippy::too_many_arguments, reason = "those of the kernel's function, with who asks and when")]
    pub fn begin_mm_range(
        &mut self,
        by: Initiator,
        mm: MmId,
        start: VirtAddr,
        end: VirtAddr,
        stride_shift: u32,
        freed_tables: bool,
        now_ns: u64,
    ) -> Option<FlushInProgress> {
        if self.rules.lazy_mmu == LazyMmu::PerPte {
            return None;
        }
        let new_tlb_gen = self.inc_tlb_gen(mm);
        let (flush_start, flush_end) = self.rules.widen(start, end, stride_shift);
        let mut info = FlushTlbInfo {
            mm: Some(mm),
            start: flush_start,
            end: flush_end,
            new_tlb_gen,
            stride_shift,
            freed_tables,
            trim_cpumask: false,
            initiating_cpu: by.cpu,
        };
        let mask = self.mm_cpumask(mm).clone();
        let is_loaded = self.cpus[by.cpu.index()].loaded_mm == mm;
        if mask.any_but(by.cpu).is_some() {
            info.trim_cpumask = self.should_trim_cpumask(mm, now_ns);
        }
        Some(self.choose_targets(by, FlushKind::MmRange, info, (start, end), &mask, is_loaded))
    }

    /// The first part of [`Self::arch_tlbbatch_flush`]; the batch is empty afterwards.
    pub fn begin_batch(&mut self, by: Initiator, batch: &mut CpuMask) -> FlushInProgress {
        let info = FlushTlbInfo::of_batch(by.cpu);
        let is_here = batch.test(by.cpu);
        let begun = self.choose_targets(by, FlushKind::Batch, info, (info.start, info.end), batch, is_here);
        batch.clear_all();
        begun
    }

    fn choose_targets(
        &self,
        by: Initiator,
        kind: FlushKind,
        info: FlushTlbInfo,
        range: (VirtAddr, VirtAddr),
        mask: &CpuMask,
        is_here: bool,
    ) -> FlushInProgress {
        let mut reached = Reached::default();
        let mut events = Vec::new();
        let mut waiting = Vec::new();
        let is_remote = mask.any_but(by.cpu).is_some();
        let flushes_first = is_here && (self.rules.local_flush_first || !is_remote);
        if is_remote {
            self.select(mask, &info, &mut reached);
        }
        let local_first = flushes_first && is_remote;
        if is_remote && !local_first {
            events.push(sends_ipi(&info));
        }
        if flushes_first || reached.includes_self() {
            waiting.push(by.cpu);
        }
        waiting.extend_from_slice(&reached.told);
        FlushInProgress { by, kind, info, range, mask: self.log_mask(mask), reached, waiting, events, local_first }
    }

    /// Chooses the targets again, from the mask and the CPUs as they are now: the IPIs go out a moment after the request was
    /// made, to who is in the mask then (kernel/smp.c:`smp_call_function_many_cond`). Nothing once a CPU has executed it.
    pub fn choose_again(&self, flush: &mut FlushInProgress) {
        let begun = flush.events.len() > 1 || flush.waiting.len() != flush.nr_asked();
        let (false, FlushKind::MmRange, Some(mm)) = (begun || flush.local_first, flush.kind, flush.info.mm) else {
            return;
        };
        let mask = self.mm_cpumask(mm).clone();
        if !flush.reached.is_remote || mask.any_but(flush.by.cpu).is_none() {
            return;
        }
        flush.reached.clear();
        self.select(&mask, &flush.info, &mut flush.reached);
        flush.waiting.clear();
        if flush.reached.includes_self() {
            flush.waiting.push(flush.by.cpu);
        }
        flush.waiting.extend_from_slice(&flush.reached.told);
    }

    /// `cpu` executes `flush_tlb_func` for a request; false, and nothing done, if it has done so or was not asked (yet).
    pub fn deliver(&mut self, flush: &mut FlushInProgress, cpu: CpuId) -> bool {
        let is_here = cpu == flush.by.cpu;
        let Some(at) = flush.waiting.iter().position(|waiting| *waiting == cpu) else {
            return false;
        };
        if flush.local_first && !is_here {
            return false;
        }
        flush.waiting.remove(at);
        let before = self.log.events.len();
        if is_here {
            self.flush_here(&flush.info, &mut flush.reached);
        } else {
            self.flush_there(cpu, &flush.info, &mut flush.reached);
        }
        flush.events.extend(self.log.events.drain(before..));
        if std::mem::take(&mut flush.local_first) && !self.log.is_off {
            flush.events.push(sends_ipi(&flush.info));
        }
        true
    }

    /// The request returns: it is counted and logged with whom it reached. CPUs still waiting execute it now.
    pub fn end_flush(&mut self, mut flush: FlushInProgress) {
        while let Some(cpu) = flush.waiting.first().copied() {
            self.deliver(&mut flush, cpu);
        }
        let request = self.current_request();
        if !self.log.is_off {
            let numbered = flush.events.into_iter().map(|event| TlbFlushEvent {
                request: if event.request == NO_REQUEST { NO_REQUEST } else { request },
                ..event
            });
            self.log.events.extend(numbered);
        }
        self.record(flush.by, flush.kind, &flush.info, flush.range, flush.mask, &flush.reached);
    }
}

/// The tracepoint of telling others.
fn sends_ipi(info: &FlushTlbInfo) -> TlbFlushEvent {
    let full = info.end == TLB_FLUSH_ALL;
    let pages = if full { -1 } else { ((info.end.0 - info.start.0) >> PAGE_SHIFT).cast_signed() };
    TlbFlushEvent { request: 0, cpu: info.initiating_cpu, reason: TlbFlushReason::RemoteSendIpi, pages }
}
