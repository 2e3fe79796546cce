//! One question to the explorer, and its answer: is a scenario safe under a kernel?
//!
//! Proofs come from the saturating engine where that is sound, counterexamples from the plain one, which finds shortest
//! ones and whose every step is executed again.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::model::{Blueprint, Event, Invariant, KernelModel, Snapshot};
use super::scenario::Scenario;
use super::search::Model as _;
use super::search::{
    Action, Audit, Bounds, Control, NoAudit, Progress, Reductions, Stopped, audit, follow, saturate, search,
};
use super::tidy::tidy;
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
    /// What kernel threads and pages came to, whatever the user CPUs hold; only the saturating engine counts it.
    pub projections: Option<u64>,
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

/// Above this many states a counterexample need not be the shortest one in small steps.
const STATES_FOR_SHORTEST: u64 = 4_000_000;

/// Why a search says nothing whose programs drop more references or locks than they have.
const COUNTER_LEFT: &str = "a counter that was to go below 0 or above what the scenario can count";

/// Calls a function that is generic over the number of words with that of a blueprint.
macro_rules! with_words {
    ($blueprint:expr, $function:ident, $($argument:expr),* $(,)?) => {
        match $blueprint.nr_words {
            0..=1 => $function::<1>(&$blueprint, $($argument),*),
            2 => $function::<2>(&$blueprint, $($argument),*),
            3..=4 => $function::<4>(&$blueprint, $($argument),*),
            5..=6 => $function::<6>(&$blueprint, $($argument),*),
            7..=8 => $function::<8>(&$blueprint, $($argument),*),
            9..=12 => $function::<12>(&$blueprint, $($argument),*),
            words => Err(Error::Value(format!(
                "scenario: found states of {words} words, expected at most 12: fewer operations, pages, user CPUs or faults"
            ))),
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

/// A path executed once more.
#[derive(Clone, Debug, Serialize)]
pub struct Repeated {
    /// What the last state violates, by short name.
    pub violated: Vec<&'static str>,
    /// The path.
    #[serde(flatten)]
    pub path: Counterexample,
    /// CPUs and what runs on each, in the order of the events' numbers.
    pub cpus: Vec<String>,
}

/// Takes the actions of a path one after the other, from the first state.
///
/// # Errors
/// As [`check`], and if an action cannot be taken where the path has it.
pub fn repeat(kernel: &CompiledKernel, scenario: &Scenario, checked: u32, path: &[u32]) -> Result<Repeated> {
    let blueprint = Blueprint::new(kernel, scenario, checked)?;
    with_words!(blueprint, run_path, path)
}

fn run_path<const W: usize>(blueprint: &Blueprint, path: &[u32]) -> Result<Repeated> {
    let model: KernelModel<W> = blueprint.model()?;
    let path: Vec<Action> = path.iter().copied().map(Action).collect();
    let Some((start, steps)) = follow(&model, &path) else {
        let taken = (0..path.len()).take_while(|&at| follow(&model, &path[..=at]).is_some()).count();
        return Err(Error::Value(format!(
            "path: found action {} as step {}, which cannot be taken there: the path is of another kernel or scenario",
            path[taken].0,
            taken + 1
        )));
    };
    let end = steps.last().map_or(start, |step| step.state);
    Ok(Repeated {
        violated: names(model.violations(&end)),
        path: executed(&model, &path).expect("it was followed just now"),
        cpus: cpus(blueprint),
    })
}

/// The short names of invariants.
fn names(mask: u32) -> Vec<&'static str> {
    Invariant::ALL.iter().filter(|i| mask & i.bit() != 0).map(|i| i.id()).collect()
}

/// The CPUs, and what runs on each.
fn cpus(blueprint: &Blueprint) -> Vec<String> {
    let world = &blueprint.world;
    let users = (0..world.users).map(|cpu| format!("user {cpu}"));
    world.threads.iter().map(|thread| thread.operation.clone()).chain(users).collect()
}

/// The small steps to which a scenario's programs are unrolled, as text. Programs with the same text are the same to the
/// explorer: they differ in nothing that its model has.
///
/// # Errors
/// As [`check`].
pub fn listing(kernel: &CompiledKernel, scenario: &Scenario, checked: u32) -> Result<String> {
    Ok(Blueprint::new(kernel, scenario, checked)?.listing())
}

/// What came of running the threads one after the other, each IPI answered at once.
#[derive(Clone, Debug, Serialize)]
pub struct Sequential {
    /// What happened.
    pub events: Vec<Event>,
    /// The last state.
    pub end: Snapshot,
}

/// Runs the threads of a scenario one after the other, each to its end: what replay does with the same operations.
///
/// # Errors
/// As [`check`], and if a thread comes to wait for ever.
pub fn run_in_order(kernel: &CompiledKernel, scenario: &Scenario) -> Result<Sequential> {
    let blueprint = Blueprint::new(kernel, scenario, Invariant::ALL.iter().fold(0, |mask, i| mask | i.bit()))?;
    with_words!(blueprint, sequential,)
}

fn sequential<const W: usize>(blueprint: &Blueprint) -> Result<Sequential> {
    let model: KernelModel<W> = blueprint.model()?;
    let mut state = model.initial()[0];
    let mut events = Vec::new();
    for thread in 0..blueprint.world.threads.len() {
        while !model.has_ended(&state, thread) {
            let mut step = None;
            model.successors(&state, &mut |action, next| {
                // The thread itself first, then whoever keeps it waiting.
                let wanted = model.is_step_of(action, thread) || step.is_none() && model.is_answer(action);
                if wanted && !step.is_some_and(|(known, _)| model.is_step_of(known, thread)) {
                    step = Some((action, next));
                }
            });
            let Some((action, next)) = step else {
                let name = &blueprint.world.threads[thread].operation;
                return Err(Error::Value(format!("scenario: {name} waits for ever")));
            };
            events.push(model.event(&state, action));
            state = next;
        }
    }
    if model.counter_left() {
        return Err(Error::Value(format!("scenario: stopped by {COUNTER_LEFT}")));
    }
    Ok(Sequential { events, end: model.snapshot(&state) })
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
    let mut verdict = Verdict {
        safe: false,
        violated: Vec::new(),
        checked: names(model.checked()),
        counterexample: None,
        states: 0,
        projections: None,
        transitions: 0,
        depth: 0,
        engine: "plain",
        stopped: None,
        state_bits: blueprint.nr_bits,
        locks: blueprint.locks.clone(),
        cpus: cpus(blueprint),
        seconds: 0.0,
    };
    if request.reductions.saturate
        && let Ok(outcome) = saturate(&model, request.reductions, true, &mut control)
    {
        verdict.safe = outcome.is_proof() && !model.counter_left();
        // Each state that it stores is reachable: what it sees violated is, whether or not a trace is found.
        verdict.violated = names(outcome.violations);
        verdict.engine = "saturating";
        verdict.states = outcome.maximal;
        verdict.projections = Some(outcome.projections);
        verdict.transitions = outcome.transitions;
        verdict.depth = outcome.rounds;
        verdict.stopped = stopped(&model, outcome.stopped);
        if outcome.violations == 0 || outcome.stopped.is_some() {
            verdict.seconds = since.elapsed().as_secs_f64();
            return Ok(verdict);
        }
    }
    // Without urgent steps a counterexample is as short as can be; with them larger scenarios come to an end.
    // Bounds are those of all searches together.
    let left = |since: Instant| request.bounds.time.saturating_sub(since.elapsed());
    let all = request.bounds.states;
    control.bounds.time = left(since);
    let exact = Reductions { urgent: false, ..request.reductions.for_witness() };
    control.bounds.states = all.min(STATES_FOR_SHORTEST);
    let mut outcome = search(&model, exact, request.threads, true, &mut control);
    if outcome.stopped == Some(Stopped::States) && request.reductions.urgent {
        control.bounds.states = all;
        control.bounds.time = left(since);
        outcome = search(&model, request.reductions.for_witness(), request.threads, true, &mut control);
    }
    if let Some(finding) = &outcome.finding {
        verdict.violated = names(finding.violations);
        verdict.counterexample = finding.path.as_ref().and_then(|path| executed(&model, &tidy(&model, path)));
    }
    verdict.safe = outcome.is_proof() && verdict.violated.is_empty() && !model.counter_left();
    verdict.engine = "plain";
    verdict.projections = None;
    verdict.states = outcome.states;
    verdict.transitions = outcome.transitions;
    verdict.depth = outcome.depth;
    verdict.stopped = stopped(&model, outcome.stopped).filter(|_| verdict.counterexample.is_none());
    verdict.seconds = since.elapsed().as_secs_f64();
    Ok(verdict)
}

/// A path with what happens and what there is at each step; nothing if it cannot be taken.
fn executed<const W: usize>(model: &KernelModel<W>, path: &[Action]) -> Option<Counterexample> {
    let (start, steps) = follow(model, path)?;
    let mut before = start;
    let mut events = Vec::new();
    let mut states = vec![model.snapshot(&start)];
    for step in &steps {
        events.push(model.event(&before, step.action));
        states.push(model.snapshot(&step.state));
        before = step.state;
    }
    Some(Counterexample { path: path.iter().map(|action| action.0).collect(), events, states })
}

/// Why a search was not through, in words.
fn stopped<const W: usize>(model: &KernelModel<W>, by: Option<Stopped>) -> Option<String> {
    if model.counter_left() {
        return Some(COUNTER_LEFT.to_owned());
    }
    by.map(|stopped| stopped.to_string())
}
