//! Operations at the same time: alone, a call does what `apply` does; in any schedule calls come to their end and leave the
//! machine consistent; gathers that overlap nest, and a CPU that executes a flush late flushes everything.

mod machine_draw;

use std::sync::Arc;

use tlbcore::addr::VirtAddr;
use tlbcore::cpumask::CpuId;
use tlbcore::flush::TlbFlushReason;
use tlbcore::machine::{
    AccessKind, Advice, Call, LockKey, Machine, MachineConfig, Operation, Outcome, Probe, ProbeHit, Progress,
};
use tlbcore::program::CompiledKernel;

use crate::machine_draw::{Draw, KERNELS, configurations, draw_operation};

fn machine(text: &str, config: &MachineConfig) -> Machine {
    Machine::new(config, Arc::new(CompiledKernel::from_json(text).unwrap())).unwrap()
}

/// A call from its begin to its end, with nobody else there.
fn alone(machine: &mut Machine, operation: &Operation) -> tlbcore::error::Result<Outcome> {
    let mut call = machine.begin(operation.clone())?;
    loop {
        match machine.advance(&mut call)? {
            Progress::Ran => {}
            Progress::Blocked(key) => panic!("{operation:?} waits for {key} although it is alone"),
            Progress::Done(outcome) => return Ok(outcome),
        }
    }
}

#[test]
fn a_call_alone_does_what_apply_does() {
    for text in KERNELS {
        for config in configurations() {
            for seed in 0..4 {
                let (mut applied, mut advanced) = (machine(text, &config), machine(text, &config));
                let mut draw = Draw(seed + 100);
                let mut nr_tasks = 1;
                let mut first = vec![Operation::CreateProcess {}];
                first.extend([false, true].map(|shmem| Operation::CreateFile { shmem, nr_pages: Some(600) }));
                first.push(Operation::Schedule { cpu: 0, task: Some(0) });
                for number in 0..200 {
                    let operation = if first.is_empty() {
                        let runs = |task: &u32| applied.task(*task).is_ok_and(|found| found.running);
                        let task = (0..nr_tasks).find(|task| runs(task) && !draw.chance(2)).unwrap_or(0);
                        draw_operation(&mut draw, task, nr_tasks)
                    } else {
                        first.remove(0)
                    };
                    let (one, two) = (applied.apply(&operation), alone(&mut advanced, &operation));
                    let context = format!("seed {seed}, operation {number} {operation:?}");
                    if let Ok(one) = one {
                        assert_eq!(one, two.unwrap(), "{context}");
                        let is_new = matches!(operation, Operation::Fork { .. } | Operation::CloneThread { .. });
                        nr_tasks += u32::from(is_new);
                    } else {
                        assert!(two.is_err(), "{context}");
                    }
                    assert_eq!(applied.engine_mut().take_log(), advanced.engine_mut().take_log(), "{context}");
                    assert_eq!(advanced.nr_calls(), 0, "{context}");
                }
                assert_eq!(applied.state(), advanced.state(), "seed {seed}");
                assert_eq!(applied.counters(), advanced.counters(), "seed {seed}");
            }
        }
    }
}

