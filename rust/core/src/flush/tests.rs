//! Each rule of the engine, pinned by the smallest case that shows it.

use super::*;
use crate::addr::{PAGE_SIZE, PageSize, Pfn, VirtAddr, Vpn};
use crate::cpumask::{CpuId, CpuMask};
use crate::tlb::{TlbEntry, TlbGeometry};

const C0: CpuId = CpuId(0);
const C1: CpuId = CpuId(1);
const C2: CpuId = CpuId(2);
const BASE: VirtAddr = VirtAddr(0x7000_0000_0000);
const SECOND: u64 = 1_000_000_000;

const ALL_RULES: [FlushRules; 3] = [FlushRules::LINUX_5_10, FlushRules::LINUX_6_1, FlushRules::LINUX_6_18];

fn by(cpu: CpuId) -> Initiator {
    Initiator { op: 7, task: 3, cpu }
}

fn page(n: u64) -> VirtAddr {
    VirtAddr(BASE.0 + n * PAGE_SIZE)
}

/// An engine with one mm that runs on `cpus` of 4, none of them lazy.
fn running(rules: FlushRules, cpus: &[CpuId]) -> (Engine, MmId) {
    let mut engine = Engine::new(4, Some(&TlbGeometry::default()), true, rules).unwrap();
    let mm = engine.new_context(0);
    for &cpu in cpus {
        engine.switch_mm(cpu, mm);
    }
    engine.take_log();
    (engine, mm)
}

/// A walk of the loaded mm on `cpu` that ended at `addr`.
fn fill(engine: &mut Engine, cpu: CpuId, addr: VirtAddr) {
    let pcid = engine.loaded_pcid(cpu);
    let entry = TlbEntry::user_data(addr.vpn(), Pfn(99), PageSize::Size4K);
    engine.tlbs_mut().unwrap().insert(cpu.index(), pcid, entry);
}

fn holds(engine: &Engine, cpu: CpuId, mm: MmId, addr: VirtAddr) -> bool {
    let pcid = engine.pcid_of_mm(cpu, mm).unwrap();
    engine.tlbs().unwrap().peek(cpu.index(), pcid, addr).is_some()
}

/// Flushes pages `from..to` from CPU 0 at time 0.
fn flush(engine: &mut Engine, mm: MmId, from: u64, to: u64, freed_tables: bool) -> FlushRequest {
    engine.flush_tlb_mm_range(by(C0), mm, page(from), page(to), 12, freed_tables, 0);
    engine.log().last().unwrap().clone()
}

/// The tracepoints as (cpu, reason, pages).
fn traced(engine: &Engine) -> Vec<(u16, u8, i64)> {
    engine.events().iter().map(|event| (event.cpu.0, event.reason as u8, event.pages)).collect()
}

#[test]
fn a_flush_with_one_cpu_stays_local() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0]);
        fill(&mut engine, C0, page(0));
        fill(&mut engine, C0, page(5));
        let request = flush(&mut engine, mm, 0, 2, false);
        assert_eq!((request.new_tlb_gen, request.pages, request.remote), (2, 2, false));
        assert_eq!((request.mask.to_string(), request.told.to_string()), ("0".to_owned(), String::new()));
        assert_eq!((request.op, request.task, request.cpu, request.mm), (7, 3, C0, Some(mm)));
        assert_eq!(traced(&engine), [(0, 3, 2)]);
        assert!(!holds(&engine, C0, mm, page(0)) && holds(&engine, C0, mm, page(5)));
        assert_eq!(engine.cpu(C0).loaded_ctx().tlb_gen, 2);
    }
}

#[test]
fn above_the_ceiling_all_goes_and_the_log_keeps_the_range() {
    for stride_shift in [12, 21] {
        for (strides, pages) in [(33, 33), (34, -1)] {
            let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0]);
            let end = VirtAddr(BASE.0 + (strides << stride_shift));
            engine.flush_tlb_mm_range(by(C0), mm, BASE, end, stride_shift, false, 0);
            let request = &engine.log()[0];
            assert_eq!((request.range_start, request.range_end), (BASE, end));
            let flushed = if pages < 0 { (VirtAddr(0), TLB_FLUSH_ALL) } else { (BASE, end) };
            assert_eq!((request.start, request.end), flushed);
            assert_eq!(traced(&engine), [(0, 3, pages)]);
            let counters = engine.counters();
            assert_eq!(
                (counters.nr_flush_full, counters.nr_flush_ranged),
                (u64::from(pages < 0), u64::from(pages > 0))
            );
            assert_eq!(counters.nr_flush_pages, if pages < 0 { 0 } else { 33 });
        }
    }
}

