//! The columns of the kernel, from the flush records of a recording.

use super::columns::{AskedFlush, Columns, CpuFlush};
use super::entries::Entries;
use crate::trace::kinds::NO_REASON;
use crate::trace::{EventKind, Flush, FlushKind, Recording};

/// What the kernel did in each entry, in the order of `entries`.
pub fn recorded_columns(recording: &Recording, entries: &Entries) -> Vec<Columns> {
    let mut all = vec![Columns::default(); entries.list.len()];
    for row in 0..recording.events.len() {
        let Some(entry) = entries.of_event(row) else { continue };
        let event = recording.events.get(row);
        match event.kind() {
            EventKind::Fault => all[entry].faults += 1,
            EventKind::ReclaimPage => all[entry].unmap_one += event.a2,
            _ => {}
        }
    }
    for row in 0..recording.flushes.len() {
        let flush = recording.flushes.get(row);
        let kind = FlushKind::from_number(flush.kind);
        // What other CPUs did for a request belongs to the entry that made it.
        let maker = if kind == Some(FlushKind::Func) { usize::try_from(flush.request).ok() } else { Some(row) };
        let Some(entry) = maker.and_then(|maker| entries.of_flush(maker)) else { continue };
        if let Some(kind) = kind {
            add(&mut all[entry], kind, &flush);
        }
    }
    for columns in &mut all {
        columns.tlb_flush_list.sort_unstable();
    }
    all
}

/// The flush records of each request that an entry made: the request itself and what came of it.
pub(in crate::replay) fn requests_of(recording: &Recording, entries: &Entries, entry: usize) -> Vec<Vec<usize>> {
    let mut requests: Vec<Vec<usize>> = Vec::new();
    for row in 0..recording.flushes.len() {
        let flush = recording.flushes.get(row);
        match FlushKind::from_number(flush.kind) {
            Some(FlushKind::MmRange | FlushKind::BatchFlush) if entries.of_flush(row) == Some(entry) => {
                requests.push(vec![row]);
            }
            Some(FlushKind::Multi | FlushKind::Func) => {
                let made = |rows: &&mut Vec<usize>| usize::try_from(flush.request) == Ok(rows[0]);
                if let Some(rows) = requests.iter_mut().rev().find(made) {
                    rows.push(row);
                }
            }
            _ => {}
        }
    }
    requests
}

/// The columns of some flush records alone.
pub(in crate::replay) fn columns_of_rows(recording: &Recording, rows: &[usize]) -> Columns {
    let mut columns = Columns::default();
    for &row in rows {
        let flush = recording.flushes.get(row);
        if let Some(kind) = FlushKind::from_number(flush.kind) {
            add(&mut columns, kind, &flush);
        }
    }
    columns.tlb_flush_list.sort_unstable();
    columns
}

fn add(columns: &mut Columns, kind: FlushKind, flush: &Flush) {
    let others = !1u64.checked_shl(u32::from(flush.cpu)).unwrap_or(0);
    match kind {
        FlushKind::MmRange => {
            match AskedFlush::new(flush.start, flush.end, flush.stride_shift.into(), flush.freed_tables != 0) {
                Some(asked) => columns.flush_list.push(asked),
                None => columns.noise_flushes += 1,
            }
        }
        FlushKind::Multi => {
            columns.ipi_sends += 1;
            columns.mask_cpus |= flush.mask & others;
        }
        FlushKind::Func => {
            let bit = !others;
            if flush.cpu != flush.icpu {
                columns.ran_cpus |= bit;
            }
            if flush.reason != NO_REASON {
                columns.lazy_left_cpus |= if flush.reason == 0 { bit } else { 0 };
                columns.local_flushes += u64::from(flush.reason == 3);
                columns.tlb_flush_list.push(CpuFlush { cpu: flush.cpu, pages: flush.pages, reason: flush.reason });
            }
        }
        FlushKind::Gather | FlushKind::GatherFull => columns.gathers += 1,
        FlushKind::Finish => {
            columns.finishes += 1;
            columns.nested_finishes += u64::from(flush.pending > 1);
        }
        FlushKind::FlushMmu => columns.flush_mmu += 1,
        FlushKind::BatchFlush => columns.batch_flushes += 1,
        FlushKind::BatchPending => {
            let (pending, flushed) = (flush.pending & 0xffff, flush.pending >> 16);
            columns.batch_pending_calls += u64::from(flush.count);
            columns.batch_pending_set += if pending == flushed { 0 } else { u64::from(flush.count) };
        }
        FlushKind::PtepClearFlush => columns.ptep_clear_flush += 1,
        _ => {}
    }
}
