//! Who causes flushes: sums per kind of operation.

use std::ops::AddAssign;

use rustc_hash::FxHashMap;

use crate::flush::{FlushRequest, LoggedMask, TLB_FLUSH_ALL};
use crate::trace::{EventKind, Recording};

/// Sums over the flushes of one kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LedgerRow {
    /// Operations of this kind.
    pub nr_operations: u64,
    /// Flush requests.
    pub nr_flush_requests: u64,
    /// Those that took everything.
    pub nr_flush_full: u64,
    /// Strides of the others.
    pub nr_flush_pages: u64,
    /// Those that had other CPUs in the mask.
    pub nr_flush_remote: u64,
    /// CPUs told.
    pub nr_ipis: u64,
    /// Of these: lazy, left the address space instead.
    pub nr_told_lazy: u64,
    /// Of these: had another address space loaded.
    pub nr_told_gone: u64,
    /// Of these: held nothing of what was asked for.
    pub nr_told_nothing_cached: u64,
    /// Lazy CPUs spared.
    pub nr_lazy_skipped: u64,
}

impl LedgerRow {
    fn add(&mut self, request: &FlushRequest) {
        self.nr_flush_requests += 1;
        if request.end == TLB_FLUSH_ALL {
            self.nr_flush_full += 1;
        } else {
            self.nr_flush_pages += u64::try_from(request.pages).unwrap_or(0);
        }
        let weight = |mask: &LoggedMask| u64::from(mask.weight());
        // A request's masks hold its own CPU too, which nobody had to tell.
        let others = |mask: &LoggedMask| u64::from(mask.weight()) - u64::from(mask.test(request.cpu));
        self.nr_flush_remote += u64::from(request.remote);
        self.nr_ipis += weight(&request.told);
        self.nr_told_lazy += others(&request.lazy_left);
        self.nr_told_gone += others(&request.gone);
        self.nr_told_nothing_cached += weight(&request.nothing_cached);
        self.nr_lazy_skipped += weight(&request.lazy_skipped);
    }
}

impl AddAssign for LedgerRow {
    fn add_assign(&mut self, other: Self) {
        let Self {
            nr_operations,
            nr_flush_requests,
            nr_flush_full,
            nr_flush_pages,
            nr_flush_remote,
            nr_ipis,
            nr_told_lazy,
            nr_told_gone,
            nr_told_nothing_cached,
            nr_lazy_skipped,
        } = other;
        self.nr_operations += nr_operations;
        self.nr_flush_requests += nr_flush_requests;
        self.nr_flush_full += nr_flush_full;
        self.nr_flush_pages += nr_flush_pages;
        self.nr_flush_remote += nr_flush_remote;
        self.nr_ipis += nr_ipis;
        self.nr_told_lazy += nr_told_lazy;
        self.nr_told_gone += nr_told_gone;
        self.nr_told_nothing_cached += nr_told_nothing_cached;
        self.nr_lazy_skipped += nr_lazy_skipped;
    }
}

/// The kind under which an event is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpKind {
    /// An event or call that has a kind of its own.
    Kind(EventKind),
    /// Another system call, by its number.
    Call(i32),
}

impl OpKind {
    /// That of a row of a recording. The ways to exit are one kind.
    pub fn of(recording: &Recording, row: usize) -> Self {
        let number = recording.events.kind[row];
        match EventKind::from_number(number).unwrap_or(EventKind::OtherCall) {
            EventKind::ExitCall | EventKind::ExitGroup => Self::Kind(EventKind::Exit),
            EventKind::OtherCall => Self::Call(recording.events.nr[row]),
            kind => Self::Kind(kind),
        }
    }

    /// The name for people: a call's or event's.
    pub fn name(self) -> String {
        match self {
            Self::Kind(EventKind::Fault) => "fault".to_owned(),
            Self::Kind(EventKind::Exit) => "exit".to_owned(),
            Self::Kind(kind) => kind.name().to_owned(),
            Self::Call(nr) => format!("call_{nr}"),
        }
    }
}

/// The sums of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rows: Vec<(String, LedgerRow)>,
    /// Where the row of a kind stands.
    places: FxHashMap<OpKind, u32>,
    /// The kind asked for last, which is mostly the next one too.
    last: Option<(OpKind, u32)>,
}

impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.rows().eq(other.rows())
    }
}

impl Eq for Ledger {}

impl Ledger {
    /// Counts an operation.
    pub fn operation(&mut self, kind: OpKind) {
        self.row(kind).nr_operations += 1;
    }

    /// Books a request on a kind of operation.
    pub fn request(&mut self, kind: OpKind, request: &FlushRequest) {
        self.row(kind).add(request);
    }

    /// The sums, by the name of the kind.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &LedgerRow)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(kind, row)| (kind.as_str(), row)).collect();
        rows.sort_unstable_by_key(|(kind, _)| *kind);
        rows.into_iter()
    }

    /// Adds the sums of another.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut kinds: Vec<(&OpKind, &u32)> = other.places.iter().collect();
        kinds.sort_unstable_by_key(|(_, place)| **place);
        for (kind, place) in kinds {
            *self.row(*kind) += other.rows[*place as usize].1;
        }
    }

    fn row(&mut self, kind: OpKind) -> &mut LedgerRow {
        let place = match self.last {
            Some((last, place)) if last == kind => place,
            _ => *self.places.entry(kind).or_insert_with(|| {
                self.rows.push((kind.name(), LedgerRow::default()));
                self.rows.len() as u32 - 1
            }),
        };
        self.last = Some((kind, place));
        &mut self.rows[place as usize].1
    }
}