#[test]
fn ipis_count_pages_and_flushes_count_strides() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1]);
    engine.flush_tlb_mm_range(by(C0), mm, BASE, VirtAddr(BASE.0 + (2 << 21)), 21, false, 0);
    assert_eq!(traced(&engine), [(0, 4, 1024), (0, 3, 2), (1, 1, 2)]);
    engine.flush_tlb_mm(by(C0), mm, 0);
    assert_eq!(traced(&engine)[3..], [(0, 4, -1), (0, 3, -1), (1, 1, -1)]);
    assert!(engine.events().iter().map(|event| event.request).eq([0, 0, 0, 1, 1, 1]));
}

#[test]
fn before_5_13_the_local_flush_comes_before_the_ipi() {
    let (mut engine, mm) = running(FlushRules::LINUX_5_10, &[C0, C1]);
    flush(&mut engine, mm, 0, 1, false);
    assert_eq!(traced(&engine), [(0, 3, 1), (0, 4, 1), (1, 1, 1)]);
    let (mut engine, mm) = running(FlushRules::LINUX_6_1, &[C0, C1]);
    let request = flush(&mut engine, mm, 0, 1, false);
    assert_eq!(traced(&engine), [(0, 4, 1), (0, 3, 1), (1, 1, 1)]);
    // The requesting CPU is no receiver of an IPI.
    assert_eq!(request.told.to_string(), "1");
}

#[test]
fn a_range_will_do_only_if_no_other_flush_was_missed() {
    // CPU 0 asks only itself (by a mask without the others), so the missed bump is one that nobody carried out.
    for (nr_missed, pages) in [(0, 2), (1, -1), (2, -1)] {
        for rules in ALL_RULES {
            let (mut engine, mm) = running(rules, &[C0]);
            fill(&mut engine, C0, page(9));
            for _ in 0..nr_missed {
                engine.inc_tlb_gen(mm);
            }
            flush(&mut engine, mm, 0, 2, false);
            assert_eq!(traced(&engine), [(0, 3, pages)]);
            assert_eq!(engine.cpu(C0).loaded_ctx().tlb_gen, 2 + nr_missed);
            assert_eq!(holds(&engine, C0, mm, page(9)), pages > 0);
        }
    }
}

#[test]
fn two_flushes_missed_while_lazy_become_one_on_return() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0, C1]);
        fill(&mut engine, C1, page(0));
        fill(&mut engine, C1, page(9));
        engine.enter_lazy_tlb(C1);
        for from in [0, 1] {
            let request = flush(&mut engine, mm, from, from + 1, false);
            assert!(request.remote && request.told.is_empty());
            assert_eq!(request.lazy_skipped.to_string(), "1");
        }
        assert_eq!(engine.counters().nr_lazy_skipped, 2);
        assert!(holds(&engine, C1, mm, page(0)));
        engine.take_log();
        engine.switch_mm(C1, mm);
        assert_eq!(traced(&engine), [(1, 0, -1)]);
        assert_eq!(engine.events()[0].request, NO_REQUEST);
        assert!(!holds(&engine, C1, mm, page(0)) && !holds(&engine, C1, mm, page(9)));
        // Once more: nothing missed, nothing flushed; nor does a switch that leaves a task of the mm for another one.
        engine.enter_lazy_tlb(C1);
        engine.switch_mm(C1, mm);
        engine.switch_mm(C1, mm);
        assert_eq!(engine.events().len(), 1);
    }
}

