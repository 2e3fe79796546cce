//! How a request travels: who is told (`flush_tlb_multi`), and what each CPU does about it (`flush_tlb_func`).

use super::context::{INIT_MM, MmId};
use super::engine::{Engine, TLB_FLUSH_ALL};
use super::log::{FlushCounters, TlbFlushReason};
use super::rules::{MmCpumaskRule, ShouldFlushTlb};
use crate::addr::{PAGE_SHIFT, VaRange, VirtAddr};
use crate::cpumask::{CpuId, CpuMask};

/// What a CPU is asked (`struct flush_tlb_info`).
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushTlbInfo {
    /// `None`: every mm, that is, the one each CPU has loaded.
    pub(super) mm: Option<MmId>,
    pub(super) start: VirtAddr,
    pub(super) end: VirtAddr,
    /// 0 = `TLB_GENERATION_INVALID`.
    pub(super) new_tlb_gen: u64,
    pub(super) stride_shift: u32,
    pub(super) freed_tables: bool,
    pub(super) trim_cpumask: bool,
    pub(super) initiating_cpu: CpuId,
}

impl FlushTlbInfo {
    /// What a deferred flush asks: everything, of whatever mm.
    pub(super) const fn of_batch(initiating_cpu: CpuId) -> Self {
        Self {
            mm: None,
            start: VirtAddr(0),
            end: TLB_FLUSH_ALL,
            new_tlb_gen: 0,
            stride_shift: 0,
            freed_tables: false,
            trim_cpumask: false,
            initiating_cpu,
        }
    }

    /// Strides of a range that is not full.
    pub(super) const fn nr_strides(&self) -> i64 {
        ((self.end.0 - self.start.0) >> self.stride_shift).cast_signed()
    }
}

/// Whom a request reached. CPUs stand in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Reached {
    pub(super) is_remote: bool,
    /// The requesting CPU is one of those that `flush_tlb_multi` runs on.
    includes_self: bool,
    pub(super) told: Vec<CpuId>,
    pub(super) lazy_skipped: Vec<CpuId>,
    pub(super) lazy_left: Vec<CpuId>,
    pub(super) gone: Vec<CpuId>,
    pub(super) up_to_date: Vec<CpuId>,
    pub(super) nothing_cached: Vec<CpuId>,
    /// The requesting CPU flushed its own TLB.
    pub(super) has_flushed_here: bool,
    /// Entries of a lazy-MMU batch.
    pub(super) nr_entries: u32,
}

impl Reached {
    /// `flush_tlb_multi` runs on the requesting CPU too.
    pub(super) const fn includes_self(&self) -> bool {
        self.includes_self
    }

    /// Empties it for the next request; its memory stays.
    pub(super) fn clear(&mut self) {
        self.is_remote = false;
        self.includes_self = false;
        self.has_flushed_here = false;
        self.nr_entries = 0;
        for cpus in [
            &mut self.told,
            &mut self.lazy_skipped,
            &mut self.lazy_left,
            &mut self.gone,
            &mut self.up_to_date,
            &mut self.nothing_cached,
        ] {
            cpus.clear();
        }
    }

    /// Adds the request that `initiating_cpu` made to the sums.
    pub(super) fn count(&self, initiating_cpu: CpuId, counters: &mut FlushCounters) {
        let others = |cpus: &[CpuId]| cpus.iter().filter(|&&cpu| cpu != initiating_cpu).count() as u64;
        counters.nr_flush_remote += u64::from(self.is_remote);
        counters.nr_ipis += self.told.len() as u64;
        counters.nr_told_lazy += others(&self.lazy_left);
        counters.nr_told_gone += others(&self.gone);
        counters.nr_told_nothing_cached += self.nothing_cached.len() as u64;
        counters.nr_lazy_skipped += self.lazy_skipped.len() as u64;
        counters.nr_local_flushes += u64::from(self.has_flushed_here);
    }
}

/// What `flush_tlb_func` found on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Another mm loaded, or `init_mm`.
    Gone,
    /// A lazy CPU, which switched to `init_mm`.
    Lazy,
    /// A CPU that had caught up already.
    UpToDate,
    /// Something to flush.
    Flushed,
}

impl Engine {
    /// Runs `flush_tlb_func` on the requesting CPU, without telling anybody.
    pub(super) fn flush_here(&mut self, info: &FlushTlbInfo, reached: &mut Reached) {
        let cpu = info.initiating_cpu;
        match self.flush_tlb_func(cpu, info) {
            Found::Gone => reached.gone.push(cpu),
            Found::Lazy => reached.lazy_left.push(cpu),
            Found::UpToDate => {}
            Found::Flushed => reached.has_flushed_here = true,
        }
    }

    /// Chooses the CPUs of `mask` that [`Self::flush_tlb_multi`] will reach.
    pub(super) fn select(&self, mask: &CpuMask, info: &FlushTlbInfo, reached: &mut Reached) {
        reached.is_remote = true;
        for cpu in mask {
            let is_self = cpu == info.initiating_cpu;
            if is_self && self.rules.local_flush_first {
                continue;
            }
            if !info.freed_tables && !self.should_flush_tlb(cpu, info) {
                if self.cpus[cpu.index()].is_lazy {
                    reached.lazy_skipped.push(cpu);
                }
            } else if is_self {
                reached.includes_self = true;
            } else {
                reached.told.push(cpu);
            }
        }
    }

