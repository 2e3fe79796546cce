//! Calls that ran at the same time: whose gather was open when another ended flushes everything.

use std::ops::Range;

use tlbcore::trace::EventKind;

use crate::tape::{ANON, BASE, IDLE, PAGE, Tape, WRITE, flushes, note};

const DONTNEED: u64 = 4;
const FREE: u64 = 8;
const COLD: u64 = 20;
const PREEMPTED: [u64; 3] = [1, 82, 1];
const BLOCKED: [u64; 3] = [1, 68, 0];
const NOTE: &str = "call that ran while others had a gather open";

/// Two threads with eight pages written, on CPUs 0 and 1; then calls that do nothing, which tell how long the way is.
fn eight_pages() -> Tape {
    let mut tape = Tape::new(&[7, 7]);
    tape.two_threads();
    tape.mmap(100, 0, 0, BASE, 16, ANON);
    for page in 0..8 {
        tape.fault(200 + page, 0, 0, BASE + page * PAGE, WRITE);
    }
    tape
}

fn madvise(tape: &mut Tape, times: Range<u64>, cpu: u16, page: u64, advice: u64) -> usize {
    let args = [BASE + page * PAGE, PAGE, advice];
    tape.long_call(EventKind::Madvise, times, cpu, u32::from(cpu), &args, 0)
}

#[test]
fn a_gather_that_ends_inside_another_flushes_everything() {
    let mut tape = eight_pages();
    let outer = madvise(&mut tape, 1000..2000, 0, 0, DONTNEED);
    let inner = madvise(&mut tape, 1500..1600, 1, 1, DONTNEED);
    let empty = madvise(&mut tape, 1700..1800, 1, 12, FREE);
    let after = madvise(&mut tape, 2100..2200, 1, 2, DONTNEED);
    for name in ["linux-6.1", "linux-6.18"] {
        let replayed = tape.play(name);
        assert_eq!(flushes(&replayed, outer), [(1, true)], "{name}: alone when it looked");
        assert_eq!(flushes(&replayed, inner), [(-1, true)], "{name}");
        assert_eq!(flushes(&replayed, empty), [(-1, true)], "{name}: even for nothing");
        assert_eq!(flushes(&replayed, after), [(1, true)], "{name}");
        assert_eq!(note(&replayed, NOTE), 2);
    }
}

#[test]
fn other_processes_do_not_nest() {
    let mut tape = Tape::new(&[7, 8]);
    tape.two_threads();
    for task in [0, 1] {
        tape.page(100 + 200 * u64::from(task), task as u16, task, BASE);
    }
    madvise(&mut tape, 1000..2000, 0, 0, DONTNEED);
    let inside = madvise(&mut tape, 1500..1600, 1, 0, DONTNEED);
    assert_eq!(flushes(&tape.play("linux-6.18"), inside), [(1, false)]);
}

#[test]
fn writers_of_mmap_lock_wait_and_so_do_not_nest() {
    let mut tape = eight_pages();
    madvise(&mut tape, 800..900, 0, 12, COLD); // puts the pages on the LRU, where others find them
    tape.long_call(EventKind::Munmap, 1000..2000, 0, 0, &[BASE, PAGE], 0);
    let waits = tape.long_call(EventKind::Munmap, 1500..2600, 1, 1, &[BASE + PAGE, PAGE], 0);
    tape.long_call(EventKind::Mprotect, 3000..4000, 0, 0, &[BASE + 3 * PAGE, PAGE, 1], 0);
    let reads = madvise(&mut tape, 3500..4400, 1, 4, COLD);
    tape.long_call(EventKind::Munmap, 5000..6000, 0, 0, &[BASE + 5 * PAGE, PAGE], 0);
    let beside = madvise(&mut tape, 5500..5700, 1, 6, COLD);
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, waits), [(1, true)]);
    assert_eq!(flushes(&replayed, reads), [(1, true)], "mprotect keeps the lock for writing to its end");
    assert_eq!(flushes(&replayed, beside), [(-1, true)], "munmap has become a reader");
}

/// A call of thread 0 that is off its CPU from 1100 on, one of thread 1 on the same CPU meanwhile; the flush of that.
fn beside_one_off_its_cpu(how: [u64; 3]) -> Vec<(i64, bool)> {
    let mut tape = eight_pages();
    madvise(&mut tape, 1000..3000, 0, 0, DONTNEED);
    tape.event(EventKind::Switch, 1100, 0, 0, &how);
    let meanwhile = tape.long_call(EventKind::Madvise, 1500..1600, 0, 1, &[BASE + PAGE, PAGE, DONTNEED], 0);
    tape.event(EventKind::Switch, 2900, 0, 1, &[0, u64::from(b'S'), 0]);
    flushes(&tape.play("linux-6.18"), meanwhile)
}

#[test]
fn who_is_preempted_keeps_its_gather_and_who_waits_for_a_lock_has_none() {
    assert_eq!(beside_one_off_its_cpu(PREEMPTED)[0].0, -1);
    assert_eq!(beside_one_off_its_cpu(BLOCKED)[0].0, 1);
}

/// A munmap of thread 0 that is off its CPU, while thread 1 begins to run on CPU 1: whether it tells CPU 1.
fn tells_who_came_meanwhile(how: [u64; 3]) -> bool {
    let mut tape = Tape::new(&[7, 7]);
    tape.switch(1, 0, IDLE, 0);
    tape.page(100, 0, 0, BASE);
    let waits = tape.long_call(EventKind::Munmap, 1000..3000, 0, 0, &[BASE, PAGE], 0);
    tape.event(EventKind::Switch, 1100, 0, 0, &[u64::from(IDLE), how[1], how[2]]);
    tape.switch(1500, 1, IDLE, 1);
    tape.fault(1600, 1, 1, BASE + 64 * PAGE, WRITE);
    tape.switch(2900, 0, IDLE, 0);
    tape.fault(4000, 0, 0, BASE + 65 * PAGE, WRITE);
    flushes(&tape.play("linux-6.18"), waits)[0].1
}

#[test]
fn a_call_that_waits_for_the_lock_takes_effect_when_it_is_woken() {
    assert!(tells_who_came_meanwhile(BLOCKED));
    assert!(!tells_who_came_meanwhile(PREEMPTED), "it may have flushed before");
}
