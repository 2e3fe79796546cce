//! An entry in parts: its requests one by one, and what other probes showed of it. What explains a part of a difference can be
//! taken away from both sides, and what is left says whether that was all.

use super::columns::Columns;
use super::entries::Entries;
use super::model::model_requests;
use super::recorded::{columns_of_rows, requests_of};
use crate::replay::Traced;
use crate::trace::Recording;

/// One side of an entry.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// What came of each request, in order.
    pub(super) requests: Vec<Columns>,
    /// All else: gathers, tables looked at, pages, faults.
    pub(super) rest: Columns,
}

/// Both sides of an entry that differs.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    /// What was recorded.
    pub(super) recorded: Parts,
    /// The flush records of each recorded request.
    pub(super) rows: Vec<Vec<usize>>,
    /// What the machine did.
    pub(super) model: Parts,
}

impl Parts {
    fn new(requests: Vec<Columns>, whole: &Columns) -> Self {
        Self { requests, rest: without_requests(whole) }
    }

    /// The columns of what is left.
    pub(super) fn total(&self) -> Columns {
        let mut sum = self.rest.clone();
        for part in &self.requests {
            sum.flush_list.extend_from_slice(&part.flush_list);
            sum.noise_flushes += part.noise_flushes;
            sum.ipi_sends += part.ipi_sends;
            sum.mask_cpus |= part.mask_cpus;
            sum.ran_cpus |= part.ran_cpus;
            sum.lazy_left_cpus |= part.lazy_left_cpus;
            sum.local_flushes += part.local_flushes;
            sum.tlb_flush_list.extend_from_slice(&part.tlb_flush_list);
            sum.batch_flushes += part.batch_flushes;
        }
        sum.tlb_flush_list.sort_unstable();
        sum
    }
}

impl Sides {
    /// The parts of one entry.
    pub(super) fn of(
        recording: &Recording,
        entries: &Entries,
        traced: &[Traced],
        entry: usize,
        (recorded, model): (&Columns, &Columns),
    ) -> Self {
        let rows = requests_of(recording, entries, entry);
        let requests = rows.iter().map(|rows| columns_of_rows(recording, rows)).collect();
        Self {
            recorded: Parts::new(requests, recorded),
            rows,
            model: Parts::new(model_requests(traced, entries, entry), model),
        }
    }

    /// Whether nothing is left that differs.
    pub(super) fn agree(&self) -> bool {
        self.recorded.total() == self.model.total()
    }

    /// Whether each request has one on the other side.
    pub(super) const fn are_in_pairs(&self) -> bool {
        self.recorded.requests.len() == self.model.requests.len()
    }

    /// Takes a recorded request away.
    pub(super) fn take_request(&mut self, at: usize) -> Vec<usize> {
        self.recorded.requests.remove(at);
        self.rows.remove(at)
    }

    /// Takes what a CPU had to do with the `at`-th request away from both sides.
    pub(super) fn take_cpu(&mut self, at: usize, cpu: u16) {
        for part in [&mut self.recorded.requests[at], &mut self.model.requests[at]] {
            let others = !1u64.checked_shl(cpu.into()).unwrap_or(0);
            part.mask_cpus &= others;
            part.ran_cpus &= others;
            part.lazy_left_cpus &= others;
            part.tlb_flush_list.retain(|flush| flush.cpu != cpu);
        }
    }

    /// The CPUs of which the `at`-th request says something else on the two sides.
    pub(super) fn cpus_that_differ(&self, at: usize) -> Vec<u16> {
        let (recorded, model) = (&self.recorded.requests[at], &self.model.requests[at]);
        (0..64).filter(|&cpu| of_cpu(recorded, cpu) != of_cpu(model, cpu)).collect()
    }
}

/// What a request's columns say of one CPU.
fn of_cpu(request: &Columns, cpu: u16) -> (u64, Vec<super::CpuFlush>) {
    let bits = [request.mask_cpus, request.ran_cpus, request.lazy_left_cpus];
    let bits = bits.iter().fold(0, |all, mask| all << 1 | mask >> cpu & 1);
    (bits, request.tlb_flush_list.iter().filter(|flush| flush.cpu == cpu).copied().collect())
}

fn without_requests(whole: &Columns) -> Columns {
    Columns {
        flush_list: Vec::new(),
        noise_flushes: 0,
        ipi_sends: 0,
        mask_cpus: 0,
        ran_cpus: 0,
        lazy_left_cpus: 0,
        local_flushes: 0,
        tlb_flush_list: Vec::new(),
        batch_flushes: 0,
        ..whole.clone()
    }
}
