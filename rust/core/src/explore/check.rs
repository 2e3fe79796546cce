//! One question to the explorer, and its answer: is a scenario safe under a kernel?
//!
//! Proofs come from the saturating engine where that is sound, counterexamples from the plain one, which finds shortest
//! ones and whose every step is executed again.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::model::{Blueprint, Event, Invariant, KernelModel, Snapshot};
use super::scenario::Scenario;
use super::search::{Bounds, Control, Progress, Reductions, follow, search};
use crate::error::{Error, Result};
use crate::program::CompiledKernel;

/// How to look for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The invariants asked for, one bit each.
    pub checked: u32,
    /// The reductions that may be used.
    pub reductions: Reductions,
    /// How far to go.
    pub bounds: Bounds,
    /// Threads of the search.
    pub threads: usize,
}

/// A shortest way to a violation.
#[derive(Clone, Debug, Serialize)]
pub struct Counterexample {
    /// The actions, by number: what reproduces it.
    pub path: Vec<u32>,
    /// The same in words.
    pub events: Vec<Event>,
    /// The first state and the one after each event.
    pub states: Vec<Snapshot>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Nothing violated, and everything searched.
    pub safe: bool,
    /// What the last state of the counterexample violates, by short name.
    pub violated: Vec<&'static str>,
    /// The invariants that were checked.
    pub checked: Vec<&'static str>,
    /// The shortest counterexample.
    pub counterexample: Option<Counterexample>,
    /// States stored.
    pub states: u64,
    /// Transitions taken.
    pub transitions: u64,
    /// Levels searched.
    pub depth: u32,
    /// Why the search ended before it was through.
    pub stopped: Option<String>,
    /// Bits of a state in use.
    pub state_bits: u32,
    /// The locks that the programs take.
    pub locks: Vec<&'static str>,
    /// CPUs and what runs on each, in the order of the events' numbers.
    pub cpus: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// Searches a scenario.
///
/// # Errors
/// What the scenario cannot be, or which step of a program cannot be explored.
pub fn check<'a>(
    kernel: &CompiledKernel,
    scenario: &Scenario,
    request: &Request,
    stop: &'a AtomicBool,
    progress: Option<&'a mut (dyn FnMut(Progress) + 'a)>,
) -> Result<Verdict> {
    let blueprint = Blueprint::new(kernel, scenario, request.checked)?;
    match blueprint.nr_words {
        0..=1 => run::<1>(&blueprint, request, stop, progress),
        2 => run::<2>(&blueprint, request, stop, progress),
        3 => run::<3>(&blueprint, request, stop, progress),
        4 => run::<4>(&blueprint, request, stop, progress),
        5..=6 => run::<6>(&blueprint, request, stop, progress),
        words => Err(Error::Value(format!("scenario: states take {words} words, expected at most 6"))),
    }
}

fn run<'a, const W: usize>(
    blueprint: &Blueprint,
    request: &Request,
    stop: &'a AtomicBool,
    progress: Option<&'a mut (dyn FnMut(Progress) + 'a)>,
) -> Result<Verdict> {
    let since = Instant::now();
    let model: KernelModel<W> = blueprint.model()?;
    let mut control = Control { bounds: request.bounds, stop, progress };
    let outcome = search(&model, request.reductions.for_witness(), request.threads, true, &mut control);
    let found = outcome.finding.as_ref();
    let counterexample = found.and_then(|finding| finding.path.as_ref()).and_then(|path| {
        let (start, steps) = follow(&model, path)?;
        let mut before = start;
        let mut events = Vec::new();
        let mut states = vec![model.snapshot(&start)];
        for step in &steps {
            events.push(model.event(&before, step.action));
            states.push(model.snapshot(&step.state));
            before = step.state;
        }
        Some(Counterexample { path: path.iter().map(|action| action.0).collect(), events, states })
    });
    let names = |mask: u32| -> Vec<&'static str> {
        Invariant::ALL.iter().filter(|i| mask & i.bit() != 0).map(|i| i.id()).collect()
    };
    let world = &blueprint.world;
    let cpus = world
        .threads
        .iter()
        .map(|thread| thread.operation.clone())
        .chain((0..world.users).map(|cpu| format!("user {cpu}")))
        .collect();
    Ok(Verdict {
        safe: found.is_none() && outcome.stopped.is_none(),
        violated: found.map_or(Vec::new(), |finding| names(finding.violations)),
        checked: names(model.checked()),
        counterexample,
        states: outcome.states,
        transitions: outcome.transitions,
        depth: outcome.depth,
        stopped: outcome.stopped.map(|stopped| stopped.to_string()),
        state_bits: blueprint.nr_bits,
        locks: blueprint.locks.clone(),
        cpus,
        seconds: since.elapsed().as_secs_f64(),
    })
}
