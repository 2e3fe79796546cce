//! Hands to `build_info.rs` what only a build script is told: the optimisation level, and what kind of Python the module is
//! for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let opt_level = std::env::var("OPT_LEVEL").expect("cargo sets OPT_LEVEL for every build script");
    println!("cargo::rustc-env=TLBCORE_OPT_LEVEL={opt_level}");
    // The feature `abi3` asks; whether it is had depends on the interpreter: a free-threaded one has no such interface.
    pyo3_build_config::use_pyo3_cfgs();
}
