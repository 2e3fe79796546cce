//! Causes that lie in pages: whose they are, how old, who wrote them or has a reference.

use super::{Cause, Causes, FAULT_WRITE, Found, Question, bit};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::machine::Probe;
use crate::replay::Traced;
use crate::replay::lab::columns::Columns;
use crate::replay::lab::entries::Entry;
use crate::replay::lab::runner::is_since;
use crate::trace::{EventKind, FlushKind};

impl Causes<'_> {
    /// Deferred flushes before which no page of a process of the recording was unmapped since the one before; then, while there
    /// are more than the model has, those that told CPUs where no task of the recording ever was, first those that told no others.
    pub(super) fn take_foreign_pages(&self, question: &mut Question) {
        self.take_flushes(question, |row| !self.unmaps_own(self.recording.flushes.task[row], row), false);
        let masks = &self.recording.flushes.mask;
        self.take_flushes(question, |row| masks[row] & self.known_cpus == 0, true);
        self.take_flushes(question, |row| masks[row] & !self.known_cpus != 0, true);
    }

    fn take_flushes(&self, question: &mut Question, is_foreign: impl Fn(usize) -> bool, only_surplus: bool) {
        let mut at = 0;
        while let Some(rows) = question.sides.rows.get(at) {
            let row = rows[0];
            let surplus = question.sides.recorded.requests.len() > question.sides.model.requests.len();
            let is_flush = self.recording.flushes.kind[row] == FlushKind::BatchFlush.number();
            if is_flush && (surplus || !only_surplus) && is_foreign(row) {
                question.sides.take_request(at);
                question.because(Cause::ForeignPages, &[], &[row]);
            } else {
                at += 1;
            }
        }
    }

    /// Whether a task unmapped pages of processes of the recording between its deferred flush before this one and this one.
    fn unmaps_own(&self, task: u32, row: usize) -> bool {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let is_before =
            |other: &usize| flushes.kind[*other] == FlushKind::BatchFlush.number() && flushes.task[*other] == task;
        let since = (0..row).rev().find(is_before).map_or(0, |other| flushes.time_ns[other]);
        let from = events.time_ns.partition_point(|time| *time < since);
        (from..events.len())
            .take_while(|&event| events.time_ns[event] <= flushes.time_ns[row])
            .any(|event| events.task[event] == task && events.kind[event] == EventKind::ReclaimPage.number())
    }

    /// A deferred flush told a CPU where no task of the recording ever was: a page among others was foreign.
    pub(super) fn is_foreign(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
        let row = question.sides.rows[at][0];
        let is_batch = self.recording.flushes.kind[row] == FlushKind::BatchFlush.number();
        let is_told = question.sides.recorded.requests[at].mask_cpus & !self.known_cpus & bit(cpu) != 0;
        (is_batch && is_told).then(|| (Cause::ForeignPages, Vec::new(), vec![row]))
    }

    /// Requests of the model for one page that the entry would have cleaned, and that a kernel thread cleaned before: the latest
    /// record about it is that.
    pub(super) fn take_written_back(&self, question: &mut Question) {
        let flushes = &self.recording.flushes;
        let (begin, _) = self.spans[question.index];
        let mut at = 0;
        while question.sides.model.requests.len() > question.sides.recorded.requests.len()
            && let Some(request) = question.sides.model.requests.get(at)
        {
            let page = match request.flush_list[..] {
                [asked] => asked.range.filter(|(_, nr_strides)| *nr_strides == 1).map(|(start, _)| start),
                _ => None,
            };
            let before = flushes.time_ns.partition_point(|time| *time < begin);
            let about_page = |row: &usize| {
                flushes.kind[*row] == FlushKind::PtepClearFlush.number()
                    && Some(flushes.start[*row] & !(PAGE_SIZE - 1)) == page
            };
            let latest = (0..before).rev().find(about_page).filter(|row| self.is_of_kernel(flushes.task[*row]));
            let Some(latest) = latest else {
                at += 1;
                continue;
            };
            question.sides.model.requests.remove(at);
            let count = &mut question.sides.model.rest.ptep_clear_flush;
            *count = count.saturating_sub(1);
            question.because(Cause::Writeback, &[], &[latest]);
        }
    }

    /// A kernel thread made a request between the caller's request before this one and the CPU's executing this one: whose
    /// generation the CPU finds when it executes either is not known.
    pub(super) fn beside_writeback(&self, question: &Question, at: usize, cpu: u16) -> Option<Found> {
        let flushes = &self.recording.flushes;
        let rows = &question.sides.rows[at];
        let first = at.checked_sub(1).map_or(rows[0], |before| question.sides.rows[before][0]);
        let last = rows.iter().copied().filter(|&row| flushes.cpu[row] == cpu).max()?;
        let asks =
            |row: &usize| flushes.kind[*row] == FlushKind::MmRange.number() && self.is_of_kernel(flushes.task[*row]);
        (first..last).find(asks).map(|asked| (Cause::Writeback, Vec::new(), vec![rows[0], asked, last]))
    }

    /// Flushes of a dirty page before the next one was visited, while there are more than the model has, which puts them off. The
    /// latest fault at the page since it was taken before was a read: nothing but a write without a fault makes such an entry dirty.
    pub(super) fn take_unseen_writes(&self, question: &mut Question, traced: &[Traced]) {
        let mut at = 0;
        while question.sides.recorded.requests.len() > question.sides.model.requests.len()
            && let Some(rows) = question.sides.rows.get(at)
        {
            let flush = rows[0];
            let found = self.written_since_read(question.entry.task, flush);
            if let Some((fault, visit)) = found.filter(|(_, visit)| self.is_put_off(question, traced, *visit)) {
                question.sides.take_request(at);
                question.because(Cause::UnseenWrite, &[fault, visit], &[flush]);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the model flushed nothing between a visit of an entry and its next one.
    fn is_put_off(&self, question: &Question, traced: &[Traced], visit: usize) -> bool {
        let events = &self.recording.events;
        let page = |addr: u64| addr & !(PAGE_SIZE - 1);
        let same = |row: &usize| {
            events.kind[*row] == EventKind::ReclaimPage.number()
                && events.task[*row] == question.entry.task
                && page(events.a0[*row]) == page(events.a0[visit])
        };
        let nth = (question.entry.row..visit).filter(same).count();
        let is_own = |part: &&Traced| {
            self.entries.of_event(part.row) == Some(question.index) && part.task == question.entry.task
        };
        let hits = traced.iter().filter(is_own).flat_map(|part| &part.probes);
        let visits: Vec<(u64, u64)> = hits
            .filter_map(|hit| match hit.probe {
                Probe::UnmapOne { addr } => Some((page(addr.0), hit.nr_requests)),
                _ => None,
            })
            .collect();
        let of_page = visits.iter().enumerate().filter(|(_, (addr, _))| *addr == page(events.a0[visit]));
        let Some((at, (_, before))) = of_page.into_iter().nth(nth) else { return false };
        visits.get(at + 1).is_some_and(|(_, after)| after == before)
    }

    /// The read fault after which the page was written that a deferred flush is about, and the visit that took it.
    fn written_since_read(&self, task: u32, flush: usize) -> Option<(usize, usize)> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let page = |row: usize| events.a0[row] & !(PAGE_SIZE - 1);
        let before =
            (0..flush).rev().find(|&row| flushes.task[row] == task && flushes.kind[row] != FlushKind::Func.number())?;
        // What is flushed there, as it is dirty, is not the whole list.
        let is_own = flushes.kind[flush] == FlushKind::BatchFlush.number()
            && flushes.kind[before] == FlushKind::UnmapFlushDirty.number();
        let upto = events.time_ns.partition_point(|time| *time <= flushes.time_ns[before]);
        let is_visit = |row: &usize| events.kind[*row] == EventKind::ReclaimPage.number();
        let visit = (0..upto).rev().find(|row| events.task[*row] == task && is_visit(row)).filter(|_| is_own)?;
        let same_page = (0..visit).rev().filter(|&row| page(row) == page(visit));
        let latest = same_page.into_iter().find(|row| {
            let is_fault = events.kind[*row] == EventKind::Fault.number() && pid(events.task[*row]) == pid(task);
            is_fault || is_visit(row)
        })?;
        let is_read = events.kind[latest] == EventKind::Fault.number() && events.a1[latest] & FAULT_WRITE == 0;
        is_read.then_some((latest, visit))
    }

    /// Copies of pages that were there before the recording, by a caller that nobody shares them with any more: its child has
    /// copied them within the entry, and yet it copies them itself.
    pub(super) fn take_held_pages(&self, question: &mut Question) {
        let flushes = &self.recording.flushes;
        let task = question.entry.task;
        let copies = |row: usize| flushes.kind[row] == FlushKind::PtepClearFlush.number();
        let page = |row: usize| flushes.start[row] & !(PAGE_SIZE - 1);
        let (begin, _) = self.spans[question.index];
        let sum = |requests: &[Columns]| requests.iter().map(|request| request.noise_flushes).sum::<u64>();
        let mut at = 0;
        while sum(&question.sides.recorded.requests) > sum(&question.sides.model.requests)
            && let Some(rows) = question.sides.rows.get(at)
        {
            let row = rows[0];
            let own =
                (0..row).rev().find(|&row| flushes.task[row] == task && flushes.kind[row] != FlushKind::Func.number());
            let own = own.filter(|&own| copies(own) && page(own) == page(row));
            let of_child = own.and_then(|own| {
                let earlier = (0..own).rev().take_while(|&row| flushes.time_ns[row] >= begin);
                earlier
                    .into_iter()
                    .find(|&row| copies(row) && page(row) == page(own) && flushes.mm[row] != flushes.mm[own])
            });
            let Some((own, of_child)) = own.zip(of_child) else {
                at += 1;
                continue;
            };
            let made = self.made_elsewhere(own, begin);
            if made.is_none() && !self.is_from_before(question.entry, page(own)) {
                at += 1;
                continue;
            }
            question.sides.take_request(at);
            let count = &mut question.sides.recorded.rest.ptep_clear_flush;
            *count = count.saturating_sub(1);
            match made {
                Some(made) => question.because(Cause::LruBatch, &[], &[made, of_child, own]),
                None => question.because(Cause::HeldPage, &[], &[of_child, own]),
            }
        }
    }

    /// The record of the copy that made a page before a time, which is copied again: on another CPU, on which fewer pages were
    /// written first since than a batch of the LRU takes (31 since v6.9, 15 before).
    fn made_elsewhere(&self, copy: usize, before_ns: u64) -> Option<usize> {
        let (events, flushes) = (&self.recording.events, &self.recording.flushes);
        let same_page = |row: &usize| {
            flushes.kind[*row] == FlushKind::PtepClearFlush.number()
                && flushes.mm[*row] == flushes.mm[copy]
                && flushes.start[*row] >> PAGE_SHIFT == flushes.start[copy] >> PAGE_SHIFT
        };
        let made = (0..copy).rev().filter(|&row| flushes.time_ns[row] < before_ns).find(same_page)?;
        let first = events.time_ns.partition_point(|time| *time <= flushes.time_ns[made]);
        let adds = |row: &usize| {
            events.cpu[*row] == flushes.cpu[made]
                && events.kind[*row] == EventKind::Fault.number()
                && events.a1[*row] & FAULT_WRITE != 0
        };
        let nr_added = (first..events.len()).take_while(|&row| events.time_ns[row] < before_ns).filter(adds).count();
        let batch = if is_since(self.recording.meta.kernel.as_deref().unwrap_or_default(), (6, 9)) { 31 } else { 15 };
        (flushes.cpu[made] != flushes.cpu[copy] && nr_added < batch).then_some(made)
    }

    /// Whether no record before an entry shows that its process made a page.
    fn is_from_before(&self, entry: &Entry, page: u64) -> bool {
        let events = &self.recording.events;
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let own = pid(entry.task);
        !(0..entry.row).any(|row| {
            let is_fault = events.kind[row] == EventKind::Fault.number() && events.a0[row] & !(PAGE_SIZE - 1) == page;
            is_fault && pid(events.task[row]) == own
        })
    }
}