#[test]
fn a_lazy_cpu_leaves_when_tables_were_freed() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0, C1]);
        fill(&mut engine, C1, page(0));
        engine.enter_lazy_tlb(C1);
        let request = flush(&mut engine, mm, 0, 1, true);
        assert_eq!((request.told.to_string(), request.lazy_left.to_string()), ("1".to_owned(), "1".to_owned()));
        assert!(request.lazy_skipped.is_empty() && request.gone.is_empty() && request.nothing_cached.is_empty());
        let state = engine.cpu(C1);
        assert_eq!((state.loaded_mm, state.is_lazy, state.loaded_mm_asid), (INIT_MM, false, 0));
        // init_mm never lost slot 0, so nothing had to be flushed there; the mm's own slot is stale until it returns.
        assert_eq!(traced(&engine).iter().filter(|event| event.0 == 1).count(), 0);
        assert!(holds(&engine, C1, mm, page(0)));
        assert_eq!(engine.mm_cpumask(mm).test(C1), rules.mm_cpumask_rule == MmCpumaskRule::Lazy);
        assert_eq!((engine.counters().nr_told_lazy, engine.counters().nr_ipis), (1, 1));
        engine.switch_mm(C1, mm);
        assert!(!holds(&engine, C1, mm, page(0)));
    }
}

#[test]
fn the_mask_loses_a_cpu_at_the_switch_or_at_the_next_flush_that_tells_it() {
    for rules in [FlushRules::LINUX_5_10, FlushRules::LINUX_6_1] {
        let (mut engine, mm) = running(rules, &[C0, C1]);
        let other = engine.new_context(0);
        engine.switch_mm(C1, other);
        assert_eq!(engine.mm_cpumask(mm).to_string(), "0");
        assert!(!flush(&mut engine, mm, 0, 1, true).remote);
    }
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1]);
    let other = engine.new_context(0);
    engine.switch_mm(C1, other);
    // Another mm is loaded there: spared without freed tables, and so the bit stays.
    let request = flush(&mut engine, mm, 0, 1, false);
    assert!(request.remote && request.told.is_empty() && request.lazy_skipped.is_empty());
    assert_eq!(engine.mm_cpumask(mm).to_string(), "0-1");
    engine.take_log();
    let request = flush(&mut engine, mm, 0, 1, true);
    assert_eq!((request.mask.to_string(), request.gone.to_string()), ("0-1".to_owned(), "1".to_owned()));
    assert_eq!(request.nothing_cached.to_string(), "1");
    assert_eq!(traced(&engine), [(0, 4, 1), (0, 3, 1), (1, 5, 0)]);
    assert_eq!(engine.mm_cpumask(mm).to_string(), "0");
    assert_eq!(engine.counters().nr_told_gone, 1);
}

#[test]
fn a_mask_is_trimmed_once_in_an_interval() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1, C2]);
    let other = engine.new_context(0);
    let flush_at = |engine: &mut Engine, now_ns| {
        engine.flush_tlb_mm_range(by(C0), mm, page(0), page(1), 12, false, now_ns);
        engine.log().last().unwrap().told.to_string()
    };
    engine.switch_mm(C1, other);
    assert_eq!(flush_at(&mut engine, SECOND - 1), "2");
    assert_eq!(flush_at(&mut engine, SECOND), "1-2");
    assert_eq!(engine.mm_cpumask(mm).to_string(), "0,2");
    assert_eq!(engine.context(mm).next_trim_ns, 2 * SECOND);
    engine.switch_mm(C2, other);
    assert_eq!(flush_at(&mut engine, 2 * SECOND - 1), "");
    // A lazy CPU with another mm loaded is spared even then.
    engine.enter_lazy_tlb(C2);
    assert_eq!(flush_at(&mut engine, 2 * SECOND), "");
    assert_eq!(engine.log().last().unwrap().lazy_skipped.to_string(), "2");
    engine.switch_mm(C2, other);
    assert_eq!(flush_at(&mut engine, 3 * SECOND), "2");
    assert_eq!(engine.mm_cpumask(mm).to_string(), "0");
    // No other CPU in the mask: no flush that could trim, and the time is not moved.
    assert_eq!(flush_at(&mut engine, 9 * SECOND), "");
    assert_eq!(engine.context(mm).next_trim_ns, 4 * SECOND);
}

