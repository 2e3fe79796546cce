//! Programs of steps: their validation and the names of the language. A kernel comes in as the JSON text of its plain
//! structure, the same that the machine compiles.

use pyo3::prelude::*;
use tlbcore::program::CompiledKernel;

use crate::errors::Result;

/// Check that every program of a resolved kernel (JSON text) can run.
#[pyfunction]
pub fn validate_kernel(py: Python<'_>, json: &str) -> Result<()> {
    py.detach(|| CompiledKernel::from_json(json))?;
    Ok(())
}

/// The names of all steps, control steps first.
#[pyfunction]
pub fn step_names() -> Vec<&'static str> {
    tlbcore::program::step_names()
}

/// The names of all conditions of ``when``.
#[pyfunction]
pub fn condition_names() -> Vec<&'static str> {
    tlbcore::program::condition_names()
}

/// The names of the programs that a kernel has.
#[pyfunction]
pub fn program_names() -> Vec<&'static str> {
    tlbcore::program::program_names()
}
