//! The common problem in the plain engine: counts that five encodings in five model checkers agree on, and shortest races.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tlbcore::explore::common_problem::{Clean, Options, Unmap, Visitor, with_model, with_monotone_model};
use tlbcore::explore::search::{
    Bounds, Control, Model, Outcome, Reductions, SaturatedOutcome, Stopped, follow, saturate, search,
};

/// A plain search as a visitor.
struct Plain {
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    bounds: Bounds,
}

impl Visitor for Plain {
    type Output = Outcome;

    fn visit<M: Model>(self, model: &M) -> Outcome {
        let stop = AtomicBool::new(false);
        let mut control = Control { bounds: self.bounds, stop: &stop, progress: None };
        let outcome = search(model, self.reductions, self.threads, self.to_first, &mut control);
        if let Some(path) = outcome.finding.as_ref().and_then(|finding| finding.path.as_ref()) {
            let (start, steps) = follow(model, path).expect("a path found can be followed");
            let end = steps.last().map_or(start, |step| step.state);
            assert_ne!(model.violations(&end), 0, "a path found ends in a violation");
            let mut state = start;
            for step in &steps {
                assert!(!model.describe(&state, step.action).is_empty());
                state = step.state;
            }
        }
        outcome
    }
}

fn plain(options: Options, reductions: Reductions, threads: usize) -> Outcome {
    with_model(options, Plain { reductions, threads, to_first: false, bounds: Bounds::default() }).unwrap()
}

fn first(options: Options, reductions: Reductions) -> Outcome {
    with_model(options, Plain { reductions, threads: 1, to_first: true, bounds: Bounds::default() }).unwrap()
}

const P1: (Unmap, Clean) = (Unmap::Zap, Clean::Cleaner);
const P2M: (Unmap, Clean) = (Unmap::Mprotect, Clean::Reclaim);
const P3: (Unmap, Clean) = (Unmap::Zap, Clean::Reclaim);

fn fixed((unmap, clean): (Unmap, Clean), users: usize, pages: usize) -> Options {
    Options::fixed(unmap, clean, users, pages)
}

#[test]
fn counts_are_those_of_five_encodings() {
    for (problem, users, pages, states, transitions) in [
        (P1, 1, 1, 391, 868),
        (P1, 2, 2, 38_313, 212_851),
        (P1, 2, 3, 1_384_639, 10_862_637),
        (P2M, 2, 3, 3_710_022, 31_103_596),
        (P3, 2, 3, 594_916, 4_839_769),
    ] {
        let outcome = plain(fixed(problem, users, pages), Reductions::NONE, 1);
        assert_eq!((outcome.states, outcome.transitions), (states, transitions), "{problem:?} {users} x {pages}");
        assert!(outcome.is_proof());
        if states > 1_000_000 {
            let per_state = outcome.memory_bytes as u64 / states;
            assert!(per_state <= 32, "{per_state} bytes a state");
        }
    }
}

#[test]
fn sorting_cpus_leaves_what_other_tools_leave() {
    let symmetry = Reductions { symmetry: true, ..Reductions::NONE };
    assert_eq!(plain(fixed(P1, 2, 2), symmetry, 1).states, 21_577);
}

