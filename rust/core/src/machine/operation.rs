//! The operations that drive a machine, and what comes of them.
//!
//! An operation is what user space asks for (a system call, a fault, a memory access) or what the kernel does to it of
//! its own accord (reclaim, migration, a NUMA hint). `docs/machine.md` section 4 gives their meaning. The serde form is
//! the same in recordings, in Python and in tests; addresses and lengths are bytes.

use serde::{Deserialize, Serialize};

/// What a memory access does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// The advice of `madvise`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// `MADV_DONTNEED`: drop the pages now.
    Dontneed,
    /// `MADV_DONTNEED_LOCKED`: the same, locked areas too.
    DontneedLocked,
    /// `MADV_FREE`: anonymous pages may be dropped until written again.
    Free,
    /// `MADV_COLD`: reclaim these first.
    Cold,
    /// `MADV_PAGEOUT`: reclaim these now.
    Pageout,
    /// `MADV_HUGEPAGE`.
    Hugepage,
    /// `MADV_NOHUGEPAGE`.
    Nohugepage,
    /// `MADV_DONTFORK`.
    Dontfork,
    /// `MADV_DOFORK`.
    Dofork,
    /// `MADV_POPULATE_READ`.
    PopulateRead,
    /// `MADV_POPULATE_WRITE`.
    PopulateWrite,
    /// `MADV_NORMAL`: neither random nor sequential.
    Normal,
    /// `MADV_RANDOM`.
    Random,
    /// `MADV_SEQUENTIAL`.
    Sequential,
    /// `MADV_MERGEABLE`: private memory only.
    Mergeable,
    /// `MADV_UNMERGEABLE`.
    Unmergeable,
    /// `MADV_DONTDUMP`.
    Dontdump,
    /// `MADV_DODUMP`.
    Dodump,
    /// `MADV_WIPEONFORK`: anonymous private memory only.
    Wipeonfork,
    /// `MADV_KEEPONFORK`.
    Keeponfork,
    /// Advice that changes neither page tables nor areas.
    Other,
}

/// One operation. All but `create_*`, `clone_thread`, `schedule`, `exec`, `exit` and `advance_time` need `task` to run on
/// its CPU.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of the system calls, under their names")]
pub enum Operation {
    /// A new mm with one task, not running; gives the task.
    CreateProcess {},
    /// A file, or a shared-memory object, of a size in pages or without bound; gives its id.
    CreateFile {
        shmem: bool,
        #[serde(default)]
        nr_pages: Option<u64>,
    },
    /// A task that shares the mm, not running; gives the task.
    CloneThread { task: u32 },
    /// A task with a copy of the mm, not running; gives the task.
    Fork { task: u32 },
    /// The task gets an empty mm.
    Exec { task: u32 },
    /// The task ends; the last one takes its mm with it.
    Exit { task: u32 },
    /// The CPU goes on with `task`, or with nothing that has an mm.
    Schedule { cpu: u32, task: Option<u32> },
    /// Maps memory; gives its address. `prot` is 1 read, 2 write, 4 execute; `pgoff` is in pages.
    Mmap {
        task: u32,
        addr: u64,
        len: u64,
        prot: u32,
        #[serde(default)]
        shared: bool,
        #[serde(default)]
        fixed: bool,
        #[serde(default)]
        noreplace: bool,
        #[serde(default)]
        populate: bool,
        #[serde(default)]
        growsdown: bool,
        #[serde(default)]
        file: Option<u32>,
        #[serde(default)]
        pgoff: u64,
    },
    /// Unmaps memory.
    Munmap { task: u32, addr: u64, len: u64 },
    /// Changes rights.
    Mprotect { task: u32, addr: u64, len: u64, prot: u32 },
    /// Moves the end of the heap; gives the end.
    Brk { task: u32, addr: u64 },
    /// Resizes or moves a mapping; gives its address.
    Mremap {
        task: u32,
        old: u64,
        old_len: u64,
        new_len: u64,
        #[serde(default)]
        maymove: bool,
        #[serde(default)]
        fixed: bool,
        #[serde(default)]
        dontunmap: bool,
        #[serde(default)]
        new: u64,
    },
    /// Gives advice on a range.
    Madvise { task: u32, addr: u64, len: u64, advice: Advice },
    /// Writes back the shared file mappings of a range.
    Msync { task: u32, addr: u64, len: u64, sync: bool },
    /// Writes back a file, or `nr_pages` of it from a page on.
    Fsync {
        task: u32,
        file: u32,
        #[serde(default)]
        from_page: u64,
        #[serde(default)]
        nr_pages: Option<u64>,
    },
    /// Drops pages of a file, from a page on, all or `nr_pages`.
    Truncate { task: u32, file: u32, from_page: u64, nr_pages: Option<u64> },
    /// Writes `kind` to `/proc/PID/clear_refs`.
    ClearRefs { task: u32, kind: u32 },
    /// Reclaims the pages mapped at these places. With `goes_on` more pages of the same list come with the task's next
    /// reclaim, so that what was deferred is not flushed at the end of these.
    Reclaim {
        task: u32,
        pages: Vec<(u32, u64)>,
        #[serde(default)]
        proactive: bool,
        #[serde(default)]
        goes_on: bool,
    },
    /// Migrates the pages mapped at these places.
    Migrate { task: u32, pages: Vec<(u32, u64)> },
    /// Marks a range for NUMA hinting faults.
    NumaHint { task: u32, addr: u64, len: u64 },
    /// Merges the pages of a range, whose contents are the same.
    KsmMerge { task: u32, addr: u64, len: u64 },
    /// Write-protects the shared mappings of a part of a file.
    WpSharedMappingRange { task: u32, file: u32, from_page: u64, nr_pages: u64 },
    /// Makes a huge page of the 2 MiB around an address.
    Collapse { task: u32, addr: u64 },
    /// Loads, stores or fetches, through the TLB.
    Access { task: u32, addr: u64, kind: AccessKind },
    /// The page fault alone.
    Fault { task: u32, addr: u64, kind: AccessKind },
    /// Runs a program of the caller's on a range: `steps` as in a kernel, `prot` for one that changes rights.
    Run {
        task: u32,
        addr: u64,
        len: u64,
        #[serde(default)]
        prot: Option<u32>,
        steps: serde_json::Value,
    },
    /// Lets time pass.
    AdvanceTime { ns: u64 },
}

