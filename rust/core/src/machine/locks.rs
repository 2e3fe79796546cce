//! The locks of calls that run at the same time: what each lock step of a program takes, and who excludes whom
//! (`docs/machine.md`, section "Operations at the same time"). An operation that runs alone takes none.
//!
//! A step takes all that it needs or nothing, and no call waits while it could be waited for in a circle: `mmap_lock`
//! before page locks, those before the locks of page tables, of which only mremap holds two (under `mmap_lock` for writing).

use std::fmt;

use smallvec::SmallVec;

use crate::addr::{PMD_SHIFT, PMD_SIZE, PUD_SHIFT, Pfn, VaRange, VirtAddr};
use crate::cpumask::CpuId;
use crate::flush::MmId;
use crate::program::LockName;

use super::pages::FileId;

/// What is locked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockKey {
    /// `mm->mmap_lock`.
    Mmap(MmId),
    /// The areas of an address range, against whoever changes areas there (`vma_start_read`).
    Vma(MmId, VirtAddr),
    /// The lock of the PTE table of these 2 MiB (number of the first byte >> 21).
    Ptl(MmId, u64),
    /// The lock of the PMD table of this GiB (number of the first byte >> 30).
    Pml(MmId, u64),
    /// `i_mmap_rwsem` of a file.
    Rmap(FileId),
    /// The lock of a page.
    Folio(Pfn),
    /// A CPU on which a flush is being asked for, so that its task is not preempted.
    Preemption(CpuId),
    /// The CPU of a task that does not run.
    Cpu(u32),
}

impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmap(mm) => write!(f, "mmap_lock of mm {mm}"),
            Self::Vma(mm, addr) => write!(f, "the VMA lock at {addr} of mm {mm}"),
            Self::Ptl(mm, number) => write!(f, "ptl at {} of mm {mm}", VirtAddr(number << PMD_SHIFT)),
            Self::Pml(mm, number) => write!(f, "pml at {} of mm {mm}", VirtAddr(number << PUD_SHIFT)),
            Self::Rmap(file) => write!(f, "i_mmap_rwsem of file {}", file.0),
            Self::Folio(pfn) => write!(f, "the lock of page {:#x}", pfn.0),
            Self::Preemption(cpu) => write!(f, "CPU {cpu}, which is flushing"),
            Self::Cpu(task) => write!(f, "task {task}, which does not run"),
        }
    }
}

impl LockKey {
    /// The lock of the PTE table of an address.
    pub(super) const fn ptl(mm: MmId, addr: VirtAddr) -> Self {
        Self::Ptl(mm, addr.0 >> PMD_SHIFT)
    }

    /// The lock of the PMD table of an address.
    pub(super) const fn pml(mm: MmId, addr: VirtAddr) -> Self {
        Self::Pml(mm, addr.0 >> PUD_SHIFT)
    }

    /// Whether a holder cannot be preempted.
    const fn is_spinlock(self) -> bool {
        matches!(self, Self::Ptl(..) | Self::Pml(..) | Self::Preemption(_))
    }
}

/// A lock that is wanted, or held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Want {
    pub key: LockKey,
    pub write: bool,
    /// `Vma`: the area. `Mmap` for writing: where areas change.
    pub range: VaRange,
}

/// What one step takes; mostly a lock or two.
pub(super) type Wants = SmallVec<[Want; 3]>;

impl Want {
    pub const fn new(key: LockKey, write: bool) -> Self {
        Self { key, write, range: VaRange { start: VirtAddr(0), end: VirtAddr(u64::MAX) } }
    }

    fn excludes(&self, other: &Self) -> bool {
        if self.key == other.key {
            return self.write || other.write;
        }
        match (self.key, other.key) {
            // A fault reads the areas that somebody is changing, or the other way round.
            (LockKey::Mmap(a), LockKey::Vma(b, _)) if self.write => a == b && self.overlaps(other),
            (LockKey::Vma(a, _), LockKey::Mmap(b)) if other.write => a == b && self.overlaps(other),
            _ => false,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        !self.range.intersect(other.range).is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    op: u32,
    task: u32,
    name: LockName,
    want: Want,
}

/// All locks held by calls, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    held: Vec<Held>,
    /// Pages that a call has on a list of its own (`folio_isolate_lru`), with its operation.
    isolated: Vec<(Pfn, u32)>,
    /// Changes from one call to another.
    turn: u64,
    last: u32,
}

impl Locks {
    /// The lock of another call that keeps `op` from having `wants`.
    pub fn blocker(&self, op: u32, wants: &[Want]) -> Option<LockKey> {
        if wants.is_empty() || self.held.iter().all(|held| held.op == op) {
            return None;
        }
        let others = || self.held.iter().filter(|held| held.op != op);
        wants.iter().find_map(|want| others().find(|held| held.want.excludes(want))).map(|held| held.want.key)
    }

