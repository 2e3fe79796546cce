//! A running program: program counter, registers, loop states. Nothing of it lives on the Rust stack, so that a driver
//! can stop after any step, run another CPU's program, and go on; a clone of a frame and its machine is a fork of time.

use std::sync::Arc;

use crate::addr::{Pfn, VaRange, VirtAddr};
use crate::error::{Error, Result};
use crate::flush::{FlushInProgress, Initiator, MmId};
use crate::page_table::{PMD_LEVEL, Pte, TableId};
use crate::program::{CompiledKernel, Instr, Pc, Program, ProgramName, PteFilter};

use super::gather::MmuGather;
use super::locks::LockKey;
use super::mm::FlushBatched;
use super::operation::AccessKind;
use super::pages::FileId;
use super::rmap::Mapping;
use super::rmap_walk::RmapVisit;
use super::vma::{VmFlags, Vma};

/// Whether a program has more to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepStatus {
    /// More instructions follow.
    Running,
    /// Nothing was done: the program waits for this, held by another call.
    Blocked(LockKey),
    /// The program ended with this step.
    Done,
}

/// The table in which the current entry stands: a PTE table, or a PMD table for a huge entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub table: TableId,
    pub level: u8,
}

/// What mremap was asked for, and what was decided before its program started.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the flags of the call and the branches of the kernel")]
pub(super) struct MremapArgs {
    pub old: VirtAddr,
    pub old_len: u64,
    pub new: VirtAddr,
    pub new_len: u64,
    pub moves: bool,
    pub shrinks: bool,
    pub grows_in_place: bool,
    pub unmaps_new: bool,
    pub dontunmap: bool,
}

impl MremapArgs {
    /// The part of the old mapping that goes on to exist, at its old place.
    pub fn old_range(&self) -> VaRange {
        VaRange::new(self.old, VirtAddr(self.old.0 + self.old_len.min(self.new_len)))
    }

    /// Where it goes.
    pub fn new_range(&self) -> VaRange {
        VaRange::new(self.new, VirtAddr(self.new.0 + self.new_len))
    }

    /// What is cut off when it shrinks.
    pub fn tail(&self) -> VaRange {
        VaRange::new(VirtAddr(self.old.0 + self.new_len.min(self.old_len)), VirtAddr(self.old.0 + self.old_len))
    }
}

/// The arguments of an operation, as its program sees them.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of one operation")]
pub(super) struct Args {
    /// The range of the call.
    pub range: VaRange,
    /// The address of a fault (page aligned), or of the 2 MiB to collapse.
    pub addr: VirtAddr,
    pub kind: Option<AccessKind>,
    /// mprotect's rights.
    pub prot: VmFlags,
    /// There are no new rights: `prot` says nothing.
    pub keeps_rights: bool,
    /// The area that mmap makes.
    pub new_vma: Option<Vma>,
    pub mremap: MremapArgs,
    /// The file and its pages from..to, of operations on files.
    pub file: Option<(FileId, u64, u64)>,
    /// Entries of copies of the file's pages stay (not `even_cows`).
    pub spares_cows: bool,
    /// fault: what is written to the page is told, by accesses that are tried again.
    pub tells_writes: bool,
    pub populate: bool,
    pub proactive: bool,
    /// The list of reclaim goes on after this operation.
    pub goes_on: bool,
}

/// The registers that loops set, and that the loops over other address spaces give back as they were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub mm: MmId,
    pub root: TableId,
    pub range: VaRange,
    pub vma: Vma,
    pub vma_range: VaRange,
    pub place: Option<Place>,
    pub table_range: VaRange,
    /// The first address of `table_range` that no for_each_pte visited yet.
    pub reached: VirtAddr,
    pub addr: VirtAddr,
    pub pte: Pte,
    pub new_pte: Pte,
}

/// Where a for_each_table stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TableStop {
    /// Between tables.
    Between,
    /// At a PTE table.
    Table,
    /// At a huge PMD.
    HugePmd,
}

