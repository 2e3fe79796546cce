//! The TLBs of all CPUs: split first level by page size, shared second level (STLB), paging-structure caches.
//!
//! [`TlbGeometry`] says how large each array is, [`Tlbs`] holds the arrays of every CPU, and its methods are the events
//! of the hardware: a look-up, a fill after a walk, INVLPG, a CR3 write. Whoever drives the machine decides when they
//! happen; nothing here reads a page table, so paging-structure caches hold opaque `u32` table ids.
//!
//! Invariants:
//! - all copies of a translation on one CPU (first level, STLB) agree in frame and rights;
//! - per CPU and array at most one entry of each page size matches a given PCID and address;
//! - recency is exact: with [`Replacement::Lru`] the victim is the entry of the set that was used longest ago;
//! - the same calls give the same contents on every run: no hashing, no clock, no ambient randomness.
//!
//! Counted as *entries* are array slots in use: a translation in the first level and in the STLB counts twice.
//!
//! What real CPUs have and this model leaves out:
//! - the instruction TLB: instruction fetches of a recording, if there are any, would go through the data side;
//! - speculative and prefetched fills: only fills that the driver asks for are made, so a real CPU may hold *more*
//!   (a correctness check must allow fills at any time by itself);
//! - undocumented details: hashed set indices, replacement that is neither LRU nor a tree, caches of page-walk steps
//!   whose sizes and organisation vary between models (sizes of paging-structure caches are the geometry's to give);
//! - fractured pages: a page size that no array holds is never cached, it is not broken into smaller entries;
//! - sharing between hyper-threads: each logical CPU has arrays of its own;
//! - nested (guest) translations, and the wait for a page walk: time is charged elsewhere.

mod array;
mod entry;
mod geometry;
mod holdings;
mod inspect;
mod invalidate;
mod percpu;
mod psc;

pub use array::{Replacement, SetArray};
pub use entry::{Key, NR_PCIDS, TlbEntry};
pub use geometry::{ArrayGeometry, PscScope, StlbGeometry, TlbGeometry};
pub use inspect::{CachedEntry, CachedTable};
pub use invalidate::Dropped;
pub use percpu::{HitLevel, TlbCounters, Tlbs};
pub use psc::PscLevel;
