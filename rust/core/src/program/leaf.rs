//! The leaf steps: what one kernel-level action is called, what it takes, and where it may stand.
//!
//! `docs/steps.md` gives the meaning of each; the machine has an arm for each. The enum is closed: an unknown step is an
//! error of the plan, never a silent no-op.

use super::names::named_enum;

named_enum! {
    /// A lock that a program can take. Operations run one after the other in replay, so that a lock changes nothing
    /// there; validation checks that programs pair them.
    LockName {
        /// `mm->mmap_lock`.
        MmapLock = "mmap_lock",
        /// The per-VMA lock (`vma_start_write`, `vma_start_read`).
        VmaLock = "vma_lock",
        /// The page-table lock of the current PTE table.
        Ptl = "ptl",
        /// The page-table lock of mremap's destination table.
        NewPtl = "new_ptl",
        /// The lock of the current PMD table.
        Pml = "pml",
        /// The lock of mremap's destination PMD table.
        NewPml = "new_pml",
        /// `i_mmap_rwsem` or the anon_vma's root lock.
        RmapLock = "rmap_lock",
        /// The folio lock.
        FolioLock = "folio_lock",
    }
}

named_enum! {
    /// How a lock is taken.
    LockMode {
        /// Shared.
        Read = "read",
        /// Exclusive.
        Write = "write",
    }
}

named_enum! {
    /// Which of the operation's ranges becomes the frame's range.
    RangeArg {
        /// The range that the call names.
        Args = "args",
        /// mremap: the part behind the new length.
        Tail = "tail",
        /// mremap: the destination.
        New = "new",
        /// mremap: the source.
        Old = "old",
    }
}

named_enum! {
    /// What `flush_tlb_range` covers.
    FlushScope {
        /// The operation's range within the VMA.
        Vma = "vma",
        /// The part of the range that the current table maps.
        Table = "table",
        /// mremap: the current extent, at its old address.
        Extent = "extent",
        /// The 2 MiB around the address.
        Pmd = "pmd",
        /// The page at the address (`flush_tlb_page`).
        Page = "page",
        /// The same page, as a range of one.
        Entry = "entry",
    }
}

named_enum! {
    /// Where `pte_modify` takes the new protection from.
    ProtSource {
        /// The VMA's `vm_page_prot`.
        Vma = "vma",
        /// `PAGE_NONE`: a NUMA hint.
        None = "none",
    }
}

named_enum! {
    /// When `pte_mkwrite` makes the new entry writable.
    MkWriteRule {
        /// In any case.
        Always = "always",
        /// `can_change_pte_writable()` of mm/mprotect.c (since 6.1).
        CanChangePteWritable = "can_change_pte_writable",
        /// The `dirty_accountable` rule of kernels before 6.1.
        DirtyAccountable = "dirty_accountable",
    }
}

/// Where a step may stand, checked by validation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// Anywhere.
    Nothing,
    /// A current entry (for_each_pte, for_each_mapping, a huge PMD, the `fault` program), with ptl or pml held.
    Entry,
    /// A current entry; no lock needed.
    EntryUnlocked,
    /// A current page.
    Page,
    /// A current VMA.
    Vma,
    /// A page-table lock held.
    TableLock,
    /// An open mmu_gather.
    Gather,
    /// An open mmu_gather, a current entry and its lock.
    GatherEntry,
}

