//! One question to the explorer, and its answer: is a scenario safe under a kernel?
//!
//! Proofs come from the saturating engine where that is sound, counterexamples from the plain one, which finds shortest
//! ones and whose every step is executed again.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::model::{Blueprint, Event, Invariant, KernelModel, Snapshot};
use super::scenario::Scenario;
use super::search::{Audit, Bounds, Control, NoAudit, Progress, Reductions, audit, follow, saturate, search};
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
    /// The engine that decided: `saturating` (states are maximal ones) or `plain`.
    pub engine: &'static str,
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

/// Calls a function that is generic over the number of words with that of a blueprint.
macro_rules! with_words {
    ($blueprint:expr, $function:ident, $($argument:expr),*) => {
        match $blueprint.nr_words {
            0..=1 => $function::<1>(&$blueprint, $($argument),*),
            2 => $function::<2>(&$blueprint, $($argument),*),
            3..=4 => $function::<4>(&$blueprint, $($argument),*),
            5..=6 => $function::<6>(&$blueprint, $($argument),*),
            words => Err(Error::Value(format!("scenario: states take {words} words, expected at most 6"))),
        }
    };
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
    with_words!(blueprint, run, request, stop, progress)
}

/// Holds the reductions against plain search on a scenario.
///
/// # Errors
/// As [`check`], and if a search is stopped.
pub fn audit_scenario(kernel: &CompiledKernel, scenario: &Scenario, request: &Request) -> Result<Audit> {
    let blueprint = Blueprint::new(kernel, scenario, request.checked)?;
    with_words!(blueprint, run_audit, request)
}

fn run_audit<const W: usize>(blueprint: &Blueprint, request: &Request) -> Result<Audit> {
    let model: KernelModel<W> = blueprint.model()?;
    let stop = AtomicBool::new(false);
    let mut control = Control { bounds: request.bounds, stop: &stop, progress: None };
    audit(&model, request.reductions, &mut control).map_err(|error| match error {
        NoAudit::NotMonotone(why) => Error::Value(format!("audit: {why}")),
        NoAudit::Stopped(why) => Error::Value(format!("audit: stopped by {why}")),
    })
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
    let mut verdict = Verdict {
        safe: false,
        violated: Vec::new(),
        checked: names(model.checked()),
        counterexample: None,
        states: 0,
        transitions: 0,
        depth: 0,
        engine: "plain",
        stopped: None,
        state_bits: blueprint.nr_bits,
        locks: blueprint.locks.clone(),
        cpus,
        seconds: 0.0,
    };
    if request.reductions.saturate
        && let Ok(outcome) = saturate(&model, request.reductions, true, &mut control)
        && (outcome.violations == 0 || outcome.stopped.is_some())
    {
        verdict.safe = outcome.is_proof();
        verdict.engine = "saturating";
        verdict.states = outcome.maximal;
        verdict.transitions = outcome.transitions;
        verdict.depth = outcome.rounds;
        verdict.stopped = outcome.stopped.map(|stopped| stopped.to_string());
        verdict.seconds = since.elapsed().as_secs_f64();
        return Ok(verdict);
    }
    let outcome = search(&model, request.reductions.for_witness(), request.threads, true, &mut control);
    if let Some(finding) = &outcome.finding {
        verdict.violated = names(finding.violations);
        verdict.counterexample = finding.path.as_ref().and_then(|path| {
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
    }
    verdict.safe = outcome.is_proof();
    verdict.states = outcome.states;
    verdict.transitions = outcome.transitions;
    verdict.depth = outcome.depth;
    verdict.stopped = outcome.stopped.map(|stopped| stopped.to_string());
    verdict.seconds = since.elapsed().as_secs_f64();
    Ok(verdict)
}
