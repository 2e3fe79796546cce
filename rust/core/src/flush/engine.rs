//! The engine itself: what it owns, contexts of mms, and the requests to flush in the kernel's names.

use super::context::{INIT_MM, MmContext, MmId};
use super::cpu_state::{CpuTlbState, TlbContext};
use super::log::{FlushCounters, FlushKind, FlushLog, FlushRequest, TlbFlushEvent};
use super::logged_mask::LoggedMask;
use super::multi::{FlushTlbInfo, Reached};
use super::rules::{FlushRules, LazyMmu, MmCpumaskRule};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::cpumask::{CpuId, CpuMask};
use crate::error::{Error, Result};
use crate::tlb::{TlbGeometry, Tlbs};

/// The end of a range that means the whole address space (`TLB_FLUSH_ALL`).
pub const TLB_FLUSH_ALL: VirtAddr = VirtAddr(u64::MAX);

/// Who asks for a flush.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Initiator {
    /// The index of the operation.
    pub op: u32,
    /// The task.
    pub task: u32,
    /// The CPU it runs on.
    pub cpu: CpuId,
}

/// A place in the log of an [`Engine`].
#[derive(Clone, Debug)]
pub struct LogMark {
    nr_requests: usize,
    nr_events: usize,
    counters: FlushCounters,
}

/// The flush engine of one machine.
///
/// CPUs outside the machine, mms that were never made or are gone, and ranges that end before they start are bugs of
/// the caller and panic; [`Engine::execute`] checks its input.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) rules: FlushRules,
    pub(super) pcid: bool,
    pub(super) tlbs: Option<Tlbs>,
    pub(super) cpus: Vec<CpuTlbState>,
    pub(super) contexts: Vec<Option<MmContext>>,
    pub(super) log: FlushLog,
    /// Lists that each request fills anew, kept for their memory.
    pub(super) reached: Reached,
    empty_mask: CpuMask,
}

impl Engine {
    /// CPUs `0..nr_cpus` that have `init_mm` loaded, their TLBs empty. Without a geometry the contents of TLBs are not
    /// modelled: flushes are decided and logged all the same, and `nothing_cached` stays empty since it is not known.
    ///
    /// # Errors
    /// If the number of CPUs, the geometry or the rules are not valid.
    pub fn new(nr_cpus: u32, geometry: Option<&TlbGeometry>, pcid: bool, rules: FlushRules) -> Result<Self> {
        rules.check(pcid)?;
        let empty_mask = CpuMask::new(nr_cpus)?;
        let tlbs = geometry.map(|geometry| Tlbs::new(geometry, nr_cpus as usize)).transpose()?;
        let mut init_mm = MmContext::new(INIT_MM, empty_mask.clone(), u64::MAX);
        init_mm.nr_loaded = nr_cpus;
        let init_ctx = TlbContext { ctx_id: init_mm.ctx_id, tlb_gen: init_mm.tlb_gen };
        let nr_slots = if pcid { rules.tlb_nr_dyn_asids } else { 1 };
        Ok(Self {
            rules,
            pcid,
            tlbs,
            cpus: vec![CpuTlbState::new(nr_slots, init_ctx); nr_cpus as usize],
            contexts: vec![Some(init_mm)],
            log: FlushLog::default(),
            reached: Reached::default(),
            empty_mask,
        })
    }

    /// Makes the context of a new mm at time `now_ns` (`init_new_context`).
    pub fn new_context(&mut self, now_ns: u64) -> MmId {
        let mm = MmId(self.contexts.len() as u32);
        let next_trim_ns = self.trim_after(now_ns);
        self.contexts.push(Some(MmContext::new(mm, self.empty_mask.clone(), next_trim_ns)));
        mm
    }

    /// No task uses `mm` any more. CPUs that still have it loaded (lazy ones) keep it until they load another.
    pub fn drop_context(&mut self, mm: MmId) {
        assert!(mm != INIT_MM, "init_mm cannot be dropped");
        let context = self.context_mut(mm);
        context.is_dropped = true;
        self.free_context_if_unused(mm);
    }

    /// Frees what a dropped mm holds once no CPU has it loaded.
    pub(super) fn free_context_if_unused(&mut self, mm: MmId) {
        let context = self.context(mm);
        if context.is_dropped && context.nr_loaded == 0 {
            self.contexts[mm.index()] = None;
        }
    }