    /// Takes locks that nobody keeps from being taken.
    pub fn take(&mut self, op: u32, task: u32, name: LockName, wants: &[Want]) {
        self.held.extend(wants.iter().map(|want| Held { op, task, name, want: *want }));
    }

    /// A call does a step.
    pub fn turn_of(&mut self, op: u32) {
        self.turn += u64::from(self.last != op);
        self.last = op;
    }

    /// A number that changes when another call does a step.
    pub const fn turn(&self) -> u64 {
        self.turn
    }

    /// Whether a lock that its holder takes twice, in two passes, is unlocked for the first time; it stays held.
    pub fn is_first_unlock(&self, op: u32, key: LockKey) -> bool {
        self.held.iter().filter(|held| held.op == op && held.want.key == key).count() == 1
    }

    /// Releases what a call took under a name.
    pub fn release(&mut self, op: u32, name: LockName) {
        self.held.retain(|held| held.op != op || held.name != name);
    }

    /// Releases one lock of a call, wherever it took it.
    pub fn release_key(&mut self, op: u32, key: LockKey) {
        self.held.retain(|held| held.op != op || held.want.key != key);
    }

    /// Holds what a call took under a name for reading from now on.
    pub fn downgrade(&mut self, op: u32, name: LockName) {
        for held in self.held.iter_mut().filter(|held| held.op == op && held.name == name) {
            held.want.write = false;
        }
    }

    /// Releases everything of a call.
    pub fn release_all(&mut self, op: u32) {
        self.held.retain(|held| held.op != op);
        self.isolated.retain(|(_, owner)| *owner != op);
    }

    /// What keeps a task from being preempted.
    pub fn spinlock_of(&self, task: u32) -> Option<LockKey> {
        self.held.iter().find(|held| held.task == task && held.want.key.is_spinlock()).map(|held| held.want.key)
    }

    /// The locks that a call holds, in the order in which it took them.
    pub fn of(&self, op: u32) -> impl Iterator<Item = (LockKey, bool)> + '_ {
        self.held.iter().filter(move |held| held.op == op).map(|held| (held.want.key, held.want.write))
    }

    /// The locks of PTE tables that other calls hold.
    pub fn ptls_of_others(&self, op: u32) -> Vec<Want> {
        let is_ptl = |held: &&Held| held.op != op && matches!(held.want.key, LockKey::Ptl(..));
        self.held.iter().filter(is_ptl).map(|held| held.want).collect()
    }

    /// Pages locked by other calls.
    pub fn folios_of_others(&self, op: u32) -> impl Iterator<Item = Pfn> + '_ {
        self.held.iter().filter(move |held| held.op != op).filter_map(|held| match held.want.key {
            LockKey::Folio(pfn) => Some(pfn),
            _ => None,
        })
    }

    /// Puts a page on a call's own list; false if another call has it.
    pub fn isolate(&mut self, op: u32, pfn: Pfn) -> bool {
        if let Some((_, owner)) = self.isolated.iter().find(|(page, _)| *page == pfn) {
            return *owner == op;
        }
        self.isolated.push((pfn, op));
        true
    }

    /// The call has no pages of its own any more.
    pub fn put_back(&mut self, op: u32) {
        self.isolated.retain(|(_, owner)| *owner != op);
    }
}

/// The locks of all PTE tables of a range.
pub(super) fn ptls_of(mm: MmId, range: VaRange) -> impl Iterator<Item = Want> {
    let first = range.start.0 >> PMD_SHIFT;
    let end = range.end.0.div_ceil(PMD_SIZE);
    (first..end).map(move |number| Want::new(LockKey::Ptl(mm, number), true))
}
