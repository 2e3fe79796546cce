//! Hands the optimisation level, which only a build script is told, to `build_info.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let opt_level = std::env::var("OPT_LEVEL").expect("cargo sets OPT_LEVEL for every build script");
    println!("cargo::rustc-env=TLBCORE_OPT_LEVEL={opt_level}");
}
