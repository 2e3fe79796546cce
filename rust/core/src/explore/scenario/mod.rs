//! What is explored: a few pages, who maps them, which CPUs touch them, and which operations of the kernel run.
//!
//! A [`Scenario`] is what the caller writes (JSON); a [`World`] is the same with every choice made: address spaces, VMAs,
//! page tables, virtual pages in address order, page frames.

mod build;
mod engine;
mod world;

use serde::Deserialize;

use crate::error::{Error, Result};

pub use engine::EngineSpec;
pub use world::{Frame, Thread, VirtualPage, VmaInfo, World};

/// At most this many virtual pages; their sets are words of 32 bits.
pub const MAX_VIRTUAL_PAGES: usize = 16;
/// At most this many pages in a scenario.
pub const MAX_PAGES: usize = 8;
/// At most this many page frames.
pub const MAX_FRAMES: usize = 16;
/// At most this many user CPUs.
pub const MAX_USERS: usize = 8;

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A page of a file, mapped shared.
    #[default]
    File,
    /// Anonymous memory.
    Anon,
}

/// How an entry of a page table begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapped {
    /// Nothing mapped.
    None,
    /// Read-only.
    Read,
    /// Writable, clean.
    #[default]
    Write,
    /// Writable, dirty.
    Dirty,
}

/// One virtual page of the first address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageSpec {
    /// What it holds.
    pub kind: Kind,
    /// Which PTE table its entry stands in.
    pub table: u8,
    /// Which VMA it belongs to.
    pub vma: u8,
    /// Its entry at the start.
    pub mapped: Mapped,
    /// The page frame; its own if not given.
    pub frame: Option<u8>,
    /// It is one huge page, mapped by an upper entry; its table must hold nothing else.
    pub huge: bool,
    /// It is executable.
    pub exec: bool,
    /// A driver maps its own memory there (`VM_PFNMAP`): the entry holds no reference and counts in no map count.
    pub pfn: bool,
}

/// One kernel thread: an operation on a range of pages, run once.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadSpec {
    /// The kernel's program that runs.
    pub operation: String,
    /// The first page of its range.
    #[serde(default)]
    pub first: u8,
    /// Pages in its range; to the last if not given.
    #[serde(default)]
    pub count: Option<u8>,
    /// mprotect: whether the pages stay writable.
    #[serde(default)]
    pub write: bool,
    /// mprotect: nothing may be done with the pages (`PROT_NONE`).
    #[serde(default)]
    pub none: bool,
    /// mremap: the destination's table is one of its own.
    #[serde(default)]
    pub other_table: bool,
}

/// What to explore.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// CPUs on which threads of the process load and store at will.
    pub users: u8,
    /// The virtual pages, by address.
    pub pages: Vec<PageSpec>,
    /// The kernel threads.
    pub threads: Vec<ThreadSpec>,
    /// Threads that take page faults again and again, wherever the hardware would raise one.
    #[serde(default)]
    pub faults: u8,
    /// Page frames that can be allocated; what the operations need if not given.
    #[serde(default)]
    pub spare_frames: Option<u8>,
    /// Bugs of the flush engine.
    #[serde(default)]
    pub engine: EngineSpec,
    /// The pages are all that their PTE tables hold, so that tables are freed, moved and collapsed as a whole; else other
    /// pages around them keep the tables.
    #[serde(default)]
    pub whole_tables: bool,
    /// Another process maps the same pages, by the same tables (hugetlb).
    #[serde(default)]
    pub shared_tables: bool,
}

fn bad(message: impl std::fmt::Display) -> Error {
    Error::Value(format!("scenario: {message}"))
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// One line: what is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| bad(error.to_string()))
    }
}
