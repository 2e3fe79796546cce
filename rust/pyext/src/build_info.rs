//! How this module was built: the version, the profile and the features. Facts of the compilation only; nothing here
//! depends on the machine that imports the module.

use pyo3::pyfunction;

/// The version of the workspace, the one source of every version of tlbcore.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The kind of build: `release` (optimised), `dev-opt` (optimised, with debug assertions) or `debug` (not optimised).
///
/// Derived from what the compiler was told, not from the profile's name, so a custom profile is named by what it is.
#[pyfunction]
pub fn build_profile() -> &'static str {
    match (env!("TLBCORE_OPT_LEVEL"), cfg!(debug_assertions)) {
        ("0", _) => "debug",
        (_, true) => "dev-opt",
        (_, false) => "release",
    }
}

/// What was compiled in, in alphabetical order: `abi3` (one file for every `CPython` from 3.11 on),
/// `debug-assertions`, `free-threaded` (for an interpreter without a global lock).
#[pyfunction]
pub fn build_features() -> Vec<&'static str> {
    [
        ("abi3", cfg!(Py_LIMITED_API)),
        ("debug-assertions", cfg!(debug_assertions)),
        ("free-threaded", cfg!(Py_GIL_DISABLED)),
    ]
    .into_iter()
    .filter_map(|(name, enabled)| enabled.then_some(name))
    .collect()
}
