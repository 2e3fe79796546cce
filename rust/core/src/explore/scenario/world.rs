//! A scenario with every choice made: address spaces, VMAs, page tables, virtual pages in address order, page frames.

use crate::program::ProgramName;

use super::{EngineSpec, Kind, Mapped};

/// A VMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmaInfo {
    /// Its address space.
    pub mm: u8,
    /// Anonymous or of a file.
    pub kind: Kind,
    /// Its virtual pages.
    pub pages: Vec<u8>,
    /// It is there at the start (a child's and a moved one are not).
    pub exists: bool,
}

/// A virtual page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualPage {
    /// Its address space.
    pub mm: u8,
    /// Its VMA.
    pub vma: u8,
    /// Its PTE table.
    pub table: u8,
    /// Its entry at the start.
    pub mapped: Mapped,
    /// The frames that it can map; the first is its own at the start, if any.
    pub frames: Vec<u8>,
    /// What it is called in traces.
    pub name: String,
    /// Mapped by an upper entry.
    pub huge: bool,
    /// Executable.
    pub exec: bool,
    /// Of a driver, without references.
    pub pfn: bool,
}

/// A page frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// Free at the start.
    pub is_spare: bool,
    /// A driver's, which entries map without references.
    pub pfn: bool,
}

/// What a thread works on.
#[expect(clippy::struct_excessive_bools, reason = "independent ways in which an operation is told from others")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// The program.
    pub program: ProgramName,
    /// What the caller called it.
    pub operation: String,
    /// Its virtual pages.
    pub range: Vec<u8>,
    /// mremap: where each goes; fork: the child's.
    pub target: Vec<u8>,
    /// mprotect: the pages stay writable. fault: a write.
    pub write: bool,
    /// mprotect: nothing may be done with the pages.
    pub none: bool,
    /// It takes faults, for ever.
    pub is_faulter: bool,
    /// It walks page tables without locks and takes pages (GUP-fast); its program is the explorer's own.
    pub is_walker: bool,
    /// After the program the pages leave the page cache (truncation).
    pub truncates: bool,
}

/// A scenario with every choice made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct World {
    /// User CPUs.
    pub users: u8,
    /// VMAs.
    pub vmas: Vec<VmaInfo>,
    /// The address space of each PTE table.
    pub tables: Vec<u8>,
    /// For each, the table that stands in its place at the start: none where mremap moves one to, that of another address
    /// space where tables are shared.
    pub table_at_start: Vec<Option<u8>>,
    /// A second address space maps all pages by the tables of the first.
    pub shared_tables: bool,
    /// Tables go and move as a whole.
    pub whole_tables: bool,
    /// Virtual pages, in address order within an address space.
    pub pages: Vec<VirtualPage>,
    /// Page frames.
    pub frames: Vec<Frame>,
    /// Kernel threads; those that take faults come last.
    pub threads: Vec<Thread>,
    /// Bugs of the flush engine.
    pub engine: EngineSpec,
}

/// The page number of the first virtual page: user space begins far above where memory ends.
const FIRST_VPN: u64 = 0x5_5555_5555;
/// The page number of the first frame.
const FIRST_PFN: u64 = 0x10_0000;

impl World {
    /// The virtual page at an address, in pages.
    pub fn page_at(&self, number: u64) -> Option<u8> {
        let index = number.checked_sub(FIRST_VPN)?;
        (index < self.pages.len() as u64).then_some(index as u8)
    }

    /// Where a frame lies in physical memory, in pages.
    pub const fn pfn(frame: u8) -> u64 {
        FIRST_PFN + frame as u64
    }

    /// The virtual pages of a PTE table's 2 MiB, by address.
    pub fn pages_of_table(&self, table: u8) -> Vec<u8> {
        (0..self.pages.len() as u8).filter(|page| self.pages[usize::from(*page)].table == table).collect()
    }

    /// Where a thread moves the whole of a table: mremap of all its pages to a place of their own.
    pub fn moves_whole(&self, thread: &Thread, table: u8) -> Option<u8> {
        if !self.whole_tables || thread.program != ProgramName::Mremap {
            return None;
        }
        let target_of = |page: &u8| thread.range.iter().position(|p| p == page).map(|index| thread.target[index]);
        let targets: Option<Vec<u8>> = self.pages_of_table(table).iter().map(target_of).collect();
        let targets = targets.filter(|targets| !targets.is_empty())?;
        let to = self.pages[usize::from(targets[0])].table;
        (to != table && self.pages_of_table(to) == targets).then_some(to)
    }

    /// The first page that the VMA of a page has in its table: what leaves the reverse map together.
    pub fn part_of(&self, page: u8) -> u8 {
        let info = &self.pages[usize::from(page)];
        let is_there = |other: &u8| self.pages[usize::from(*other)].vma == info.vma;
        self.pages_of_table(info.table).into_iter().find(is_there).unwrap_or(page)
    }

    /// The first page that a VMA has in each of its tables.
    pub fn parts_of_vma(&self, vma: u8) -> Vec<u8> {
        let pages = (0..self.pages.len() as u8).filter(|page| self.pages[usize::from(*page)].vma == vma);
        pages.filter(|page| self.part_of(*page) == *page).collect()
    }

    /// Some thread moves a whole table there.
    pub(super) fn is_moved_to(&self, table: u8) -> bool {
        let tables = 0..self.tables.len() as u8;
        self.threads.iter().any(|thread| tables.clone().any(|from| self.moves_whole(thread, from) == Some(table)))
    }
}
