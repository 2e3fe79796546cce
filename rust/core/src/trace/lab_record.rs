//! One line of the kernel lab's records, as it stands there.
//!
//! Contract: JSON in, numbers out; keys that are not listed here are region names for people (`at`) and are not needed.
//! What a record means: `lab.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::events::{Flush, RunnerImage};
use super::kinds::NO_MM;

/// A number written as `"0x..."`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hex(pub u64);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").unwrap_or("");
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a number as 0x followed by hexadecimal digits"))
    }
}

/// The first line.
#[derive(Deserialize)]
pub(super) struct LabMeta {
    pub kernel: String,
    pub cpu: String,
    pub smp: u32,
    pub ceiling: u64,
    pub pcid: bool,
    pub thp: String,
    pub lost_events: u64,
    pub steps: Vec<String>,
    /// Probes that the kernel refused: only the laboratory of this repository says so.
    pub missing_probes: Option<Vec<String>>,
    /// The image of the runner, if it is said.
    pub runner: Option<RunnerImage>,
    pub actors: BTreeMap<String, Actor>,
}

/// A thread of a scenario.
#[derive(Deserialize)]
pub(super) struct Actor {
    pub tid: u32,
    pub pid: u32,
}

impl LabMeta {
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Line {
            meta: LabMeta,
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| format!("the lab's `meta` line ({error})"))?;
        Ok(line.meta)
    }
}

/// Any other line. Which keys it has depends on `k`.
#[derive(Deserialize)]
pub(super) struct Record<'a> {
    pub t: u64,
    pub c: u16,
    #[serde(borrow)]
    pub k: Cow<'a, str>,
    #[serde(borrow)]
    pub a: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub op: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub prev: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub next: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub state: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub mm: Option<Cow<'a, str>>,
    pub step: Option<u64>,
    pub it: Option<u64>,
    pub rc: Option<i64>,
    pub args: Option<Vec<Hex>>,
    pub addr: Option<Hex>,
    pub code: Option<u64>,
    pub n: Option<u64>,
    pub st: Option<u64>,
    pub flush: Option<i64>,
    pub start: Option<Hex>,
    pub end: Option<Hex>,
    pub stride: Option<u8>,
    pub freed: Option<u8>,
    pub mask: Option<Vec<u16>>,
    pub r#gen: Option<u64>,
    pub icpu: Option<u16>,
    pub pages: Option<i64>,
    pub reason: Option<u8>,
    pub pend: Option<u32>,
    pub batched: Option<u32>,
    #[serde(borrow)]
    pub flags: Option<Vec<Cow<'a, str>>>,
    pub nbatch: Option<u32>,
    pub old: Option<Hex>,
    pub new: Option<Hex>,
    pub len: Option<Hex>,
}

/// Flags of an mmu_gather, from bit 0.
const GATHER_FLAGS: [&str; 8] = [
    "fullmm",
    "need_flush_all",
    "freed_tables",
    "cleared_ptes",
    "cleared_pmds",
    "cleared_puds",
    "cleared_p4ds",
    "vma_exec",
];

impl<'a> Record<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("a record of the lab ({error})"))
    }

    /// A key that this kind of record must have.
    pub(super) fn need<T>(&self, value: Option<T>, key: &str) -> Result<T, String> {
        value.ok_or_else(|| format!("the key `{key}` in a record of kind {}", self.k))
    }

    /// The number of the address space.
    pub(super) fn mm(&self) -> Result<u32, String> {
        let Some(name) = &self.mm else { return Ok(NO_MM) };
        let number = name.strip_prefix("mm").and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| "an address space as mm and a number in `mm`".to_owned())
    }

    /// Copies what the record says into the columns.
    pub(super) fn fill(&self, flush: &mut Flush) -> Result<(), String> {
        flush.mm = self.mm()?;
        flush.start = self.start.or(self.addr).or(self.old).map_or(0, |hex| hex.0);
        flush.end = match (self.end, self.old, self.len) {
            (Some(end), _, _) => end.0,
            (None, Some(old), Some(len)) => old.0.wrapping_add(len.0),
            _ => 0,
        };
        flush.stride_shift = self.stride.unwrap_or(0);
        flush.freed_tables = self.freed.unwrap_or(0);
        flush.tlb_gen = self.r#gen.unwrap_or(0);
        for &cpu in self.mask.iter().flatten() {
            flush.mask |= 1u64.checked_shl(cpu.into()).ok_or("CPUs 0 to 63 in `mask`")?;
        }
        if let Some(new) = self.new {
            flush.mask = new.0;
        }
        if let Some(icpu) = self.icpu {
            flush.icpu = icpu;
        }
        if let Some(pages) = self.pages {
            flush.pages = pages;
        }
        if let Some(reason) = self.reason {
            flush.reason = reason;
        }
        flush.pending = self.pend.or(self.batched).unwrap_or(0);
        for flag in self.flags.iter().flatten() {
            let bit = GATHER_FLAGS.iter().position(|name| name == flag);
            flush.gather_flags |= 1 << bit.ok_or("known names in `flags`")?;
        }
        let count = self.nbatch.map(u64::from).or(self.n).unwrap_or(1);
        flush.count = u32::try_from(count).map_err(|_| "a 32-bit number in `n`")?;
        Ok(())
    }
}

/// The number of a call that the lab names, or names by its number.
pub(super) fn syscall_nr(name: &str) -> Option<i32> {
    const NAMES: &[(&str, i32)] = &[
        ("read", 0),
        ("write", 1),
        ("open", 2),
        ("close", 3),
        ("fstat", 5),
        ("mmap", 9),
        ("mprotect", 10),
        ("munmap", 11),
        ("brk", 12),
        ("rt_sigprocmask", 14),
        ("pread64", 17),
        ("sched_yield", 24),
        ("mremap", 25),
        ("msync", 26),
        ("madvise", 28),
        ("pause", 34),
        ("nanosleep", 35),
        ("getpid", 39),
        ("clone", 56),
        ("exit", 60),
        ("wait4", 61),
        ("fsync", 74),
        ("ftruncate", 77),
        ("prctl", 157),
        ("gettid", 186),
        ("futex", 202),
        ("sched_setaffinity", 203),
        ("clock_nanosleep", 230),
        ("exit_group", 231),
        ("openat", 257),
        ("set_robust_list", 273),
        ("fallocate", 285),
        ("rseq", 334),
        ("clone3", 435),
    ];
    let known = NAMES.iter().find(|known| known.0 == name);
    known.map(|known| known.1).or_else(|| name.parse().ok())
}
