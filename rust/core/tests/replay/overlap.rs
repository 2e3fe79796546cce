//! Two CPUs that ask for a flush of one address space within the time an IPI takes.

use tlbcore::trace::{Flush, FlushKind};

use crate::tape::{BASE, PAGE, Tape, WRITE, WRITE_PRESENT, flushes};
use tlbcore::trace::EventKind;

/// The other thread's pages lie under another page table: a fault flushes with its table locked.
const FAR: u64 = BASE + (1 << 21);

/// Two threads on two CPUs, each with a page that a child of fork shares, so that a write copies it and flushes. An IPI's
/// own side takes 8000 ns. The second write comes so many ns after the first.
fn two_writes(apart_ns: u64, second: u64) -> (Vec<(i64, bool)>, Vec<Option<i64>>) {
    let mut tape = Tape::new(&[7, 7, 8]);
    for (reason, time_ns, cpu) in [(4, 0, 0), (3, 8000, 0), (1, 16000, 1)] {
        let event = Flush::new(FlushKind::TlbFlushEvent, time_ns, cpu, 0);
        tape.0.flushes.push(Flush { reason, pages: 1, request: 0, ..event });
    }
    tape.two_threads();
    tape.page(100_000, 0, 0, BASE);
    tape.page(101_000, 1, 1, FAR);
    tape.page(102_000, 1, 1, BASE + PAGE);
    tape.call(EventKind::Fork, 110_000, 0, 0, &[0, 0, 0, 0, 0, 2], 102);
    let first = tape.fault(200_000, 0, 0, BASE, WRITE_PRESENT);
    let other = tape.fault(200_000 + apart_ns, 1, 1, second, WRITE_PRESENT);
    tape.fault(300_000, 0, 0, BASE + 2 * PAGE, WRITE);
    let replayed = tape.play("linux-6.18");
    let traced = replayed.predicted.iter().filter(|flush| flush.op_event >= first);
    let sizes = traced.map(|flush| flush.traced.map(tlbcore::replay::FlushSize::pages)).collect();
    ([flushes(&replayed, first), flushes(&replayed, other)].concat(), sizes)
}

#[test]
fn the_first_flushes_everything_and_the_second_finds_nothing_to_do() {
    let (asked, traced) = two_writes(1000, FAR);
    assert_eq!(asked, [(1, true), (1, true)]);
    assert_eq!(traced, [Some(-1), Some(1)], "of the second only its request shows");
}

#[test]
fn later_than_an_ipi_takes_each_flushes_its_page() {
    assert_eq!(two_writes(5000, FAR).1, [Some(1), Some(1)]);
}

#[test]
fn who_waits_for_the_lock_of_the_page_table_asks_later() {
    assert_eq!(two_writes(1000, BASE + PAGE).1, [Some(1), Some(1)]);
}
