//! `Machine` for Python: [`tlbcore::machine::Machine`] behind JSON text. `tlbcore.simulator` is what people use.
//!
//! A lock makes the machine safe to share; operations of several threads come one after the other, in any order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use serde::Serialize;
use tlbcore::error::Error;
use tlbcore::machine::{Machine, MachineConfig, Operation};
use tlbcore::program::CompiledKernel;

use crate::errors::Result;

/// A machine that runs one kernel; everything goes in and out as JSON text (`docs/machine.md`).
///
/// ``Machine(config, kernel)`` takes a machine configuration and a resolved kernel. What cannot be raises
/// ``InputError``, a program of steps that cannot run ``ProgramError``.
#[pyclass(frozen, module = "tlbcore._core", name = "Machine")]
pub struct PyMachine(Mutex<Machine>);

#[pymethods]
impl PyMachine {
    #[new]
    fn new(py: Python<'_>, config: &str, kernel: &str) -> Result<Self> {
        py.detach(|| {
            let config = MachineConfig::from_json(config)?;
            let kernel = Arc::new(CompiledKernel::from_json(kernel)?);
            Ok(Self(Mutex::new(Machine::new(&config, kernel)?)))
        })
    }

    /// Do one operation; return ``{"value": ...}`` or ``{"errno": ...}``.
    fn apply(&self, py: Python<'_>, operation: &str) -> Result<String> {
        py.detach(|| {
            let operation: Operation = serde_json::from_str(operation)
                .map_err(|error| Error::Value(format!("operation: {error} (see docs/machine.md section 4)")))?;
            Ok(self.lock().apply(&operation)?.to_json().to_string())
        })
    }

    /// Everything that the machine holds.
    fn state(&self, py: Python<'_>) -> String {
        py.detach(|| self.lock().state().to_string())
    }

    /// The flush requests so far, a list.
    fn flushes(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| text(self.lock().engine().log()))
    }

    /// The flushes of CPUs so far, a list.
    fn tlb_events(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| text(self.lock().engine().events()))
    }

    /// What was counted so far.
    fn counters(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| text(&self.lock().counters()))
    }
}

impl PyMachine {
    /// A panic elsewhere is a bug that was reported there; what the machine holds can still be looked at.
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(|error| Error::Value(format!("log: {error}")))?)
}