    /// When a flush may trim a mask next, after `now_ns`; never under the eager rule.
    pub(super) fn trim_after(&self, now_ns: u64) -> u64 {
        match (self.rules.mm_cpumask_rule, self.rules.trim_cpumask_interval_ns) {
            (MmCpumaskRule::Lazy, Some(interval_ns)) => now_ns.saturating_add(interval_ns),
            _ => u64::MAX,
        }
    }

    /// Notes that entries of `mm` were changed for which somebody will have to flush, and returns the new generation
    /// (`inc_mm_tlb_gen`).
    #[inline]
    pub fn inc_tlb_gen(&mut self, mm: MmId) -> u64 {
        let context = self.context_mut(mm);
        context.tlb_gen += 1;
        context.tlb_gen
    }

    /// Flushes `start..end` (bytes) of `mm` at time `now_ns`, an invalidation every `1 << stride_shift` bytes
    /// (`flush_tlb_mm_range`). With per-PTE lazy-MMU mode it does nothing: see [`Self::lazy_mmu_drain`].
    #[expect(clippy::too_many_arguments, reason = "those of the kernel's function, with who asks and when")]
    pub fn flush_tlb_mm_range(
        &mut self,
        by: Initiator,
        mm: MmId,
        start: VirtAddr,
        end: VirtAddr,
        stride_shift: u32,
        freed_tables: bool,
        now_ns: u64,
    ) {
        if self.rules.lazy_mmu == LazyMmu::PerPte {
            return;
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
        let mask = self.log_mask(self.mm_cpumask(mm));
        let mut reached = std::mem::take(&mut self.reached);
        reached.clear();
        let is_remote = self.mm_cpumask(mm).any_but(by.cpu).is_some();
        let is_loaded = self.cpus[by.cpu.index()].loaded_mm == mm;
        if is_loaded && (self.rules.local_flush_first || !is_remote) {
            self.flush_here(&info, &mut reached);
        }
        if is_remote {
            info.trim_cpumask = self.should_trim_cpumask(mm, now_ns);
            self.select(self.mm_cpumask(mm), &info, &mut reached);
            self.flush_tlb_multi(&info, &mut reached);
        }
        self.record(by, FlushKind::MmRange, &info, (start, end), mask, &reached);
        self.reached = reached;
    }

    /// Flushes the page at `addr` (`flush_tlb_page`).
    pub fn flush_tlb_page(&mut self, by: Initiator, mm: MmId, addr: VirtAddr, now_ns: u64) {
        self.flush_tlb_mm_range(by, mm, addr, VirtAddr(addr.0 + PAGE_SIZE), PAGE_SHIFT, false, now_ns);
    }

    /// Flushes `start..end` in pages (`flush_tlb_range`); the kernel version says whether lazy CPUs are told.
    pub fn flush_tlb_range(&mut self, by: Initiator, mm: MmId, start: VirtAddr, end: VirtAddr, now_ns: u64) {
        let freed_tables = self.rules.flush_tlb_range_freed_tables;
        self.flush_tlb_mm_range(by, mm, start, end, PAGE_SHIFT, freed_tables, now_ns);
    }

    /// Flushes all of `mm` (`flush_tlb_mm`, which passes no stride).
    pub fn flush_tlb_mm(&mut self, by: Initiator, mm: MmId, now_ns: u64) {
        self.flush_tlb_mm_range(by, mm, VirtAddr(0), TLB_FLUSH_ALL, 0, true, now_ns);
    }

    /// Makes every CPU of `batch` catch up with the generations of the mm that it has loaded, and empties the batch
    /// (`arch_tlbbatch_flush`). Who adds to the batch has called [`Self::inc_tlb_gen`] for it.
    pub fn arch_tlbbatch_flush(&mut self, by: Initiator, batch: &mut CpuMask) {
        let info = FlushTlbInfo::of_batch(by.cpu);
        let mask = self.log_mask(batch);
        let mut reached = std::mem::take(&mut self.reached);
        reached.clear();
        let is_remote = batch.any_but(by.cpu).is_some();
        if batch.test(by.cpu) && (self.rules.local_flush_first || !is_remote) {
            self.flush_here(&info, &mut reached);
        }
        if is_remote {
            self.select(batch, &info, &mut reached);
            self.flush_tlb_multi(&info, &mut reached);
        }
        batch.clear_all();
        self.record(by, FlushKind::Batch, &info, (info.start, info.end), mask, &reached);
        self.reached = reached;
    }

    /// Whether this flush trims the mask; if so, the next one has to wait (`should_trim_cpumask`).
    pub(super) fn should_trim_cpumask(&mut self, mm: MmId, now_ns: u64) -> bool {
        let next_trim_ns = self.trim_after(now_ns);
        let context = self.context_mut(mm);
        // Under the eager rule both are u64::MAX, and no time reaches that.
        let trim = now_ns >= context.next_trim_ns && context.next_trim_ns != u64::MAX;
        if trim {
            context.next_trim_ns = next_trim_ns;
        }
        trim
    }

    /// Counts a request that was carried out, and logs it if logging is on.
    pub(super) fn record(
        &mut self,
        by: Initiator,
        kind: FlushKind,
        info: &FlushTlbInfo,
        (range_start, range_end): (VirtAddr, VirtAddr),
        mask: LoggedMask,
        reached: &Reached,
    ) {
        let is_full = info.end == TLB_FLUSH_ALL;
        let pages = match kind {
            _ if is_full => -1,
            FlushKind::LazyMmu => i64::from(reached.nr_entries),
            FlushKind::MmRange | FlushKind::Batch => info.nr_strides(),
        };
        let counters = &mut self.log.counters;
        counters.nr_flush_requests += 1;
        counters.nr_flush_full += u64::from(is_full);
        counters.nr_flush_ranged += u64::from(!is_full);
        counters.nr_flush_pages += u64::try_from(pages).unwrap_or(0);
        reached.count(by.cpu, counters);
        if self.log.is_off {
            return;
        }
        self.log.requests.push(FlushRequest {
            op: by.op,
            task: by.task,
            cpu: by.cpu,
            kind,
            mm: info.mm,
            start: info.start,
            end: info.end,
            range_start,
            range_end,
            stride_shift: info.stride_shift,
            freed_tables: info.freed_tables,
            new_tlb_gen: info.new_tlb_gen,
            pages,
            mask,
            remote: reached.is_remote,
            told: LoggedMask::from_cpus(&reached.told),
            lazy_skipped: LoggedMask::from_cpus(&reached.lazy_skipped),
            lazy_left: LoggedMask::from_cpus(&reached.lazy_left),
            gone: LoggedMask::from_cpus(&reached.gone),
            up_to_date: LoggedMask::from_cpus(&reached.up_to_date),
            nothing_cached: LoggedMask::from_cpus(&reached.nothing_cached),
        });
    }

    /// The mask as the log keeps it; nothing when logging is off.
    pub(super) fn log_mask(&self, mask: &CpuMask) -> LoggedMask {
        if self.log.is_off { LoggedMask::default() } else { LoggedMask::from(mask) }
    }

    /// The kernel's constants.
    pub const fn rules(&self) -> &FlushRules {
        &self.rules
    }

    /// How many CPUs there are.
    pub const fn nr_cpus(&self) -> u32 {
        self.empty_mask.nr_cpus()
    }

    /// The state of a CPU.
    pub fn cpu(&self, cpu: CpuId) -> &CpuTlbState {
        &self.cpus[cpu.index()]
    }

    /// The context of `mm`, which must exist.
    #[inline]
    #[track_caller]
    pub fn context(&self, mm: MmId) -> &MmContext {
        self.contexts[mm.index()].as_ref().expect("the mm was dropped")
    }

    #[inline]
    #[track_caller]
    pub(super) fn context_mut(&mut self, mm: MmId) -> &mut MmContext {
        self.contexts[mm.index()].as_mut().expect("the mm was dropped")
    }

    /// Whether `mm` was made and is not gone; a dropped one stays while a lazy CPU has it loaded.
    pub fn has_context(&self, mm: MmId) -> bool {
        self.contexts.get(mm.index()).is_some_and(Option::is_some)
    }

    /// The CPUs that may hold entries of `mm`.
    #[inline]
    pub fn mm_cpumask(&self, mm: MmId) -> &CpuMask {
        &self.context(mm).mm_cpumask
    }

    /// The PCID under which the TLBs keep entries of `slot`.
    #[inline]
    pub const fn pcid_of_slot(&self, slot: u16) -> u16 {
        if self.pcid { slot + 1 } else { 0 }
    }

    /// The PCID that a CPU has loaded: look-ups and fills of its accesses use it.
    #[inline]
    pub fn loaded_pcid(&self, cpu: CpuId) -> u16 {
        self.pcid_of_slot(self.cpus[cpu.index()].loaded_mm_asid)
    }

    /// The PCID under which a CPU holds entries of `mm`, if it has a slot for it.
    pub fn pcid_of_mm(&self, cpu: CpuId, mm: MmId) -> Option<u16> {
        let slot = self.cpus[cpu.index()].slot_of(self.context(mm).ctx_id)?;
        Some(self.pcid_of_slot(slot))
    }

    /// The TLBs, if their contents are modelled.
    pub const fn tlbs(&self) -> Option<&Tlbs> {
        self.tlbs.as_ref()
    }

    /// The TLBs, for look-ups and fills.
    pub const fn tlbs_mut(&mut self) -> Option<&mut Tlbs> {
        self.tlbs.as_mut()
    }

    /// Drops the entries of `addr` of `mm` on every CPU without a request, a log entry or a generation: for evidence
    /// that they never were there.
    pub fn forget_translation(&mut self, mm: MmId, addr: VirtAddr) {
        for cpu in (0..self.nr_cpus() as u16).map(CpuId) {
            if let Some(pcid) = self.pcid_of_mm(cpu, mm)
                && let Some(tlbs) = &mut self.tlbs
            {
                tlbs.invalidate_page(cpu.index(), pcid, addr);
            }
        }
    }

    /// The requests so far, or since [`Self::take_log`].
    pub fn log(&self) -> &[FlushRequest] {
        &self.log.requests
    }

    /// The tracepoints so far, or since [`Self::take_log`]; their request numbers go on counting.
    pub fn events(&self) -> &[TlbFlushEvent] {
        &self.log.events
    }

    /// Whether [`Self::take_log`] would hand out nothing; if so, that is as good as done.
    pub fn is_log_empty(&mut self) -> bool {
        self.log.counters_taken =
            if self.log.requests.is_empty() { self.log.counters } else { self.log.counters_taken };
        self.log.requests.is_empty() && self.log.events.is_empty()
    }

    /// Hands out the requests and tracepoints, and begins again with none.
    pub fn take_log(&mut self) -> (Vec<FlushRequest>, Vec<TlbFlushEvent>) {
        self.log.counters_taken = self.log.counters;
        (std::mem::take(&mut self.log.requests), std::mem::take(&mut self.log.events))
    }

    /// Forgets requests and tracepoints since [`Self::take_log`], and no longer counts them: what asked for them only
    /// brought about a state that was there before. Generations and TLBs stay as they are.
    pub fn discard_log(&mut self) {
        self.log.requests.clear();
        self.log.events.clear();
        self.log.counters = self.log.counters_taken;
    }

    /// Where the log is, for [`Self::discard_log_since`].
    pub const fn log_mark(&self) -> LogMark {
        LogMark { nr_requests: self.log.requests.len(), nr_events: self.log.events.len(), counters: self.log.counters }
    }

    /// As [`Self::discard_log`], of what came since a mark that was made after the last [`Self::take_log`].
    pub fn discard_log_since(&mut self, mark: &LogMark) {
        self.log.requests.truncate(mark.nr_requests);
        self.log.events.truncate(mark.nr_events);
        self.log.counters = mark.counters;
    }

    /// Switches the log of requests and tracepoints on (as at first) or off; counters go on either way.
    pub const fn set_logging(&mut self, on: bool) {
        self.log.is_off = !on;
    }

    /// The sums over all requests.
    pub const fn counters(&self) -> &FlushCounters {
        &self.log.counters
    }

    /// Refuses a CPU that the machine does not have.
    pub(super) fn check_cpu(&self, cpu: CpuId) -> Result<()> {
        if cpu.index() < self.cpus.len() {
            return Ok(());
        }
        Err(Error::Value(format!("CPU: found {cpu}, expected 0 to {}", self.cpus.len() - 1)))
    }
}
