//! Where an operation stands between its arguments and its outcome: the program that runs now, and what comes after it.
//!
//! Nothing of an operation lives on the Rust stack, so that a call can be stopped anywhere, cloned, and gone on with.

use crate::addr::VirtAddr;
use crate::flush::MmId;

use super::super::frame::Frame;
use super::super::locks::LockKey;
use super::super::operation::{AccessKind, Outcome};
use super::super::pages::FileId;

/// Where an operation stands.
#[derive(Clone, Debug)]
pub(in super::super) enum Stage {
    /// Something that takes no program, done at once.
    Do(Todo),
    /// A program, and what comes after it.
    Run(Box<Frame>, Todo),
    /// Nothing was done, because another call holds a lock that this needs.
    Blocked(LockKey),
    /// The end.
    Done(Outcome),
}

impl Stage {
    /// A program after which the operation is over.
    pub fn run(frame: Box<Frame>, outcome: Outcome) -> Self {
        Self::Run(frame, Todo::Finish(outcome))
    }
}

/// What an operation does next, without a program or to find the next one.
#[derive(Clone, Debug)]
pub(in super::super) enum Todo {
    /// The arguments have not been looked at.
    Begin,
    /// Nothing.
    Finish(Outcome),
    /// fork: makes the task for the child that the program made.
    ForkTask,
    /// exec, exit: one user of the mm less; the last one takes it down.
    Mmput { mm: MmId, exits: bool },
    /// The mm that was taken down goes.
    DropMm { mm: MmId, exits: bool },
    /// truncate: pages of the file, from..to, leave the page cache; `again`: then its mappings are gone through once more.
    DropPages { file: FileId, from: u64, to: u64, again: bool },
    /// msync, fsync: the next part of a file to write back.
    Writeback { parts: Vec<(FileId, u64, u64)>, next: usize, outcome: Outcome },
    /// reclaim: the list that begins with this page.
    Reclaim { next: usize },
    /// mmap, madvise: faults pages in.
    Populate(Populate),
    /// An access, or one more try after its fault.
    Access(Tries),
    /// The exception that an access ended in.
    PageFault(Tries),
}

/// Pages to be faulted in one by one.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Populate {
    pub at: VirtAddr,
    pub end: VirtAddr,
    pub kind: AccessKind,
    pub tries: Tries,
    /// The outcome if a page cannot be had.
    pub on_fault: Outcome,
    /// The outcome at the end.
    pub outcome: Outcome,
}

/// Faults that did not help, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Tries {
    nr: u32,
    turn: u64,
}

impl Tries {
    /// One fault more, at a turn of the calls; false if there were too many while nobody else did anything.
    pub fn again(&mut self, turn: u64, limit: u32) -> bool {
        if self.turn != turn {
            *self = Self { nr: 0, turn };
        }
        self.nr += 1;
        self.nr <= limit
    }
}
