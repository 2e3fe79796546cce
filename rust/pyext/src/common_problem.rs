//! The common problem for Python: what the engines of the explorer are measured by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tlbcore::error::Error;
use tlbcore::explore::common_problem::{Clean, INVARIANTS, Options, Report, Unmap, explore};
use tlbcore::explore::search::{Bounds, Control, Progress, Reductions};

use crate::errors::Result;

/// Searches the common problem.
#[pyfunction]
#[pyo3(signature = (
    unmap, clean, users, pages, *, without = Vec::new(), reductions = Vec::new(), threads = 1, to_first = false,
    max_states = None, max_memory_bytes = 4_294_967_296, max_seconds = None,
))]
#[expect(clippy::too_many_arguments, reason = "named in Python")]
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method's path is not general enough over lifetimes")]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 makes them")]
pub fn explore_common_problem<'py>(
    py: Python<'py>,
    unmap: &str,
    clean: &str,
    users: usize,
    pages: usize,
    without: Vec<String>,
    reductions: Vec<String>,
    threads: usize,
    to_first: bool,
    max_states: Option<u64>,
    max_memory_bytes: usize,
    max_seconds: Option<f64>,
) -> Result<Bound<'py, PyDict>> {
    let options = options(unmap, clean, users, pages, &without)?;
    let reductions = Reductions::from_names(reductions.iter().map(String::as_str))?;
    if !(1..=64).contains(&threads) {
        return Err(Error::Value(format!("threads: found {threads}, expected 1 to 64")).into());
    }
    let mut bounds = Bounds { memory_bytes: max_memory_bytes, ..Bounds::default() };
    bounds.states = max_states.unwrap_or(bounds.states);
    if let Some(seconds) = max_seconds {
        bounds.time = Duration::try_from_secs_f64(seconds)
            .map_err(|_| Error::Value(format!("max_seconds: found {seconds}, expected a time that is not negative")))?;
    }
    let stop = AtomicBool::new(false);
    let mut interrupted = None;
    let report = py.detach(|| {
        let mut look = |_: Progress| {
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                interrupted = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
        };
        let mut control = Control { bounds, stop: &stop, progress: Some(&mut look) };
        explore(options, reductions, threads, to_first, &mut control)
    });
    if let Some(error) = interrupted {
        return Err(error.into());
    }
    Ok(as_dict(py, &report?)?)
}

fn options(unmap: &str, clean: &str, users: usize, pages: usize, without: &[String]) -> Result<Options> {
    let unmap = match unmap {
        "zap" => Unmap::Zap,
        "mprotect" => Unmap::Mprotect,
        _ => return Err(Error::Value(format!("unmap: found {unmap:?}, expected zap or mprotect")).into()),
    };
    let clean = match clean {
        "cleaner" => Clean::Cleaner,
        "reclaim" => Clean::Reclaim,
        _ => return Err(Error::Value(format!("clean: found {clean:?}, expected cleaner or reclaim")).into()),
    };
    let mut options = Options::fixed(unmap, clean, users, pages);
    for fix in without {
        match fix.as_str() {
            "flush_under_lock" => options.flush_under_lock = false,
            "delay_rmap" => options.delay_rmap = false,
            "flush_batched" => options.flush_batched = false,
            _ => {
                let expected = "expected flush_under_lock, delay_rmap or flush_batched";
                return Err(Error::Value(format!("without: found {fix:?}, {expected}")).into());
            }
        }
    }
    Ok(options)
}

fn as_dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let violations: Vec<_> = INVARIANTS
        .iter()
        .enumerate()
        .filter(|(bit, _)| report.violations() >> bit & 1 != 0)
        .map(|(_, text)| text)
        .collect();
    dict.set_item("safe", report.is_proof())?;
    dict.set_item("violations", violations)?;
    dict.set_item("stopped", report.stopped().map(|stopped| stopped.to_string()))?;
    dict.set_item("seconds", report.elapsed().as_secs_f64())?;
    dict.set_item("trace", &report.trace)?;
    if let Some(saturated) = &report.saturated {
        dict.set_item("maximal", saturated.maximal)?;
        dict.set_item("states", saturated.stored)?;
        dict.set_item("transitions", saturated.transitions)?;
        dict.set_item("depth", saturated.rounds)?;
        dict.set_item("memory_bytes", saturated.memory_bytes)?;
    } else if let Some(plain) = &report.plain {
        dict.set_item("states", plain.states)?;
        dict.set_item("transitions", plain.transitions)?;
        dict.set_item("depth", plain.depth)?;
        dict.set_item("memory_bytes", plain.memory_bytes)?;
    }
    Ok(dict)
}
