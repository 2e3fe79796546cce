//! What a recording tells only by its order, and what it does not tell: exact flushes for each rule of the replay.

use tlbcore::machine::MachineConfig;
use tlbcore::replay::replay;
use tlbcore::trace::kinds::{ENTER_UNSEEN, NO_VALUE, THREAD};
use tlbcore::trace::{Event, EventKind, Flush, FlushKind};

use crate::tape::{
    ANON, BASE, IDLE, OTHER, PAGE, PRIVATE, READ, Tape, WRITE, WRITE_PRESENT, config, flushes, kernel, note,
};

const OTHER_BASE: u64 = BASE + (1 << 30);

#[test]
fn munmap_flushes_the_pages_that_were_touched_once() {
    let mut tape = Tape::new(&[7, 7]);
    tape.two_threads();
    tape.mmap(100, 0, 0, BASE, 8, ANON);
    tape.page(120, 0, 0, BASE + 600 * PAGE);
    for page in 2..5 {
        tape.fault(200 + page, 0, 0, BASE + page * PAGE, WRITE);
    }
    let unmapped = tape.munmap(300, 0, 0, BASE, 8);
    let again = tape.munmap(400, 0, 0, BASE, 8);
    for name in ["linux-5.10", "linux-6.1", "linux-6.18", "consolidated"] {
        let replayed = tape.play(name);
        assert_eq!(flushes(&replayed, again), [], "{name}");
        assert_eq!(flushes(&replayed, unmapped), [(5, true)], "{name}: from the table, which is freed, to page 4");
        assert_eq!(replayed.predicted.len(), 1, "{name}: nothing else flushes");
    }
}

#[test]
fn an_execve_takes_effect_where_the_task_next_shows_a_sign_of_life() {
    let exec = |migrates: bool| {
        let mut tape = Tape::new(&[7]);
        tape.switch(1, 0, IDLE, 0);
        tape.page(100, 0, 0, BASE);
        let exec = tape.long_call(EventKind::Exec, 300..900, 0, 0, &[0, 0, 0, 0, 0, 0], 0);
        let cpu = u16::from(migrates);
        if migrates {
            tape.switch(400, 0, 0, IDLE);
            tape.switch(500, 1, IDLE, 0);
        }
        tape.page(1000, cpu, 0, BASE);
        let last = tape.munmap(1200, cpu, 0, BASE, 1);
        let replayed = tape.play("linux-6.18");
        assert_eq!(flushes(&replayed, last), [(1, false)], "the new address space never ran elsewhere");
        let flushes = flushes(&replayed, exec);
        assert!(flushes.len() > 1 && flushes[1..].iter().all(|flush| !flush.1), "nor while the stack is made");
        flushes[0]
    };
    assert_eq!(exec(false), (-1, false), "the old address space goes");
    assert_eq!(exec(true), (-1, true), "sched_exec moved the task, and CPU 0 is in the old mask still");
}

#[test]
fn an_mmap_that_waits_for_another_thread_s_munmap_gets_its_place() {
    let mut tape = Tape::new(&[7, 7]);
    tape.two_threads();
    tape.page(100, 1, 1, BASE);
    tape.long_call(EventKind::Mmap, 200..400, 0, 0, &[0, PAGE, 3, ANON, NO_VALUE, 0], BASE);
    let first = tape.munmap(300, 1, 1, BASE, 1);
    tape.fault(500, 0, 0, BASE, WRITE);
    let second = tape.munmap(600, 0, 0, BASE, 1);
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, first), [(1, true)]);
    assert_eq!(flushes(&replayed, second), [(1, true)]);
    assert_eq!(note(&replayed, "mapping that was only guessed, dropped"), 0);
}

#[test]
fn an_mmap_whose_end_is_the_last_thing_is_done_all_the_same() {
    let mut tape = Tape::new(&[7]);
    tape.long_call(EventKind::Mmap, 100..u64::MAX, 0, 0, &[0, 4 * PAGE, 3, ANON, NO_VALUE, 0], BASE);
    let replayed = tape.play("linux-6.18");
    let done: Vec<_> = replayed.ledger.rows().map(|(kind, row)| (kind, row.nr_operations)).collect();
    assert_eq!(done, [("mmap", 1)]);
}

/// A flush is sent to CPU 1 at 10000 ns and takes 5000 ns; CPU 1 switches. Whether the next flush tells others.
fn told_after_a_switch(kernel: &str, time_ns: u64, to: u32) -> bool {
    let mut tape = Tape::new(&[7, 7]);
    tape.ipi_takes(5000);
    tape.two_threads();
    tape.page(100, 0, 0, BASE);
    tape.page(200, 0, 0, BASE + PAGE);
    let sent = tape.munmap(10_000, 0, 0, BASE, 1);
    tape.switch(time_ns, 1, 1, to);
    let next = tape.munmap(50_000, 0, 0, BASE + PAGE, 1);
    let replayed = tape.play(kernel);
    assert_eq!(flushes(&replayed, sent), [(1, true)]);
    let next = flushes(&replayed, next);
    assert_eq!((next.len(), next[0].0), (1, 2), "its page, and the table that begins a page before");
    next[0].1
}

