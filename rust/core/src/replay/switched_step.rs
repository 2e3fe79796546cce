//! Entries of a scenario that ran alone, but while a CPU switched tasks.
//!
//! A replay knows when a call began, not when inside it each request was made and executed, so it does the call whole and
//! the switches after it. If an entry comes out otherwise than it was recorded, and CPUs switched while it ran, it is done
//! again led by its records ([`parallel_step`](super::parallel_step)): they say which request came before which switch.
//! What the entry asks of whom is still the machine's own.

use super::driver::Driver;
use super::interleave::{Interleaving, Sign};
use super::lab::{Entries, Entry, model_columns};
use super::parallel_step::{ParallelSteps, Step, end_of};
use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::error::Result;
use crate::machine::Operation;
use crate::trace::kinds::{SHARES_MM, THREAD};
use crate::trace::{Event, EventKind, Recording};

/// include/uapi/asm-generic/mman-common.h: `MADV_PAGEOUT`
const MADV_PAGEOUT: u64 = 21;

/// Entries that ran alone while a CPU switched: first row and what is replayed as one.
pub(super) fn switched_entries<'r>(
    recording: &'r Recording,
    entries: &'r Entries,
) -> impl Iterator<Item = (usize, Step)> + 'r {
    let alone = entries.list.iter().enumerate();
    let alone = alone.filter(|(_, entry)| !entry.parallel && entry.text != Entry::EXIT_MMAP);
    alone.filter_map(|(index, entry)| {
        let last = end_of(recording, entry)?;
        let kinds = || (entry.row..=last).map(|row| recording.events.get(row).kind());
        let pages_out = |row: usize| {
            let event = recording.events.get(row);
            event.task == entry.task && event.kind() == EventKind::Madvise && event.a2 == MADV_PAGEOUT
        };
        // What reclaim takes is told page by page, unless advice chose it; and the end of a task is not led.
        let reclaims = !(entry.row..=last).any(pages_out) && kinds().any(|kind| kind == EventKind::ReclaimPage);
        let is_led =
            kinds().any(|kind| kind == EventKind::Switch) && !reclaims && !kinds().any(|kind| kind == EventKind::Exit);
        is_led.then_some((entry.row, Step { last, alone: Some(index) }))
    })
}

impl Driver<'_> {
    /// Replays the rows of a step that records may lead.
    pub(super) fn led_step(&mut self, steps: &ParallelSteps, first: usize, step: Step) -> Result<()> {
        let rows = first..=step.last;
        if let Some(entry) = step.alone
            && self.clone().comes_out_exact(steps, first, step.last, entry)?
        {
            return rows.into_iter().try_for_each(|row| self.event(row));
        }
        self.parallel_step(steps, first, step)
    }

    /// Whether an entry comes out as it was recorded when its rows are replayed one after the other.
    fn comes_out_exact(mut self, steps: &ParallelSteps, first: usize, last: usize, entry: usize) -> Result<bool> {
        self.trace_from_here();
        (first..=last).try_for_each(|row| self.event(row))?;
        let model = model_columns(&self.take_traces(), steps.entries());
        Ok(steps.recorded(entry).differences(&model[entry]).is_empty())
    }

    /// The entry of the faulting page is made such as the recording shows it.
    pub(super) fn heed_recorded_fault(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.tasks.alive(event.task) else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        self.correct(mm, VirtAddr(event.a0).align_down(PAGE_SHIFT), event.a1)
    }

    /// Whether the next fault of a step is on the same page: what a fault had mapped was taken before the access.
    pub(super) fn faults_again(&self, row: usize) -> bool {
        let events = &self.recording.events;
        let is_fault = |row: &usize| events.kind[*row] == EventKind::Fault.number();
        let of_task = |other: &usize| events.task[*other] == events.task[row];
        if !is_fault(&row) {
            return false;
        }
        let next = (row + 1..events.len()).find(of_task).filter(is_fault);
        next.is_some_and(|next| {
            events.a0[next] >> PAGE_SHIFT == events.a0[row] >> PAGE_SHIFT && events.a1[next] & 1 == 0
        })
    }

    /// A fork call begins.
    pub(super) fn lead_to_fork(&mut self, interleaving: &mut Interleaving, row: usize, event: &Event) -> Result<()> {
        if event.flags & (SHARES_MM | THREAD) != 0 || event.ret < 0 {
            return self.dispatch(row, event);
        }
        let Some(parent) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        self.see_child(event, false);
        interleaving.push(event.task, row, Operation::Fork { task: parent });
        Ok(())
    }

    /// The children of forks that are done can run; a fork whose child is about to run is done.
    pub(super) fn lead_forks(&mut self, interleaving: &mut Interleaving, event: &Event) -> Result<()> {
        if event.kind() == EventKind::Switch {
            for task in interleaving.tasks() {
                let row = interleaving.row_of_call(task).or_else(|| interleaving.next_row(task));
                let is_of = |row: &usize| {
                    let call = self.recording.events.get(*row);
                    call.kind() == EventKind::Fork && call.a5 == event.a0
                };
                if let Some(row) = row.filter(is_of) {
                    interleaving.until(&mut self.machine, task, Sign::Return(row))?;
                }
            }
        }
        for (row, child) in interleaving.take_forked() {
            let call = self.recording.events.get(row);
            if let Some(parent) = self.tasks.alive(call.task) {
                self.new_task_made(parent, call.a5, child)?;
            }
        }
        Ok(())
    }
}
