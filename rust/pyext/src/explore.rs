//! The explorer: one call, JSON text in and out. Ctrl-C stops a running search, which then answers for what it has
//! searched; so does a call-back, for searches outside the main thread, where no signals arrive. What else a call-back or a
//! signal handler raises is raised by the search.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use serde::Deserialize;
use tlbcore::error::Error;
use tlbcore::explore::check::{Request, audit_scenario, check, listing, repeat, run_in_order};
use tlbcore::explore::model::Invariant;
use tlbcore::explore::scenario::Scenario;
use tlbcore::explore::search::{Bounds, Progress, Reductions};
use tlbcore::program::CompiledKernel;

use crate::errors::Result;

/// The options of a search as Python writes them; what is missing is not bounded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    invariants: Vec<String>,
    reductions: Vec<String>,
    states: Option<u64>,
    memory_bytes: Option<usize>,
    seconds: Option<f64>,
    depth: Option<u32>,
    threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            invariants: Vec::new(),
            reductions: Vec::new(),
            states: None,
            memory_bytes: None,
            seconds: None,
            depth: None,
            threads: 1,
        }
    }
}

fn bad(what: &str, found: &str, expected: &[&str]) -> Error {
    Error::Value(format!("{what}: found {found}, expected one of {}", expected.join(", ")))
}

impl Options {
    fn request(&self) -> tlbcore::error::Result<Request> {
        let mut checked = 0;
        for name in &self.invariants {
            let known: Vec<&str> = Invariant::ALL.iter().map(|i| i.id()).collect();
            checked |= Invariant::parse(name).ok_or_else(|| bad("invariants", name, &known))?.bit();
        }
        let reductions = Reductions::from_names(self.reductions.iter().map(String::as_str))?;
        let mut bounds = Bounds::default();
        if let Some(states) = self.states {
            bounds.states = states;
        }
        if let Some(bytes) = self.memory_bytes {
            bounds.memory_bytes = bytes;
        }
        if let Some(seconds) = self.seconds {
            bounds.time = Duration::try_from_secs_f64(seconds)
                .map_err(|_| Error::Value(format!("seconds: found {seconds}, expected a number from 0 on")))?;
        }
        if let Some(depth) = self.depth {
            bounds.depth = depth;
        }
        Ok(Request { checked, reductions, bounds, threads: self.threads })
    }
}

/// Searches a scenario under a resolved kernel; the verdict as JSON text. `is_over` is asked now and then: once it says
/// true, the search stops. `progress` is called as often, with states stored, states waiting, and depth. An exception of
/// either is raised, but for `KeyboardInterrupt`, which only stops the search.
#[pyfunction]
#[pyo3(signature = (kernel_json, scenario_json, options_json, is_over = None, progress = None))]
pub fn explore(
    py: Python<'_>,
    kernel_json: &str,
    scenario_json: &str,
    options_json: &str,
    is_over: Option<Bound<'_, PyAny>>,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<String> {
    let stop = AtomicBool::new(false);
    let is_over = is_over.map(Bound::unbind);
    let progress = progress.map(Bound::unbind);
    py.detach(|| {
        let kernel = CompiledKernel::from_json(kernel_json)?;
        let scenario = Scenario::from_json(scenario_json)?;
        let options: Options =
            serde_json::from_str(options_json).map_err(|error| Error::Value(format!("options: {error}")))?;
        let request = options.request()?;
        let mut raised = None;
        let ask = |py: Python<'_>, at: Progress| -> PyResult<bool> {
            py.check_signals()?;
            if let Some(tell) = &progress {
                tell.call1(py, (at.states, at.frontier, at.depth))?;
            }
            is_over.as_ref().map_or(Ok(false), |ask| ask.call0(py)?.is_truthy(py))
        };
        let mut watch = |at: Progress| {
            Python::attach(|py| match ask(py, at) {
                Ok(false) => {}
                Ok(true) => stop.store(true, Ordering::Relaxed),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    if !error.is_instance_of::<PyKeyboardInterrupt>(py) {
                        raised = Some(error);
                    }
                }
            });
        };
        let verdict = check(&kernel, &scenario, &request, &stop, Some(&mut watch))?;
        if let Some(error) = raised {
            return Err(error.into());
        }
        Ok(serde_json::to_string(&verdict).map_err(|error| Error::Value(error.to_string()))?)
    })
}

/// Holds the reductions against plain search on a scenario: (plain states, reduced states, plain states not included,
/// reduced states not reached, whether both find the same violations).
#[pyfunction]
pub fn explore_audit(
    py: Python<'_>,
    kernel_json: &str,
    scenario_json: &str,
    options_json: &str,
) -> Result<(u64, u64, u64, u64, bool)> {
    py.detach(|| {
        let kernel = CompiledKernel::from_json(kernel_json)?;
        let scenario = Scenario::from_json(scenario_json)?;
        let options: Options =
            serde_json::from_str(options_json).map_err(|error| Error::Value(format!("options: {error}")))?;
        let found = audit_scenario(&kernel, &scenario, &options.request()?)?;
        let agree = found.plain_violations == found.reduced_violations;
        Ok((found.plain_states, found.reduced_states, found.undominated, found.unreachable, agree))
    })
}

/// Takes a path again, action by action: what happens, the state after each, and what the last one violates, as JSON text.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "a list of Python becomes a vector")]
pub fn explore_path(
    py: Python<'_>,
    kernel_json: &str,
    scenario_json: &str,
    options_json: &str,
    path: Vec<u32>,
) -> Result<String> {
    py.detach(|| {
        let kernel = CompiledKernel::from_json(kernel_json)?;
        let options: Options =
            serde_json::from_str(options_json).map_err(|error| Error::Value(format!("options: {error}")))?;
        let ran = repeat(&kernel, &Scenario::from_json(scenario_json)?, options.request()?.checked, &path)?;
        Ok(serde_json::to_string(&ran).map_err(|error| Error::Value(error.to_string()))?)
    })
}

/// Runs the threads of a scenario one after the other; what happened and the last state as JSON text.
#[pyfunction]
pub fn explore_in_order(py: Python<'_>, kernel_json: &str, scenario_json: &str) -> Result<String> {
    py.detach(|| {
        let kernel = CompiledKernel::from_json(kernel_json)?;
        let ran = run_in_order(&kernel, &Scenario::from_json(scenario_json)?)?;
        Ok(serde_json::to_string(&ran).map_err(|error| Error::Value(error.to_string()))?)
    })
}

/// The small steps to which a scenario's programs are unrolled, as text: equal for programs that differ in nothing that
/// the model has.
#[pyfunction]
pub fn explore_listing(py: Python<'_>, kernel_json: &str, scenario_json: &str, options_json: &str) -> Result<String> {
    py.detach(|| {
        let kernel = CompiledKernel::from_json(kernel_json)?;
        let options: Options =
            serde_json::from_str(options_json).map_err(|error| Error::Value(format!("options: {error}")))?;
        Ok(listing(&kernel, &Scenario::from_json(scenario_json)?, options.request()?.checked)?)
    })
}

/// Each invariant: its short name, its long name, what a violation means.
#[pyfunction]
pub fn invariants() -> Vec<(&'static str, &'static str, &'static str)> {
    Invariant::ALL.iter().map(|i| (i.id(), i.name(), i.says())).collect()
}