#[test]
fn a_batch_makes_cpus_catch_up_with_what_they_have_loaded() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0, C1, C2]);
        let other = engine.new_context(0);
        engine.switch_mm(CpuId(3), other);
        for cpu in [C0, C1] {
            fill(&mut engine, cpu, page(0));
        }
        engine.enter_lazy_tlb(C2);
        engine.inc_tlb_gen(mm);
        engine.take_log();
        let mut batch = CpuMask::from_cpus(4, (0..4).map(CpuId)).unwrap();
        engine.arch_tlbbatch_flush(by(C0), &mut batch);
        assert!(batch.is_empty());
        let request = &engine.log()[0];
        assert_eq!((request.kind, request.mm, request.new_tlb_gen), (FlushKind::Batch, None, 0));
        assert_eq!((request.start, request.end, request.pages), (VirtAddr(0), TLB_FLUSH_ALL, -1));
        assert_eq!((request.mask.to_string(), request.told.to_string()), ("0-3".to_owned(), "1,3".to_owned()));
        assert_eq!(
            (request.lazy_skipped.to_string(), request.nothing_cached.to_string()),
            ("2".to_owned(), "3".to_owned())
        );
        let local_and_ipi = if rules.local_flush_first { [(0, 2, -1), (0, 4, -1)] } else { [(0, 4, -1), (0, 2, -1)] };
        let up_to_date = if rules.flush_skips_old_gen { vec![(3, 1, 0)] } else { vec![] };
        assert_eq!(traced(&engine), [&local_and_ipi[..], &[(1, 1, -1)], &up_to_date].concat());
        assert!(!holds(&engine, C0, mm, page(0)) && !holds(&engine, C1, mm, page(0)));
        assert_eq!(engine.cpu(C2).loaded_ctx().tlb_gen, 1);
        assert_eq!(engine.cpu(C1).loaded_ctx().tlb_gen, 2);
    }
}

#[test]
fn a_batch_for_this_cpu_alone_or_for_none_tells_nobody() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0]);
        engine.inc_tlb_gen(mm);
        engine.arch_tlbbatch_flush(by(C0), &mut CpuMask::from_cpus(4, [C0]).unwrap());
        assert_eq!(traced(&engine), [(0, 2, -1)]);
        engine.arch_tlbbatch_flush(by(C0), &mut CpuMask::new(4).unwrap());
        assert_eq!((engine.events().len(), engine.log().len()), (1, 2));
        assert!(!engine.log()[1].remote && engine.log()[1].mask.is_empty());
        // init_mm loaded: nothing to do for a CPU that left.
        engine.arch_tlbbatch_flush(by(C0), &mut CpuMask::from_cpus(4, [C2]).unwrap());
        assert_eq!(engine.log()[2].gone.to_string(), "2");
    }
}

#[test]
fn a_flush_by_a_cpu_that_runs_another_mm_tells_only_the_others() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C1]);
        let other = engine.new_context(0);
        engine.switch_mm(C0, other);
        engine.take_log();
        let request = flush(&mut engine, mm, 0, 1, false);
        assert_eq!(request.told.to_string(), "1");
        assert_eq!(traced(&engine), [(0, 4, 1), (1, 1, 1)]);
        assert_eq!(engine.counters().nr_local_flushes, 0);
        // And of an mm that runs nowhere, nobody; it is a request nevertheless.
        let unused = engine.new_context(0);
        let request = flush(&mut engine, unused, 0, 1, true);
        assert!(!request.remote && request.mask.is_empty());
        assert_eq!((engine.counters().nr_flush_requests, engine.counters().nr_flush_remote), (2, 1));
    }
}

#[test]
fn nothing_cached_looks_at_the_flushed_range_before_the_flush() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1, C2]);
    fill(&mut engine, C1, page(1));
    fill(&mut engine, C2, page(7));
    assert_eq!(flush(&mut engine, mm, 0, 2, false).nothing_cached.to_string(), "2");
    assert_eq!(flush(&mut engine, mm, 0, 2, false).nothing_cached.to_string(), "1-2");
    assert_eq!(flush(&mut engine, mm, 100, 200, false).nothing_cached.to_string(), "1");
    assert_eq!(engine.counters().nr_told_nothing_cached, 4);
    let mut engine = Engine::new(4, None, true, FlushRules::LINUX_6_18).unwrap();
    let mm = engine.new_context(0);
    engine.switch_mm(C0, mm);
    engine.switch_mm(C1, mm);
    let request = flush(&mut engine, mm, 0, 2, false);
    assert_eq!((request.told.to_string(), request.nothing_cached.to_string()), ("1".to_owned(), String::new()));
}

