//! The variables of a model and where each lies in the packed state.
//!
//! A variable that nothing reads takes no room: what is written to it is dropped. So the state of a scenario holds only
//! what can make a difference in it.

use std::collections::BTreeMap;

/// A register of a kernel thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Local {
    /// Where the thread is.
    Pc,
    /// The page-table entry last read or taken out.
    Pte,
    /// The entry to be stored.
    New,
    /// `force_flush`.
    ForceFlush,
    /// `nr_changed` is not 0.
    Changed,
    /// The rmap of this entry is removed later.
    DelayRmap,
    /// The gather's range: one bit for each virtual page.
    Range,
    /// The gather covers the whole address space.
    FullMm,
    /// The gather has tables to free.
    FreedTables,
    /// The gather's pages: one bit for each slot.
    Queued,
    /// Those of them whose rmap is still to be removed.
    Delayed,
    /// `tlb_ubc.flush_required`.
    UbcRequired,
    /// `tlb_ubc.writable`.
    UbcWritable,
    /// User CPUs that have not answered this thread's IPI; part of the CPUs' columns.
    Pending(u8),
    /// Per-PTE lazy MMU: invalidations in the batch of the CPU where the thread began (0) or of the one it went to (1): one
    /// bit for each virtual page.
    LazyBatch(u8),
    /// The thread went on on another CPU.
    Moved,
    /// Multicalls of a lazy-MMU section: the entry that is to be stored at a virtual page; 0 if none is.
    Multicall(u8),
    /// arm64: virtual pages whose invalidations are on their way: one bit for each.
    Tlbi,
    /// The generation of the flush that is on its way.
    FlushGen,
    /// The generation when the flush was deferred.
    DeferGen,
    /// `tlb_ubc.arch.cpumask`: a user CPU is in it.
    BatchMask(u8),
    /// The pending count that `flush_tlb_batched_pending` read.
    BatchPending,
    /// The flushed count that it read.
    BatchFlushed,
    /// Pages on the operation's list: one bit for each frame.
    Listed,
    /// The frame allocated.
    NewFrame,
    /// page_mkclean found an entry to clean.
    Cleaned,
    /// The range tracked by wp_shared_mapping_range.
    Tracked,
    /// Ghost: the entry taken out was dirty and nobody else knows yet: its frame + 1.
    Hold,
    /// Ghost: the dirty flag is taken, the content not yet written: its frame + 1.
    Writing,
    /// Ghost: what was copied and is to be replaced by the copy: its frame + 1.
    Copying,
    /// Ghost: virtual pages that the thread has promised something about and has come by, and that nobody has given back
    /// since what it took away.
    Visited,
    /// The thread has a KSM page: [`Local::NewFrame`].
    Merging,
    /// The migration entries made by this thread: one bit for each virtual page.
    Migrated,
    /// The PTE table that the thread has mapped (and locked, unless it walks without locks) + 1.
    Walk,
    /// The table that it took out of the tree to free it later + 1.
    Aside,
    /// The tables that its gather has to free: one bit for each.
    Tables,
}

