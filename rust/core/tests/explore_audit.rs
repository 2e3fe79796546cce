//! The reductions of the common problem against its plain graph, over all switches of fixes and of reductions; and verdicts.

use std::sync::atomic::AtomicBool;

use tlbcore::explore::common_problem::{Clean, Options, Unmap, Visitor, explore, with_monotone_model};
use tlbcore::explore::search::{Audit, Bounds, Control, Model, NoAudit, Reductions, Stopped, audit};

struct Audited(Reductions, Bounds);

impl Visitor for Audited {
    type Output = Result<Audit, NoAudit>;

    fn visit<M: Model>(self, model: &M) -> Self::Output {
        let stop = AtomicBool::new(false);
        audit(model, self.0, &mut Control { bounds: self.1, stop: &stop, progress: None })
    }
}

fn audited(options: Options, reductions: Reductions) -> Audit {
    with_monotone_model(options, Audited(reductions, Bounds::default())).unwrap().expect("small")
}

/// Every combination of unmapper, cleaner and fixes.
fn variants(users: usize, pages: usize) -> impl Iterator<Item = Options> {
    let kinds = [Unmap::Zap, Unmap::Mprotect].map(|unmap| [Clean::Cleaner, Clean::Reclaim].map(|clean| (unmap, clean)));
    kinds.into_iter().flatten().flat_map(move |(unmap, clean)| {
        (0..8).map(move |fixes| Options {
            unmap,
            clean,
            flush_under_lock: fixes & 1 != 0,
            delay_rmap: fixes & 2 != 0,
            flush_batched: fixes & 4 != 0,
            users,
            pages,
        })
    })
}

#[test]
fn every_reduction_agrees_with_plain_search() {
    let one = |set: fn(&mut Reductions)| {
        let mut reductions = Reductions::NONE;
        set(&mut reductions);
        reductions
    };
    let sets = [
        one(|r| r.saturate = true),
        one(|r| r.urgent = true),
        one(|r| r.symmetry = true),
        one(|r| r.retired = true),
        one(|r| r.dead = true),
        one(|r| r.eager_stores = true),
        Reductions::ALL.for_witness(),
        Reductions { saturate: false, ..Reductions::ALL },
        Reductions { urgent: false, ..Reductions::ALL },
        Reductions { dead: false, ..Reductions::ALL },
        Reductions { symmetry: false, retired: false, ..Reductions::ALL },
        Reductions::ALL,
    ];
    for options in variants(2, 1).chain(variants(1, 2)) {
        for reductions in sets {
            let audit = audited(options, reductions);
            assert!(
                audit.is_clean() && audit.reduced_states <= audit.plain_states,
                "{options:?} {reductions:?}: {audit:?}"
            );
        }
    }
    for options in variants(2, 2) {
        let audit = audited(options, Reductions::ALL);
        assert!(audit.is_clean(), "{options:?}: {audit:?}");
    }
}

#[test]
fn an_audit_that_is_cut_short_is_none() {
    let bounds = Bounds { states: 10_000, ..Bounds::default() };
    let options = Options::fixed(Unmap::Zap, Clean::Cleaner, 2, 2);
    let cut = with_monotone_model(options, Audited(Reductions::ALL, bounds)).unwrap();
    assert_eq!(cut, Err(NoAudit::Stopped(Stopped::States)));
}

#[test]
fn verdicts_of_all_variants_agree() {
    let stop = AtomicBool::new(false);
    let mut verdicts = [0, 0];
    for options in [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().flat_map(|(users, pages)| variants(users, pages)) {
        let run = |reductions| {
            let mut control = Control { bounds: Bounds::default(), stop: &stop, progress: None };
            explore(options, reductions, 1, true, &mut control).unwrap()
        };
        let plain = run(Reductions::NONE);
        for reductions in [Reductions::ALL, Reductions { saturate: true, ..Reductions::NONE }] {
            let reduced = run(reductions);
            assert_eq!(plain.is_proof(), reduced.is_proof(), "{options:?}");
            assert_eq!(plain.trace.is_empty(), reduced.trace.is_empty());
            if !reductions.urgent {
                assert_eq!(plain.trace.len(), reduced.trace.len(), "the witness is not the shortest: {options:?}");
            }
        }
        verdicts[usize::from(plain.is_proof())] += 1;
    }
    assert_eq!(verdicts, [68, 60], "unsafe, safe");
}

#[test]
fn the_story_of_a_race_is_told_step_by_step() {
    let stop = AtomicBool::new(false);
    let mut control = Control { bounds: Bounds::default(), stop: &stop, progress: None };
    let options = Options { delay_rmap: false, ..Options::fixed(Unmap::Zap, Clean::Cleaner, 1, 1) };
    let report = explore(options, Reductions::ALL, 1, true, &mut control).unwrap();
    let trace = report.trace.join("\n");
    for line in [
        "CPU0: ptep_get_and_clear(p0)",
        "CPU0: set_page_dirty(p0)",
        "CPU0: page_remove_rmap(p0)",
        "CPU1: page_mapped(p0)? no",
        "CPU1: TestClearPageDirty(p0)",
        "CPU1: write out p0",
        "CPU2: store to p0 through a writable dirty entry",
    ] {
        assert!(trace.contains(line), "{line} is missing in:\n{trace}");
    }
}