#[test]
fn a_cpu_that_another_flush_took_along_is_up_to_date() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0, C1]);
        fill(&mut engine, C1, page(0));
        assert!(flush(&mut engine, mm, 0, 1, false).up_to_date.is_empty());
        // Nothing has changed since: the generations of both CPUs are those of the mm.
        engine.arch_tlbbatch_flush(by(C0), &mut CpuMask::from_cpus(4, [C0, C1]).unwrap());
        let request = engine.log().last().unwrap();
        assert_eq!((request.told.to_string(), request.up_to_date.to_string()), ("1".to_owned(), "1".to_owned()));
    }
}

#[test]
fn without_pcid_a_switch_flushes_and_a_return_too() {
    let mut engine = Engine::new(2, Some(&TlbGeometry::default()), false, FlushRules::LINUX_6_18).unwrap();
    let mm = engine.new_context(0);
    engine.switch_mm(C0, mm);
    assert_eq!(engine.loaded_pcid(C0), 0);
    fill(&mut engine, C0, page(0));
    engine.switch_mm(C0, INIT_MM);
    engine.switch_mm(C0, mm);
    assert_eq!(traced(&engine), [(0, 0, -1); 3]);
    assert!(!holds(&engine, C0, mm, page(0)));
    assert_eq!((engine.cpu(C0).loaded_mm_asid, engine.cpu(C0).ctxs.len()), (0, 1));
}

#[test]
fn with_pcid_a_slot_keeps_its_entries_until_another_mm_takes_it() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0]);
    fill(&mut engine, C0, page(0));
    let others: Vec<_> = (0..5).map(|_| engine.new_context(0)).collect();
    for &other in &others[..4] {
        engine.switch_mm(C0, other);
    }
    assert!(holds(&engine, C0, mm, page(0)));
    let nr_traced = engine.events().len();
    engine.switch_mm(C0, mm);
    assert_eq!(engine.events().len(), nr_traced);
    // The next unknown one takes slot 0 from init_mm, the one after it slot 1 from the mm.
    engine.switch_mm(C0, others[4]);
    assert_eq!((engine.cpu(C0).loaded_mm_asid, engine.cpu(C0).next_asid), (0, 1));
    let last = engine.new_context(0);
    engine.switch_mm(C0, last);
    assert_eq!(engine.pcid_of_mm(C0, mm), None);
    assert_eq!(engine.tlbs().unwrap().nr_entries(0), 0);
}

#[test]
fn range_helpers_pass_what_the_kernel_version_passes() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0]);
        engine.flush_tlb_page(by(C0), mm, page(3), 0);
        engine.flush_tlb_range(by(C0), mm, page(0), page(2), 0);
        engine.flush_tlb_mm(by(C0), mm, 0);
        let passed: Vec<_> = engine.log().iter().map(|request| (request.pages, request.freed_tables)).collect();
        assert_eq!(passed, [(1, false), (2, rules != FlushRules::LINUX_5_10), (-1, true)]);
    }
}

#[test]
fn a_hash_mmu_flushes_by_entries_and_nothing_else() {
    let rules = FlushRules { lazy_mmu: LazyMmu::PerPte, ..FlushRules::LINUX_6_18 };
    let (mut engine, mm) = running(rules, &[C0, C1, C2]);
    for cpu in [C0, C1] {
        fill(&mut engine, cpu, page(0));
        fill(&mut engine, cpu, page(1));
    }
    engine.enter_lazy_tlb(C1);
    engine.flush_tlb_mm(by(C0), mm, 0);
    assert_eq!((engine.log().len(), engine.context(mm).tlb_gen), (0, 1));
    engine.lazy_mmu_drain(by(C0), mm, &[]);
    assert_eq!(engine.log().len(), 0);
    engine.lazy_mmu_drain(by(C0), mm, &[page(4).vpn(), page(0).vpn()]);
    let request = &engine.log()[0];
    assert_eq!((request.kind, request.start, request.end), (FlushKind::LazyMmu, page(0), page(5)));
    assert_eq!((request.pages, request.new_tlb_gen, request.stride_shift), (2, 0, 12));
    assert_eq!((request.told.to_string(), request.nothing_cached.to_string()), ("1-2".to_owned(), "2".to_owned()));
    for cpu in [C0, C1] {
        assert!(!holds(&engine, cpu, mm, page(0)) && holds(&engine, cpu, mm, page(1)));
    }
    engine.count_multicalls(5);
    let counters = engine.counters();
    assert_eq!((counters.nr_lazy_mmu_drains, counters.nr_lazy_mmu_entries, counters.nr_flush_pages), (2, 7, 2));
    assert_eq!((counters.nr_flush_requests, counters.nr_ipis), (1, 2));
}