#[test]
fn races_are_found_at_their_shortest() {
    let races = [
        (Options { delay_rmap: false, ..fixed(P1, 1, 1) }, 11),
        (Options { flush_under_lock: false, ..fixed(P1, 1, 1) }, 15),
        (Options { flush_batched: false, ..fixed(P2M, 1, 1) }, 18),
        (Options { flush_batched: false, ..fixed(P3, 1, 1) }, 16),
    ];
    for (options, depth) in races {
        for (users, pages) in [(1, 1), (2, 2)] {
            let options = Options { users, pages, ..options };
            let depth =
                if pages == 1 { depth } else { first(options, Reductions::NONE).finding.expect("a race").depth };
            let depth = depth as usize;
            let witness = Reductions::ALL.for_witness();
            let urgent = Reductions { urgent: false, ..witness };
            for reductions in [Reductions::NONE, urgent, witness, Reductions { eager_stores: true, ..urgent }] {
                let finding = first(options, reductions).finding.expect("a race");
                let path = finding.path.expect("a path");
                if reductions.urgent {
                    assert!(path.len() >= depth, "{options:?}");
                } else {
                    assert_eq!(path.len(), depth, "{options:?} {reductions:?}");
                }
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    for reductions in [Reductions::NONE, Reductions { symmetry: true, dead: true, ..Reductions::NONE }] {
        let one = plain(fixed(P3, 2, 3), reductions, 1);
        for threads in [2, 3] {
            let more = plain(fixed(P3, 2, 3), reductions, threads);
            assert_eq!(
                (one.states, one.transitions, one.depth, one.violations),
                (more.states, more.transitions, more.depth, more.violations),
            );
        }
    }
    let buggy = Options { delay_rmap: false, ..fixed(P1, 2, 3) };
    assert_eq!(plain(buggy, Reductions::NONE, 1).finding, plain(buggy, Reductions::NONE, 2).finding);
}

#[test]
fn bounds_are_kept_and_said() {
    let within = |bounds| {
        with_model(fixed(P1, 2, 3), Plain { reductions: Reductions::NONE, threads: 1, to_first: false, bounds })
            .unwrap()
    };
    let states = within(Bounds { states: 100_000, ..Bounds::default() });
    assert_eq!((states.states, states.stopped, states.is_proof()), (100_000, Some(Stopped::States), false));
    let memory = within(Bounds { memory_bytes: 4 << 20, ..Bounds::default() });
    assert_eq!(memory.stopped, Some(Stopped::Memory));
    assert!(memory.memory_bytes <= 4 << 20 && memory.states > 100_000, "{memory:?}");
    let depth = within(Bounds { depth: 10, ..Bounds::default() });
    assert_eq!((depth.depth, depth.stopped), (10, Some(Stopped::Depth)));
    let time = within(Bounds { time: Duration::ZERO, ..Bounds::default() });
    assert_eq!(time.stopped, Some(Stopped::Time));
}

#[test]
fn a_bound_that_is_just_enough_stops_nobody() {
    let within = |states: u64, threads: usize| {
        let bounds = Bounds { states, ..Bounds::default() };
        with_model(fixed(P3, 2, 3), Plain { reductions: Reductions::NONE, threads, to_first: false, bounds }).unwrap()
    };
    for _ in 0..3 {
        for threads in [1, 2, 3] {
            assert!(within(594_916, threads).is_proof(), "{threads} threads");
            let cut = within(594_915, threads);
            assert_eq!((cut.states, cut.stopped), (594_915, Some(Stopped::States)), "{threads} threads");
        }
    }
}

#[test]
fn sizes_that_are_not_compiled_are_named() {
    let Err(error) = with_model(
        fixed(P1, 9, 1),
        Plain { reductions: Reductions::NONE, threads: 1, to_first: true, bounds: Bounds::default() },
    ) else {
        panic!("9 users are not compiled")
    };
    assert!(error.to_string().contains("found 9 user CPUs and 1 pages, expected one of 1 x 1"), "{error}");
}

#[test]
fn both_codes_of_an_entry_are_the_same_model() {
    for (problem, users, pages) in [(P1, 1, 2), (P1, 2, 2), (P2M, 2, 2), (P2M, 3, 1), (P3, 2, 2), (P3, 1, 4)] {
        for fixed in [true, false] {
            let (unmap, clean) = problem;
            let all = Options::fixed(unmap, clean, users, pages);
            let options = Options { flush_under_lock: fixed, delay_rmap: fixed, flush_batched: fixed, ..all };
            for reductions in [Reductions::NONE, Reductions::ALL.for_witness()] {
                for to_first in [false, true] {
                    let run = || Plain { reductions, threads: 1, to_first, bounds: Bounds::default() };
                    let dense = with_model(options, run()).unwrap();
                    let monotone = with_monotone_model(options, run()).unwrap();
                    let told = |outcome: &Outcome| {
                        let length = outcome.finding.as_ref().and_then(|found| found.path.as_ref()).map(Vec::len);
                        let counts = (outcome.states, outcome.transitions, outcome.depth);
                        (counts, outcome.violations, length)
                    };
                    assert_eq!(told(&dense), told(&monotone), "{options:?} {reductions:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_ordered_by_inclusion_is_not_saturated() {
    struct Refused;
    impl Visitor for Refused {
        type Output = String;

        fn visit<M: Model>(self, model: &M) -> String {
            let stop = AtomicBool::new(false);
            let mut control = Control { bounds: Bounds::default(), stop: &stop, progress: None };
            saturate(model, Reductions::ALL, false, &mut control).expect_err("two bits").to_string()
        }
    }
    let refused = with_model(fixed(P1, 2, 2), Refused).unwrap();
    assert!(refused.contains("entries of two bits are not ordered by inclusion"), "{refused}");
}

/// A saturated search as a visitor.
struct Saturated(Reductions);

impl Visitor for Saturated {
    type Output = SaturatedOutcome;

    fn visit<M: Model>(self, model: &M) -> SaturatedOutcome {
        let stop = AtomicBool::new(false);
        let bounds = Bounds { memory_bytes: 1 << 30, ..Bounds::default() };
        saturate(model, self.0, false, &mut Control { bounds, stop: &stop, progress: None }).expect("it is monotone")
    }
}

fn saturated(options: Options, reductions: Reductions) -> SaturatedOutcome {
    with_monotone_model(options, Saturated(reductions)).unwrap()
}

#[test]
fn maximal_states_are_those_of_the_prototype() {
    for (problem, alone, all) in [(P1, 4_239, 1_165), (P3, 4_848, 2_187), (P2M, 8_126, 2_448)] {
        let options = fixed(problem, 2, 3);
        let only = saturated(options, Reductions { saturate: true, ..Reductions::NONE });
        let full = saturated(options, Reductions::ALL);
        assert!(only.is_proof() && full.is_proof());
        assert_eq!((only.maximal, full.maximal), (alone, all), "{problem:?}");
    }
}

#[test]
fn each_reduction_leaves_what_the_prototype_left() {
    let only = |set: fn(&mut Reductions)| {
        let mut reductions = Reductions::NONE;
        set(&mut reductions);
        reductions
    };
    let symmetry = only(|r| r.symmetry = true);
    let retired = only(|r| (r.symmetry, r.retired) = (true, true));
    let urgent = only(|r| r.urgent = true);
    let dead = only(|r| r.dead = true);
    let eager = only(|r| r.eager_stores = true);
    let quiet = Reductions::ALL.for_witness();
    let all_but_saturation = Reductions { eager_stores: true, ..quiet };
    for (reductions, counts) in [
        (symmetry, [719_506, 311_924, 1_900_325]),
        (retired, [682_239, 310_912, 1_877_888]),
        (urgent, [924_312, 397_037, 1_431_740]),
        (dead, [1_266_955, 594_916, 3_615_040]),
        (eager, [462_530, 162_343, 1_036_894]),
        (quiet, [411_377, 206_383, 696_403]),
        (all_but_saturation, [129_618, 56_362, 195_936]),
    ] {
        let found = [P1, P3, P2M].map(|problem| plain(fixed(problem, 2, 3), reductions, 1).states);
        assert_eq!(found, counts, "{reductions:?}");
    }
}

#[test]
fn larger_sizes_are_proven_by_saturation() {
    for (problem, maximal) in [(P1, [3_617, 27_360]), (P3, [8_386, 123_025]), (P2M, [10_631, 213_194])] {
        for ((users, pages), maximal) in [(3, 4), (6, 6)].into_iter().zip(maximal) {
            let outcome = saturated(fixed(problem, users, pages), Reductions::ALL);
            assert!(outcome.is_proof());
            assert_eq!(outcome.maximal, maximal, "{problem:?} {users} x {pages}");
        }
    }
}
