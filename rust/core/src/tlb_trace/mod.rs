//! Address traces through the TLBs of a machine: hits and misses of each level, page walks and what they load.
//!
//! A [`Simulation`] has the TLBs of some CPUs and is fed slices of virtual addresses, with [`Event`]s between them
//! (switches of PCID, flushes, invalidations). Two engines give the same counts:
//! - `plain`: the arrays of [`crate::tlb`], access by access; takes every geometry and policy, and is what the other
//!   is held against;
//! - `fast`: its own arrays for exact LRU and FIFO, in passes over blocks: the first level emits its misses, the
//!   second level takes those, the walker takes what is left. Chosen by [`Engine::Auto`] wherever it can be.
//!
//! What is simulated: each access touches one page, whatever its size; a miss fills both levels; the second level is
//! looked up, and its recency changes, on first-level misses only; what it evicts stays in the first; nothing is
//! prefetched; all CPUs start empty and share nothing. Left out: global pages, rights, accessed and dirty bits, time.

mod cpu;
mod event;
mod fast;
mod page_map;
mod plain;
mod simulation;
mod walker;

pub use cpu::Counts;
pub use event::{Event, EventKind};
pub use page_map::PageMap;
pub use simulation::{Engine, Machine, Simulation, Stream};
