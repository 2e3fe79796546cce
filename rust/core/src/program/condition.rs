//! Conditions of `when`: tests on the frame, combined by not, all and any.

use super::names::named_enum;

named_enum! {
    /// A single test; `docs/steps.md` section 4 gives the meaning of each.
    Test {
        /// `pte` is present (P or protnone).
        Present = "present",
        /// `pte` is none.
        None = "none",
        /// `pte` is a swap entry.
        Swap = "swap",
        /// `pte` is a migration entry.
        Migration = "migration",
        /// `pte` is protnone.
        Protnone = "protnone",
        /// `pte` has D.
        Dirty = "dirty",
        /// `pte` has A.
        Young = "young",
        /// `pte` has W.
        Write = "write",
        /// `pte` has uffd-wp.
        UffdWp = "uffd_wp",
        /// A TLB may hold `pte`.
        PteAccessible = "pte_accessible",
        /// x86's rule: the change from `pte` to `new_pte` needs a flush.
        PteNeedsFlush = "pte_needs_flush",
        /// The series' rule: the change takes a right away.
        PteDemoted = "pte_demoted",
        /// `pte` and `new_pte` differ.
        PteChanged = "pte_changed",
        /// The page is anonymous.
        Anon = "anon",
        /// The page belongs to a file.
        FileBacked = "file_backed",
        /// The page is a zero page.
        ZeroPage = "zero_page",
        /// The page is mapped somewhere.
        PageMapped = "page_mapped",
        /// The page is dirty.
        PageDirty = "page_dirty",
        /// The page may be dropped instead of swapped.
        PageLazyfree = "page_lazyfree",
        /// The page is in the swap cache.
        PageInSwapCache = "page_in_swap_cache",
        /// The page is in the swap cache, and swap entries name its slot too.
        PageSwapShared = "page_swap_shared",
        /// The page is huge.
        PageHuge = "page_huge",
        /// The page is mapped more than once.
        PageShared = "page_shared",
        /// KSM made the page one that several may map, and nobody writes.
        PageKsm = "page_ksm",
        /// The page is anonymous, and was not shared since it was made or written last (`PageAnonExclusive`).
        PageExclusive = "page_exclusive",
        /// The page is on the LRU, and does not wait in a CPU's batch.
        PageLru = "page_lru",
        /// A batch on its way to the LRU, or another fault, has a reference for which a write copies the page.
        PageHeld = "page_held",
        /// The page belongs to shared memory.
        PageShmem = "page_shmem",
        /// The VMA has VM_SHARED.
        VmaShared = "vma_shared",
        /// The VMA has no file.
        VmaAnonymous = "vma_anonymous",
        /// The VMA has VM_WRITE.
        VmaWritable = "vma_writable",
        /// The VMA has VM_DONTCOPY.
        VmaDontcopy = "vma_dontcopy",
        /// fork must copy its page tables.
        VmaNeedsCopy = "vma_needs_copy",
        /// mprotect changes the VMA's flags.
        ProtChanged = "prot_changed",
        /// Not VM_SHARED: writes copy.
        CowMapping = "cow_mapping",
        /// Huge pages are allowed here.
        VmaHugeAllowed = "vma_huge_allowed",
        /// VMAs were detached.
        HaveVmas = "have_vmas",
        /// The range covers all 2 MiB of the huge entry.
        WholePmd = "whole_pmd",
        /// The table must be flushed under its lock.
        ForceFlush = "force_flush",
        /// This entry's rmap is delayed.
        DelayRmap = "delay_rmap",
        /// Something was changed in this VMA.
        AnyChanged = "any_changed",
        /// The fault is a write.
        WriteFault = "write_fault",
        /// The fault is an instruction fetch.
        ExecFault = "exec_fault",
        /// A huge page fits here.
        HugeFaultFits = "huge_fault_fits",
        /// A huge page is mapped here.
        PmdIsHuge = "pmd_is_huge",
        /// hugetlb: another address space has the current table too.
        PmdShared = "pmd_shared",
        /// The upper entry at the address names a table or a huge page.
        PmdPresent = "pmd_present",
        /// The mm runs elsewhere too.
        ShouldDeferFlush = "should_defer_flush",
        /// Another operation has flushes pending in this mm.
        MmTlbFlushNested = "mm_tlb_flush_nested",
        /// Some operation has flushes pending in this mm.
        MmTlbFlushPending = "mm_tlb_flush_pending",
        /// mremap moves.
        Moves = "moves",
        /// mremap shrinks.
        Shrinks = "shrinks",
        /// mremap grows in place.
        GrowsInPlace = "grows_in_place",
        /// mremap replaces something at the destination.
        UnmapsNew = "unmaps_new",
        /// mremap keeps the old VMA.
        CopiesDontunmap = "copies_dontunmap",
        /// mmap populates.
        Populates = "populates",
        /// The reclaim was asked for by a user.
        Proactive = "proactive",
    }
}

/// A condition as a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// One test.
    Test(Test),
    /// The opposite.
    Not(Box<Condition>),
    /// All of them hold (none: true).
    All(Vec<Condition>),
    /// At least one holds (none: false).
    Any(Vec<Condition>),
}

impl Condition {
    /// Its value, given the value of each test.
    pub fn eval(&self, test: &mut impl FnMut(Test) -> bool) -> bool {
        match self {
            Self::Test(t) => test(*t),
            Self::Not(c) => !c.eval(test),
            Self::All(list) => list.iter().all(|c| c.eval(test)),
            Self::Any(list) => list.iter().any(|c| c.eval(test)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_follow_logic() {
        let dirty = Condition::Test(Test::Dirty);
        let anon = Condition::Test(Test::Anon);
        let mut only_dirty = |t| t == Test::Dirty;
        assert!(dirty.eval(&mut only_dirty));
        assert!(!anon.eval(&mut only_dirty));
        assert!(Condition::Not(Box::new(anon.clone())).eval(&mut only_dirty));
        assert!(!Condition::All(vec![dirty.clone(), anon.clone()]).eval(&mut only_dirty));
        assert!(Condition::Any(vec![dirty, anon]).eval(&mut only_dirty));
        assert!(Condition::All(vec![]).eval(&mut only_dirty));
        assert!(!Condition::Any(vec![]).eval(&mut only_dirty));
    }

    #[test]
    fn each_name_parses_back() {
        for t in Test::ALL {
            assert_eq!(Test::parse(t.name()), Some(*t));
        }
    }
}
