//! The laws of the flush engine, held against a shadow that remembers when each cached entry was filled.
//!
//! The shadow stamps every entry with its mm's generation at the fill. A flush with generation `g` concerns the entries
//! of its range with a stamp below `g`: they are stale, and must never serve an access.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tlbcore::addr::{PageSize, Pfn, VirtAddr, Vpn};
use tlbcore::cpumask::{CpuId, CpuMask};
use tlbcore::flush::{
    Engine, FlushCall, FlushCounters, FlushKind, FlushRequest, FlushRules, INIT_MM, Initiator, LazyMmu, MmCpumaskRule,
    MmId, ShouldFlushTlb, TLB_FLUSH_ALL, TlbFlushReason,
};
use tlbcore::tlb::{ArrayGeometry, CachedEntry, StlbGeometry, TlbEntry, TlbGeometry};

const NR_CPUS: u16 = 3;
const NR_MMS: u32 = 4;
/// Small pages live here...
const SMALL: VirtAddr = VirtAddr(0x5000_0000_0000);
const NR_SMALL: u64 = 40;
/// ...and huge ones here, so that a flush with a huge stride finds huge pages only, as in the kernel.
const HUGE: VirtAddr = VirtAddr(0x6000_0000_0000);
const NR_HUGE: u64 = 4;

