//! Whatever order events come in and whatever numbers they hold: a recording that verifies is replayed under every
//! kernel, twice with the same outcome, and its validation adds up.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tlbcore::machine::MachineConfig;
use tlbcore::replay::validate::{Score, validate};
use tlbcore::replay::{Replayed, replay};
use tlbcore::trace::kinds::{ENTER_UNSEEN, NO_VALUE, TASK_IDLE, TASK_KTHREAD, TASK_OTHER};
use tlbcore::trace::{Event, EventKind, Flush, FlushKind, Meta, Recording, TaskInfo};

use crate::tape::{BASE, KERNELS, PAGE, kernel};

pub const NR_TASKS: u32 = 5;
const NR_NAMES: u64 = 3;
/// The lab's regions, where a step's faults are its accesses' own.
const REGION: u64 = 0x1000_0000_0000;

/// Addresses that meet each other, and some that are none.
fn an_addr() -> impl Strategy<Value = u64> {
    let borders = prop::sample::select(vec![
        0,
        1,
        PAGE,
        (1 << 47) - PAGE,
        (1 << 47) - 2 * PAGE,
        1 << 47,
        (1 << 56) - PAGE,
        1 << 56,
        u64::MAX - PAGE + 1,
        u64::MAX - PAGE,
        u64::MAX,
    ]);
    prop_oneof![
        12 => (0..24u64).prop_map(|page| BASE + page * PAGE),
        3 => (0..4u64, 0..4u64).prop_map(|(table, page)| BASE + (table << 21) + page * PAGE),
        3 => (0..8u64).prop_map(|page| REGION + page * PAGE),
        1 => (0..0x8000u64).prop_map(|byte| BASE + byte),
        1 => borders,
        1 => any::<u64>(),
    ]
}

/// Lengths in bytes. Nothing that could be populated is larger than a few thousand pages.
fn a_len() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => (1..24u64).prop_map(|pages| pages * PAGE),
        2 => (0..3u64).prop_map(|tables| tables << 21),
        2 => 0..0x5000u64,
        1 => prop::sample::select(vec![1 << 56, u64::MAX / 2, u64::MAX - PAGE, u64::MAX]),
    ]
}

fn a_task() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..NR_TASKS, 1 => prop::sample::select(vec![TASK_IDLE, TASK_KTHREAD, TASK_OTHER])]
}

fn a_result() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0), 2 => prop::sample::select(vec![-1, -12, -4095, -4096, 1, i64::MIN, i64::MAX])]
}

fn a_kind() -> impl Strategy<Value = EventKind> {
    use EventKind as K;
    let often = vec![K::Mmap, K::Munmap, K::Mprotect, K::Mremap, K::Madvise, K::Fork, K::Fault, K::Fault, K::Fault];
    let lab = vec![K::Access, K::ReclaimPage, K::ReclaimPage, K::StepBegin, K::StepFile];
    prop_oneof![
        6 => prop::sample::select(often),
        4 => prop::sample::select(vec![K::Switch, K::Switch, K::Exec, K::Exit, K::Brk]),
        2 => prop::sample::select(lab),
        3 => prop::sample::select(EventKind::ALL),
    ]
}

/// Numbers whose meaning the kind decides: address, length, second address, small number, flag, result.
fn numbers() -> impl Strategy<Value = (u64, u64, u64, u64, u64, i64)> {
    let small = prop_oneof![8 => 0..32u64, 1 => any::<u64>()];
    (an_addr(), a_len(), an_addr(), small, any::<u64>(), a_result())
}

