//! The file of a recording: what is written is read again, whatever is damaged is noticed or harmless, and importers
//! survive any bytes.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use tlbcore::trace::kinds::{NO_VALUE, TASK_IDLE};
use tlbcore::trace::{Event, EventKind, Flush, FlushKind, Meta, Recording, TaskInfo, format, import_file, import_text};

const NR_TASKS: u32 = 3;
const NR_NAMES: u64 = 2;

fn an_event() -> impl Strategy<Value = Event> {
    let kinds = prop::sample::select(EventKind::ALL);
    let places = (0..1u64 << 40, 0..1u64 << 20, any::<u16>(), prop_oneof![0..NR_TASKS, Just(TASK_IDLE)]);
    (kinds, places, any::<u8>(), any::<i32>(), any::<[u64; 3]>(), any::<i64>()).prop_map(
        |(kind, (time_ns, duration_ns, cpu, task), flags, nr, args, ret)| {
            let mut event =
                Event { end_ns: time_ns + duration_ns, flags, nr, ret, ..Event::new(kind, time_ns, cpu, task) };
            (event.a1, event.a4) = (args[0], args[1]);
            // Arguments that refer to tasks or names must exist.
            (event.a0, event.a2, event.a3) = (args[2] % NR_NAMES, args[0] % NR_NAMES, args[1] % NR_NAMES);
            event.a5 = if args[2].is_multiple_of(2) { NO_VALUE } else { args[2] % NR_NAMES };
            event
        },
    )
}

fn a_recording() -> impl Strategy<Value = Recording> {
    let flush = (any::<u64>(), any::<i64>(), any::<u64>(), any::<u16>(), prop::sample::select(FlushKind::ALL));
    (vec(an_event(), 0..40), vec(flush, 0..20), "\\PC{0,20}").prop_map(|(events, flushes, text)| {
        let task = |tid| TaskInfo { tid, pid: 1, comm: text.clone() };
        let mut recording = Recording {
            meta: Meta { source: "perf".to_owned(), file: text.clone(), smp: 3, ..Meta::default() },
            tasks: (1..=NR_TASKS).map(task).collect(),
            names: vec![text.clone(), "b".to_owned()],
            ..Recording::default()
        };
        for event in events {
            recording.events.push(event);
        }
        for (time_ns, pages, mask, cpu, kind) in flushes {
            recording.flushes.push(Flush { pages, mask, tlb_gen: mask ^ time_ns, ..Flush::new(kind, time_ns, cpu, 0) });
        }
        recording
    })
}

/// The recording under the name of a file: what is read is called as its file.
fn called(recording: &Recording, name: &str) -> Recording {
    let mut named = recording.clone();
    name.clone_into(&mut named.meta.file);
    named
}

fn write_bytes(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("damaged.tlbr");
    fs::write(&path, bytes).unwrap();
    path
}

