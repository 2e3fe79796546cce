//! What is known of one page.

use crate::cpumask::CpuId;
use crate::flush::MmId;

use super::super::rmap::Rmap;
use super::frames::PART_WORDS;
use super::page_cache::FileId;

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageKind {
    /// Private anonymous memory.
    Anon,
    /// A page of a real file.
    File,
    /// A page of shared memory.
    Shmem,
}

impl PageKind {
    /// The name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
            Self::Shmem => "shmem",
        }
    }
}

/// One allocated frame (`struct folio`).
#[expect(clippy::struct_excessive_bools, reason = "flags of a folio, which are set each on its own")]
#[derive(Clone, Debug)]
pub struct Page {
    /// What it holds.
    pub kind: PageKind,
    /// Its file and the page number there (file and shmem pages).
    pub place: Option<(FileId, u64)>,
    /// Whether the page cache of its file holds it.
    pub in_page_cache: bool,
    /// Written since it was cleaned last.
    pub dirty: bool,
    /// May be dropped instead of swapped out (`MADV_FREE`).
    pub lazyfree: bool,
    /// KSM merged it with others (`folio_test_ksm`): who writes gets a copy, however few map it.
    pub ksm: bool,
    /// Anonymous, and not shared since it was made or written last (`PageAnonExclusive`).
    pub exclusive: bool,
    /// The CPU in whose batch it waits to be put on the LRU; none if it is there.
    pub lru_cpu: Option<CpuId>,
    /// How many faults hold a reference while they copy it.
    pub nr_copied: u32,
    /// Of a huge page, the 4 KiB parts known to be zero still; none if nothing is known.
    pub zero_parts: Option<Box<[u64; PART_WORDS]>>,
    /// Its slot while it is swap cache.
    pub swap_slot: Option<u32>,
    /// References.
    pub refcount: u32,
    /// Who maps it.
    pub rmap: Rmap,
    /// Of anonymous memory, where a walk of the reverse map begins: this address space and its descendants (`anon_vma`).
    pub anon_mm: Option<MmId>,
}