#[derive(Clone, Debug)]
enum Op {
    Switch { cpu: u16, mm: u32 },
    EnterLazy { cpu: u16 },
    Access { cpu: u16, page: u64, huge: bool },
    Flush { cpu: u16, mm: u32, range: Range, freed_tables: bool },
    BatchAdd { mm: u32, page: u64 },
    BatchFlush { cpu: u16 },
    Advance { ns: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Range {
    Small { from: u64, to: u64 },
    Huge { from: u64, to: u64 },
    All,
}

impl Range {
    fn bounds(self) -> (VirtAddr, VirtAddr, u32) {
        match self {
            Self::Small { from, to } => (small(from), small(to), 12),
            Self::Huge { from, to } => (huge(from), huge(to), 21),
            Self::All => (VirtAddr(0), TLB_FLUSH_ALL, 12),
        }
    }
}

fn small(page: u64) -> VirtAddr {
    VirtAddr(SMALL.0 + (page << 12))
}

fn huge(page: u64) -> VirtAddr {
    VirtAddr(HUGE.0 + (page << 21))
}

fn any_range() -> impl Strategy<Value = Range> {
    let within = |nr_pages: u64| (0..nr_pages, 0..=nr_pages).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        6 => within(NR_SMALL).prop_map(|(from, to)| Range::Small { from, to }),
        6 => (0..NR_SMALL).prop_map(|from| Range::Small { from, to: from + 1 }),
        3 => within(NR_HUGE).prop_map(|(from, to)| Range::Huge { from, to }),
        1 => Just(Range::All),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let (cpu, mm) = (0..NR_CPUS, 1..NR_MMS);
    prop_oneof![
        4 => (cpu.clone(), 0..NR_MMS).prop_map(|(cpu, mm)| Op::Switch { cpu, mm }),
        2 => cpu.clone().prop_map(|cpu| Op::EnterLazy { cpu }),
        8 => (cpu.clone(), 0..6_u64, any::<bool>())
            .prop_map(|(cpu, page, huge)| Op::Access { cpu, page: if huge { page % NR_HUGE } else { page }, huge }),
        5 => (cpu.clone(), mm.clone(), any_range(), any::<bool>())
            .prop_map(|(cpu, mm, range, freed_tables)| Op::Flush { cpu, mm, range, freed_tables }),
        2 => (mm, 0..6_u64).prop_map(|(mm, page)| Op::BatchAdd { mm, page }),
        1 => cpu.prop_map(|cpu| Op::BatchFlush { cpu }),
        1 => (0..2000_u64).prop_map(|ns| Op::Advance { ns }),
    ]
}

prop_compose! {
    fn mixed_rules()(
        ceiling in 0..40_u64, slots in 1..5_u16, eager in any::<bool>(), is_lazy in any::<bool>(),
        interval_ns in proptest::option::of(0..2000_u64), flags in any::<[bool; 3]>(),
    ) -> FlushRules {
        FlushRules {
            tlb_single_page_flush_ceiling: ceiling,
            tlb_nr_dyn_asids: slots,
            mm_cpumask_rule: if eager { MmCpumaskRule::Eager } else { MmCpumaskRule::Lazy },
            should_flush_tlb: if is_lazy { ShouldFlushTlb::IsLazy } else { ShouldFlushTlb::LoadedMm },
            trim_cpumask_interval_ns: interval_ns,
            flush_skips_old_gen: flags[0],
            flush_tlb_range_freed_tables: flags[1],
            local_flush_first: flags[2],
            lazy_mmu: LazyMmu::None,
        }
    }
}

fn any_rules() -> impl Strategy<Value = FlushRules> {
    prop_oneof![Just(FlushRules::LINUX_5_10), Just(FlushRules::LINUX_6_1), Just(FlushRules::LINUX_6_18), mixed_rules(),]
}

/// Small arrays, so that evictions happen too.
fn geometry() -> TlbGeometry {
    TlbGeometry {
        l1_4k: ArrayGeometry::new(8, 4),
        l1_2m: ArrayGeometry::new(4, 2),
        stlb: StlbGeometry::new(16, 4),
        ..TlbGeometry::default()
    }
}

fn new_engine(pcid: bool, rules: FlushRules) -> Engine {
    let mut engine = Engine::new(u32::from(NR_CPUS), Some(&geometry()), pcid, rules).unwrap();
    for id in 1..NR_MMS {
        assert_eq!(engine.new_context(0), MmId(id));
    }
    engine
}

/// A flush that was asked for.
struct Asked {
    mm: MmId,
    tlb_gen: u64,
    start: VirtAddr,
    end: VirtAddr,
    /// It returned, so nobody may use what it concerns.
    is_complete: bool,
}

struct Shadow {
    engine: Engine,
    pcid: bool,
    asked: Vec<Asked>,
    /// By CPU, PCID and page: who filled the entry, and its generation then.
    stamps: BTreeMap<(u16, u16, Vpn, PageSize), (MmId, u64)>,
    batch: CpuMask,
    now_ns: u64,
}

fn cpus() -> impl Iterator<Item = CpuId> {
    (0..NR_CPUS).map(CpuId)
}

fn overlaps(cached: &CachedEntry, start: VirtAddr, end: VirtAddr) -> bool {
    cached.entry.start() < end && start < cached.entry.end()
}

impl Shadow {
    fn new(pcid: bool, rules: FlushRules) -> Self {
        Self {
            engine: new_engine(pcid, rules),
            pcid,
            asked: Vec::new(),
            stamps: BTreeMap::new(),
            batch: CpuMask::new(u32::from(NR_CPUS)).unwrap(),
            now_ns: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        let by = |cpu| Initiator { op: 0, task: 0, cpu: CpuId(cpu) };
        match *op {
            Op::Switch { cpu, mm } => self.engine.switch_mm(CpuId(cpu), MmId(mm)),
            Op::EnterLazy { cpu } => self.engine.enter_lazy_tlb(CpuId(cpu)),
            Op::Access { cpu, page, huge: is_huge } => self.access(CpuId(cpu), page, is_huge),
            Op::Flush { cpu, mm, range, freed_tables } => {
                let (start, end, stride_shift) = range.bounds();
                let before = self.engine.clone();
                let mm = MmId(mm);
                self.engine.flush_tlb_mm_range(by(cpu), mm, start, end, stride_shift, freed_tables, self.now_ns);
                let tlb_gen = self.engine.context(mm).tlb_gen;
                self.asked.push(Asked { mm, tlb_gen, start, end, is_complete: true });
                self.check_request(&before);
            }
            Op::BatchAdd { mm, page } => {
                let mm = MmId(mm);
                let tlb_gen = self.engine.inc_tlb_gen(mm);
                self.batch.or_assign(self.engine.mm_cpumask(mm));
                self.asked.push(Asked { mm, tlb_gen, start: small(page), end: small(page + 1), is_complete: false });
            }
            Op::BatchFlush { cpu } => {
                let before = self.engine.clone();
                self.engine.arch_tlbbatch_flush(by(cpu), &mut self.batch);
                self.asked.iter_mut().for_each(|asked| asked.is_complete = true);
                assert!(self.batch.is_empty());
                self.check_request(&before);
            }
            Op::Advance { ns } => self.now_ns += ns,
        }
    }

    /// What a task does on a CPU: it uses what is cached, and else walks and fills.
    fn access(&mut self, cpu: CpuId, page: u64, is_huge: bool) {
        let state = self.engine.cpu(cpu);
        if state.loaded_mm == INIT_MM || state.is_lazy {
            return;
        }
        let loaded_mm = state.loaded_mm;
        let tlb_gen = self.engine.context(loaded_mm).tlb_gen;
        let pcid = self.engine.loaded_pcid(cpu);
        let (va, size) = if is_huge { (huge(page), PageSize::Size2M) } else { (small(page), PageSize::Size4K) };
        let tlbs = self.engine.tlbs_mut().unwrap();
        if tlbs.lookup(cpu.index(), pcid, va).is_none() {
            tlbs.insert(cpu.index(), pcid, TlbEntry::user_data(va.vpn(), Pfn(1 << 10), size));
            self.stamps.insert((cpu.0, pcid, va.vpn(), size), (loaded_mm, tlb_gen));
        }
    }

    /// The stale entries are those that nobody can use, and no slot claims a generation that it does not have.
    fn check_entries(&self) {
        for cpu in cpus() {
            let state = self.engine.cpu(cpu);
            for cached in self.engine.tlbs().unwrap().entries(cpu.index()) {
                let slot = if self.pcid { cached.pcid - 1 } else { 0 };
                let ctx = state.ctxs[usize::from(slot)];
                let (owner, stamp) = self.stamps[&(cpu.0, cached.pcid, cached.entry.vpn, cached.entry.size)];
                assert_eq!(
                    self.engine.context(owner).ctx_id,
                    ctx.ctx_id,
                    "CPU {cpu} has {cached:?} of {owner} in a slot of another"
                );
                let concerned = self.asked.iter().filter(|asked| {
                    asked.mm == owner && stamp < asked.tlb_gen && overlaps(&cached, asked.start, asked.end)
                });
                let is_in_use = state.loaded_mm_asid == slot && !state.is_lazy;
                for asked in concerned {
                    assert!(
                        ctx.tlb_gen < asked.tlb_gen,
                        "CPU {cpu} claims generation {} and holds {cached:?}, filled at {stamp}, flushed by {}",
                        ctx.tlb_gen,
                        asked.tlb_gen
                    );
                    assert!(
                        !(is_in_use && asked.is_complete),
                        "CPU {cpu} runs with {cached:?}, filled at {stamp}, after flush {} returned",
                        asked.tlb_gen
                    );
                }
            }
        }
    }

    fn check_masks(&self) {
        for mm in (1..NR_MMS).map(MmId) {
            let loaded = cpus().filter(|&cpu| self.engine.cpu(cpu).loaded_mm == mm);
            let loaded = CpuMask::from_cpus(u32::from(NR_CPUS), loaded).unwrap();
            let mask = self.engine.mm_cpumask(mm);
            match self.engine.rules().mm_cpumask_rule {
                MmCpumaskRule::Eager => assert_eq!(mask, &loaded),
                MmCpumaskRule::Lazy => assert!(loaded.is_subset_of(mask), "{mm}: {loaded} loaded, {mask} in the mask"),
            }
        }
        assert!(self.engine.mm_cpumask(INIT_MM).is_empty());
    }

    /// The last request's sets of CPUs, worked out plainly from the engine as it was before.
    fn check_request(&self, before: &Engine) {
        let request = self.engine.log().last().unwrap();
        let mut told = Vec::new();
        let mut nothing_cached = Vec::new();
        for cpu in request.mask.iter().filter(|&cpu| cpu != request.cpu) {
            let state = before.cpu(cpu);
            let is_told = request.freed_tables
                || !state.is_lazy
                    && (before.rules().should_flush_tlb == ShouldFlushTlb::IsLazy
                        || request.mm.is_none_or(|mm| mm == state.loaded_mm || is_trimming(before, mm, self.now_ns)));
            if is_told {
                told.push(cpu);
                let pcid = match request.mm {
                    Some(mm) => before.pcid_of_mm(cpu, mm),
                    None => Some(before.loaded_pcid(cpu)),
                };
                let entries = before.tlbs().unwrap().entries(cpu.index());
                let holds =
                    |cached: &CachedEntry| Some(cached.pcid) == pcid && overlaps(cached, request.start, request.end);
                if !entries.iter().any(holds) {
                    nothing_cached.push(cpu);
                }
            } else {
                assert_eq!(self.engine.cpu(cpu), state, "CPU {cpu} was not told and changed");
                assert_eq!(request.lazy_skipped.test(cpu), state.is_lazy);
            }
        }
        assert_eq!(request.told.iter().collect::<Vec<_>>(), told);
        assert_eq!(request.nothing_cached.iter().collect::<Vec<_>>(), nothing_cached);
        assert_eq!(request.remote, request.mask.iter().any(|cpu| cpu != request.cpu));
        for cpu in request.lazy_left.iter() {
            assert!(before.cpu(cpu).is_lazy && self.engine.cpu(cpu).loaded_mm == INIT_MM);
        }
        for cpu in request.gone.iter() {
            let loaded_mm = before.cpu(cpu).loaded_mm;
            assert!(loaded_mm == INIT_MM || request.mm.is_some_and(|mm| mm != loaded_mm));
        }
    }

    /// The counters are the sums of the log.
    fn check_counters(&self) {
        let mut sums = FlushCounters::default();
        for request in self.engine.log() {
            let FlushRequest { cpu, told, lazy_left, gone, nothing_cached, lazy_skipped, .. } = request;
            let is_full = request.end == TLB_FLUSH_ALL;
            sums.nr_flush_requests += 1;
            sums.nr_flush_full += u64::from(is_full);
            sums.nr_flush_ranged += u64::from(!is_full);
            sums.nr_flush_pages += if is_full { 0 } else { (request.end.0 - request.start.0) >> request.stride_shift };
            sums.nr_flush_remote += u64::from(request.remote);
            sums.nr_ipis += u64::from(told.weight());
            sums.nr_told_lazy += u64::from(lazy_left.weight()) - u64::from(lazy_left.test(*cpu));
            sums.nr_told_gone += u64::from(gone.weight()) - u64::from(gone.test(*cpu));
            sums.nr_told_nothing_cached += u64::from(nothing_cached.weight());
            sums.nr_lazy_skipped += u64::from(lazy_skipped.weight());
        }
        let is_local = |reason| matches!(reason, TlbFlushReason::LocalShootdown | TlbFlushReason::LocalMmShootdown);
        sums.nr_local_flushes = self
            .engine
            .events()
            .iter()
            .filter(|event| is_local(event.reason) && !is_up_to_date(&self.engine, event))
            .count() as u64;
        assert_eq!(&sums, self.engine.counters());
    }
}

/// Whether a tracepoint stands for a CPU that had caught up: 0 pages, and the request was not empty itself.
fn is_up_to_date(engine: &Engine, event: &tlbcore::flush::TlbFlushEvent) -> bool {
    let request = &engine.log()[usize::try_from(event.request).unwrap()];
    event.pages == 0 && request.pages != 0
}

fn is_trimming(engine: &Engine, mm: MmId, now_ns: u64) -> bool {
    let rules = engine.rules();
    rules.mm_cpumask_rule == MmCpumaskRule::Lazy
        && rules.trim_cpumask_interval_ns.is_some()
        && now_ns >= engine.context(mm).next_trim_ns
}

fn call_of(op: &Op, now_ns: u64) -> Option<FlushCall> {
    let by = |cpu| Initiator { op: 1, task: 2, cpu: CpuId(cpu) };
    Some(match *op {
        Op::Switch { cpu, mm } => FlushCall::SwitchMm { cpu: CpuId(cpu), mm: MmId(mm) },
        Op::EnterLazy { cpu } => FlushCall::EnterLazyTlb { cpu: CpuId(cpu) },
        Op::Flush { cpu, mm, range, freed_tables } => {
            let (start, end, stride_shift) = range.bounds();
            FlushCall::MmRange { by: by(cpu), mm: MmId(mm), start, end, stride_shift, freed_tables, now_ns }
        }
        Op::BatchAdd { mm, page: 0 } => FlushCall::IncTlbGen { mm: MmId(mm) },
        Op::BatchAdd { mm, page } => {
            FlushCall::LazyMmuDrain { by: by(0), mm: MmId(mm), pages: vec![small(page).vpn(), small(0).vpn()] }
        }
        Op::BatchFlush { cpu } => {
            let mut mask = CpuMask::new(u32::from(NR_CPUS)).unwrap();
            mask.set_all();
            FlushCall::Batch { by: by(cpu), mask }
        }
        Op::Access { .. } | Op::Advance { .. } => return None,
    })
}

fn assert_same(a: &Engine, b: &Engine) {
    assert_eq!(a.log(), b.log());
    assert_eq!(a.events(), b.events());
    assert_eq!(a.counters(), b.counters());
    for cpu in cpus() {
        assert_eq!(a.cpu(cpu), b.cpu(cpu));
        assert_eq!(a.tlbs().unwrap().entries(cpu.index()), b.tlbs().unwrap().entries(cpu.index()));
    }
    for mm in (0..NR_MMS).map(MmId) {
        assert_eq!(a.context(mm), b.context(mm));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_stale_entry_is_ever_used(
        pcid in any::<bool>(), rules in any_rules(), ops in proptest::collection::vec(any_op(), 1..120),
    ) {
        let mut shadow = Shadow::new(pcid, rules);
        for op in &ops {
            shadow.apply(op);
            shadow.check_entries();
            shadow.check_masks();
        }
        shadow.check_counters();
    }

    #[test]
    fn many_calls_at_once_are_the_calls_one_by_one(
        pcid in any::<bool>(), rules in any_rules(),
        warm_up in proptest::collection::vec(any_op(), 0..60), ops in proptest::collection::vec(any_op(), 0..60),
    ) {
        let mut shadow = Shadow::new(pcid, rules);
        for op in &warm_up {
            shadow.apply(op);
        }
        let calls: Vec<_> = ops.iter().filter_map(|op| call_of(op, shadow.now_ns)).collect();
        let mut at_once = shadow.engine.clone();
        at_once.execute(&calls).unwrap();
        let mut one_by_one = shadow.engine;
        for call in calls {
            match call {
                FlushCall::MmRange { by, mm, start, end, stride_shift, freed_tables, now_ns } => {
                    one_by_one.flush_tlb_mm_range(by, mm, start, end, stride_shift, freed_tables, now_ns);
                }
                FlushCall::Batch { by, mut mask } => one_by_one.arch_tlbbatch_flush(by, &mut mask),
                FlushCall::LazyMmuDrain { by, mm, pages } => one_by_one.lazy_mmu_drain(by, mm, &pages),
                FlushCall::IncTlbGen { mm } => {
                    one_by_one.inc_tlb_gen(mm);
                }
                FlushCall::SwitchMm { cpu, mm } => one_by_one.switch_mm(cpu, mm),
                FlushCall::EnterLazyTlb { cpu } => one_by_one.enter_lazy_tlb(cpu),
            }
        }
        assert_same(&at_once, &one_by_one);
    }

    /// Whoever is told, decisions do not depend on what the TLBs hold.
    #[test]
    fn contents_of_tlbs_change_no_decision(
        pcid in any::<bool>(), rules in any_rules(), ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        let mut shadow = Shadow::new(pcid, rules);
        let mut bare = Engine::new(u32::from(NR_CPUS), None, pcid, rules).unwrap();
        for id in 1..NR_MMS {
            prop_assert_eq!(bare.new_context(0), MmId(id));
        }
        for op in ops.iter().filter(|op| !matches!(op, Op::BatchAdd { .. } | Op::BatchFlush { .. })) {
            shadow.apply(op);
            if let Some(call) = call_of(op, shadow.now_ns) {
                bare.execute(&[call]).unwrap();
            }
        }
        prop_assert_eq!(shadow.engine.events(), bare.events());
        for (full, bare) in shadow.engine.log().iter().zip(bare.log()) {
            prop_assert!(bare.nothing_cached.is_empty() && bare.kind == FlushKind::MmRange);
            let same = FlushRequest { nothing_cached: bare.nothing_cached.clone(), op: 1, task: 2, ..full.clone() };
            prop_assert_eq!(&same, bare);
        }
    }
}
