//! `Machine`: a whole simulated machine, driven by operations as JSON text.
//!
//! Text keeps one form for the compiled machine and the plain Python one, which take the same dictionaries; the replay
//! driver of long recordings goes another way. A machine may be shared between threads: each call takes its lock, with
//! the interpreter lock released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use serde_json::Value;
use tlbcore::error::Error;
use tlbcore::flush::{FlushRequest, TlbFlushEvent};
use tlbcore::machine::{Machine, MachineConfig, Operation};
use tlbcore::program::CompiledKernel;

use crate::errors::Result;

/// A machine that runs one kernel.
#[pyclass(frozen, name = "Machine", module = "tlbcore._core")]
pub struct PyMachine {
    state: Mutex<State>,
}

struct State {
    machine: Machine,
    /// An operation failed in the middle of a program: what the state says since then is not to be trusted.
    broken: Option<String>,
}

#[pymethods]
impl PyMachine {
    /// A machine at its start, from a `MachineConfig` and a resolved kernel, both as JSON text.
    #[new]
    fn new(py: Python<'_>, config_json: &str, kernel_json: &str) -> Result<Self> {
        py.detach(|| {
            let config = MachineConfig::from_json(config_json)?;
            let kernel = Arc::new(CompiledKernel::from_json(kernel_json)?);
            let machine = Machine::new(&config, kernel)?;
            Ok(Self { state: Mutex::new(State { machine, broken: None }) })
        })
    }

    /// Does one operation; `{"value": ...}` or `{"errno": NAME}` as JSON text.
    fn apply(&self, py: Python<'_>, op_json: &str) -> Result<String> {
        py.detach(|| {
            let operation = parse(op_json, "operation")?;
            Ok(self.lock()?.apply(&operation)?.to_string())
        })
    }

    /// Does a list of operations, in order; a list of results. An operation that raises ends the list: those before it
    /// are done.
    fn apply_many(&self, py: Python<'_>, ops_json: &str) -> Result<String> {
        py.detach(|| {
            let operations: Vec<Operation> = parse(ops_json, "operations")?;
            let mut state = self.lock()?;
            let apply = |(index, operation): (usize, &Operation)| {
                state.apply(operation).map_err(|error| match error {
                    Error::Value(message) => Error::Value(format!("operation {index}: {message}")),
                    other => other,
                })
            };
            let results: Vec<Value> =
                operations.iter().enumerate().map(apply).collect::<tlbcore::error::Result<_>>()?;
            Ok(Value::from(results).to_string())
        })
    }

    /// The whole state as JSON text, in one canonical form.
    fn state(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| Ok(self.lock()?.machine.state().to_string()))
    }

    /// The requests to flush since the log was cleared, as JSON text.
    fn flushes(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| {
            let state = self.lock()?;
            let log: &[FlushRequest] = state.machine.engine().log();
            Ok(to_json(log)?)
        })
    }

    /// The hits of the tracepoint `tlb:tlb_flush` since the log was cleared, as JSON text.
    fn tlb_events(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| {
            let state = self.lock()?;
            let events: &[TlbFlushEvent] = state.machine.engine().events();
            Ok(to_json(events)?)
        })
    }

    /// All counters since the machine was made, as JSON text.
    fn counters(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| Ok(to_json(&self.lock()?.machine.counters())?))
    }

    /// Operations done so far: the index that the log gives to the next one.
    #[getter]
    fn nr_ops(&self, py: Python<'_>) -> Result<u32> {
        py.detach(|| Ok(self.lock()?.machine.nr_ops()))
    }

    /// Forgets the requests and tracepoints so far; counters go on.
    fn clear_log(&self, py: Python<'_>) -> Result<()> {
        py.detach(|| {
            self.lock()?.machine.engine_mut().take_log();
            Ok(())
        })
    }

    /// Checks that page tables, reverse maps and reference counts agree; raises what is wrong.
    fn check_consistency(&self, py: Python<'_>) -> Result<()> {
        py.detach(|| Ok(self.lock()?.machine.check_consistency()?))
    }

    fn __repr__(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| {
            let state = self.lock()?;
            let machine = &state.machine;
            Ok(format!(
                "Machine(kernel={}, nr_cpus={}, nr_ops={})",
                machine.kernel().name,
                machine.engine().nr_cpus(),
                machine.nr_ops()
            ))
        })
    }
}

impl PyMachine {
    /// The machine, if it can still be used.
    fn lock(&self) -> tlbcore::error::Result<MutexGuard<'_, State>> {
        // A panic in a call left the state as it was then; it is a bug that Python has already been told of.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.broken {
            Some(why) => Err(Error::Value(format!("machine: cannot be used since an operation failed: {why}"))),
            None => Ok(state),
        }
    }
}

impl State {
    fn apply(&mut self, operation: &Operation) -> tlbcore::error::Result<Value> {
        if let Operation::Run { steps, .. } = operation {
            // Refused before anything was done: that breaks nothing.
            self.machine.kernel().compile_custom(steps)?;
        }
        match self.machine.apply(operation) {
            Ok(outcome) => Ok(outcome.to_json()),
            Err(error) => {
                if matches!(error, Error::Program { .. }) {
                    self.broken = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> tlbcore::error::Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Value(format!("{what}: {error}")))
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> tlbcore::error::Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Value(format!("result as JSON: {error}")))
}