fn written(dir: &Path, recording: &Recording) -> Vec<u8> {
    let path = dir.join("whole.tlbr");
    format::write(recording, &path).unwrap();
    fs::read(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_again(recording in a_recording()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.tlbr");
        format::write(&recording, &path).unwrap();
        let recording = called(&recording, "r.tlbr");
        prop_assert_eq!(&import_file(&path).unwrap(), &recording);
        format::verify(&path).unwrap();
        // Writing over it what it is mapped from changes nothing, and leaves nothing else behind.
        let mapped = format::open(&path).unwrap();
        format::write(&mapped, &path).unwrap();
        prop_assert_eq!(&mapped, &recording);
        prop_assert_eq!(&format::open(&path).unwrap(), &recording);
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_changed_byte_is_noticed_or_harmless(recording in a_recording(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = written(dir.path(), &recording);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        match format::open(&write_bytes(dir.path(), &bytes)) {
            Ok(read) => {
                prop_assert_eq!(&read, &called(&recording, "damaged.tlbr"));
                prop_assert_eq!(bytes[at] ^ flip, 0, "only padding may change unnoticed");
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_recording(bytes in vec(any::<u8>(), 0..300), head in prop::sample::select(HEADS)) {
        let text = [head.as_bytes(), &bytes].concat();
        if let Ok(recording) = import_text("any", &text) {
            recording.verify().unwrap();
        }
    }

    #[test]
    fn damaged_text_never_panics(
        which in 0..SAMPLES.len(),
        edits in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789 -=,:|[]{}\"\n"[..])]), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = SAMPLES[which].as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if cut.index(4) == 0 {
            text.truncate(cut.index(text.len()));
        }
        match import_text("sample", &text) {
            Ok(recording) => recording.verify().unwrap(),
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        }
    }
}

const HEADS: &[&str] = &[
    "",
    "TLBCREC\0",
    "{\"meta\":",
    "T0 mmap ",
    "               m 1/1 [000] 1.000000000: tlb:tlb_flush: ",
    "\x1f\u{8b}",
];

const PERF: &str = "\
               m    9/9     [000]     1.000000001: sched:sched_process_exec: filename=m pid=9 old_pid=9
               m    9/9     [000]     1.000000002: raw_syscalls:sys_exit: NR 59 = 0
               m    9/9     [000]     1.000000003: exceptions:page_fault_user: address=0x7f3e071d0b70 ip=0x7f3e071d0b70 error_code=0x14
               m    9/9     [000]     1.000000004: raw_syscalls:sys_enter: NR 435 (7f, 58, 0, 37f, 0, 0)
               m    9/9     [000]     1.000000005: sched:sched_process_fork: comm=m pid=9 child_comm=m child_pid=10
               m    9/9     [000]     1.000000006: raw_syscalls:sys_exit: NR 435 = 10
               m    9/10    [001]     1.000000007: raw_syscalls:sys_exit: NR 435 = 0
               m    9/9     [000]     1.000000008: raw_syscalls:sys_enter: NR 11 (7f0000000000, 1000, 0, 0, 0, 0)
               m    9/9     [000]     1.000000009: tlb:tlb_flush: pages:1 reason:remote IPI send (4)
               m    9/10    [001]     1.000000010: tlb:tlb_flush: pages:1 reason:remote shootdown (1)
               m    9/9     [000]     1.000000011: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)
               m    9/9     [000]     1.000000012: raw_syscalls:sys_exit: NR 11 = 0
               m    9/10    [001]     1.000000013: sched:sched_process_exit: comm=m pid=10 prio=120 group_dead=false
              :-1    9/-1    [001]     1.000000014: sched:sched_switch: prev_comm=m prev_pid=10 prev_prio=120 prev_state=X ==> next_comm=swapper/1 next_pid=0 next_prio=120
";
const LAB: &str = r#"{"meta":{"kernel":"Linux 6.1","cpu":"max","smp":2,"pcid":false,"ceiling":33,"thp":"never","lost_events":0,"steps":[],"actors":{"T0":{"tid":3,"pid":3},"T1":{"tid":4,"pid":3}}}}
{"t":0,"c":0,"a":"T0","k":"actor","name":"T0","pid":3}
{"t":1,"c":0,"a":"T0","k":"B","step":0,"it":0,"op":"munmap A 0 1"}
{"t":2,"c":0,"a":"T0","k":"sys","name":"munmap","args":["0x100000000000","0x1000","0x0","0x0","0x0","0x0"],"at":"A+0"}
{"t":3,"c":0,"a":"T0","k":"mm_range","mm":"mm0","start":"0x100000000000","end":"0x100000001000","stride":12,"freed":1,"mask":[0,1],"pend":1}
{"t":4,"c":0,"a":"T0","k":"multi","mm":"mm0","mask":[0,1],"start":"0x100000000000","end":"0x100000001000","gen":17,"icpu":0,"stride":12,"freed":1,"pages":1}
{"t":5,"c":1,"a":"idle","k":"func","mm":"mm0","start":"0x100000000000","end":"0x100000001000","gen":17,"icpu":0,"stride":12,"freed":1,"pages":-1,"reason":0}
{"t":6,"c":0,"a":"T0","k":"ret","name":"munmap","rc":0}
{"t":7,"c":0,"a":"T0","k":"fault","addr":"0x100000000000","code":6,"n":3,"st":2}
{"t":8,"c":0,"a":"T0","k":"E","step":0,"it":0,"rc":0}
{"t":9,"c":1,"k":"sw","prev":"idle","state":"R","next":"T1","flush":-1}
{"t":10,"c":0,"k":"END"}
"#;
const SCN: &str = "#! memcg=1\nT0 thread T1 1 sleep\nT0 mmap A 0 9 rw sfile:f | T1 rep 3 touch B 0 3 w 2\nT0 fork P1 0 spin\nP1 exit\nT0 wait P1\n";
const SAMPLES: &[&str] = &[PERF, LAB, SCN];

#[test]
fn samples_read_as_they_stand() {
    let perf = import_text("p", PERF.as_bytes()).unwrap();
    assert_eq!((perf.events.len(), perf.flushes.len(), perf.tasks.len()), (6, 3, 2));
    // All three flush records belong to the munmap, event 3, and to the request that the first one opened.
    assert_eq!(perf.flushes.op_event[..], [3, 3, 3]);
    assert_eq!(perf.flushes.request[..], [0, 0, 0]);
    let fork = perf.events.get(2);
    assert_eq!((fork.kind(), fork.ret, fork.a5), (EventKind::Fork, 10, 1));
    assert_eq!(fork.flags, tlbcore::trace::kinds::THREAD | tlbcore::trace::kinds::SHARES_MM);
    let exit = perf.events.get(4);
    assert_eq!((exit.kind(), exit.end_ns - exit.time_ns), (EventKind::Exit, 1));

    let lab = import_text("l", LAB.as_bytes()).unwrap();
    assert_eq!((lab.meta.levels, lab.meta.ceiling_pages), (Some(5), Some(33)));
    assert_eq!(lab.flushes.request[..], [0, 0, 0, 3]);
    assert_eq!(lab.flushes.op_event[..], [2, 2, 2, 7]);
    assert_eq!((lab.flushes.tlb_gen[0], lab.flushes.mask[0]), (17, 3));
    assert_eq!(lab.events.a0[3..6], [0x1000_0000_0000, 0x1000_0000_2000, 0x1000_0000_4000]);

    let scn = import_text("s", SCN.as_bytes()).unwrap();
    assert_eq!(scn.nr_events_of(EventKind::Access), 3);
    assert_eq!(scn.tasks.len(), 3);
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let whole = written(dir.path(), &import_text("p", PERF.as_bytes()).unwrap());
    for length in 0..whole.len() {
        let path = write_bytes(dir.path(), &whole[..length]);
        let error = import_file(&path).expect_err("a part of a file is no recording");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn errors_name_file_byte_found_and_expected() {
    let dir = tempfile::tempdir().unwrap();
    let whole = written(dir.path(), &import_text("p", PERF.as_bytes()).unwrap());
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let path = write_bytes(dir.path(), &bytes);
        let error = format::open(&path).unwrap_err().to_string();
        error.replace(&path.display().to_string(), "F")
    };
    assert_eq!(error(&|bytes| bytes[0] = b'X'), "F: byte 0: found `XLBCREC\\0`, expected a recording (TLBCREC)");
    assert_eq!(error(&|bytes| bytes[8] = 9), "F: byte 8: found version 9, expected version 2");
    assert!(error(&|bytes| bytes[30] ^= 1).starts_with("F: byte 16: found checksum 0x"));
    assert!(error(&|bytes| bytes.push(0)).ends_with("found 1 more bytes, expected the end of the file"));
    let last = whole.len() - 1;
    assert!(error(&|bytes| bytes[last] ^= 1).ends_with("for column flushes.count"));
    assert!(error(&|bytes| bytes.truncate(last)).contains("expected column flushes.count of 12 bytes"));
}

#[test]
fn text_that_is_nothing_known_is_refused() {
    let error = |text: &str| import_text("f", text.as_bytes()).unwrap_err().to_string();
    let expected = "expected a recording (.tlbr), perf script text, lab records (.jsonl) or a scenario (.scn)";
    assert_eq!(error(""), format!("f: line 1: found an empty file, {expected}"));
    assert_eq!(error("hello\n"), format!("f: line 1: found `hello`, {expected}"));
    let malformed = PERF.replace("NR 11 = 0", "NR 11 = zero");
    let line = error(&malformed);
    assert!(line.starts_with("f: line 12: found `m    9/9"), "{line}");
    assert!(line.ends_with("expected `NR n = result`"), "{line}");
}