/// The state of a running loop.
#[derive(Clone, Debug)]
pub(super) enum Loop {
    Vma {
        index: usize,
        at: VirtAddr,
    },
    RmapVma {
        list: Vec<(MmId, VirtAddr)>,
        next: usize,
        saved: Registers,
    },
    Table {
        at: VirtAddr,
        stop: TableStop,
    },
    Pte {
        filter: PteFilter,
    },
    Extent {
        at: VirtAddr,
    },
    Page {
        next: usize,
        keep: bool,
    },
    /// `huge` is the huge PMD that the body's run before was for: what it was split into comes next. `walk` are the areas
    /// that the kernel visits and that were not counted yet, if they are counted.
    Mapping {
        list: Vec<Mapping>,
        next: usize,
        huge: Option<Mapping>,
        walk: Vec<RmapVisit>,
        shared_only: bool,
        saved: Registers,
    },
}

/// A migration entry that this operation made.
#[derive(Clone, Copy, Debug)]
pub(super) struct MigrationMark {
    pub page: Pfn,
    pub mapping: Mapping,
}

/// What a step does once its flush returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// Frees what the gather holds (`tlb_batch_pages_flush`).
    FreeGathered,
    /// Closes the gather.
    EndGather,
    /// Puts a table where the huge entry was.
    SplitHuge,
    /// The same, and the page too.
    SplitFolio,
    /// What reclaim had left unflushed is flushed, up to this count.
    BatchedFlushed(FlushBatched),
    /// The task has nothing deferred any more.
    UnmapFlushed,
}

/// A frame's place in its innermost loop.
pub(super) struct Walk {
    pc: Pc,
    state: Option<Loop>,
    nr_loops: usize,
    r: Registers,
    page: Option<Pfn>,
    force_flush: bool,
    delay_rmap: bool,
    break_pte: bool,
}

/// One running program of one operation.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags that the kernel's functions keep in locals")]
pub struct Frame {
    pub(super) program: ProgramName,
    /// The program itself, if it is not the kernel's.
    pub(super) custom: Option<Arc<Program>>,
    pub(super) pc: Pc,
    pub(super) by: Initiator,
    pub(super) args: Args,
    pub(super) r: Registers,
    pub(super) detached: Vec<Vma>,
    /// for_each_vma walks the detached areas.
    pub(super) walks_detached: bool,
    pub(super) page: Option<Pfn>,
    pub(super) new_page: Option<Pfn>,
    /// The page that is being copied, of which a reference is held.
    pub(super) copied: Option<Pfn>,
    pub(super) page_list: Vec<Pfn>,
    pub(super) gather: Option<MmuGather>,
    pub(super) force_flush: bool,
    pub(super) delay_rmap: bool,
    /// The innermost for_each_pte ends after this entry.
    pub(super) break_pte: bool,
    pub(super) nr_changed: u64,
    pub(super) loops: Vec<Loop>,
    /// fork: the new mm.
    pub(super) child: Option<MmId>,
    /// mremap: the extent at its old address, and where it goes.
    pub(super) extent: VaRange,
    pub(super) new_place: Option<Place>,
    pub(super) new_addr: VirtAddr,
    pub(super) migrated: Vec<MigrationMark>,
    /// collapse: the table taken out of the tree.
    pub(super) set_aside: Option<TableId>,
    pub(super) tracked: Option<VaRange>,
    /// The flush that the last step asked for, while CPUs have not executed it. None when operations run alone.
    pub(super) flushing: Option<Box<FlushInProgress>>,
    /// What the step still does when `flushing` has ended, in order.
    pub(super) after: Vec<After>,
}

