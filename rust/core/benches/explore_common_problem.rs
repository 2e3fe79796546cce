//! Times the engines of the explorer on the common problem: `cargo bench -p tlbcore --bench explore_common_problem`.
//!
//! With an argument, only the rows whose name contains it. Each row is the median of several runs.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures to look at")]

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tlbcore::explore::common_problem::{Clean, Options, Unmap, Visitor, with_model, with_monotone_model};
use tlbcore::explore::search::{Bounds, Control, Model, Reductions, saturate, search};

const PROBLEMS: [(&str, Unmap, Clean); 3] = [
    ("zap-cleaner", Unmap::Zap, Clean::Cleaner),
    ("mprotect-reclaim", Unmap::Mprotect, Clean::Reclaim),
    ("zap-reclaim", Unmap::Zap, Clean::Reclaim),
];

struct Run {
    saturated: bool,
    threads: usize,
}

impl Visitor for Run {
    /// Time, and the rest of the row.
    type Output = (Duration, String);

    fn visit<M: Model>(self, model: &M) -> Self::Output {
        let stop = AtomicBool::new(false);
        let mut control = Control { bounds: Bounds::default(), stop: &stop, progress: None };
        if self.saturated {
            let outcome = saturate(model, Reductions::ALL, false, &mut control).expect("it is monotone");
            assert!(outcome.is_proof());
            let row = format!(
                "{:>9} maximal {:>9} stored {:>9} expanded {:>7} in the widest antichain {:>6.1} MiB",
                outcome.maximal,
                outcome.stored,
                outcome.expanded,
                outcome.widest,
                outcome.memory_bytes as f64 / f64::from(1 << 20),
            );
            return (outcome.elapsed, row);
        }
        let outcome = search(model, Reductions::NONE, self.threads, false, &mut control);
        assert!(outcome.is_proof());
        let seconds = outcome.elapsed.as_secs_f64();
        let row = format!(
            "{:>9} states {:>10} transitions {:>6.2} M states/s {:>6.1} M transitions/s {:>5.1} bytes/state",
            outcome.states,
            outcome.transitions,
            outcome.states as f64 / seconds / 1e6,
            outcome.transitions as f64 / seconds / 1e6,
            outcome.memory_bytes as f64 / outcome.states as f64,
        );
        (outcome.elapsed, row)
    }
}

fn row(name: &str, runs: usize, options: Options, saturated: bool, threads: usize) {
    let name = format!("{name} {}x{}", options.users, options.pages);
    // `cargo bench` adds an option of its own.
    if std::env::args().skip(1).any(|only| !only.starts_with("--") && !name.contains(&only)) {
        return;
    }
    let run = || {
        let run = Run { saturated, threads };
        let timed = if saturated { with_monotone_model(options, run) } else { with_model(options, run) };
        timed.expect("the size is compiled")
    };
    let mut timed: Vec<_> = (0..runs).map(|_| run()).collect();
    timed.sort_by_key(|(time, _)| *time);
    let (time, rest) = &timed[runs / 2];
    println!("{name:<32} {:>9.2} ms {rest}", time.as_secs_f64() * 1e3);
}

fn main() {
    for (name, unmap, clean) in PROBLEMS {
        for (threads, suffix) in [(1, ""), (2, " 2 threads")] {
            row(&format!("plain {name}{suffix}"), 7, Options::fixed(unmap, clean, 2, 3), false, threads);
        }
    }
    for (name, unmap, clean) in PROBLEMS {
        for (users, pages, runs) in [(2, 3, 7), (3, 4, 7), (4, 4, 7), (5, 5, 3), (6, 6, 1)] {
            row(&format!("reduced {name}"), runs, Options::fixed(unmap, clean, users, pages), true, 1);
        }
    }
}
