//! Who causes flushes: sums per kind of operation.

use std::collections::BTreeMap;

use crate::flush::{FlushRequest, LoggedMask, TLB_FLUSH_ALL};

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
        let others = |mask: &LoggedMask| mask.iter().filter(|cpu| *cpu != request.cpu).count() as u64;
        self.nr_flush_remote += u64::from(request.remote);
        self.nr_ipis += weight(&request.told);
        self.nr_told_lazy += others(&request.lazy_left);
        self.nr_told_gone += others(&request.gone);
        self.nr_told_nothing_cached += weight(&request.nothing_cached);
        self.nr_lazy_skipped += weight(&request.lazy_skipped);
    }
}

/// The sums of all kinds, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger(BTreeMap<String, LedgerRow>);

impl Ledger {
    /// Counts an operation.
    pub fn operation(&mut self, kind: &str) {
        self.row(kind).nr_operations += 1;
    }

    /// Books a request on a kind of operation.
    pub fn request(&mut self, kind: &str, request: &FlushRequest) {
        self.row(kind).add(request);
    }

    /// The sums, by kind.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &LedgerRow)> {
        self.0.iter().map(|(kind, row)| (kind.as_str(), row))
    }

    fn row(&mut self, kind: &str) -> &mut LedgerRow {
        if !self.0.contains_key(kind) {
            self.0.insert(kind.to_owned(), LedgerRow::default());
        }
        self.0.get_mut(kind).expect("just inserted")
    }
}
