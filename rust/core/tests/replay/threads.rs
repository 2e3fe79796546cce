//! Processes that share nothing are replayed on threads of their own: the result is that of one replay of the whole, for
//! any number of threads.

use std::num::NonZero;

use proptest::prelude::*;
use tlbcore::machine::MachineConfig;
use tlbcore::replay::{Keep, replay, replay_parallel};
use tlbcore::trace::{Event, EventColumns, EventKind, Flush, Recording, TaskInfo};

use crate::random::{NR_TASKS, a_recording, row_number};
use crate::tape::{ANON, BASE, KERNELS, Tape, WRITE, kernel};

const NR_CPUS: u16 = 3;

/// Moves the numbers of an event's tasks and CPU on, so that it meets none of the recording's before.
fn moved(event: Event, nr: u32) -> Event {
    let mut event = Event { cpu: event.cpu + NR_CPUS * nr as u16, ..event };
    let task = |task: u32| if task < NR_TASKS { task + NR_TASKS * nr } else { task };
    let argument = |value: u64| if value < NR_TASKS.into() { value + u64::from(NR_TASKS * nr) } else { value };
    event.task = task(event.task);
    match event.kind() {
        EventKind::Switch | EventKind::ProcessFork | EventKind::Wait => event.a0 = argument(event.a0),
        EventKind::Fork => event.a5 = argument(event.a5),
        _ => {}
    }
    event
}

/// What perf records: no events of scenarios, and of tasks that stand for many only switches.
fn is_of_perf(event: &Event) -> bool {
    use EventKind as K;
    let kind = event.kind();
    if event.task >= NR_TASKS {
        return kind == K::Switch;
    }
    kind.is_call()
        || matches!(kind, K::Fault | K::Switch | K::MigrateTask | K::ProcessFork | K::TaskStart | K::Exec | K::Exit)
}

/// The recordings side by side, in the order of time; only what perf records, if that is wanted.
fn beside(recordings: &[Recording], perf_only: bool) -> Recording {
    let mut whole =
        Recording { meta: recordings[0].meta.clone(), names: recordings[0].names.clone(), ..Recording::default() };
    let mut rows: Vec<(u64, usize, usize)> = Vec::new();
    for (nr, recording) in recordings.iter().enumerate() {
        let pid = |pid: u32| pid + 10 * nr as u32;
        whole.tasks.extend(recording.tasks.iter().map(|task| TaskInfo { pid: pid(task.pid), ..task.clone() }));
        let is_wanted = |row: &usize| !perf_only || is_of_perf(&recording.events.get(*row));
        let wanted = (0..recording.events.len()).filter(is_wanted);
        rows.extend(wanted.map(|row| (recording.events.time_ns[row], nr, row)));
    }
    rows.sort_unstable();
    for &(_, nr, row) in &rows {
        whole.events.push(moved(recordings[nr].events.get(row), nr as u32));
    }
    for (nr, recording) in recordings.iter().enumerate() {
        let before = row_number(whole.flushes.len());
        for row in 0..recording.flushes.len() {
            let flush = recording.flushes.get(row);
            let place = |row: i64| rows.iter().position(|&(_, of, at)| of == nr && row_number(at) == row);
            let op_event = place(flush.op_event).map_or(-1, row_number);
            let request = if flush.request < 0 { -1 } else { flush.request + before };
            whole.flushes.push(Flush { op_event, request, cpu: flush.cpu + NR_CPUS * nr as u16, ..flush });
        }
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn threads_change_nothing(
        recordings in prop::collection::vec(a_recording(), 1..4),
        which in 0..KERNELS.len(),
        [follow, pcid, tlb_enabled] in any::<[bool; 3]>(),
        perf_only in prop::sample::select(vec![true, true, true, false]),
    ) {
        let whole = beside(&recordings, perf_only);
        whole.verify().unwrap();
        let config = MachineConfig { nr_cpus: 9, levels: 4, pcid, tlb_enabled, ..MachineConfig::default() };
        let kernel = kernel(KERNELS[which].0);
        let plain = replay(&whole, &kernel, &config, follow, &mut || false).unwrap();
        for threads in [1, 2, 3, 8] {
            let threads = NonZero::new(threads).unwrap();
            let got = replay_parallel(&whole, &kernel, &config, follow, threads, Keep::All, &mut || false).unwrap();
            prop_assert_eq!(&got.predicted, &plain.predicted);
            prop_assert_eq!(&got.ledger, &plain.ledger);
            prop_assert_eq!((got.counters, got.nr_events), (plain.counters, plain.nr_events));
            prop_assert_eq!((&got.notes, &got.noted), (&plain.notes, &plain.noted));
            let sums = replay_parallel(&whole, &kernel, &config, follow, threads, Keep::Sums, &mut || false).unwrap();
            prop_assert_eq!((sums.counters, &sums.ledger, &sums.notes), (plain.counters, &plain.ledger, &plain.notes));
            prop_assert!(sums.predicted.is_empty() && sums.noted.is_empty());
        }
    }
}

/// Two processes on two CPUs each: the flush of the first waits for nobody of the second.
#[test]
fn an_operation_in_progress_is_over_when_anybody_does_something() {
    let mut tape = Tape::new(&[1, 1, 2, 2]);
    tape.ipi_takes(10_000);
    for (cpu, task) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        tape.switch(1 + u64::from(cpu), cpu, crate::tape::IDLE, task);
    }
    for (time_ns, cpu, task, addr) in [(100, 0, 0, BASE), (200, 2, 2, BASE)] {
        tape.mmap(time_ns, cpu, task, addr, 8, ANON);
        for page in 0..8 {
            tape.fault(time_ns + 20 + page, cpu, task, addr + page * 4096, WRITE);
        }
    }
    // Close enough to overlap, were it not for the other process in between.
    tape.munmap(1000, 0, 0, BASE, 1);
    tape.munmap(1100, 2, 2, BASE, 1);
    tape.munmap(1200, 1, 1, BASE + 4096, 1);
    tape.munmap(1300, 3, 3, BASE + 4096, 1);
    let config = MachineConfig { nr_cpus: 4, levels: 4, pcid: true, ..MachineConfig::default() };
    let kernel = kernel("linux-6.18");
    let plain = replay(&tape.0, &kernel, &config, false, &mut || false).unwrap();
    let threads = NonZero::new(2).unwrap();
    let got = replay_parallel(&tape.0, &kernel, &config, false, threads, Keep::All, &mut || false).unwrap();
    assert_eq!(got.predicted, plain.predicted);
    assert_eq!(got.predicted.len(), 4);
}