fn an_event() -> impl Strategy<Value = Event> {
    let place = (0..3u16, a_task(), a_task());
    (a_kind(), place, numbers(), prop_oneof![9 => 0..64u8, 1 => any::<u8>()]).prop_map(
        |(kind, (cpu, task, other), (addr, len, new, small, bits, ret), flags)| {
            use EventKind as K;
            let args = match kind {
                K::Mmap => [
                    addr,
                    len,
                    small,
                    [2, 0x22, 0x21, 1, 0x32, 0x8022, 0x122, 0x10_0022][bits as usize % 8] | (bits >> 40 & 0x2000),
                    bits >> 8 & 3,
                    small.wrapping_mul(PAGE),
                ],
                K::Mremap => [addr, len, [len, PAGE, 0, 5 * PAGE][bits as usize % 4], bits >> 8 & 7, new, 0],
                K::Mprotect | K::Madvise | K::Msync => [addr, len, small, 0, 0, 0],
                K::Fork => [bits, 0, 0, 0, 0, if small == 0 { NO_VALUE } else { other.into() }],
                K::Switch | K::ProcessFork | K::Wait => [other.into(), 0, 0, 0, 0, 0],
                K::Exec => [0, 0, 0, 0, 0, if small == 0 { NO_VALUE } else { small % NR_NAMES }],
                K::Fault => [addr, bits & 0x1f, 0, NO_VALUE, NO_VALUE, 0],
                K::Access => [addr, small % 64, bits & 3, bits >> 8 & 1, 0, 0],
                K::StepBegin => [0, 0, small % NR_NAMES, 0, 0, 0],
                K::StepFile | K::Mkfile | K::Fsync | K::Ftruncate | K::Fpunch => {
                    [small % NR_NAMES, [small, bits][usize::from(bits.is_multiple_of(16))], small, 0, 0, 0]
                }
                K::MigrateTask | K::SetCpu => [small & 1, 0, 0, 0, 0, 0],
                _ => [addr, len, small, bits, new, small],
            };
            // Flags at random, but not that most calls were not seen to begin.
            let flags = if (bits >> 48).is_multiple_of(8) { flags } else { flags & !ENTER_UNSEEN };
            let is_address = matches!(kind, K::Mmap | K::Mremap | K::Brk | K::Shmat);
            let ret = if is_address && ret == 0 { new.cast_signed() } else { ret };
            Event { flags, ret, ..Event::new(kind, 0, cpu, task).with_args(&args) }
        },
    )
}

/// Steps of time and how long calls take.
fn times() -> impl Strategy<Value = (i64, u64)> {
    let step = prop_oneof![12 => 0..2_000i64, 2 => Just(0), 1 => -3_000..0i64, 1 => Just(2_000_000_000)];
    let duration = prop_oneof![6 => 0..1_000u64, 2 => 0..20_000u64, 1 => prop::sample::select(vec![1 << 40, u64::MAX])];
    (step, duration)
}

fn a_flush() -> impl Strategy<Value = Flush> {
    let request = prop_oneof![2 => Just(-1i64), 3 => 0..20i64];
    let times = prop_oneof![8 => 0..100_000u64, 1 => any::<u64>()];
    let kind = prop_oneof![5 => Just(FlushKind::TlbFlushEvent), 3 => prop::sample::select(FlushKind::ALL)];
    (kind, times, 0..6u8, -1..60i64, request, any::<(u64, u64, u8, i64)>(), 0..3u16).prop_map(
        |(kind, time_ns, reason, op_event, request, (start, end, stride_shift, pages), cpu)| Flush {
            reason,
            op_event,
            request,
            start,
            end: if pages % 4 == 0 { u64::MAX } else { end },
            stride_shift: if pages & 4 == 0 { 12 } else { stride_shift & 63 },
            pages: if pages & 8 == 0 { pages >> 58 } else { pages },
            mask: start >> 60,
            ..Flush::new(kind, time_ns, cpu, 0)
        },
    )
}

pub fn row_number(row: usize) -> i64 {
    i64::try_from(row).unwrap()
}

