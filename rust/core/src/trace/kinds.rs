//! The closed lists of a recording: kinds of events and of flush records, flag bits, reserved values.
//!
//! Contract: numbers are part of the file format and never change their meaning; new kinds get new numbers.

/// A task index that stands for the idle task of whatever CPU (`swapper`).
pub const TASK_IDLE: u32 = u32::MAX;
/// A task index that stands for any kernel thread. Recordings do not tell kernel threads from programs: this is a
/// guess by name (see `tasks.rs`), and `meta.nr_kthread_names` counts how many names it took.
pub const TASK_KTHREAD: u32 = u32::MAX - 1;
/// A task index that stands for any user task outside the recording.
pub const TASK_OTHER: u32 = u32::MAX - 2;
/// An argument that is not known, or an index (task, name) that there is none of.
pub const NO_VALUE: u64 = u64::MAX;
/// `nr` of an event that is no system call.
pub const NO_NR: i32 = -1;
/// The `site` of an event whose callers are not recorded.
pub const NO_SITE: u32 = u32::MAX;
/// `pages` of a flush record that has no count (a handler that found nothing to do, a step that is no flush).
pub const NO_PAGES: i64 = i64::MIN;
/// `pages` of a full flush, as the kernel's tracepoint prints it.
pub const ALL_PAGES: i64 = -1;
/// `reason` of a flush record without one.
pub const NO_REASON: u8 = u8::MAX;
/// `mm` of a flush record whose address space is not known.
pub const NO_MM: u32 = u32::MAX;
/// `icpu` of a flush record whose initiating CPU is not known.
pub const NO_CPU: u16 = u16::MAX;

/// Event flag: happened in kernel mode (a fault inside a system call).
pub const KERNEL_MODE: u8 = 1;
/// Event flag: the call's enter was not recorded: `time_ns` is its exit and the arguments are 0.
pub const ENTER_UNSEEN: u8 = 1 << 1;
/// Event flag: the call's exit was not recorded: `ret` is 0 and `end_ns` the last time known.
pub const EXIT_UNSEEN: u8 = 1 << 2;
/// Event flag: the call returned an error (`ret` in -4095..=-1).
pub const FAILED: u8 = 1 << 3;
/// Event flag of a fork: the child is a thread of the same process (`CLONE_THREAD`).
pub const THREAD: u8 = 1 << 4;
/// Event flag of a fork: the child uses the parent's address space (`CLONE_VM`): threads and vfork.
pub const SHARES_MM: u8 = 1 << 5;