#[test]
fn a_dropped_mm_goes_with_its_last_lazy_cpu() {
    for rules in ALL_RULES {
        let (mut engine, mm) = running(rules, &[C0]);
        engine.enter_lazy_tlb(C0);
        engine.drop_context(mm);
        assert!(engine.has_context(mm));
        let call = FlushCall::SwitchMm { cpu: C1, mm };
        assert_eq!(engine.execute(&[call]).unwrap_err().to_string(), "call 0: mm: found 1, which was dropped");
        engine.switch_mm(C0, INIT_MM);
        assert!(!engine.has_context(mm));
        let next = engine.new_context(0);
        assert_eq!((next, engine.context(next).ctx_id), (MmId(2), 3));
        engine.drop_context(next);
        assert!(!engine.has_context(next));
    }
}

#[test]
fn execute_refuses_bad_input_and_does_nothing_then() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0]);
    let good = FlushCall::IncTlbGen { mm };
    let range = |start, end, stride_shift| FlushCall::MmRange {
        by: by(C0),
        mm,
        start: VirtAddr(start),
        end: VirtAddr(end),
        stride_shift,
        freed_tables: false,
        now_ns: 0,
    };
    let cases = [
        (FlushCall::EnterLazyTlb { cpu: CpuId(4) }, "CPU: found 4, expected 0 to 3"),
        (FlushCall::IncTlbGen { mm: MmId(9) }, "mm: found 9, expected at most 1"),
        (range(8192, 4096, 12), "range: found 0x2000 to 0x1000, expected start at most end"),
        (range(0, 4096, 11), "stride_shift: found 11, expected 12 to 39"),
        (range(0, 1 << 57, 12), "address 0x200000000000000 is outside user space, expected at most 0x100000000000000"),
        (FlushCall::Batch { by: by(C0), mask: CpuMask::new(5).unwrap() }, "mask: found 5 CPUs, expected 4"),
        (
            FlushCall::LazyMmuDrain { by: by(C0), mm, pages: vec![Vpn(1 << 44)] },
            "page: found 0x100000000000, expected at most 0xfffffffffff",
        ),
    ];
    for (bad, message) in cases {
        let error = engine.execute(&[good.clone(), bad]).unwrap_err().to_string();
        assert_eq!(error, format!("call 1: {message}"));
        assert_eq!(engine.context(mm).tlb_gen, 1);
    }
    engine.execute(&[good, range(0, 4096, 12)]).unwrap();
    assert_eq!(engine.context(mm).tlb_gen, 3);
}

#[test]
fn a_request_has_the_keys_of_the_flush_log() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1]);
    let request = flush(&mut engine, mm, 0, 40, true);
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        concat!(
            r#"{"op":7,"task":3,"cpu":0,"kind":"mm_range","mm":1,"start":0,"end":18446744073709551615,"#,
            r#""range_start":123145302310912,"range_end":123145302474752,"stride_shift":12,"freed_tables":true,"gen":2,"#,
            r#""mask":"0-1","remote":true,"told":"1","lazy_skipped":"","lazy_left":"","gone":"","nothing_cached":"1"}"#
        )
    );
    assert_eq!(serde_json::to_string(&engine.events()[2]).unwrap(), r#"{"request":0,"cpu":1,"reason":1,"pages":-1}"#);
}

#[test]
fn counters_go_on_without_a_log() {
    let (mut engine, mm) = running(FlushRules::LINUX_6_18, &[C0, C1]);
    engine.set_logging(false);
    engine.flush_tlb_mm(by(C0), mm, 0);
    assert!(engine.log().is_empty() && engine.events().is_empty());
    engine.set_logging(true);
    engine.flush_tlb_mm(by(C0), mm, 0);
    assert_eq!((engine.counters().nr_ipis, engine.log().len()), (2, 1));
    assert_eq!(engine.events()[0].request, 1);
}
