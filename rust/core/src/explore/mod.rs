//! Driver 2: every interleaving of the steps of a few CPUs, within stated bounds.
//!
//! [`search`] holds the engines, which know nothing but the trait [`search::Model`]: a transition system on states
//! packed into a few words. [`scenario`] says what is explored, [`model`] runs a kernel's programs on it.

pub mod check;
pub mod common_problem;
pub mod model;
pub mod scenario;
pub mod search;
mod tidy;
