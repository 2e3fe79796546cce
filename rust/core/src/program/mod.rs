//! Programs of steps: the plain structure that Python resolves, its validation, and its compilation to a closed enum.
//!
//! A program knows nothing of the machine that runs it. [`CompiledKernel::from_json`] is the one way in; what it accepts,
//! the machine can run.

mod compile;
mod condition;
mod constants;
mod instr;
mod kernel;
mod leaf;
mod names;
mod parse;
mod validate;

pub use condition::{Condition, Test};
pub use constants::{
    BatchedPending, Constants, CowReuse, CpumaskRule, LazyMmu, PendingTracking, ShouldFlushTlb, SwapInMkwrite, Thp,
};
pub use instr::{Instr, LoopKind, Pc, Program, PteFilter};
pub use kernel::{CompiledKernel, ProgramName};
pub use leaf::{FlushScope, Leaf, LockMode, LockName, MkWriteRule, ProtSource, RangeArg};

/// The names of all loop steps.
pub const LOOP_NAMES: [&str; 7] = [
    "for_each_vma",
    "for_each_rmap_vma",
    "for_each_table",
    "for_each_pte",
    "for_each_extent",
    "for_each_page",
    "for_each_mapping",
];

/// The names of all steps, control steps first.
pub fn step_names() -> Vec<&'static str> {
    let mut names = vec!["when"];
    names.extend(LOOP_NAMES);
    names.extend(leaf::LEAVES_WITH_ARGUMENTS);
    names.extend(leaf::PLAIN_LEAVES.iter().map(|(name, _)| *name));
    names
}

/// The names of all conditions.
pub fn condition_names() -> Vec<&'static str> {
    Test::ALL.iter().map(|t| t.name()).collect()
}

/// The names of all programs.
pub fn program_names() -> Vec<&'static str> {
    ProgramName::OF_A_KERNEL.iter().map(|p| p.name()).collect()
}