/// Up to four tasks of two processes on CPUs of their own, each with a call in progress; whose turn it is, is drawn.
fn interleave(text: &str, config: &MachineConfig, seed: u64, nr_ops: u32) -> (Machine, u64) {
    let mut machine = machine(text, config);
    let mut draw = Draw(seed);
    machine.apply(&Operation::CreateProcess {}).unwrap();
    for shmem in [false, true] {
        machine.apply(&Operation::CreateFile { shmem, nr_pages: Some(600) }).unwrap();
    }
    for _ in 0..2 {
        machine.apply(&Operation::CloneThread { task: 0 }).unwrap();
    }
    machine.apply(&Operation::CreateProcess {}).unwrap();
    for task in 0..4 {
        machine.apply(&Operation::Schedule { cpu: task, task: Some(task) }).unwrap();
    }
    let mut calls: Vec<Call> = Vec::new();
    let (mut nr_begun, mut nr_waits, mut nr_tasks) = (0, 0, 4_u32);
    let mut nr_stuck = 0;
    while nr_begun < nr_ops || !calls.is_empty() {
        if nr_begun < nr_ops && calls.len() < 4 && draw.chance(8) {
            let task = draw.below(u64::from(nr_tasks)) as u32;
            if let Ok(call) = machine.begin(draw_operation(&mut draw, task, nr_tasks)) {
                calls.push(call);
            }
            nr_begun += 1;
        }
        if calls.is_empty() {
            continue;
        }
        let chosen = draw.below(calls.len() as u64) as usize;
        // Mostly some steps in a row, so that schedules differ in grain.
        let nr_steps = 1 + draw.below(30) * draw.below(2);
        for _ in 0..nr_steps {
            let waiting = calls[chosen].flushing().map_or(Vec::new(), |flush| flush.waiting().to_vec());
            if draw.chance(3) && !waiting.is_empty() {
                let cpu = waiting[draw.below(waiting.len() as u64) as usize];
                let is_first = waiting[0] == cpu;
                assert!(machine.deliver(&mut calls[chosen], cpu) || !is_first);
                continue;
            }
            let context = format!("seed {seed}, {:?} at {:?}", calls[chosen].operation(), calls[chosen].position());
            match machine.advance(&mut calls[chosen]) {
                Ok(Progress::Ran) => nr_stuck = 0,
                Ok(Progress::Blocked(key)) => {
                    nr_waits += 1;
                    nr_stuck += 1;
                    if let LockKey::Cpu(task) = key {
                        // It was switched out by a random Schedule: somebody has to bring it back.
                        let idle = (0..4).find(|cpu| machine.cpu(CpuId(*cpu)).unwrap().curr.is_none());
                        let cpu = idle.map_or(u32::from(machine.task(task).unwrap().cpu.0), u32::from);
                        let _ = machine.apply(&Operation::Schedule { cpu, task: Some(task) });
                    }
                    assert!(
                        nr_stuck < 100_000,
                        "{context} waits for {key}, and so do all others: {:?}",
                        describe(&machine, &calls)
                    );
                    break;
                }
                Ok(Progress::Done(_)) => {
                    let call = calls.swap_remove(chosen);
                    let is_new = matches!(call.operation(), Operation::Fork { .. } | Operation::CloneThread { .. });
                    nr_tasks += u32::from(is_new);
                    nr_stuck = 0;
                    break;
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("not running") || text.contains("running on CPU"), "{context}: {error}");
                    calls.swap_remove(chosen);
                    break;
                }
            }
        }
        if calls.is_empty()
            && let Err(error) = machine.check_consistency()
        {
            panic!("seed {seed}, after {nr_begun} operations: {error}");
        }
    }
    (machine, nr_waits)
}

fn describe(machine: &Machine, calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .map(|call| format!("{:?} at {:?} holds {:?}", call.operation(), call.position(), machine.locks_of(call)))
        .collect()
}

/// More with `TLBCORE_SCHEDULES=500`.
fn nr_seeds() -> u64 {
    std::env::var("TLBCORE_SCHEDULES").ok().and_then(|number| number.parse().ok()).unwrap_or(12)
}

#[test]
fn calls_in_any_schedule_end_and_leave_the_machine_consistent() {
    let mut nr_waits = 0;
    let mut nr_nested = 0;
    for text in KERNELS {
        for config in configurations() {
            for seed in 0..nr_seeds() {
                let (mut machine, waits) = interleave(text, &config, seed, 300);
                nr_waits += waits;
                nr_nested += machine.counters().nr_nested_finishes;
                assert_eq!(machine.nr_calls(), 0);
                for (_, mm) in machine.live_mms() {
                    assert_eq!(mm.tlb_flush_pending, 0);
                }
                for task in 0..16 {
                    if machine.task(task).is_ok() {
                        machine.apply(&Operation::Exit { task }).unwrap();
                    }
                }
                machine.check_consistency().unwrap();
                assert_eq!(machine.live_mms().count(), 0);
                assert_eq!(machine.tables().nr_tables(), 0, "seed {seed}");
                assert_eq!(machine.pages().swap_slots().count(), 0, "seed {seed}");
                assert!(
                    machine.pages().iter().all(|(_, page)| page.in_page_cache && page.refcount == 1),
                    "seed {seed}"
                );
            }
        }
    }
    assert!(
        nr_waits > 0 && nr_nested > 0,
        "{nr_waits} waits, {nr_nested} nested gathers: the schedules tested nothing"
    );
}

const REGION: u64 = 0x7f00_0000_0000;

/// Two threads of one process on CPUs 0 and 1, with 64 pages that were written.
fn two_threads() -> Machine {
    two_threads_of(KERNELS[1])
}