/// A variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Var {
    /// Always 1, so that no state is all zeros.
    One,
    /// A page-table entry, by virtual page; the format is in [`super::pte`].
    Pte(u8),
    /// A TLB entry, by CPU and slot: `001` read-only, `011` writable, `111` writable and dirty.
    Tlb(u8, u8),
    /// PG_dirty, by frame.
    Dirty(u8),
    /// How often it is mapped.
    Mapcount(u8),
    /// References.
    Refs(u8),
    /// Those of them that write faults hold while they copy it.
    Copied(u8),
    /// The folio lock.
    FolioLock(u8),
    /// MADV_FREE took it.
    Lazyfree(u8),
    /// KSM made it one that nobody writes.
    Ksm(u8),
    /// PageAnonExclusive was taken from it.
    NotExclusive(u8),
    /// It is in the page cache (of a file), or in the swap cache (anonymous).
    Cached(u8),
    /// It is on the LRU list, so that somebody can isolate it.
    Lru(u8),
    /// Ghost: its content is newer than what was written out.
    Newer(u8),
    /// Ghost: it was stored to while it was being copied.
    Late(u8),
    /// Ghost: MADV_FREE returned, so that stores from now on must survive.
    Kept(u8),
    /// Ghost: the thread whose MADV_FREE gave the content up last, + 1.
    Freer(u8),
    /// Ghost, by virtual page: an operation that unmaps it has returned.
    Unmapped(u8),
    /// Ghost, by virtual page: an operation that write-protects it has returned.
    Protected(u8),
    /// The page-table lock of a PTE table.
    Ptl(u8),
    /// The page-table lock of a PMD table, by address space.
    Pml(u8),
    /// `mmap_lock`: readers.
    MmapReaders(u8),
    /// `mmap_lock`: a writer.
    MmapWriter(u8),
    /// The VMA's lock: readers.
    VmaReaders(u8),
    /// The VMA's lock: a writer.
    VmaWriter(u8),
    /// The VMA of this virtual page is out of the tree.
    VmaGone(u8),
    /// The VMA of this virtual page has VM_WRITE.
    VmaWrite(u8),
    /// The VMA of this virtual page allows nothing (`PROT_NONE`): entries of it are protnone.
    VmaNone(u8),
    /// `i_mmap_rwsem` and the anon_vma lock: readers.
    RmapReaders,
    /// Likewise: a writer.
    RmapWriter,
    /// `mm->tlb_flush_pending`.
    FlushPending(u8),
    /// `mm->tlb_flush_batched`: pending.
    BatchPending(u8),
    /// `mm->tlb_flush_batched`: flushed.
    BatchFlushed(u8),
    /// `mm->context.tlb_gen`.
    TlbGen(u8),
    /// All generations up to this one are flushed.
    GenCompleted(u8),
    /// The generation that will have done what is outstanding: of the address space, a VMA or a table.
    DeferGen(u8),
    /// Ghost, by virtual page: the generation that covers the last right taken from its entry.
    PageGen(u8),
    /// Ghost: the largest generation whose flush has returned.
    FlushedGen,
    /// By user CPU: where it is in a switch or in the handler of an IPI.
    CpuStep(u8),
    /// By user CPU: the generation that it has just read.
    CpuNote(u8),
    /// By user CPU: `cpu_tlbstate.loaded_mm`.
    LoadedMm(u8),
    /// By user CPU: CR3 is that of the address space.
    Cr3(u8),
    /// By user CPU: `is_lazy`.
    IsLazy(u8),
    /// By user CPU: its bit in `mm_cpumask`.
    InMask(u8),
    /// By user CPU: the generation up to which its slot is flushed.
    CpuGen(u8),
    /// By user CPU: its bit in `tlb_flush_batched_cpumask`.
    BatchedCpu(u8),
    /// By user CPU, ghost: it answered an IPI and neither flushed nor noted that it must.
    Missed(u8),
    /// The upper entry of a PTE table's 2 MiB: the table + 1.
    Pmd(u8),
    /// The table was freed, as the hardware sees it.
    TableFreed(u8),
    /// It was freed without waiting for those who walk without locks.
    TableReused(u8),
    /// Two address spaces have the table.
    Shared(u8),
    /// A paging-structure entry, by CPU and number: an upper entry that it has cached.
    Psc(u8, u8),
    /// The part of a VMA that begins with this virtual page (`World::part_of`) is out of the reverse map (`unlink_file_vma()`,
    /// `unlink_anon_vmas()`).
    Unlinked(u8),
    /// A register of a thread.
    Thread(u8, Local),
    /// What was seen to go wrong at an event, one bit for each invariant that is checked at events.
    Seen,
}

/// A variable's number, in the order of their first use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VarId(pub u16);

/// Where a variable lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Field {
    /// The word.
    pub word: u8,
    /// The lowest bit.
    pub shift: u8,
    /// The bits, from bit 0 on; 0: the variable takes no room.
    pub mask: u64,
}

impl Field {
    /// Its value.
    #[inline]
    pub fn get<const W: usize>(self, state: &[u64; W]) -> u64 {
        (state[usize::from(self.word)] >> self.shift) & self.mask
    }

    /// Stores a value, whose upper bits are cut off.
    #[inline]
    pub fn set<const W: usize>(self, state: &mut [u64; W], value: u64) {
        let word = &mut state[usize::from(self.word)];
        *word = *word & !(self.mask << self.shift) | (value & self.mask) << self.shift;
    }

    /// Its bits in place.
    pub fn bits<const W: usize>(self) -> [u64; W] {
        let mut words = [0; W];
        self.set(&mut words, u64::MAX);
        words
    }
}