pub fn a_recording() -> impl Strategy<Value = Recording> {
    let begin = prop_oneof![6 => Just(10_000u64), 1 => Just(u64::MAX - 1_000_000)];
    (vec((an_event(), times()), 1..60), vec(a_flush(), 0..20), begin).prop_map(|(events, flushes, begin_ns)| {
        let task = |index: u32| TaskInfo { tid: index, pid: [1, 1, 2, 3, 3][index as usize], comm: "t".to_owned() };
        let mut recording = Recording {
            meta: Meta { source: "perf".to_owned(), file: "random".to_owned(), smp: 3, ..Meta::default() },
            tasks: (0..NR_TASKS).map(task).collect(),
            names: ["touch A 0 1", "rep 3 munmap", ""].map(str::to_owned).to_vec(),
            ..Recording::default()
        };
        let mut time_ns = begin_ns;
        for (event, (step, duration)) in events {
            time_ns = time_ns.saturating_add_signed(step);
            recording.events.push(Event { time_ns, end_ns: time_ns.saturating_add(duration), ..event });
        }
        let (nr_events, nr_flushes) = (row_number(recording.events.len()), row_number(flushes.len()));
        for flush in flushes {
            let (op_event, request) = (flush.op_event.min(nr_events - 1), flush.request.min(nr_flushes - 1));
            recording.flushes.push(Flush { op_event, request, ..flush });
        }
        recording
    })
}

fn a_machine() -> impl Strategy<Value = MachineConfig> {
    (prop::sample::select(vec![4u8, 5]), any::<[bool; 3]>()).prop_map(|(levels, [pcid, tlb_enabled, swap])| {
        MachineConfig { nr_cpus: 3, levels, pcid, tlb_enabled, swap, ..MachineConfig::default() }
    })
}

fn play(recording: &Recording, name: &str, config: &MachineConfig, follow: bool) -> Replayed {
    match replay(recording, &kernel(name), config, follow, &mut || false) {
        Ok(replayed) => replayed,
        Err(error) => panic!("{name}: {error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_recording_is_replayed_and_adds_up(
        recording in a_recording(),
        config in a_machine(),
        which in 0..KERNELS.len(),
        follow in any::<bool>(),
    ) {
        recording.verify().unwrap();
        let name = KERNELS[which].0;
        let replayed = play(&recording, name, &config, follow);
        prop_assert_eq!(replayed.nr_events, recording.events.len() as u64);
        prop_assert_eq!(replayed.counters.flush.nr_flush_requests, replayed.predicted.len() as u64);
        prop_assert!(replayed.predicted.iter().all(|flush| flush.op_event < recording.events.len()));
        let booked: u64 = replayed.ledger.rows().map(|(_, row)| row.nr_flush_requests).sum();
        prop_assert_eq!(booked, replayed.counters.flush.nr_flush_requests);

        let again = play(&recording, name, &config, follow);
        prop_assert_eq!(&again.predicted, &replayed.predicted);
        prop_assert_eq!((again.counters, &again.notes), (replayed.counters, &replayed.notes));
        prop_assert_eq!(&again.ledger, &replayed.ledger);

        let validation = validate(&recording, &replayed);
        let mut sum = Score::default();
        for score in validation.by_operation.values() {
            sum.nr_operations += score.nr_operations;
            let both = [(&mut sum.with_targets, score.with_targets), (&mut sum.without_targets, score.without_targets)];
            for (sum, counts) in both {
                sum.matched += counts.matched;
                sum.missed += counts.missed;
                sum.extra += counts.extra;
            }
        }
        prop_assert_eq!(sum, validation.total);
        for operation in &validation.operations {
            let score = operation.score();
            for counts in [score.with_targets, score.without_targets] {
                prop_assert_eq!(counts.matched + counts.extra, operation.predicted.len() as u64);
                prop_assert_eq!(counts.matched + counts.missed, operation.recorded.len() as u64);
            }
            prop_assert!(score.without_targets.matched >= score.with_targets.matched);
        }
        let mut notes: BTreeMap<&str, u64> = BTreeMap::new();
        for (row, name) in &replayed.noted {
            prop_assert!(*row < recording.events.len());
            *notes.entry(name).or_default() += 1;
        }
        prop_assert_eq!(&notes, &replayed.notes);
        let grouped: u64 = validation
            .disagreements(usize::MAX)
            .iter()
            .map(|group| group.nr_operations * (group.missed.len() + group.extra.len()) as u64)
            .sum();
        let total = validation.total.with_targets;
        prop_assert_eq!(grouped, total.missed + total.extra);
    }
}