fn two_threads_of(text: &str) -> Machine {
    let mut machine = machine(text, &MachineConfig::default());
    let operations = [
        Operation::CreateProcess {},
        Operation::CloneThread { task: 0 },
        Operation::Schedule { cpu: 0, task: Some(0) },
        Operation::Schedule { cpu: 1, task: Some(1) },
        Operation::Mmap {
            task: 0,
            addr: REGION,
            len: 64 << 12,
            prot: 3,
            shared: false,
            fixed: true,
            noreplace: false,
            populate: true,
            growsdown: false,
            file: None,
            pgoff: 0,
        },
    ];
    for operation in &operations {
        machine.apply(operation).unwrap();
    }
    machine.engine_mut().take_log();
    machine
}

fn dontneed(task: u32, first: u64, nr_pages: u64) -> Operation {
    Operation::Madvise { task, addr: REGION + (first << 12), len: nr_pages << 12, advice: Advice::Dontneed }
}

/// Advances a call until something of it can be seen.
fn until(machine: &mut Machine, call: &mut Call, seen: impl Fn(&Machine, &Call) -> bool) {
    for _ in 0..10_000 {
        if seen(machine, call) {
            return;
        }
        assert_eq!(machine.advance(call).unwrap(), Progress::Ran);
    }
    panic!("never seen");
}

fn to_end(machine: &mut Machine, call: &mut Call) {
    while machine.advance(call).unwrap() == Progress::Ran {}
    assert_eq!(call.outcome(), Some(Outcome::None));
}

/// Of each request: first page and pages (-1 full), freed_tables.
fn requests(machine: &Machine) -> Vec<(u32, i64, bool)> {
    machine.engine().log().iter().map(|request| (request.task, request.pages, request.freed_tables)).collect()
}

#[test]
fn gathers_that_overlap_nest_and_flush_everything() {
    let mut machine = two_threads();
    let (mut one, mut two) = (machine.begin(dontneed(0, 0, 8)).unwrap(), machine.begin(dontneed(1, 32, 4)).unwrap());
    let pending = |machine: &Machine| machine.live_mms().next().unwrap().1.tlb_flush_pending;
    until(&mut machine, &mut one, |machine, _| pending(machine) == 1);
    until(&mut machine, &mut two, |machine, _| pending(machine) == 2);
    to_end(&mut machine, &mut two);
    to_end(&mut machine, &mut one);
    assert_eq!(requests(&machine), [(1, -1, true), (0, 8, false)]);
    assert_eq!(machine.counters().nr_nested_finishes, 1);

    let mut machine = two_threads();
    let (mut one, mut two) = (machine.begin(dontneed(0, 0, 8)).unwrap(), machine.begin(dontneed(1, 32, 4)).unwrap());
    to_end(&mut machine, &mut one);
    to_end(&mut machine, &mut two);
    assert_eq!(requests(&machine), [(0, 8, false), (1, 4, false)]);
    assert_eq!(machine.counters().nr_nested_finishes, 0);
}

#[test]
fn a_cpu_that_executes_a_flush_late_flushes_everything() {
    let mut machine = two_threads();
    let (mut one, mut two) = (machine.begin(dontneed(0, 0, 8)).unwrap(), machine.begin(dontneed(1, 32, 4)).unwrap());
    // Both make their generation; then CPU 1 executes the first request, and finds the generation of the second.
    until(&mut machine, &mut one, |_, call| call.flushing().is_some());
    assert_eq!(one.flushing().unwrap().waiting(), [CpuId(0), CpuId(1)]);
    until(&mut machine, &mut two, |_, call| call.flushing().is_some());
    assert!(machine.deliver(&mut one, CpuId(1)));
    assert!(!machine.deliver(&mut one, CpuId(1)), "twice");
    to_end(&mut machine, &mut one);
    to_end(&mut machine, &mut two);
    // Whoever comes first at a CPU flushes all of it, the other finds nothing left to do.
    let flushed: Vec<(u16, i64)> = machine
        .engine()
        .events()
        .iter()
        .filter(|event| event.reason != TlbFlushReason::RemoteSendIpi)
        .map(|event| (event.cpu.0, event.pages))
        .collect();
    assert_eq!(flushed, [(1, -1), (0, -1)]);
}