macro_rules! kinds {
    ($(#[$meta:meta])* $kind:ident { $($(#[$variant_meta:meta])* $variant:ident = $number:literal, $name:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $kind {
            $($(#[$variant_meta])* $variant = $number,)+
        }

        impl $kind {
            /// All kinds, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number in columns and files.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The kind of that number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name for people and for JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// What an event is. System calls keep their arguments raw in `a0..a5`, as the kernel got them, and their number in
    /// `nr`; the doc lines name them.
    EventKind {
        /// mmap(addr, len, prot, flags, fd, offset); ret = address. A scenario's fd is the file's name index.
        Mmap = 1, "mmap";
        /// munmap(addr, len).
        Munmap = 2, "munmap";
        /// mprotect(start, len, prot) or pkey_mprotect(start, len, prot, pkey).
        Mprotect = 3, "mprotect";
        /// mremap(old_addr, old_len, new_len, flags, new_addr); ret = address.
        Mremap = 4, "mremap";
        /// brk(end); ret = the end that holds now.
        Brk = 5, "brk";
        /// madvise(start, len, advice).
        Madvise = 6, "madvise";
        /// process_madvise(pidfd, vec, vlen, advice, flags): the ranges lie in memory and were not recorded.
        ProcessMadvise = 7, "process_madvise";
        /// msync(start, len, flags).
        Msync = 8, "msync";
        /// fork, vfork, clone(flags, stack, ...) or clone3(args, size), seen by the parent; ret = child's tid. `a5`, which
        /// none of them uses, is the child's task index ([`NO_VALUE`] if unknown). Flags THREAD and SHARES_MM.
        Fork = 9, "fork";
        /// execve(filename, argv, envp) or execveat; if it succeeded `a5` is the name index of the file.
        Exec = 10, "exec";
        /// exit(code): `end_ns` is the time of the task's [`Self::Exit`].
        ExitCall = 11, "exit_call";
        /// exit_group(code): `end_ns` is the time of the task's [`Self::Exit`].
        ExitGroup = 12, "exit_group";
        /// shmat(id, addr, flags); ret = address.
        Shmat = 13, "shmat";
        /// shmdt(addr).
        Shmdt = 14, "shmdt";
        /// remap_file_pages(start, size, prot, pgoff, flags).
        RemapFilePages = 15, "remap_file_pages";
        /// mlock(start, len) or mlock2(start, len, flags).
        Mlock = 16, "mlock";
        /// munlock(start, len).
        Munlock = 17, "munlock";
        /// mlockall(flags).
        Mlockall = 18, "mlockall";
        /// munlockall().
        Munlockall = 19, "munlockall";
        /// Any other system call, by its number in `nr`: mbind, migrate_pages, membarrier, ...
        OtherCall = 20, "other_call";

        /// A page fault: address, error_code (x86: 1 present, 2 write, 4 user, 16 fetch), ip (0 if only its symbol is
        /// known), name index of that symbol, name index of the address's symbol (then the address is 0).
        Fault = 32, "fault";
        /// A context switch on `cpu` from `task` to the task of index `a0`; `a1` = state of the one that leaves, as a
        /// letter (ASCII); `a2` = 1 if it was preempted (`R+`).
        Switch = 33, "switch";
        /// `task` moves to CPU `a0` from CPU `a1`; `cpu` is where that was decided.
        MigrateTask = 34, "migrate_task";
        /// `task` made the task of index `a0`, and no fork call of it was recorded.
        ProcessFork = 35, "process_fork";
        /// `task` is gone; `a0` = 1 if its process is too, 0 if not ([`NO_VALUE`] unknown). `end_ns` is its last switch.
        Exit = 36, "exit";
        /// `task` appears (an actor of a scenario) on `cpu`.
        TaskStart = 37, "task_start";

        /// One access per page: address of the first, number of pages in the span, stride in pages, 1 = write. What was
        /// asked for; the faults that it caused are events of their own where recorded.
        Access = 64, "access";
        /// Reclaim chose a page (`try_to_unmap_one`): address, mm, calls. `task` is who reclaimed. An input: which page the
        /// LRU gives is no question of TLB flushing.
        ReclaimPage = 65, "reclaim_page";
        /// A scenario's entry begins: step, iteration, name index of its text.
        StepBegin = 66, "step_begin";
        /// A scenario's entry ends: step, iteration; ret = its result.
        StepEnd = 67, "step_end";
        /// The step's mmap maps the file of name index `a0`; `a1` = 1 if shared.
        StepFile = 68, "step_file";
        /// Creates and fills a file: name index, pages.
        Mkfile = 69, "mkfile";
        /// Writes a file back: name index.
        Fsync = 70, "fsync";
        /// Sets a file's size: name index, pages.
        Ftruncate = 71, "ftruncate";
        /// Punches a hole into a file: name index, first page, pages.
        Fpunch = 72, "fpunch";
        /// A write to /proc/self/clear_refs: 1 (referenced bits) or 4 (soft-dirty bits).
        ClearRefs = 73, "clear_refs";
        /// Asks the memory cgroup to reclaim: pages.
        Creclaim = 74, "creclaim";
        /// `task` from now on waits for its turn spinning in user mode.
        ModeSpin = 75, "mode_spin";
        /// `task` from now on waits for its turn asleep (its CPU goes idle: lazy TLB).
        ModeSleep = 76, "mode_sleep";
        /// `task` moves to CPU `a0`.
        SetCpu = 77, "set_cpu";
        /// `task` waits for the end of the process of task index `a0`.
        Wait = 78, "wait";
        /// `task` runs once without touching its memory (`nop`, `getpid`, `nap`).
        Nop = 79, "nop";
    }
}

kinds! {
    /// What a flush record is. Only [`Self::TlbFlushEvent`] occurs in recordings by perf; the others are probes of the lab.
    FlushKind {
        /// The tracepoint `tlb:tlb_flush`: reason and pages.
        TlbFlushEvent = 1, "tlb_flush";
        /// `flush_tlb_mm_range`: one flush request: start, end, stride_shift, freed_tables, mask.
        MmRange = 2, "mm_range";
        /// `native_flush_tlb_multi`: remote CPUs are to be told: mask, gen, icpu, pages.
        Multi = 3, "multi";
        /// `flush_tlb_func` on `cpu`, for the request `gen` of CPU `icpu`; without pages: it was up to date already.
        Func = 4, "func";
        /// `arch_tlbbatch_flush`: one deferred flush of all that reclaim unmapped: mask.
        BatchFlush = 5, "batch_flush";
        /// `flush_tlb_batched_pending`: pending = mm->tlb_flush_batched (low half pending, high half flushed), count calls.
        BatchPending = 6, "batch_pending";
        /// `try_to_unmap_flush`, count calls.
        UnmapFlush = 7, "unmap_flush";
        /// `try_to_unmap_flush_dirty`, count calls.
        UnmapFlushDirty = 8, "unmap_flush_dirty";
        /// `tlb_gather_mmu`: pending at entry.
        Gather = 9, "gather";
        /// `tlb_gather_mmu_fullmm`: pending at entry.
        GatherFull = 10, "gather_full";
        /// `tlb_finish_mmu`: start, end, pending, gather_flags, count = page batches.
        Finish = 11, "finish";
        /// `tlb_flush_mmu` because batches ran full: as `Finish`.
        FlushMmu = 12, "flush_mmu";
        /// `ptep_clear_flush`: start = address.
        PtepClearFlush = 13, "ptep_clear_flush";
        /// `pmdp_huge_clear_flush`: start = address.
        PmdpClearFlush = 14, "pmdp_clear_flush";
        /// `pmdp_invalidate`: start = address.
        PmdpInvalidate = 15, "pmdp_invalidate";
        /// `move_page_tables`: start..end is the old range, `mask` the new address.
        MoveTables = 16, "move_tables";
        /// `exit_mmap` begins.
        ExitMmap = 17, "exit_mmap";
        /// `free_pgtables`.
        FreePgtables = 18, "free_pgtables";
    }
}

kinds! {
    /// How a flush record found the event that it belongs to (`op_event`).
    Attribution {
        /// Not at all: `op_event` is -1.
        Unknown = 0, "unknown";
        /// Inside a recorded call of the task: certain.
        Call = 1, "call";
        /// The task's latest event is this fault: inferred (an unrecorded call might have come between).
        Fault = 2, "fault";
        /// The task is exiting.
        Exit = 3, "exit";
        /// The context switch just before on this CPU.
        Switch = 4, "switch";
        /// The CPU obeyed: the operation of the one CPU that was sending then, inferred.
        Sender = 5, "sender";
        /// The CPU obeyed: same address space and generation as the request: certain.
        Generation = 6, "generation";
        /// Inside a scenario's step, outside its calls and faults.
        Step = 7, "step";
    }
}

impl EventKind {
    /// The kind of a system call by its x86-64 number (calls of 32-bit programs have other numbers, and recordings do
    /// not tell them apart).
    pub const fn of_syscall(nr: i32) -> Self {
        match nr {
            9 => Self::Mmap,
            10 | 329 => Self::Mprotect,
            11 => Self::Munmap,
            12 => Self::Brk,
            25 => Self::Mremap,
            26 => Self::Msync,
            28 => Self::Madvise,
            30 => Self::Shmat,
            56 | 57 | 58 | 435 => Self::Fork,
            59 | 322 => Self::Exec,
            60 => Self::ExitCall,
            67 => Self::Shmdt,
            149 | 325 => Self::Mlock,
            150 => Self::Munlock,
            151 => Self::Mlockall,
            152 => Self::Munlockall,
            216 => Self::RemapFilePages,
            231 => Self::ExitGroup,
            440 => Self::ProcessMadvise,
            _ => Self::OtherCall,
        }
    }

    /// Whether it is a system call (so that `nr`, arguments and `ret` are the kernel's).
    pub const fn is_call(self) -> bool {
        self as u8 <= Self::OtherCall as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_kinds_and_names_are_unique() {
        for &kind in EventKind::ALL {
            assert_eq!(EventKind::from_number(kind.number()), Some(kind));
            assert_eq!(EventKind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
        for &kind in FlushKind::ALL {
            assert_eq!(FlushKind::from_number(kind.number()), Some(kind));
        }
        assert_eq!(EventKind::from_number(0), None);
        assert_eq!(FlushKind::from_number(200), None);
    }

    #[test]
    fn system_calls_have_their_kinds() {
        assert_eq!(EventKind::of_syscall(11), EventKind::Munmap);
        assert_eq!(EventKind::of_syscall(329), EventKind::Mprotect);
        assert_eq!(EventKind::of_syscall(237), EventKind::OtherCall);
        assert!(EventKind::OtherCall.is_call() && !EventKind::Fault.is_call());
    }
}