#[test]
fn an_ipi_that_arrives_after_a_switch_clears_the_bit() {
    assert!(!told_after_a_switch("linux-6.18", 14_999, OTHER), "arrives with another address space loaded");
    assert!(told_after_a_switch("linux-6.18", 15_000, OTHER), "arrived before: the lazy rule keeps the bit");
    assert!(told_after_a_switch("linux-6.18", 14_999, IDLE), "idle keeps the address space loaded");
    assert!(!told_after_a_switch("linux-6.1", 15_000, OTHER), "the eager rule clears it in the switch");
}

#[test]
fn a_process_whose_start_was_not_recorded_is_made_and_said() {
    let mut tape = Tape::new(&[7, 7, 8]);
    tape.fault(100, 0, 0, BASE, WRITE);
    tape.fault(200, 1, 1, BASE + PAGE, WRITE);
    tape.fault(300, 1, 2, BASE, WRITE);
    let unmapped = tape.munmap(400, 0, 0, BASE, 16);
    let replayed = tape.play("linux-6.18");
    assert_eq!(note(&replayed, "process start not recorded"), 2);
    assert_eq!(note(&replayed, "thread start not recorded"), 1);
    assert_eq!(note(&replayed, "mapping made before the recording or by exec, taken over"), 2);
    assert_eq!(flushes(&replayed, unmapped), [(2, true)], "two pages of one address space");
}

/// An operation that sends 2000 ns after it began, and then one whose CPU 1 switches so many ns after it began.
fn told_after_a_switch_before_sending(after_ns: u64) -> bool {
    let mut tape = Tape::new(&[7, 7]);
    tape.two_threads();
    tape.page(100, 0, 0, BASE);
    tape.page(200, 0, 0, BASE + PAGE);
    tape.page(300, 0, 0, BASE + 8 * PAGE);
    // The neighbour keeps the page table.
    tape.page(400, 0, 0, BASE - 8 * PAGE);
    tape.page(500, 0, 0, BASE + 16 * PAGE);
    let first = tape.munmap(10_000, 0, 0, BASE, 1);
    let sent = Flush {
        reason: 4,
        pages: 1,
        request: 0,
        op_event: i64::try_from(first).unwrap(),
        ..Flush::new(FlushKind::TlbFlushEvent, 12_000, 0, 0)
    };
    tape.0.flushes.push(sent);
    tape.0.flushes.push(Flush { reason: 1, time_ns: 17_000, cpu: 1, ..sent });
    tape.munmap(50_000, 0, 0, BASE + PAGE, 1);
    tape.switch(50_000 + after_ns, 1, 1, OTHER);
    let next = tape.munmap(90_000, 0, 0, BASE + 8 * PAGE, 1);
    flushes(&tape.play("linux-6.18"), next)[0].1
}

#[test]
fn a_cpu_that_left_before_the_sending_stays_in_the_mask() {
    assert!(told_after_a_switch_before_sending(1999), "no IPI was sent to it");
    assert!(!told_after_a_switch_before_sending(2000));
    assert!(!told_after_a_switch_before_sending(6999), "2000 until it is sent, 5000 until it arrives");
    assert!(told_after_a_switch_before_sending(7000), "it was obeyed");
}

#[test]
fn a_page_older_than_a_fork_is_shared_by_the_family() {
    let mut tape = Tape::new(&[7, 8]);
    tape.switch(1, 0, IDLE, 0);
    tape.page(100, 0, 0, BASE);
    tape.call(EventKind::Fork, 200, 0, 0, &[0, 0, 0, 0, 0, 1], 101);
    tape.switch(300, 0, 0, 1);
    let old = BASE + 64 * PAGE;
    let child = tape.fault(400, 0, 1, old, WRITE_PRESENT);
    tape.switch(500, 0, 1, 0);
    let parent = tape.fault(600, 0, 0, old, WRITE_PRESENT);
    let alone = tape.fault(700, 0, 0, old + 64 * PAGE, WRITE_PRESENT);
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, child).len(), 1, "copied");
    assert_eq!(flushes(&replayed, parent), [], "its only user is left, which takes it");
    assert_eq!(flushes(&replayed, alone).len(), 1, "the child has it too");
}

#[test]
fn a_task_from_a_recorded_fork_is_not_assumed() {
    let mut tape = Tape::new(&[7, 7, 8]);
    tape.switch(1, 0, IDLE, 0);
    tape.page(100, 0, 0, BASE);
    let args = [0, 0, 0, 0, 0, 1];
    let thread = Event { flags: THREAD, ret: 101, ..Event::new(EventKind::Fork, 200, 0, 0).with_args(&args) };
    tape.push(thread);
    tape.switch(250, 1, IDLE, 1);
    let fork = Event { ret: 102, ..Event::new(EventKind::Fork, 300, 0, 0).with_args(&[0, 0, 0, 0, 0, 2]) };
    let forked = tape.push(fork);
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, forked), [(-1, true)], "fork write-protects, and both threads' CPUs are told");
    let assumed: Vec<_> = replayed.notes.into_iter().collect();
    assert_eq!(assumed, [("process start not recorded", 1)]);
}

