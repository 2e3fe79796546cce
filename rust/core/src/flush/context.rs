//! What an mm contributes to the flush engine (`mm_context_t` and `mm_cpumask` of the kernel).

use std::fmt;

use crate::cpumask::CpuMask;

/// The number of an mm: 0 is `init_mm`, others count from 1 in order of creation and are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct MmId(pub u32);

/// The kernel's own mm, which no task runs in.
pub const INIT_MM: MmId = MmId(0);

impl MmId {
    /// The number as an index of a slice with one element for each mm.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for MmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The flush state of one mm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MmContext {
    /// Unique over the life of the machine, and so good to recognise the mm in a CPU's slots.
    pub ctx_id: u64,
    /// Flushes asked for so far, plus 1: a CPU whose slot has a lower one must flush.
    pub tlb_gen: u64,
    /// CPUs that may hold entries of the mm and would not look at the generation before they use them. That of
    /// [`INIT_MM`] stays empty.
    pub mm_cpumask: CpuMask,
    /// The time in nanoseconds from which on a flush may trim the mask (`next_trim_cpumask`); `u64::MAX` = never.
    pub next_trim_ns: u64,
    /// CPUs that have the mm loaded.
    pub(super) nr_loaded: u32,
    /// No task uses it any more: it goes when the last lazy CPU has loaded another one.
    pub(super) is_dropped: bool,
}

impl MmContext {
    pub(super) fn new(id: MmId, mm_cpumask: CpuMask, next_trim_ns: u64) -> Self {
        let ctx_id = u64::from(id.0) + 1;
        Self { ctx_id, tlb_gen: 1, mm_cpumask, next_trim_ns, nr_loaded: 0, is_dropped: false }
    }
}
