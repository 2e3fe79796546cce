//! The Rust core of tlbcore: a machine made of page tables, per-CPU TLBs and the flush engine of Linux, and the
//! step language in which a TLB-flush batching scheme is written.
//!
//! Arrows go one way: parts ([`addr`], [`cpumask`], [`page_table`], [`tlb`], [`flush`]), then [`program`], then
//! [`machine`], then the drivers ([`replay`]) beside the recordings ([`trace`]). No Python is known here.

pub mod addr;
pub mod cpumask;
pub mod error;
pub mod explore;
pub mod flush;
pub mod machine;
pub mod page_table;
pub mod program;
pub mod replay;
pub mod tlb;
pub mod tlb_trace;
pub mod trace;
mod wide;