macro_rules! leaves {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $needs:ident, [$($program:literal),*];)+) => {
        /// A leaf step. Steps without arguments are in the table, those with arguments carry them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Leaf {
            $($(#[doc = $doc])+ $variant,)+
            /// Takes a lock.
            Lock {
                /// Which.
                lock: LockName,
                /// Shared or exclusive.
                mode: LockMode,
            },
            /// Drops a lock.
            Unlock {
                /// Which.
                lock: LockName,
            },
            /// Turns an exclusive lock into a shared one.
            Downgrade {
                /// Which.
                lock: LockName,
            },
            /// Chooses the range to work on.
            SelectRange {
                /// Which.
                range: RangeArg,
            },
            /// Takes another range and other rights as the operation's arguments, and works on that range.
            SelectRangeAt {
                /// The first byte, at a page's start.
                addr: u64,
                /// Bytes, at least one.
                len: u64,
                /// New rights (1 read, 2 write, 4 execute); none changes no rights.
                prot: Option<u32>,
            },
            /// Gives `new_pte` another protection.
            PteModify {
                /// Which.
                prot: ProtSource,
            },
            /// Makes `new_pte` writable.
            PteMkwrite {
                /// On which condition.
                only_if: MkWriteRule,
            },
            /// Flushes a range at once.
            FlushTlbRange {
                /// What it covers.
                range: FlushScope,
            },
            /// Opens the mmu_gather.
            TlbGatherMmu {
                /// The whole address space goes (`tlb_gather_mmu_fullmm`).
                fullmm: bool,
                /// A gather without a page list.
                light: bool,
            },
            /// Maps the file page at the address.
            SetPteFile {
                /// For a write fault on a shared mapping.
                write: bool,
            },
        }

        /// Steps without arguments: name, leaf.
        pub(crate) const PLAIN_LEAVES: &[(&str, Leaf)] = &[$(($name, Leaf::$variant)),+];

        impl Leaf {
            /// The step's name, as the kernel spells it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Lock { .. } => "lock",
                    Self::Unlock { .. } => "unlock",
                    Self::Downgrade { .. } => "downgrade",
                    Self::SelectRange { .. } => "select_range",
                    Self::SelectRangeAt { .. } => "select_range_at",
                    Self::PteModify { .. } => "pte_modify",
                    Self::PteMkwrite { .. } => "pte_mkwrite",
                    Self::FlushTlbRange { .. } => "flush_tlb_range",
                    Self::TlbGatherMmu { .. } => "tlb_gather_mmu",
                    Self::SetPteFile { .. } => "set_pte_file",
                }
            }

            /// What must be there where the step stands.
            pub(crate) const fn needs(self) -> Needs {
                match self {
                    $(Self::$variant => Needs::$needs,)+
                    Self::Lock { .. } | Self::Unlock { .. } | Self::Downgrade { .. } | Self::SelectRange { .. }
                    | Self::SelectRangeAt { .. } | Self::TlbGatherMmu { .. } => Needs::Nothing,
                    Self::PteModify { .. } | Self::PteMkwrite { .. } | Self::SetPteFile { .. } => Needs::Entry,
                    Self::FlushTlbRange { range } => match range {
                        FlushScope::Vma => Needs::Vma,
                        FlushScope::Table | FlushScope::Extent => Needs::TableLock,
                        FlushScope::Pmd | FlushScope::Page | FlushScope::Entry => Needs::EntryUnlocked,
                    },
                }
            }

            /// The programs in which the step has a meaning; empty for all.
            pub(crate) const fn programs(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($program),*],)+
                    Self::SetPteFile { .. } => &["fault"],
                    Self::SelectRangeAt { .. } => &["custom"],
                    _ => &[],
                }
            }
        }
    };
}