/// An error is that of the first event, whichever thread met it first.
#[test]
fn the_first_error_is_told() {
    let mut tape = Tape::new(&[1, 2]);
    tape.mmap(10, 0, 0, BASE, 1, ANON);
    tape.mmap(20, 1, 1, BASE, 1, ANON);
    tape.event(EventKind::Fault, 30, 5, 1, &[BASE, WRITE]);
    let config = MachineConfig { nr_cpus: 2, levels: 4, ..MachineConfig::default() };
    let kernel = kernel("linux-6.18");
    let plain = replay(&tape.0, &kernel, &config, false, &mut || false).unwrap_err();
    let threads = NonZero::new(2).unwrap();
    let got = replay_parallel(&tape.0, &kernel, &config, false, threads, Keep::All, &mut || false).unwrap_err();
    assert_eq!(got.to_string(), plain.to_string());
}

/// A replay that is stopped ends early on every thread.
#[test]
fn it_can_be_stopped() {
    let mut tape = Tape::new(&[1, 2]);
    for round in 0..40_000 {
        for task in 0..2u32 {
            tape.page(100 * round, task as u16, task, BASE);
            tape.munmap(100 * round + 70, task as u16, task, BASE, 1);
        }
    }
    let mut events: Vec<Event> = (0..tape.0.events.len()).map(|row| tape.0.events.get(row)).collect();
    events.sort_by_key(|event| event.time_ns);
    tape.0.events = EventColumns::default();
    for event in events {
        tape.0.events.push(event);
    }
    let config = MachineConfig { nr_cpus: 2, levels: 4, ..MachineConfig::default() };
    let kernel = kernel("linux-6.18");
    let threads = NonZero::new(2).unwrap();
    let got = replay_parallel(&tape.0, &kernel, &config, false, threads, Keep::All, &mut || true).unwrap();
    assert!(got.nr_events < tape.0.events.len() as u64, "{} events", got.nr_events);
}