/// Two threads write to a page that fork shared, whose other user goes while the first copies: where the page is then, seen
/// from the second.
#[test]
fn a_page_that_is_being_copied_is_not_written_in_place() {
    let fault = |task| Operation::Fault { task, addr: REGION, kind: AccessKind::Write };
    for text in KERNELS {
        let mapped = |machine: &Machine| machine.leaf(machine.task_mm(1).unwrap(), VirtAddr(REGION)).unwrap().0.pfn();
        for copies_meanwhile in [false, true] {
            let mut machine = two_threads_of(text);
            machine.apply(&Operation::Fork { task: 0 }).unwrap();
            let shared = mapped(&machine);
            let mut first = machine.begin(fault(0)).unwrap();
            if copies_meanwhile {
                let is_held = |machine: &Machine| machine.pages().get(shared).unwrap().nr_copied == 1;
                until(&mut machine, &mut first, |machine, _| is_held(machine));
                until(&mut machine, &mut first, |machine, call| {
                    !machine.locks_of(call).iter().any(|(key, _)| matches!(key, LockKey::Ptl(..)))
                });
            }
            machine.apply(&Operation::Exit { task: 2 }).unwrap();
            let mut second = machine.begin(fault(1)).unwrap();
            to_end(&mut machine, &mut second);
            assert_eq!(mapped(&machine) != shared, copies_meanwhile, "in place only if nobody copies");
            let written = mapped(&machine);
            to_end(&mut machine, &mut first);
            assert_eq!(mapped(&machine), written, "the first found the entry changed");
            assert_eq!(machine.pages().get(shared).is_none(), copies_meanwhile, "nobody has the old page any more");
            machine.check_consistency().unwrap();
        }
    }
}

#[test]
fn locks_exclude_whom_they_should() {
    let mut machine = two_threads();
    let mut unmap = machine.begin(Operation::Mprotect { task: 0, addr: REGION, len: 8 << 12, prot: 1 }).unwrap();
    until(&mut machine, &mut unmap, |machine, call| !machine.locks_of(call).is_empty());
    let mut access = machine.begin(dontneed(1, 0, 4)).unwrap();
    assert!(matches!(machine.advance(&mut access).unwrap(), Progress::Blocked(LockKey::Mmap(_))));
    let refused = machine.begin(dontneed(1, 0, 4)).unwrap_err().to_string();
    assert!(refused.contains("in a call"), "{refused}");
    let switched = machine.apply(&Operation::Schedule { cpu: 0, task: None });
    assert_eq!(switched.unwrap(), Outcome::None, "mmap_lock lets its holder sleep");
    assert!(matches!(machine.advance(&mut unmap).unwrap(), Progress::Blocked(LockKey::Cpu(0))));
    machine.apply(&Operation::Schedule { cpu: 0, task: Some(0) }).unwrap();
    until(&mut machine, &mut unmap, |_, call| call.flushing().is_some());
    let switched = machine.apply(&Operation::Schedule { cpu: 0, task: None }).unwrap_err().to_string();
    assert!(switched.contains("which is flushing"), "{switched}");
    to_end(&mut machine, &mut unmap);
    to_end(&mut machine, &mut access);
}

#[test]
fn a_request_goes_out_to_who_is_in_the_mask_when_it_is_sent() {
    let who_was_told = |again: bool, executed: bool| {
        let mut machine = two_threads();
        let mut one = machine.begin(dontneed(0, 0, 8)).unwrap();
        until(&mut machine, &mut one, |_, call| call.flushing().is_some());
        if executed {
            assert!(machine.deliver(&mut one, CpuId(0)));
        }
        // CPU 1 goes idle between the request and its sending.
        machine.apply(&Operation::Schedule { cpu: 1, task: None }).unwrap();
        if again {
            machine.choose_targets_again(&mut one);
        }
        to_end(&mut machine, &mut one);
        let request = machine.engine().log()[0].clone();
        (request.told.to_string(), request.lazy_skipped.to_string())
    };
    assert_eq!(who_was_told(false, false), ("1".to_owned(), String::new()));
    assert_eq!(who_was_told(true, false), (String::new(), "1".to_owned()));
    assert_eq!(who_was_told(true, true), ("1".to_owned(), String::new()), "too late: it was sent before");
}

#[test]
fn a_walk_stops_where_a_reschedule_is_due_and_goes_on() {
    let looked = |stop: Option<u64>| {
        let mut machine = two_threads();
        machine.set_probing(true);
        let mut one = machine.begin(dontneed(0, 0, 8)).unwrap();
        if let Some(page) = stop {
            machine.reschedule_at(&one, VirtAddr(REGION + (page << 12)));
        }
        to_end(&mut machine, &mut one);
        machine.reschedule_nowhere();
        let is_look = |hit: &&ProbeHit| matches!(hit.probe, Probe::BatchedPending { .. });
        (machine.take_probes().iter().filter(is_look).count(), requests(&machine))
    };
    let all = vec![(0, 8, false)];
    assert_eq!(looked(None), (1, all.clone()));
    assert_eq!(looked(Some(4)), (2, all.clone()), "the table is looked at again, and flushed once");
    assert_eq!(looked(Some(8)), (1, all), "nothing is left there");
}