leaves! {
    /// One more operation has flushes pending for this mm.
    IncTlbFlushPending = "inc_tlb_flush_pending", Nothing, [];
    /// One less.
    DecTlbFlushPending = "dec_tlb_flush_pending", Nothing, [];
    /// Splits VMAs at the ends of the range and detaches those inside.
    VmsGatherMunmapVmas = "vms_gather_munmap_vmas", Nothing, ["mmap", "munmap", "mremap"];
    /// Inserts the new VMA.
    MmapRegion = "mmap_region", Nothing, ["mmap"];
    /// Splits the VMA to the range, sets its flags and merges it.
    MprotectFixup = "mprotect_fixup", Vma, ["mprotect"];
    /// Opens an arch lazy-MMU section.
    ArchEnterLazyMmuMode = "arch_enter_lazy_mmu_mode", TableLock, [];
    /// Closes it; the batch is drained.
    ArchLeaveLazyMmuMode = "arch_leave_lazy_mmu_mode", TableLock, [];
    /// Flushes what reclaim left unflushed in this mm.
    FlushTlbBatchedPending = "flush_tlb_batched_pending", TableLock, [];
    /// Takes the entry out, atomically.
    PtepGetAndClear = "ptep_get_and_clear", Entry, [];
    /// Empties a not-present entry.
    PteClear = "pte_clear", Entry, [];
    /// Takes write permission from `new_pte`.
    PteWrprotect = "pte_wrprotect", Entry, [];
    /// Takes D from `new_pte`.
    PteMkclean = "pte_mkclean", Entry, [];
    /// Takes A from `new_pte`.
    PteMkold = "pte_mkold", Entry, [];
    /// Takes soft-dirty from `new_pte`.
    PteClearSoftDirty = "pte_clear_soft_dirty", Entry, [];
    /// Stores `new_pte`.
    SetPteAt = "set_pte_at", Entry, [];
    /// Clears W in place.
    PtepSetWrprotect = "ptep_set_wrprotect", Entry, [];
    /// Clears A in place, without a flush.
    PtepClearYoung = "ptep_clear_young", Entry, [];
    /// Takes the entry out and flushes its page if it was accessible.
    PtepClearFlush = "ptep_clear_flush", Entry, [];
    /// Counts a changed entry.
    CountChanged = "count_changed", Nothing, [];
    /// The table must be flushed before its lock is dropped.
    SetForceFlush = "set_force_flush", Nothing, [];
    /// The rmap of this page goes after the flush.
    SetDelayRmap = "set_delay_rmap", Entry, [];
    /// Flushes the whole address space.
    FlushTlbMm = "flush_tlb_mm", Nothing, [];
    /// Records a removed entry in the gather.
    TlbRemoveTlbEntry = "tlb_remove_tlb_entry", GatherEntry, [];
    /// Records a changed entry in the gather.
    TlbFlushPteRange = "tlb_flush_pte_range", GatherEntry, [];
    /// Records a removed huge entry.
    TlbRemovePmdTlbEntry = "tlb_remove_pmd_tlb_entry", GatherEntry, [];
    /// Records a changed huge entry.
    TlbFlushPmdRange = "tlb_flush_pmd_range", GatherEntry, [];
    /// Queues the page to be freed after the flush.
    TlbRemovePage = "tlb_remove_page", GatherEntry, [];
    /// Flushes what is gathered; frees nothing.
    TlbFlushMmuTlbonly = "tlb_flush_mmu_tlbonly", Gather, [];
    /// Removes the delayed rmaps.
    TlbFlushRmaps = "tlb_flush_rmaps", Gather, [];
    /// Flushes, then frees tables and pages.
    TlbFlushMmu = "tlb_flush_mmu", Gather, [];
    /// Ends the gather: flush (full if nested), free.
    TlbFinishMmu = "tlb_finish_mmu", Gather, [];
    /// Frees the page tables of the VMAs just walked.
    FreePgtables = "free_pgtables", Gather, ["mmap", "munmap", "mremap", "exit_mmap"];
    /// Takes the current PTE table out of the tree, if the walk came to its end and it is empty.
    TryGetAndClearPmd = "try_get_and_clear_pmd", TableLock, ["madvise_dontneed"];
    /// Queues the table that was taken out to be freed after the flush.
    FreePte = "free_pte", Gather, ["madvise_dontneed"];
    /// Notes that a flush for this VMA or table is outstanding.
    NoteDeferredFlush = "note_deferred_flush", TableLock, [];
    /// Takes over a flush that another operation has outstanding here.
    CheckDeferredFlush = "check_deferred_flush", Gather, [];
    /// All generations so far are flushed.
    MarkTlbGenDone = "mark_tlb_gen_done", Nothing, [];
    /// Removes the mapping from the page's rmap.
    PageRemoveRmap = "page_remove_rmap", EntryUnlocked, [];
    /// Drops the mapping's reference.
    PutPage = "put_page", EntryUnlocked, [];
    /// Marks the page dirty.
    SetPageDirty = "set_page_dirty", Page, [];
    /// Marks the page clean.
    ClearPageDirty = "clear_page_dirty", Page, [];
    /// Defers the flush of a cleared entry.
    SetTlbUbcFlushPending = "set_tlb_ubc_flush_pending", Entry, [];
    /// Does the deferred flush of this task.
    TryToUnmapFlush = "try_to_unmap_flush", Nothing, [];
    /// Does it if a dirty entry is among those deferred.
    TryToUnmapFlushDirty = "try_to_unmap_flush_dirty", Nothing, [];
    /// Puts the page on the operation's list.
    IsolateFolio = "isolate_folio", Entry, ["madvise_pageout"];
    /// Gives the page a swap slot.
    AddToSwap = "add_to_swap", Page, [];
    /// Stores a swap entry for the page.
    SetSwapPte = "set_swap_pte", Entry, [];
    /// Writes the page out.
    Pageout = "pageout", Page, [];
    /// Frees the page if nothing maps it and it is clean.
    RemoveMappingAndFree = "remove_mapping_and_free", Page, [];
    /// Stores a migration entry for the page.
    SetMigrationEntry = "set_migration_entry", Entry, ["migrate_pages"];
    /// Copies the page to a new one.
    MigrateCopy = "migrate_copy", Page, ["migrate_pages"];
    /// Replaces migration entries by the new page.
    RemoveMigrationPtes = "remove_migration_ptes", Page, ["migrate_pages"];
    /// Takes a huge entry out.
    PmdpHugeGetAndClear = "pmdp_huge_get_and_clear", Entry, [];
    /// Makes a huge entry not present for the hardware and flushes it.
    PmdpInvalidate = "pmdp_invalidate", Entry, [];
    /// The same, without a flush.
    PmdpInvalidateAd = "pmdp_invalidate_ad", Entry, [];
    /// Stores `new_pte` as the huge entry.
    SetPmdAt = "set_pmd_at", Entry, [];
    /// Replaces a huge entry by a table.
    SplitHugePmd = "split_huge_pmd", Entry, [];
    /// Splits a huge page that nobody else maps or holds into small ones, and so its entry.
    SplitFolio = "split_folio", Entry, ["madvise_free", "madvise_cold", "madvise_pageout"];
    /// Takes a PTE table out of the tree and flushes its range.
    PmdpCollapseFlush = "pmdp_collapse_flush", Entry, ["collapse_huge_page"];
    /// hugetlb: the upper entry that names a shared table is cleared.
    PudClear = "pud_clear", TableLock, [];
    /// hugetlb: one user less of the table just unhooked.
    PtdescPmdPtsDec = "ptdesc_pmd_pts_dec", TableLock, [];
    /// hugetlb: records all that is behind the current table.
    TlbFlushPudRange = "tlb_flush_pud_range", Gather, [];
    /// Waits for all who walk page tables without locks (`tlb_remove_table_sync_one()`); flushes nothing.
    TlbRemoveTableSyncOne = "tlb_remove_table_sync_one", Nothing, [];
    /// The table taken out of the tree is freed once all who walk without locks are through (RCU).
    PteFreeDefer = "pte_free_defer", Nothing, [];
    /// Copies the small pages into a new huge one.
    CollapseCopy = "collapse_copy", Nothing, ["collapse_huge_page"];
    /// Maps the new huge page.
    SetPmdHuge = "set_pmd_huge", Entry, ["collapse_huge_page"];
    /// Allocates the tables of the address.
    PteAlloc = "pte_alloc", Nothing, ["fault"];
    /// Maps a new huge page.
    DoHugePmdAnonymousPage = "do_huge_pmd_anonymous_page", Entry, ["fault"];
    /// Allocates a zeroed page.
    AllocAnonPage = "alloc_anon_page", Nothing, ["fault"];
    /// Copies the old page's content.
    CopyUserPage = "copy_user_page", Page, ["fault"];
    /// Looks the file page up, or makes it.
    FindGetPage = "find_get_page", Nothing, ["fault"];
    /// Maps the new anonymous page.
    SetPteAnon = "set_pte_anon", Entry, ["fault"];
    /// Maps the zero page.
    SetPteZero = "set_pte_zero", Entry, ["fault"];
    /// Maps the file pages around the address.
    MapAround = "map_around", Entry, ["fault"];
    /// Makes the entry writable in place.
    WpPageReuse = "wp_page_reuse", Entry, ["fault"];
    /// Sets A (and D) in place.
    PtepSetAccessFlags = "ptep_set_access_flags", Entry, ["fault"];
    /// Brings the page back from its swap slot.
    SwapIn = "swap_in", Nothing, ["fault"];
    /// Maps it.
    SetPteSwapIn = "set_pte_swap_in", Entry, ["fault"];
    /// Makes a NUMA-hinted entry present again.
    SetPteNuma = "set_pte_numa", Entry, ["fault"];
    /// Takes a reference of the page that is to be copied.
    FolioGet = "folio_get", Page, ["fault"];
    /// Drops it.
    FolioPut = "folio_put", Page, ["fault"];
    /// Drops the reference that the entry of the page that was copied had.
    PutOldPage = "put_old_page", Page, ["fault"];
    /// Makes the child's mm.
    DupMm = "dup_mm", Nothing, ["fork"];
    /// Copies the VMA into the child.
    DupVma = "dup_vma", Vma, ["fork"];
    /// Makes the child's table.
    PteAllocChild = "pte_alloc_child", TableLock, ["fork"];
    /// Adds the child's mapping to the page.
    PageDupRmap = "page_dup_rmap", Entry, ["fork"];
    /// Stores the child's entry.
    SetPteAtChild = "set_pte_at_child", Entry, ["fork"];
    /// Shares a swap or migration entry with the child.
    SwapDuplicate = "swap_duplicate", Entry, ["fork"];
    /// Stores the child's huge entry.
    SetPmdAtChild = "set_pmd_at_child", Entry, ["fork"];
    /// Grows the VMA in place.
    VmaExpand = "vma_expand", Nothing, ["mremap"];
    /// Makes the VMA at the destination.
    CopyVma = "copy_vma", Nothing, ["mremap"];
    /// Keeps the old VMA, empty.
    VmaDontunmap = "vma_dontunmap", Nothing, ["mremap"];
    /// Moves a whole PTE table.
    MoveNormalPmd = "move_normal_pmd", Entry, ["mremap"];
    /// Stores the moved entry at its new address.
    SetPteAtNew = "set_pte_at_new", Entry, ["mremap"];
    /// Moves a huge entry.
    MoveHugePmd = "move_huge_pmd", Entry, ["mremap"];
    /// Widens the tracked range by the entry's page.
    TrackFlushRange = "track_flush_range", Entry, ["wp_shared_mapping_range"];
    /// Flushes the tracked range, or the whole VMA's if nested.
    FlushTrackedRange = "flush_tracked_range", Vma, ["wp_shared_mapping_range"];
    /// Takes VM_SOFTDIRTY from the VMA.
    ClearVmaSoftDirty = "clear_vma_soft_dirty", Vma, ["clear_refs_soft_dirty"];
    /// Clears A and D in place.
    ClearYoungDirty = "clear_young_dirty", Entry, ["madvise_free", "madvise_cold"];
    /// The page may be dropped instead of swapped.
    MarkLazyfree = "mark_lazyfree", Page, ["madvise_free"];
    /// Takes PageAnonExclusive from the page: who writes has to look at the references from now on.
    FolioTryShareAnonRmap = "folio_try_share_anon_rmap", Page, [];
    /// Finds the KSM page of this content; the first page of the list becomes it.
    StableTreeSearch = "stable_tree_search", Page, ["ksm_merge"];
    /// Compares the page with the KSM page.
    PagesIdentical = "pages_identical", Page, ["ksm_merge"];
    /// Maps the KSM page, read-only.
    SetPteKsm = "set_pte_ksm", Entry, ["ksm_merge"];
}

/// The names of the steps that take arguments.
pub(crate) const LEAVES_WITH_ARGUMENTS: &[&str] = &[
    "lock",
    "unlock",
    "downgrade",
    "select_range",
    "select_range_at",
    "pte_modify",
    "pte_mkwrite",
    "flush_tlb_range",
    "tlb_gather_mmu",
    "set_pte_file",
];
