//! The small steps that programs are unrolled to: each acts on fixed variables of the packed state.

use crate::program::{MkWriteRule, ProtSource};

use super::tables::TableStep;
use super::vars::VarId;

/// An index into the code of a model.
pub type OpIndex = u32;

/// When a step is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// At once, with the step before: it sees and changes nothing but registers of its thread.
    Local,
    /// A step of its own that commutes with all that others can do until it is taken.
    Urgent,
    /// A step of its own.
    Visible,
}

/// What a flush covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// These virtual pages.
    Pages(u32),
    /// What the thread's gather has recorded, or all virtual pages of the mask if it covers everything.
    Gather(u32),
    /// What the thread tracked.
    Tracked,
    /// The lazy-MMU batch of the CPU on which the thread is.
    LazyBatch,
    /// These virtual pages, and what CPUs have cached of the tables above them.
    PagesAndTables(u32),
}

/// Whether a flush is one of freed tables, which lazy CPUs must hear of too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// As the thread's gather says.
    Gather,
}

/// One test on a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    /// Known when the program was unrolled.
    Const(bool),
    /// `pte & mask == value`, of the register.
    Pte {
        /// The bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
    /// `pte` is present or protnone.
    PteMaps,
    /// `pte` is hw-present, or protnone while flushes are pending.
    PteAccessible {
        /// `tlb_flush_pending`.
        pending: VarId,
    },
    /// x86's `pte_needs_flush`, on `pte` and the new entry.
    PteNeedsFlush,
    /// The series' rule.
    PteDemoted,
    /// The two differ.
    PteChanged,
    /// The frame of `pte` is one of these (one bit each).
    FrameIn(u32),
    /// Another entry refers to the frame of `pte` from swap or migration, or somebody holds its lock (frames with their locks).
    SwapShared(Vec<(u8, VarId)>),
    /// The frame of `pte` is on one of these lists.
    Listed(Vec<VarId>),
    /// The variable is more than that.
    Above(VarId, u64),
    /// The variable of the frame that `pte` names is more than that: one variable for each frame.
    FrameAbove(Vec<VarId>, u64),
    /// The bit of the variable is set.
    Bit(VarId, u8),
    /// The two variables differ.
    Differ(VarId, VarId),
    /// The first variable is more than the second.
    Exceeds(VarId, VarId),
    /// The opposite.
    Not(Box<Test>),
    /// All of them.
    All(Vec<Test>),
    /// Any of them.
    Any(Vec<Test>),
}

impl Test {
    /// Whether it, or a test that it is made of, is one of those.
    pub fn any(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::Not(inner) => inner.any(wanted),
                Self::All(list) | Self::Any(list) => list.iter().any(|test| test.any(wanted)),
                _ => false,
            }
    }
}

/// Which page frame a step acts on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageRef {
    /// No page.
    None,
    /// This one.
    Fixed(u8),
    /// The one that `pte` names.
    OfPte,
    /// The one that the thread allocated.
    New,
    /// The one that this virtual page maps now.
    MappedAt(u8),
}

/// What a thread promises by returning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    /// Virtual pages that it unmapped.
    pub unmaps: u32,
    /// Virtual pages that it write-protected.
    pub protects: u32,
    /// Frames whose content MADV_FREE gave up.
    pub frees: u32,
}

