//! The binding `tlbcore._core`: converts, releases the interpreter lock, maps errors; no semantics live here.

pub mod build_info;
mod common_problem;
mod cpumask;
mod cpumask_array;
pub mod errors;
mod explore;
mod lab;
mod machine;
mod page_table;
mod program;
mod replay;
mod tlb_trace;
mod trace;

use pyo3::prelude::*;

/// The compiled part of tlbcore. Not for direct use: `tlbcore` re-exports what is public.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::build_info::{build_features, build_profile};
    #[pymodule_export]
    use crate::common_problem::explore_common_problem;
    #[pymodule_export]
    use crate::cpumask::PyCpuMask;
    #[pymodule_export]
    use crate::cpumask_array::PyCpuMaskArray;
    #[pymodule_export]
    use crate::explore::{explore, explore_audit, explore_in_order, explore_listing, explore_path, invariants};
    #[pymodule_export]
    use crate::machine::PyMachine;
    #[pymodule_export]
    use crate::page_table::{PyPageTable, PyRangeSummary};
    #[pymodule_export]
    use crate::program::{condition_names, program_names, step_names, validate_kernel};
    #[pymodule_export]
    use crate::replay::{Replay, py_replay};
    #[pymodule_export]
    use crate::tlb_trace::{AddressTrace, simulate_tlb};
    #[pymodule_export]
    use crate::trace::Recording;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __version__: &str = crate::build_info::VERSION;

    /// User CPUs and pages of the explorer's scenarios, at most.
    #[pymodule_export]
    const MAX_USERS: usize = tlbcore::explore::scenario::MAX_USERS;
    #[pymodule_export]
    const MAX_PAGES: usize = tlbcore::explore::scenario::MAX_PAGES;
}
