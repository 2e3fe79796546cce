//! Two CPUs that ask for a flush of one address space at the same time, where their records tell in what order.

use std::num::NonZero;

use tlbcore::machine::MachineConfig;
use tlbcore::replay::{FlushSize, Keep, Replayed, replay, replay_parallel};
use tlbcore::trace::{EventKind, Flush, FlushKind};

use crate::tape::{BASE, PAGE, READ, Tape, WRITE, WRITE_PRESENT, kernel};

/// The second thread's pages lie under another page table, the other process's anywhere.
const FAR: u64 = BASE + (1 << 21);
/// What an IPI's own side takes.
const LATENCY_NS: u64 = 8000;

/// When a fault begins, makes its request, and executes it, if it left a record of that.
type Asking = (u64, u64, Option<u64>);

/// Two threads on two CPUs each write to a page that a child of fork shares; the second reads another page in between, and
/// the thread of another process writes to a page, if it is told when.
fn two_writes(first: Asking, second: Asking, read_ns: Option<u64>, foreign_ns: Option<u64>) -> (Tape, [usize; 2]) {
    let mut tape = Tape::new(&[7, 7, 8, 9]);
    for (reason, time_ns, cpu) in [(4, 0, 0), (3, LATENCY_NS, 0), (1, 2 * LATENCY_NS, 1)] {
        let event = Flush::new(FlushKind::TlbFlushEvent, time_ns, cpu, 0);
        tape.0.flushes.push(Flush { reason, pages: 1, request: 0, ..event });
    }
    tape.two_threads();
    tape.switch(3, 2, crate::tape::IDLE, 3);
    tape.page(100_000, 0, 0, BASE);
    tape.page(101_000, 1, 1, FAR);
    tape.page(103_000, 2, 3, BASE);
    tape.call(EventKind::Fork, 110_000, 0, 0, &[0, 0, 0, 0, 0, 2], 102);
    let mut rows = [0; 2];
    let mut events = vec![(first.0, 0, 0, BASE, WRITE_PRESENT, Some(0)), (second.0, 1, 1, FAR, WRITE_PRESENT, Some(1))];
    events.extend(read_ns.map(|time_ns| (time_ns, 1, 1, FAR + PAGE, READ, None)));
    events.extend(foreign_ns.map(|time_ns| (time_ns, 2, 3, BASE + PAGE, WRITE, None)));
    events.sort_unstable();
    for (time_ns, cpu, task, addr, error_code, index) in events {
        let row = tape.fault(time_ns, cpu, task, addr, error_code);
        if let Some(index) = index {
            rows[index] = row;
        }
    }
    tape.fault(300_000, 0, 0, BASE + 2 * PAGE, WRITE);
    for (cpu, (_, sent_ns, executed_ns)) in [(0, first), (1, second)] {
        let request = tape.0.flushes.len().cast_signed() as i64;
        let op_event = rows[usize::from(cpu)].cast_signed() as i64;
        let event =
            Flush { pages: 1, request, op_event, ..Flush::new(FlushKind::TlbFlushEvent, sent_ns, cpu, cpu.into()) };
        tape.0.flushes.push(Flush { reason: 4, ..event });
        if let Some(time_ns) = executed_ns {
            tape.0.flushes.push(Flush { reason: 3, time_ns, ..event });
        }
    }
    (tape, rows)
}

fn config() -> MachineConfig {
    MachineConfig { nr_cpus: 3, levels: 4, pcid: true, ..MachineConfig::default() }
}

fn played(tape: &Tape, follow: bool) -> Replayed {
    replay(&tape.0, &kernel("linux-6.18"), &config(), follow, &mut || false).unwrap()
}

/// What a trace shows of the flush of each: strides, -1 everything. Who was overtaken shows the request alone.
fn sizes((tape, rows): &(Tape, [usize; 2]), follow: bool) -> [Option<i64>; 2] {
    let replayed = played(tape, follow);
    rows.map(|row| {
        let mut of_row = replayed.predicted.iter().filter(|flush| flush.op_event == row);
        of_row.next().and_then(|flush| flush.traced.map(FlushSize::pages))
    })
}

#[test]
fn who_asks_first_executes_both_whoever_began_first() {
    let overtaken = two_writes((200_000, 203_400, None), (200_300, 202_500, Some(211_000)), None, None);
    assert_eq!(sizes(&overtaken, true), [Some(1), Some(-1)]);
    assert_eq!(sizes(&overtaken, false), [Some(-1), Some(1)], "by begins alone it is the other one");
}

#[test]
fn a_fault_that_waits_asks_late() {
    let waited = two_writes((200_000, 219_000, Some(240_000)), (221_000, 223_000, None), Some(219_500), None);
    assert_eq!(sizes(&waited, true), [Some(-1), Some(1)]);
    assert_eq!(sizes(&waited, false), [Some(1), Some(1)]);
}

#[test]
fn who_has_executed_meets_nobody() {
    let executed = two_writes((200_000, 203_000, Some(220_000)), (218_000, 220_500, Some(229_000)), None, None);
    assert_eq!(sizes(&executed, true), [Some(1), Some(1)]);
}

/// Without a record of its executing it is taken to need as long as others.
#[test]
fn who_was_overtaken_by_an_ipi_is_taken_to_need_the_median() {
    let near = two_writes((200_000, 203_000, None), (205_000, 203_000 + LATENCY_NS - 1, None), None, None);
    assert_eq!(sizes(&near, true), [Some(-1), Some(1)]);
    let far = two_writes((200_000, 203_000, None), (205_000, 203_000 + LATENCY_NS, None), None, None);
    assert_eq!(sizes(&far, true), [Some(1), Some(1)]);
}

/// If anybody else did something meanwhile, begins decide as without records, on one thread and on several.
#[test]
fn another_process_in_between_leaves_it_to_the_begins() {
    for (foreign_ns, expected) in [(None, [Some(1), Some(-1)]), (Some(202_000), [Some(1), Some(1)])] {
        let made = two_writes((200_000, 207_000, None), (206_000, 206_500, Some(215_000)), None, foreign_ns);
        assert_eq!(sizes(&made, true), expected);
        let threads = NonZero::new(2).unwrap();
        let kernel = kernel("linux-6.18");
        let parallel = replay_parallel(&made.0.0, &kernel, &config(), true, threads, Keep::All, &mut || false).unwrap();
        assert_eq!(parallel.predicted, played(&made.0, true).predicted);
    }
}
