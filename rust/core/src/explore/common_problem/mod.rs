//! The common problem: one small model of deferred TLB flushes that several model checkers were given, so that speeds and
//! verdicts can be compared.
//!
//! It is not made of kernel programs (those are explored through [`crate::machine`]); it is written down directly on packed
//! words, and serves to test and to time the engines. Agents: an *unmapper* (zap for `munmap` and `MADV_DONTNEED`, or
//! `mprotect`), a *cleaner* (`page_mkclean` and writeback, or reclaim with a deferred flush), and user CPUs that load and
//! store at will while the hardware fills, uses and evicts TLB entries. One address space, one page table, one pass of each
//! kernel thread, sequentially consistent memory, x86 A/D bits and IPIs.
//!
//! The locks assumed: the page-table lock; the page lock between a write fault and `clear_page_dirty_for_io`;
//! `mmap_lock` for writing in `mprotect`, which keeps write faults out.

mod cleaner;
mod describe;
mod layout;
mod model;
mod reduce;
mod run;
mod sizes;
mod unmapper;
mod users;

pub use layout::CommonProblem;
pub use run::{Report, explore};
pub use sizes::{MAX_PAGES, MAX_USERS, Visitor, with_model, with_monotone_model};

/// What the unmapper does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unmap {
    /// `zap_pte_range` with a gather: `munmap`, `MADV_DONTNEED`.
    Zap,
    /// `change_pte_range` to read-only.
    Mprotect,
}

/// What the cleaner does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Clean {
    /// `page_mkclean`, `clear_page_dirty_for_io`, write-out.
    Cleaner,
    /// `try_to_unmap` with a deferred flush, `pageout`, `remove_mapping`.
    Reclaim,
}

/// Which model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// The unmapper.
    pub unmap: Unmap,
    /// The cleaner.
    pub clean: Clean,
    /// Dirty pages are flushed before the page-table lock is dropped (1cf35d47712d, 2014).
    pub flush_under_lock: bool,
    /// `page_remove_rmap` of dirty pages waits for the flush (5df397dec7c4, 2022).
    pub delay_rmap: bool,
    /// `flush_tlb_batched_pending` (3ea277194daa, 2017).
    pub flush_batched: bool,
    /// User CPUs, 1 to [`MAX_USERS`].
    pub users: usize,
    /// Pages, 1 to [`MAX_PAGES`].
    pub pages: usize,
}

impl Options {
    /// The model with every fix in.
    pub const fn fixed(unmap: Unmap, clean: Clean, users: usize, pages: usize) -> Self {
        Self { unmap, clean, flush_under_lock: true, delay_rmap: true, flush_batched: true, users, pages }
    }
}

/// The invariants of the model, in the order of the bits of [`Model::violations`](super::search::Model::violations).
pub const INVARIANTS: [&str; 3] = [
    "no TLB entry of a user CPU leads to a freed page",
    "no stale entry permits an access after the system call returned",
    "no write is lost: what is newer than storage is known to be dirty",
];