    /// Whether a CPU of the mask has to be reached although no page table was freed.
    #[inline]
    fn should_flush_tlb(&self, cpu: CpuId, info: &FlushTlbInfo) -> bool {
        let state = &self.cpus[cpu.index()];
        if state.is_lazy {
            return false;
        }
        match self.rules.should_flush_tlb {
            ShouldFlushTlb::IsLazy => true,
            ShouldFlushTlb::LoadedMm => info.mm.is_none_or(|mm| mm == state.loaded_mm) || info.trim_cpumask,
        }
    }

    /// Tells the chosen CPUs, and flushes here if this CPU is one of them (`native_flush_tlb_multi`, before 5.13
    /// `native_flush_tlb_others`). In the kernel they all run at once; here this CPU comes first, then the others in
    /// ascending order.
    pub(super) fn flush_tlb_multi(&mut self, info: &FlushTlbInfo, reached: &mut Reached) {
        let pages =
            if info.end == TLB_FLUSH_ALL { -1 } else { ((info.end.0 - info.start.0) >> PAGE_SHIFT).cast_signed() };
        let request = self.current_request();
        self.log.event(request, info.initiating_cpu, TlbFlushReason::RemoteSendIpi, pages);
        if reached.includes_self {
            self.flush_here(info, reached);
        }
        for at in 0..reached.told.len() {
            self.flush_there(reached.told[at], info, reached);
        }
    }

    /// Runs `flush_tlb_func` on a CPU that was told.
    pub(super) fn flush_there(&mut self, cpu: CpuId, info: &FlushTlbInfo, reached: &mut Reached) {
        if self.holds_nothing_of(cpu, info) {
            reached.nothing_cached.push(cpu);
        }
        match self.flush_tlb_func(cpu, info) {
            Found::Gone => reached.gone.push(cpu),
            Found::Lazy => reached.lazy_left.push(cpu),
            Found::UpToDate => reached.up_to_date.push(cpu),
            Found::Flushed => {}
        }
    }

    /// Whether the CPU holds no entry of what is asked for: of the mm in its slot there, loaded or not, or without an
    /// mm of the loaded one. Not known without TLB contents, then false.
    fn holds_nothing_of(&self, cpu: CpuId, info: &FlushTlbInfo) -> bool {
        let Some(tlbs) = &self.tlbs else {
            return false;
        };
        let pcid = match info.mm {
            Some(mm) => self.pcid_of_mm(cpu, mm),
            None => Some(self.loaded_pcid(cpu)),
        };
        let range = VaRange::new(info.start, info.end);
        pcid.is_none_or(|pcid| !tlbs.contains_in_range(cpu.index(), pcid, range))
    }

    /// The number of the request that is being carried out.
    pub(super) fn current_request(&self) -> i64 {
        self.log.counters.nr_flush_requests.cast_signed()
    }

    /// What a CPU does when it is asked (`flush_tlb_func`).
    fn flush_tlb_func(&mut self, cpu: CpuId, info: &FlushTlbInfo) -> Found {
        let request = self.current_request();
        let is_local = cpu == info.initiating_cpu;
        let state = &mut self.cpus[cpu.index()];
        let loaded_mm = state.loaded_mm;
        if let Some(mm) = info.mm
            && mm != loaded_mm
        {
            if self.rules.mm_cpumask_rule == MmCpumaskRule::Lazy {
                self.context_mut(mm).mm_cpumask.clear(cpu);
                self.log.event(request, cpu, TlbFlushReason::RemoteWrongCpu, 0);
            }
            return Found::Gone;
        }
        if loaded_mm == INIT_MM {
            return Found::Gone;
        }
        if state.is_lazy {
            // Its next user would compare generations anyway, but a freed page table must not be walked even by
            // accident: with the kernel's own mm loaded it cannot be.
            self.switch_mm(cpu, INIT_MM);
            return Found::Lazy;
        }
        let pcid = self.pcid_of_slot(self.cpus[cpu.index()].loaded_mm_asid);
        let mm_tlb_gen = self.context(loaded_mm).tlb_gen;
        let ctx = self.cpus[cpu.index()].loaded_ctx_mut();
        let local_tlb_gen = ctx.tlb_gen;
        if self.rules.flush_skips_old_gen && info.new_tlb_gen != 0 && info.new_tlb_gen <= local_tlb_gen {
            return Found::UpToDate;
        }
        let reason = match (is_local, info.mm) {
            (false, _) => TlbFlushReason::RemoteShootdown,
            (true, None) => TlbFlushReason::LocalShootdown,
            (true, Some(_)) => TlbFlushReason::LocalMmShootdown,
        };
        if local_tlb_gen == mm_tlb_gen {
            if self.rules.traces_up_to_date() {
                self.log.event(request, cpu, reason, 0);
            }
            return Found::UpToDate;
        }
        ctx.tlb_gen = mm_tlb_gen;
        // A range says only what this one request needs: it will do if nothing else was missed before or came after.
        let is_partial =
            info.end != TLB_FLUSH_ALL && info.new_tlb_gen == local_tlb_gen + 1 && info.new_tlb_gen == mm_tlb_gen;
        if let Some(tlbs) = &mut self.tlbs {
            if is_partial {
                tlbs.invalidate_range(cpu.index(), pcid, info.start, info.end, info.stride_shift);
            } else {
                tlbs.flush_pcid(cpu.index(), pcid);
            }
        }
        self.log.event(request, cpu, reason, if is_partial { info.nr_strides() } else { -1 });
        Found::Flushed
    }
}
