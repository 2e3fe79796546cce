//! The binding `tlbcore._core`: converts, releases the interpreter lock, maps errors; no semantics live here.

mod cpumask;

use pyo3::prelude::*;

/// The compiled part of tlbcore. Not for direct use: `tlbcore` re-exports what is public.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::cpumask::PyCpuMask;
}
