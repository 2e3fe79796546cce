//! The importers on what real kernels recorded: exact numbers of events and flushes, and what the flushes belong to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tlbcore::trace::kinds::{ENTER_UNSEEN, EXIT_UNSEEN, KERNEL_MODE};
use tlbcore::trace::{Attribution, EventKind, FlushKind, Recording, import_file};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

fn import(name: &str) -> Recording {
    let recording = import_file(&data().join(name)).unwrap();
    recording.verify().unwrap();
    recording
}

fn files(dir: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(data().join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The table of the lab's entries lies beside its recordings.
    files.retain(|path| path.is_file() && !path.to_string_lossy().ends_with(".csv.gz"));
    files.sort();
    files
}

/// Numbers of events by kind, as `name number`, in the order of kinds.
fn kinds(recording: &Recording) -> String {
    let count = |kind: &EventKind| (kind.name(), recording.nr_events_of(*kind));
    let counts = EventKind::ALL.iter().map(count).filter(|count| count.1 > 0);
    counts.map(|(name, number)| format!("{name} {number}")).collect::<Vec<_>>().join(" ")
}

/// Numbers of flush records by kind and attribution.
fn attributions(recording: &Recording) -> BTreeMap<(&'static str, &'static str), usize> {
    let mut counts = BTreeMap::new();
    for (&kind, &how) in recording.flushes.kind.iter().zip(recording.flushes.attribution.iter()) {
        let key = (FlushKind::from_number(kind).unwrap().name(), Attribution::from_number(how).unwrap().name());
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

fn by_reason(recording: &Recording) -> [usize; 6] {
    let mut counts = [0; 6];
    for &reason in recording.flushes.reason.iter() {
        counts[usize::from(reason)] += 1;
    }
    counts
}

#[test]
fn every_kind_of_event_of_every_recording_is_counted() {
    let expected = [
        (
            "apache",
            27,
            "mmap 12206 munmap 11813 mprotect 89 brk 45 madvise 11 fork 26 exec 15 exit_call 11 exit_group 16 fault 14715 switch 37938 migrate_task 327 exit 27",
            [0, 4602, 0, 12466, 9173, 450],
        ),
        (
            "gcc",
            31,
            "mmap 517 munmap 127 mprotect 432 brk 86 madvise 126 fork 30 exec 22 exit_call 13 exit_group 8 fault 25826 switch 908 migrate_task 13 exit 31",
            [0, 243, 0, 1380, 698, 3],
        ),
        (
            "java_g1",
            24,
            "mmap 839 munmap 24 mprotect 380 brk 4 madvise 10 fork 23 exec 1 exit_call 10 exit_group 1 fault 92951 switch 2999 migrate_task 84 exit 24",
            [0, 162, 0, 868, 312, 2],
        ),
        (
            "micro",
            2,
            "mmap 1009 munmap 1001 mprotect 4 brk 3 madvise 1 fork 1 exec 1 exit_call 1 exit_group 1 fault 16053 switch 504 migrate_task 1 exit 2",
            [0, 314, 0, 1011, 991, 1],
        ),
        (
            "py_threads",
            45,
            "mmap 1457 munmap 541 mprotect 179 brk 137 madvise 199 fork 44 exec 253 exit_call 4 exit_group 41 fault 143813 switch 1854 migrate_task 18 exit 45",
            [0, 80, 0, 2954, 210, 5],
        ),
        (
            "redis",
            14,
            "mmap 565 munmap 20 mprotect 120 brk 18 madvise 19 fork 13 exec 8 exit_group 9 fault 11978 switch 19276 migrate_task 13 exit 14",
            [0, 0, 0, 3208, 301, 22],
        ),
        (
            "stress",
            66,
            "mmap 2012 munmap 3495 mprotect 279 mremap 272 brk 6 madvise 104944 process_madvise 30 msync 98304 fork 65 exec 2 exit_call 48 exit_group 16 mlock 49 munlock 48 fault 3350 switch 3085 migrate_task 65 exit 66",
            [0, 326, 101, 12708, 2854, 4],
        ),
    ];
    for (name, tasks, pinned, reasons) in expected {
        let recording = import(&format!("recordings/{name}.perf.txt.zst"));
        assert_eq!(kinds(&recording), pinned, "{name}");
        assert_eq!(by_reason(&recording), reasons, "{name}: flushes by reason");
        assert_eq!((recording.tasks.len(), recording.meta.smp), (tasks, 2), "{name}");
        assert!(recording.meta.unknown_events.is_empty(), "{name}: {:?}", recording.meta.unknown_events);
        assert!(recording.events.time_ns.is_sorted(), "{name}");
    }
    assert_eq!(files("recordings").len(), expected.len());
}

#[test]
fn apache_has_as_many_of_everything_as_lines_say() {
    let recording = import("recordings/apache.perf.txt.zst");
    let flags = |kind: EventKind, flag: u8| {
        let rows = recording.events.kind.iter().zip(recording.events.flags.iter());
        rows.filter(|row| *row.0 == kind.number() && row.1 & flag != 0).count()
    };
    let nr_calls = recording.events.nr.iter().filter(|&&nr| nr >= 0).count();
    let nr_enter_unseen = recording.events.flags.iter().filter(|&&flags| flags & ENTER_UNSEEN != 0).count();
    assert_eq!(nr_calls - nr_enter_unseen, 24231, "sys_enter lines");
    assert_eq!(flags(EventKind::Fault, KERNEL_MODE), 11807, "page_fault_kernel lines");
    assert_eq!(recording.nr_events_of(EventKind::Fault) - 11807, 2908, "page_fault_user lines");
    assert_eq!(recording.nr_events_of(EventKind::Switch), 37938);
    assert_eq!(recording.flushes.len(), 26691);
    assert_eq!(recording.meta.nr_lines, 128_201);
}

#[test]
fn nearly_every_flush_of_a_recording_finds_its_operation() {
    for path in files("recordings") {
        let recording = import_file(&path).unwrap();
        let name = &recording.meta.file;
        let unknown = attributions(&recording).get(&("tlb_flush", "unknown")).copied().unwrap_or(0);
        // Only some that tell CPUs that no longer ran the address space; all that a task did itself are attributed.
        for row in 0..recording.flushes.len() {
            if recording.flushes.op_event[row] < 0 {
                assert_eq!(recording.flushes.reason[row], 5, "{name}: flush {row}");
            }
        }
        assert!(unknown * 100 < recording.flushes.len(), "{name}: {unknown}");
    }
}

#[test]
fn a_fault_flushes_once_and_only_if_it_writes_to_a_present_page() {
    for path in files("recordings") {
        let recording = import_file(&path).unwrap();
        let mut requests: BTreeMap<i64, usize> = BTreeMap::new();
        for row in 0..recording.flushes.len() {
            let opens = usize::try_from(recording.flushes.request[row]) == Ok(row);
            if opens && recording.flushes.attribution[row] == Attribution::Fault.number() {
                *requests.entry(recording.flushes.op_event[row]).or_default() += 1;
            }
        }
        assert!(!requests.is_empty(), "{}", recording.meta.file);
        for (op_event, nr_requests) in requests {
            let fault = recording.events.get(usize::try_from(op_event).unwrap());
            assert_eq!((fault.kind(), fault.a1 & 3, nr_requests), (EventKind::Fault, 3, 1), "{}", recording.meta.file);
        }
    }
}

#[test]
fn a_flush_lies_within_its_operation() {
    for path in files("recordings") {
        let recording = import_file(&path).unwrap();
        for row in 0..recording.flushes.len() {
            let Ok(op_event) = usize::try_from(recording.flushes.op_event[row]) else {
                continue;
            };
            let (event, time_ns) = (recording.events.get(op_event), recording.flushes.time_ns[row]);
            assert!(time_ns >= event.time_ns, "{}: flush {row}", recording.meta.file);
            if recording.flushes.attribution[row] == Attribution::Call.number() && event.flags & EXIT_UNSEEN == 0 {
                assert_eq!(recording.flushes.task[row], event.task, "{}: flush {row}", recording.meta.file);
                assert!(time_ns <= event.end_ns, "{}: flush {row}", recording.meta.file);
            }
        }
    }
}

#[test]
fn micro_has_one_request_per_munmap_of_touched_pages() {
    let recording = import("recordings/micro.perf.txt.zst");
    let mut requests = BTreeMap::new();
    for row in 0..recording.flushes.len() {
        if usize::try_from(recording.flushes.request[row]) == Ok(row) {
            *requests.entry(recording.flushes.op_event[row]).or_insert(0usize) += 1;
        }
    }
    let munmaps = (0..recording.events.len()).filter(|&row| recording.events.get(row).kind() == EventKind::Munmap);
    let flushing = munmaps.filter(|&row| requests.get(&i64::try_from(row).unwrap()) == Some(&1)).count();
    assert_eq!((flushing, recording.nr_events_of(EventKind::Munmap)), (1001, 1001));
}

#[test]
fn the_lab_s_records_are_all_read() {
    let mut events: BTreeMap<&str, usize> = BTreeMap::new();
    let mut flushes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut requests_found = [0; 2];
    for path in files("lab") {
        let recording = import_file(&path).unwrap();
        recording.verify().unwrap();
        let meta = &recording.meta;
        assert!(meta.unknown_events.is_empty(), "{}: {:?}", meta.file, meta.unknown_events);
        assert_eq!((meta.counts.get("end_markers"), meta.nr_lost_events), (Some(&1), 0), "{}", meta.file);
        assert_eq!(meta.levels, Some(if meta.file.starts_with("q4") { 4 } else { 5 }));
        let ceiling_pages = match meta.file.split('_').next() {
            Some("x10") => 10,
            Some("x100") => 100,
            _ => 33,
        };
        assert_eq!(meta.ceiling_pages, Some(ceiling_pages));
        assert_eq!(meta.smp, if meta.file.starts_with("c8") { 8 } else { 4 });
        if meta.file.contains("_random_") {
            continue; // recorded later: the numbers below are those of the first recordings
        }
        for kind in EventKind::ALL {
            *events.entry(kind.name()).or_default() += recording.nr_events_of(*kind);
        }
        for kind in FlushKind::ALL {
            *flushes.entry(kind.name()).or_default() += recording.nr_flushes_of(*kind);
        }
        for row in 0..recording.flushes.len() {
            if matches!(FlushKind::from_number(recording.flushes.kind[row]), Some(FlushKind::Multi | FlushKind::Func)) {
                requests_found[usize::from(recording.flushes.request[row] >= 0)] += 1;
            }
        }
    }
    let pinned_events = [
        ("switch", 5373),
        ("reclaim_page", 6136),
        ("step_begin", 5802),
        ("step_end", 5802),
        ("access", 1693),
        ("task_start", 154),
        ("exit", 154),
        ("creclaim", 27),
    ];
    for (kind, number) in pinned_events {
        assert_eq!(events[kind], number, "{kind}");
    }
    let pinned_flushes = [
        ("mm_range", 6829),
        ("multi", 6620),
        ("func", 22774),
        ("batch_flush", 2145),
        ("batch_pending", 2588),
        ("gather", 2612),
        ("gather_full", 50),
        ("finish", 2662),
        ("flush_mmu", 261),
        ("ptep_clear_flush", 4333),
        ("pmdp_invalidate", 102),
        ("move_tables", 88),
        ("unmap_flush", 535),
        ("unmap_flush_dirty", 5667),
        ("exit_mmap", 50),
        ("free_pgtables", 899),
        ("tlb_flush", 1295 + 1),
    ];
    for (kind, number) in pinned_flushes {
        assert_eq!(flushes[kind], number, "{kind}");
    }
    assert_eq!(requests_found, [0, 6620 + 22774], "multi and func records without and with their request");
}

#[test]
fn every_scenario_is_read_and_has_the_steps_of_its_run() {
    let mut nr_scenarios = 0;
    for config in ["c4", "c8", "m4", "q4", "x10", "x100"] {
        for path in files(&format!("lab/scenarios/{config}")) {
            let scenario = import_file(&path).unwrap();
            scenario.verify().unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let run = import(&format!("lab/{config}_{stem}.jsonl.gz"));
            for kind in [EventKind::StepBegin, EventKind::StepEnd, EventKind::Access, EventKind::Creclaim] {
                assert_eq!(scenario.nr_events_of(kind), run.nr_events_of(kind), "{config}/{stem}: {}", kind.name());
            }
            assert_eq!(scenario.tasks.len(), run.tasks.len(), "{config}/{stem}");
            assert_eq!(scenario.meta.memcg, run.meta.memcg, "{config}/{stem}");
            // Calls on regions are the same in both; the run has others of its runtime besides.
            let in_regions = |recording: &Recording, kind: EventKind| {
                let row = |row| recording.events.get(row);
                let rows = (0..recording.events.len()).map(row).filter(|event| event.kind() == kind);
                let mut calls: Vec<_> = rows.map(|event| (event.a0, event.a1)).collect();
                calls.retain(|call| (0x1000_0000_0000..0x101a_0000_0000).contains(&call.0));
                calls.sort_unstable();
                calls
            };
            for kind in [EventKind::Mmap, EventKind::Munmap, EventKind::Mprotect, EventKind::Madvise, EventKind::Mremap]
            {
                assert_eq!(in_regions(&scenario, kind), in_regions(&run, kind), "{config}/{stem}: {}", kind.name());
            }
            nr_scenarios += 1;
        }
    }
    assert_eq!(nr_scenarios, files("lab").len());
}