/// The variables known so far.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    ids: BTreeMap<Var, VarId>,
    all: Vec<Var>,
    is_read: Vec<bool>,
}

impl Vars {
    /// The number of a variable that is written.
    pub fn write(&mut self, var: Var) -> VarId {
        if let Some(id) = self.ids.get(&var) {
            return *id;
        }
        let id = VarId(self.all.len() as u16);
        self.ids.insert(var, id);
        self.all.push(var);
        self.is_read.push(false);
        id
    }

    /// The number of a variable whose value matters.
    pub fn read(&mut self, var: Var) -> VarId {
        let id = self.write(var);
        self.is_read[usize::from(id.0)] = true;
        id
    }

    /// Nobody asks for its value any more.
    pub fn forget(&mut self, id: VarId) {
        self.is_read[usize::from(id.0)] = false;
    }

    /// Whether anything asks for its value.
    pub fn is_read(&self, var: Var) -> bool {
        self.ids.get(&var).is_some_and(|id| self.is_read[usize::from(id.0)])
    }

    /// The variables in the order of their numbers.
    pub fn all(&self) -> &[Var] {
        &self.all
    }

    /// The number of a variable that is known.
    pub fn find(&self, var: Var) -> Option<VarId> {
        self.ids.get(&var).copied()
    }

    /// Gives each variable that is read its place; `width` says how many bits it takes. Those of one CPU lie together in
    /// a column, which is within one word. Returns the fields, the columns and the number of words.
    pub fn place(&self, users: u8, width: impl Fn(Var) -> u32) -> (Vec<Field>, Vec<Field>, usize) {
        let mut fields = vec![Field::default(); self.all.len()];
        let mut used: Vec<u32> = Vec::new();
        let mut reserve = |bits: u32| {
            let word = used.iter().position(|taken| taken + bits <= 64).unwrap_or_else(|| {
                used.push(0);
                used.len() - 1
            });
            used[word] += bits;
            (word as u8, (used[word] - bits) as u8)
        };
        let takes_room = |index: usize| self.is_read[index] && width(self.all[index]) > 0;
        let mut columns = Vec::new();
        for cpu in 0..users {
            let members: Vec<usize> =
                (0..self.all.len()).filter(|i| takes_room(*i) && cpu_of(self.all[*i]) == Some(cpu)).collect();
            let total: u32 = members.iter().map(|i| width(self.all[*i])).sum();
            if total > 64 {
                // Not one column: these CPUs cannot be sorted, but all else works.
                for index in members {
                    let bits = width(self.all[index]);
                    let (word, shift) = reserve(bits);
                    fields[index] = Field { word, shift, mask: ones(bits) };
                }
                continue;
            }
            let (word, mut shift) = reserve(total);
            columns.push(Field { word, shift, mask: ones(total) });
            for index in members {
                let bits = width(self.all[index]);
                fields[index] = Field { word, shift, mask: ones(bits) };
                shift += bits as u8;
            }
        }
        if columns.len() != usize::from(users) {
            columns.clear();
        }
        let mut rest: Vec<usize> =
            (0..self.all.len()).filter(|i| takes_room(*i) && cpu_of(self.all[*i]).is_none()).collect();
        rest.sort_by_key(|i| std::cmp::Reverse(width(self.all[*i])));
        for index in rest {
            let bits = width(self.all[index]);
            let (word, shift) = reserve(bits);
            fields[index] = Field { word, shift, mask: ones(bits) };
        }
        (fields, columns, used.len())
    }
}

/// The user CPU to whose column a variable belongs.
pub fn cpu_of(var: Var) -> Option<u8> {
    match var {
        Var::Tlb(cpu, _)
        | Var::Psc(cpu, _)
        | Var::Thread(_, Local::Pending(cpu) | Local::BatchMask(cpu))
        | Var::CpuStep(cpu)
        | Var::CpuNote(cpu)
        | Var::LoadedMm(cpu)
        | Var::Cr3(cpu)
        | Var::IsLazy(cpu)
        | Var::InMask(cpu)
        | Var::CpuGen(cpu)
        | Var::BatchedCpu(cpu)
        | Var::Missed(cpu) => Some(cpu),
        _ => None,
    }
}

/// That many low bits set.
pub const fn ones(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Bits that a number up to `max` takes.
pub const fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}