impl Frame {
    /// A program at its start, in an address space.
    pub(super) fn new(program: ProgramName, by: Initiator, mm: MmId, root: TableId, args: Args) -> Self {
        let nowhere = Vma::new(VaRange::default(), VmFlags::empty(), None, 0);
        Self {
            program,
            custom: None,
            pc: 0,
            by,
            args,
            r: Registers {
                mm,
                root,
                range: args.range,
                vma: nowhere,
                vma_range: VaRange::default(),
                place: None,
                table_range: VaRange::default(),
                reached: VirtAddr(0),
                addr: args.addr,
                pte: Pte::NONE,
                new_pte: Pte::NONE,
            },
            detached: Vec::new(),
            walks_detached: false,
            page: None,
            new_page: None,
            copied: None,
            page_list: Vec::new(),
            gather: None,
            force_flush: false,
            delay_rmap: false,
            break_pte: false,
            nr_changed: 0,
            loops: Vec::new(),
            child: None,
            extent: VaRange::default(),
            new_place: None,
            new_addr: VirtAddr(0),
            migrated: Vec::new(),
            set_aside: None,
            tracked: None,
            flushing: None,
            after: Vec::new(),
        }
    }

    /// Where the innermost loop stands, to come back to.
    pub(super) fn walk(&self) -> Walk {
        Walk {
            pc: self.pc,
            state: self.loops.last().cloned(),
            r: self.r,
            page: self.page,
            force_flush: self.force_flush,
            delay_rmap: self.delay_rmap,
            break_pte: self.break_pte,
            nr_loops: self.loops.len(),
        }
    }

    /// Comes back to where a loop stood.
    pub(super) fn walk_back(&mut self, walk: Walk) {
        self.pc = walk.pc;
        self.loops.truncate(walk.nr_loops.saturating_sub(1));
        self.loops.extend(walk.state);
        self.r = walk.r;
        self.page = walk.page;
        self.force_flush = walk.force_flush;
        self.delay_rmap = walk.delay_rmap;
        self.break_pte = walk.break_pte;
    }

    /// The instructions of the program that runs, of a kernel's if it is not its own.
    pub(super) fn code<'a>(&'a self, kernel: &'a CompiledKernel) -> &'a [Instr] {
        &self.custom.as_deref().unwrap_or_else(|| kernel.program(self.program)).code
    }

    /// The program that runs.
    pub const fn program(&self) -> ProgramName {
        self.program
    }

    /// The next instruction.
    pub const fn pc(&self) -> Pc {
        self.pc
    }

    /// Who runs it.
    pub const fn initiator(&self) -> Initiator {
        self.by
    }

    /// The address that the current entry maps.
    pub const fn addr(&self) -> VirtAddr {
        self.r.addr
    }

    /// The table of the current entry.
    #[inline]
    pub(super) fn place(&self) -> Result<Place> {
        self.r.place.ok_or_else(|| self.error("an entry", "none"))
    }

    /// The current page.
    #[inline]
    pub(super) fn page(&self) -> Result<Pfn> {
        self.page.ok_or_else(|| self.error("a page", "none"))
    }

    /// The page made last.
    pub(super) fn new_page(&self) -> Result<Pfn> {
        self.new_page.ok_or_else(|| self.error("a new page", "none"))
    }

    /// The open gather.
    #[inline]
    pub(super) fn gather(&mut self) -> Result<&mut MmuGather> {
        // The borrow checker cannot see that the error path ends the borrow.
        if self.gather.is_none() {
            return Err(self.error("an open mmu_gather", "none"));
        }
        Ok(self.gather.as_mut().expect("checked above"))
    }

    /// The current mapping: what the reverse map has for the current entry.
    #[inline]
    pub(super) fn mapping(&self) -> Mapping {
        let is_huge = self.r.place.is_some_and(|place| place.level == PMD_LEVEL);
        Mapping {
            mm: self.r.mm,
            addr: if is_huge { self.r.addr.align_down(crate::addr::PMD_SHIFT) } else { self.r.addr },
        }
    }

    /// The 2 MiB around the current address.
    pub(super) fn pmd_range(&self) -> VaRange {
        let start = self.r.addr.align_down(crate::addr::PMD_SHIFT);
        VaRange::new(start, VirtAddr(start.0 + crate::addr::PMD_SIZE))
    }

    /// A step that stands where it cannot.
    pub(super) fn error(&self, expected: &str, found: &str) -> Error {
        Error::Program {
            program: self.program.name().to_owned(),
            step: format!("instruction {}", self.pc),
            message: format!("found {found}, expected {expected}"),
        }
    }
}
