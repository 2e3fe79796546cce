//! The static part of a frame: where in its loops a position is, and which locks it holds.

use crate::program::{LockMode, LockName, Pc};

use super::op::PageRef;

/// A lock that a thread holds, with what it is of, or a reference: what it has to drop when it gives up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Held {
    Mmap(LockMode),
    Vma(u8),
    VmaWrite(u8),
    Ptl(u8),
    NewPtl(Option<u8>),
    Pml(u8),
    NewPml,
    Rmap(LockMode),
    Folio(PageRef),
    /// A reference of the page that a fault copies.
    Reference,
}

impl Held {
    /// The lock of the language that this is; `vma_start_write` and references have none.
    pub const fn name(self) -> Option<LockName> {
        Some(match self {
            Self::VmaWrite(_) | Self::Reference => return None,
            Self::Mmap(_) => LockName::MmapLock,
            Self::Vma(_) => LockName::VmaLock,
            Self::Ptl(_) => LockName::Ptl,
            Self::NewPtl(_) => LockName::NewPtl,
            Self::Pml(_) => LockName::Pml,
            Self::NewPml => LockName::NewPml,
            Self::Rmap(_) => LockName::RmapLock,
            Self::Folio(_) => LockName::FolioLock,
        })
    }
}

/// A loop that is being run through. `next` is its instruction that advances it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Loop {
    pub kind: LoopKindKey,
    pub items: Vec<Item>,
    pub index: usize,
    pub next: Pc,
    pub saved: Registers,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum LoopKindKey {
    Vma,
    RmapVma,
    Table,
    Pte { only_present: bool },
    Extent,
    Page { keep: bool },
    Mapping,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Item {
    Vma(u8),
    Table(u8),
    Page(u8),
    Extent(u8, u8),
    Frame(u8),
}

/// What loops set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Registers {
    pub vma: Option<u8>,
    pub table: Option<u8>,
    pub target_table: Option<u8>,
    pub page: Option<u8>,
    pub frame: PageRef,
}

/// The static part of a frame.
#[expect(clippy::struct_excessive_bools, reason = "each is known or not where a step stands, on its own")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct At {
    pub r: Registers,
    pub range: Vec<u8>,
    pub loops: Vec<Loop>,
    pub held: Vec<Held>,
    /// VMAs were detached by `vms_gather_munmap_vmas`.
    pub detached: bool,
    /// A frame was allocated that nobody knows yet.
    pub allocated: bool,
    /// A pass over a list of pages that keeps them for a later pass: migration keeps them locked too (mm/migrate.c),
    /// although its program, in which locks pair within a loop, says otherwise.
    pub keeps_folios_locked: bool,
    /// Such a pass is over: a page that is on the list is locked. (Which ones are would make as many copies of the code
    /// as there are sets of pages.)
    pub listed_are_locked: bool,
    /// The walk of a table was left after this page, and is to go on behind it.
    pub left_after: Option<u8>,
    /// Inside a lazy-MMU section of an architecture that batches in it.
    pub lazy_mmu: bool,
}

impl At {
    pub fn holds(&self, name: LockName) -> bool {
        self.held.iter().any(|held| held.name() == Some(name))
    }

    /// Whoever comes by the reverse map finds a VMA only while it is there.
    pub fn in_rmap_walk(&self) -> bool {
        self.loops.iter().any(|l| matches!(l.kind, LoopKindKey::Mapping | LoopKindKey::RmapVma))
    }

    pub fn in_mapping_loop(&self) -> bool {
        self.loops.last().is_some_and(|l| l.kind == LoopKindKey::Mapping)
    }
}