impl Operation {
    /// The task that does it.
    pub const fn task(&self) -> Option<u32> {
        match *self {
            Self::CreateProcess {} | Self::CreateFile { .. } | Self::Schedule { .. } | Self::AdvanceTime { .. } => None,
            Self::CloneThread { task }
            | Self::Fork { task }
            | Self::Exec { task }
            | Self::Exit { task }
            | Self::Mmap { task, .. }
            | Self::Munmap { task, .. }
            | Self::Mprotect { task, .. }
            | Self::Brk { task, .. }
            | Self::Mremap { task, .. }
            | Self::Madvise { task, .. }
            | Self::Msync { task, .. }
            | Self::Fsync { task, .. }
            | Self::Truncate { task, .. }
            | Self::ClearRefs { task, .. }
            | Self::Reclaim { task, .. }
            | Self::Migrate { task, .. }
            | Self::NumaHint { task, .. }
            | Self::KsmMerge { task, .. }
            | Self::WpSharedMappingRange { task, .. }
            | Self::Collapse { task, .. }
            | Self::Access { task, .. }
            | Self::Fault { task, .. }
            | Self::Run { task, .. } => Some(task),
        }
    }

    /// Whether its task has to run on a CPU for it.
    pub const fn needs_running(&self) -> bool {
        self.task().is_some() && !matches!(self, Self::CloneThread { .. } | Self::Exec { .. } | Self::Exit { .. })
    }
}

/// Why an operation did nothing (or, for mprotect and madvise, stopped half way).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Errno {
    /// An argument makes no sense.
    Einval,
    /// No room, or no mapping.
    Enomem,
    /// No mapping at the address.
    Efault,
    /// Something is mapped there already.
    Eexist,
    /// A file offset past what 64 bits hold.
    Eoverflow,
    /// The rights do not allow it.
    Eacces,
    /// The signal that an access without a mapping or a right raises.
    Sigsegv,
    /// The signal that an access past the end of a file raises.
    Sigbus,
}

/// What an operation returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It went well and has nothing to say.
    None,
    /// It went well: an address or an id.
    Value(u64),
    /// It failed as the system call does.
    Errno(Errno),
}

impl Outcome {
    /// The form in JSON: `{"value": N or null}` or `{"errno": NAME}`.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::None => serde_json::json!({ "value": null }),
            Self::Value(value) => serde_json::json!({ "value": value }),
            Self::Errno(errno) => serde_json::json!({ "errno": errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_a_plain_form() {
        let text = r#"{"op":"mmap","task":1,"addr":4096,"len":8192,"prot":3}"#;
        let op: Operation = serde_json::from_str(text).unwrap();
        assert!(matches!(op, Operation::Mmap { task: 1, len: 8192, prot: 3, shared: false, file: None, .. }));
        let text = r#"{"op":"reclaim","task":0,"pages":[[1,4096],[2,8192]]}"#;
        let op: Operation = serde_json::from_str(text).unwrap();
        let Operation::Reclaim { pages, proactive, .. } = op else { panic!("{op:?}") };
        assert_eq!((pages[1], proactive), ((2, 8192), false));
        assert!(serde_json::from_str::<Operation>(r#"{"op":"create_process"}"#).is_ok());
        let unknown = serde_json::from_str::<Operation>(r#"{"op":"munmap","task":0,"addr":0,"len":0,"size":1}"#);
        assert!(unknown.unwrap_err().to_string().contains("unknown field `size`"));
    }

    #[test]
    fn outcomes_have_a_plain_form() {
        assert_eq!(Outcome::Errno(Errno::Einval).to_json().to_string(), r#"{"errno":"EINVAL"}"#);
        assert_eq!(Outcome::Errno(Errno::Sigsegv).to_json().to_string(), r#"{"errno":"SIGSEGV"}"#);
        assert_eq!(Outcome::Value(5).to_json().to_string(), r#"{"value":5}"#);
        assert_eq!(Outcome::None.to_json().to_string(), r#"{"value":null}"#);
    }
}
