//! The columns of the machine, from what a replay traced.

use super::columns::{AskedFlush, Columns, CpuFlush};
use super::entries::Entries;
use crate::flush::{FlushKind, FlushRequest, LoggedMask, MmId, TlbFlushEvent, TlbFlushReason};
use crate::machine::{Probe, ProbeHit};
use crate::replay::Traced;

/// What the machine did in each entry, in the order of `entries`.
pub fn model_columns(traced: &[Traced], entries: &Entries) -> Vec<Columns> {
    let mut all = vec![Columns::default(); entries.list.len()];
    for part in traced {
        // What another task did at this event, while it came to run, is none of the entry's.
        if let Some(entry) = entries.of_event(part.row).filter(|entry| entries.list[*entry].task == part.task) {
            add_traced(&mut all[entry], part);
        }
    }
    for columns in &mut all {
        columns.tlb_flush_list.sort_unstable();
    }
    all
}

/// What the machine's first requests of an entry did, without what other probes showed.
pub(in crate::replay) fn columns_of_requests(
    traced: &[Traced],
    entries: &Entries,
    entry: usize,
    nr_requests: usize,
) -> Columns {
    let mut columns = Columns::default();
    let is_of = |part: &&Traced| {
        let owner = entries.of_event(part.row);
        owner == Some(entry) && entries.list[entry].task == part.task && !part.requests.is_empty()
    };
    for part in traced.iter().filter(is_of).take(nr_requests) {
        add_traced(&mut columns, &Traced { probes: Vec::new(), ..part.clone() });
    }
    columns.tlb_flush_list.sort_unstable();
    columns
}

/// What came of each request of an entry that the recording could show, in order.
pub(super) fn model_requests(traced: &[Traced], entries: &Entries, entry: usize) -> Vec<Columns> {
    let is_of = |part: &&Traced| entries.of_event(part.row) == Some(entry) && entries.list[entry].task == part.task;
    let mut requests = Vec::new();
    for part in traced.iter().filter(is_of) {
        for (number, request) in (part.first_request..).zip(&part.requests) {
            if request.mm.is_some_and(|mm| part.unnamed_mms.contains(&mm)) {
                continue;
            }
            let mut columns = Columns::default();
            let alone =
                Traced { first_request: number, requests: vec![request.clone()], probes: Vec::new(), ..part.clone() };
            add_traced(&mut columns, &alone);
            columns.tlb_flush_list.sort_unstable();
            requests.push(columns);
        }
    }
    requests
}

/// Adds what one event did.
fn add_traced(columns: &mut Columns, part: &Traced) {
    let is_unnamed = |mm: &MmId| part.unnamed_mms.contains(mm);
    for (number, request) in (part.first_request.cast_signed()..).zip(&part.requests) {
        if request.mm.as_ref().is_some_and(is_unnamed) {
            continue;
        }
        add_request(columns, request);
        let of_request = part.events.iter().filter(|event| event.request == number);
        for event in of_request.filter(|event| event.reason != TlbFlushReason::RemoteSendIpi) {
            columns.local_flushes += u64::from(event.reason == TlbFlushReason::LocalMmShootdown);
            columns.tlb_flush_list.push(seen(event));
        }
        // A CPU that leaves the address space switches to another: the tracepoint tells no request.
        for cpu in request.lazy_left.iter() {
            let left = |event: &&TlbFlushEvent| event.cpu == cpu && event.reason == TlbFlushReason::TaskSwitch;
            if let Some(event) = part.events.iter().find(left) {
                columns.lazy_left_cpus |= low_bit(cpu.0);
                columns.tlb_flush_list.push(seen(event));
            }
        }
    }
    let is_recorded = |hit: &&ProbeHit| matches!(hit.probe, Probe::Fault { .. }) || !is_unnamed(&hit.mm);
    for hit in part.probes.iter().filter(is_recorded) {
        match hit.probe {
            Probe::Gather { .. } => columns.gathers += 1,
            Probe::Finish { pending } => {
                columns.finishes += 1;
                columns.nested_finishes += u64::from(pending > 1);
            }
            Probe::FlushMmu => columns.flush_mmu += 1,
            Probe::BatchedPending { due } => {
                columns.batch_pending_calls += 1;
                columns.batch_pending_set += u64::from(due);
            }
            Probe::PtepClearFlush { .. } => columns.ptep_clear_flush += 1,
            Probe::UnmapOne { .. } => columns.unmap_one += 1,
            Probe::Fault { .. } => columns.faults += 1,
            Probe::PmdpClearFlush { .. } | Probe::ExitMmap => {}
        }
    }
}

fn add_request(columns: &mut Columns, request: &FlushRequest) {
    match request.kind {
        FlushKind::MmRange => {
            let (start, end) = (request.range_start.0, request.range_end.0);
            match AskedFlush::new(start, end, request.stride_shift, request.freed_tables) {
                Some(asked) => columns.flush_list.push(asked),
                None => columns.noise_flushes += 1,
            }
        }
        FlushKind::Batch => columns.batch_flushes += 1,
        FlushKind::LazyMmu => {}
    }
    if request.remote {
        columns.ipi_sends += 1;
        columns.mask_cpus |= low_word(&request.mask) & !low_bit(request.cpu.0);
        columns.ran_cpus |= low_word(&request.told);
    }
}

fn seen(event: &TlbFlushEvent) -> CpuFlush {
    CpuFlush { cpu: event.cpu.0, pages: event.pages, reason: event.reason as u8 }
}

fn low_bit(cpu: u16) -> u64 {
    1u64.checked_shl(u32::from(cpu)).unwrap_or(0)
}

fn low_word(mask: &LoggedMask) -> u64 {
    mask.words().first().copied().unwrap_or(0)
}
