//! The binding `tlbcore._core`: converts, releases the interpreter lock, maps errors; no semantics live here.

use pyo3::prelude::*;

/// The compiled part of tlbcore. Not for direct use: `tlbcore` re-exports what is public.
#[pymodule(gil_used = false)]
mod _core {}
