//! A flush as seen from outside: how much, and whether other CPUs were told.

use crate::cpumask::CpuId;
use crate::flush::{FlushKind, FlushRequest, LoggedMask, TLB_FLUSH_ALL, TlbFlushEvent, TlbFlushReason};

/// How much a flush took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlushSize {
    /// Everything.
    Full,
    /// So many strides.
    Strides(u64),
}

impl FlushSize {
    /// From a count in which -1 is everything.
    pub fn from_pages(pages: i64) -> Self {
        u64::try_from(pages).map_or(Self::Full, Self::Strides)
    }

    /// The count in which -1 is everything.
    pub fn pages(self) -> i64 {
        match self {
            Self::Full => -1,
            Self::Strides(n) => i64::try_from(n).unwrap_or(i64::MAX),
        }
    }
}

/// A flush that the model did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predicted {
    /// Row of the event that caused it.
    pub op_event: usize,
    /// Task (index of the recording) that did it.
    pub task: u32,
    /// Where.
    pub cpu: CpuId,
    /// Which way.
    pub kind: FlushKind,
    /// What the request asked for.
    pub requested: FlushSize,
    /// What the tracepoints show of it: nothing if only lazy CPUs, which leave the address space instead, were there.
    pub traced: Option<FlushSize>,
    /// Other CPUs were in the mask, so that the way of remote flushes was taken.
    pub remote: bool,
    /// The first byte asked for.
    pub start: u64,
    /// The byte after the last; `u64::MAX` is everything.
    pub end: u64,
    /// log2 of the stride in bytes.
    pub stride_shift: u32,
    /// Page tables went.
    pub freed_tables: bool,
    /// CPUs 0-63 of the mask.
    pub mask: u64,
    /// CPUs 0-63 that were told.
    pub told: u64,
    /// Of these: lazy, left the address space instead.
    pub told_lazy: u64,
    /// Of these: had another address space loaded.
    pub told_gone: u64,
    /// Of these: had flushed already.
    pub told_up_to_date: u64,
    /// Of these: held nothing of what was asked for.
    pub told_nothing_cached: u64,
    /// Lazy CPUs 0-63 that were spared.
    pub lazy_skipped: u64,
}

impl Predicted {
    /// A request with the tracepoints that belong to it.
    pub fn new(op_event: usize, task: u32, request: &FlushRequest, events: &[TlbFlushEvent]) -> Self {
        let requested = if request.end == TLB_FLUSH_ALL || request.kind == FlushKind::Batch {
            FlushSize::Full
        } else {
            FlushSize::from_pages(request.pages)
        };
        let traced_as = |wanted: fn(TlbFlushReason) -> bool| {
            let found = events.iter().find(|event| event.cpu == request.cpu && wanted(event.reason));
            found.map(|event| FlushSize::from_pages(event.pages))
        };
        let local = traced_as(|r| matches!(r, TlbFlushReason::LocalShootdown | TlbFlushReason::LocalMmShootdown));
        let traced = local.or_else(|| traced_as(|reason| reason == TlbFlushReason::RemoteSendIpi));
        let low_word = |mask: &LoggedMask| mask.words().first().copied().unwrap_or(0);
        let told = low_word(&request.told);
        Self {
            op_event,
            task,
            cpu: request.cpu,
            kind: request.kind,
            requested,
            traced,
            remote: request.remote,
            start: request.start.0,
            end: request.end.0,
            stride_shift: request.stride_shift,
            freed_tables: request.freed_tables,
            mask: low_word(&request.mask),
            told,
            told_lazy: low_word(&request.lazy_left) & told,
            told_gone: low_word(&request.gone) & told,
            told_up_to_date: low_word(&request.up_to_date) & told,
            told_nothing_cached: low_word(&request.nothing_cached) & told,
            lazy_skipped: low_word(&request.lazy_skipped),
        }
    }
}