/// One small step of the thread that owns it. `page` is a virtual page, `frame` a page frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing more to do.
    Done,
    /// A faulter chooses: one target for each (virtual page, write).
    Idle(Vec<(u8, bool, OpIndex)>),
    /// Goes on at `next` if the test holds, else at `other`.
    Branch(Test),
    /// Stores a value.
    Set(VarId, u64),
    /// Sets bits.
    SetBits(VarId, u64),
    /// Adds to a counter.
    Add(VarId, i8),
    /// Waits for a lock of one bit and takes it.
    Acquire(VarId),
    /// Waits for the lock of a frame.
    AcquireFolio(PageRef),
    /// Drops it.
    ReleaseFolio(PageRef),
    /// Takes a lock for reading.
    AcquireRead {
        /// Readers.
        readers: VarId,
        /// The writer.
        writer: VarId,
    },
    /// Takes a lock for writing.
    AcquireWrite {
        /// Readers.
        readers: VarId,
        /// The writer.
        writer: VarId,
    },
    /// Turns a lock held for writing into one held for reading.
    Downgrade {
        /// Readers.
        readers: VarId,
        /// The writer.
        writer: VarId,
    },

    /// `pte` and the new entry become the entry.
    ReadPte(u8),
    /// On to `next` if the entry still is `pte`, as to what it maps, else to `other`.
    PteSame(u8),
    /// Reads the entry; on to `next` if it maps the frame, else to `other`.
    ReadIfMaps(u8, u8),
    /// Takes the entry out, atomically.
    Xchg {
        /// The virtual page.
        page: u8,
        /// The content of the frames of these kinds is given up: bit 0 anonymous, bit 1 file.
        discards: u8,
    },
    /// Empties the entry without looking at it.
    ClearPte(u8),
    /// Gives the new entry of this virtual page a protection.
    Modify(u8, ProtSource),
    /// Makes the new entry writable.
    Mkwrite {
        /// On which condition.
        rule: MkWriteRule,
        /// The VMA's VM_WRITE.
        vma_write: VarId,
        /// The VMA is shared.
        shared: bool,
        /// The map counts by frame.
        mapcounts: Vec<VarId>,
    },
    /// Takes bits from the new entry.
    ClearNewBits(u64),
    /// Stores the new entry.
    SetPte(u8),
    /// Takes bits from the entry in place.
    ClearPteBits(u8, u64),
    /// Adds bits to the entry in place.
    SetPteBits(u8, u64),
    /// The same for a write fault that uses the page in place, which is its own from now on.
    Reuse(u8, u64),
    /// A protnone entry becomes present again, writable as `can_change_pte_writable()` says.
    Unhint {
        /// Whose entry.
        page: u8,
        /// VM_WRITE.
        vma_write: VarId,
        /// By frame, of memory that is not shared: only who maps it alone may write. Empty for files: D decides.
        mapcounts: Vec<VarId>,
    },
    /// The frame that `pte` names is taken as the new one.
    UseOld,
    /// Stores `pte` at another virtual page.
    SetPteAs {
        /// Where.
        page: u8,
        /// Bits taken from it.
        clears: u64,
        /// Not `pte` but the new entry.
        of_new: bool,
    },
    /// Queues a multicall that stores `pte`, or the new entry, at a virtual page.
    QueueMulticall {
        /// Where.
        page: u8,
        /// Bits taken from it.
        clears: u64,
        /// Not `pte` but the new entry.
        of_new: bool,
    },
    /// The multicall for a virtual page, if there is one, is carried out: A and D stay as the hardware has set them
    /// (`MMU_PT_UPDATE_PRESERVE_AD`).
    Multicall(u8),
    /// Stores a present entry for a page.
    MapPage {
        /// Where.
        page: u8,
        /// What.
        frame: PageRef,
        /// Writable if the VMA is (its VM_WRITE), and dirty if so.
        write: Option<VarId>,
        /// Dirty too.
        dirty: bool,
        /// Not writable if another entry refers to the page.
        sole: bool,
    },
    /// Stores a swap entry for `pte`'s page.
    SetSwap(u8),
    /// Stores a migration entry for `pte`.
    SetMigration(u8),
    /// A present entry of the new frame takes the place of the migration entry, if this thread made one there.
    RemoveMigration {
        /// The virtual page.
        page: u8,
        /// The frame that it was of.
        from: u8,
    },

    /// A counter of a frame.
    AddFrame {
        /// The counter, by frame.
        vars: Vec<VarId>,
        /// Which frame.
        frame: PageRef,
        /// What is added.
        by: i8,
    },
    /// References that a fault has while it copies the frame that `pte` names.
    Reference {
        /// All references, by frame.
        refs: Vec<VarId>,
        /// Those of faults.
        copied: Vec<VarId>,
        /// What is added.
        by: i8,
    },
    /// A flag of a frame.
    SetFrame {
        /// The flag, by frame.
        vars: Vec<VarId>,
        /// Which frame.
        frame: PageRef,
        /// Its new value.
        value: u64,
    },
    /// Marks the frame dirty; the dirty entry is accounted for.
    SetDirty(PageRef),
    /// TestClearPageDirty: on to `next` if there is something to write, else to `other`.
    TestClearDirty(u8),
    /// The frame's content reaches the disk.
    WriteOut(u8),
    /// MADV_FREE gives the content up.
    MarkLazyfree(PageRef),
    /// Queues the page in the gather (the slot of this virtual page and its frame).
    Queue(u8),
    /// Notes that the rmap of the page is to be removed later.
    DelayRmap(u8),
    /// Removes the delayed rmaps.
    FlushRmaps,
    /// Drops the references of queued pages.
    FreeQueued,
    /// Frees the frame from its cache if nothing maps it and it is clean.
    RemoveMapping(u8),
    /// Takes the page out of the page cache (truncation), if nothing maps it.
    Truncate(u8),
    /// Reads the page of a file back if it is not in the page cache.
    FindPage(u8),
    /// Puts the frame on the list, with a reference, if it is on the LRU list.
    Isolate(PageRef),
    /// Puts the frame that a virtual page maps on the list, with a reference; it stays on the LRU list.
    Hold(u8),
    /// The frame becomes a KSM page if the thread has none to merge it with.
    StableTree {
        /// The frame.
        frame: u8,
        /// It is the one that the others are merged with.
        is_first: bool,
    },
    /// Drops the references of the list.
    DropList,
    /// Allocates one of these frames (one bit each); waits if there is none.
    Alloc(u32),
    /// The content of a frame is copied to the new one.
    Copy(PageRef),
    /// The copy is in use: stores to the source since then are lost.
    CopyDone,
    /// Migration: what belongs to the old frame now belongs to the new one.
    Replace(u8),

    /// Widens the range of the gather to a virtual page.
    Record(VarId, u8),
    /// Asks all user CPUs of the address space to flush.
    Send {
        /// What.
        scope: Scope,
        /// The user CPUs run the address space.
        mm: u8,
    },
    /// Waits for their answers.
    Wait(Scope),
    /// Goes on at `next` or at `other`, as it happens.
    Choose,
    /// The entry taken out or changed was present: an invalidation of this virtual page joins the CPU's batch.
    Invalidate(u8),
    /// The CPU's lazy-MMU batch is empty.
    EmptyLazyBatch,
    /// arm64: broadcasts an invalidation.
    Tlbi(Scope),
    /// arm64: waits for one's own invalidations.
    Dsb,
    /// The generation when the gather got its first entry.
    NoteDeferral,
    /// `inc_mm_tlb_gen()` for a flush of that.
    BumpGen(Scope),
    /// `inc_mm_tlb_gen()` for the entry of this virtual page, which reclaim flushes later.
    AddBatch(u8),
    /// The batch's mask takes in `mm_cpumask`.
    OrBatchMask,
    /// `tlb_flush_batched_cpumask` takes in `mm_cpumask`.
    OrBatchedCpus,
    /// Looks at one user CPU of the mask and asks it, if it has to hear of the flush.
    AskCpu {
        /// Which.
        cpu: u8,
        /// Tables are freed.
        freed: Freed,
        /// Those of the batch's mask.
        of_batch: bool,
    },
    /// Waits for the answers.
    Await {
        /// What is flushed.
        scope: Scope,
        /// `TLB_FLUSH_ALL`.
        full: bool,
        /// It has no address space and no generation.
        of_batch: bool,
    },
    /// `flush_tlb_batched_pending` reads the two counts.
    ReadBatched(u8),
    /// It stores what it flushed, unless somebody changed the counts.
    StoreBatched(u8),
    /// note_deferred_flush: the variable becomes the generation after the present one.
    NoteGen {
        /// What remembers it.
        defer: VarId,
        /// The present generation.
        tlb_gen: VarId,
    },
    /// Copies a variable.
    CopyVar {
        /// From.
        from: VarId,
        /// To.
        to: VarId,
    },
    /// A step on page tables themselves.
    Table(TableStep),
    /// The system call returns.
    Return(Promise),
}

/// A step with its successors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// When it is taken.
    pub class: Class,
    /// What comes next.
    pub next: OpIndex,
    /// What comes next otherwise.
    pub other: OpIndex,
    /// What a kernel developer calls it.
    pub text: String,
    /// Whose it is.
    pub thread: u8,
}

impl Op {
    /// What can come next.
    pub fn targets(&self) -> Vec<OpIndex> {
        match &self.kind {
            Kind::Done => Vec::new(),
            Kind::Idle(choices) => choices.iter().map(|(_, _, target)| *target).collect(),
            Kind::Branch(Test::Const(true)) => vec![self.next],
            Kind::Branch(_) | Kind::PteSame(_) | Kind::ReadIfMaps(..) | Kind::TestClearDirty(_) | Kind::Choose => {
                vec![self.next, self.other]
            }
            Kind::Table(step) if step.has_two_ends() => vec![self.next, self.other],
            _ => vec![self.next],
        }
    }
}