#[test]
fn error_codes_of_faults_correct_what_was_guessed() {
    let mut tape = Tape::new(&[7]);
    tape.switch(1, 0, IDLE, 0);
    tape.mmap(100, 0, 0, BASE, 16, PRIVATE);
    tape.fault(200, 0, 0, BASE, READ);
    let absent = tape.fault(300, 0, 0, BASE + 5 * PAGE, READ);
    let copied = tape.fault(400, 0, 0, BASE + 6 * PAGE, WRITE_PRESENT);
    tape.mmap(500, 0, 0, OTHER_BASE, 2, ANON);
    let zero = tape.fault(600, 0, 0, OTHER_BASE, WRITE_PRESENT);
    tape.fault(700, 0, 0, OTHER_BASE + PAGE, WRITE);
    tape.fault(800, 0, 0, OTHER_BASE + PAGE, WRITE_PRESENT);
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, absent), [], "a page that was not there takes no flush");
    assert_eq!(flushes(&replayed, copied), [(1, false)], "fault-around had mapped it: copied on write");
    assert_eq!(flushes(&replayed, zero), [(1, false)], "present although never seen: it was the zero page");
    let assumed: Vec<_> = replayed.notes.into_iter().collect();
    let expected = [
        ("page mapped before it was seen", 1),
        ("page that fault-around was thought to have mapped", 1),
        ("process start not recorded", 1),
        ("write fault on an entry thought writable", 1),
    ];
    assert_eq!(assumed, expected);
}

/// Three clean pages are reclaimed by task 1; `between` comes after the first. The batched flushes by event.
fn reclaim(between: impl Fn(&mut Tape)) -> Vec<usize> {
    let mut tape = Tape::new(&[7, 8]);
    tape.two_threads();
    tape.mmap(100, 0, 0, BASE, 16, PRIVATE);
    tape.fault(200, 0, 0, BASE, READ);
    for page in 0..3 {
        tape.event(EventKind::ReclaimPage, 300 + page, 1, 1, &[BASE + page * PAGE, 0, 1]);
        if page == 0 {
            between(&mut tape);
        }
    }
    let replayed = tape.play("linux-6.18");
    let remote = replayed.predicted.iter().filter(|flush| flush.remote && flush.requested.pages() == -1);
    remote.map(|flush| flush.op_event).collect()
}

#[test]
fn pages_that_reclaim_took_in_a_row_are_one_list_with_one_flush() {
    let first = 4;
    assert_eq!(reclaim(|_| ()), [first]);
    let elsewhere = |tape: &mut Tape| {
        tape.switch(301, 0, 0, IDLE);
        tape.switch(301, 0, IDLE, 0);
    };
    assert_eq!(reclaim(elsewhere), [first], "what others do meanwhile ends no list");
    let itself = |tape: &mut Tape| {
        tape.munmap(301, 1, 1, OTHER_BASE, 1);
    };
    assert_eq!(reclaim(itself), [first, first + 2], "the reclaimer does something else: two lists");
}

#[test]
fn a_call_whose_begin_was_not_recorded_is_passed_over_and_said() {
    let mut tape = Tape::new(&[7]);
    tape.page(100, 0, 0, BASE);
    let munmap = Event::new(EventKind::Munmap, 300, 0, 0).with_args(&[BASE, PAGE]);
    let row = tape.push(Event { flags: ENTER_UNSEEN, ..munmap });
    let replayed = tape.play("linux-6.18");
    assert_eq!(flushes(&replayed, row), []);
    assert_eq!(note(&replayed, "call whose begin was not recorded"), 1);
}

#[test]
fn a_machine_without_the_cpu_of_an_event_is_refused_with_the_event() {
    let mut tape = Tape::new(&[7]);
    tape.switch(100, 0, IDLE, 0);
    tape.switch(200, 1, IDLE, OTHER);
    let one_cpu = MachineConfig { nr_cpus: 1, ..config() };
    let error = replay(&tape.0, &kernel("linux-6.18"), &one_cpu, false, &mut || false).unwrap_err();
    assert_eq!(error.to_string(), "event 1: found CPU 1, expected below 1 (the machine's CPUs)");
}

#[test]
fn who_stops_a_replay_gets_what_there_is() {
    let mut tape = Tape::new(&[7]);
    for time_ns in 0..10_000 {
        tape.event(EventKind::Nop, time_ns, 0, 0, &[]);
    }
    let mut asked = 0;
    let mut stop = || {
        asked += 1;
        asked == 2
    };
    let replayed = replay(&tape.0, &kernel("linux-6.18"), &config(), false, &mut stop).unwrap();
    assert_eq!((replayed.nr_events, asked), (4096, 2));
}
