//! What the kernel writes to the `struct rseq` of a thread.
//!
//! A thread that lost its CPU has the number of its CPU, and more, written to its `struct rseq` before it is back in user mode
//! (kernel/rseq.c: `rseq_preempt()` in `prepare_task_switch()`, `rseq_update_cpu_node_id()` in
//! `exit_to_user_mode_loop()`). It is a write in kernel mode, so the lab has no record of its fault; after a fork it copies the
//! page, and flushes. The structure lies in the thread's own block (glibc since 2.35), whose page is also that of the thread's id:
//! of the first thread it begins the heap, of others `clone3` is called with its address (the argument of the new thread's
//! function, in r8), and forks keep it.
//!
//! When the thread is back follows from the switch: at once if it was switched out on its way to user mode (`R` without
//! `+`), at the end of its call if the recording has one that it is in, else at once again: the machine has done by then
//! whatever it was in. If the next that is recorded after the call is that it loses its CPU again, it was not back: a
//! reschedule that is due comes first.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Result;
use crate::machine::{AccessKind, Operation};
use crate::replay::driver::Driver;
use crate::replay::interleave::Interleaving;
use crate::trace::{Event, EventKind};

const CLONE3: i32 = 435;

/// The threads' structures, and who is owed a write.
#[derive(Clone, Default)]
pub(in crate::replay) struct Rseq {
    /// By task: an address in the page of its structure.
    blocks: FxHashMap<u32, u64>,
    /// Tasks that lost their CPU and were not in user mode since.
    lost: FxHashSet<u32>,
    /// Tasks that are back at the end of their call: that time in ns, the task.
    due: Vec<(u64, u32)>,
}

/// When a thread is back in user mode.
enum Back {
    Now,
    AtEndOfCall(u64),
}

impl Rseq {
    /// A task has its structure in the page of an address.
    pub(in crate::replay) fn has_block(&mut self, task: u32, addr: u64) {
        self.blocks.insert(task, addr & !(PAGE_SIZE - 1));
    }

    /// A fork or clone call made a task.
    pub(in crate::replay) fn see_child(&mut self, call: &Event, child: u32, is_thread: bool) {
        let block =
            if is_thread { (call.nr == CLONE3).then_some(call.a4) } else { self.blocks.get(&call.task).copied() };
        if let Some(block) = block {
            self.has_block(child, block);
        }
    }
}

impl Driver<'_> {
    /// After a switch: who is back, and when.
    fn back_after(&mut self, row: usize, event: &Event) -> Option<(u32, Back)> {
        let next = u32::try_from(event.a0).ok()?;
        if self.rseq.blocks.contains_key(&event.task) {
            self.rseq.lost.insert(event.task);
            self.rseq.due.retain(|(_, task)| *task != event.task);
        }
        if !self.rseq.lost.contains(&next) {
            return None;
        }
        let events = &self.recording.events;
        let own = self.own_rows(row, next);
        let left = own.clone().find(|&row| events.kind[row] == EventKind::Switch.number())?;
        let was_leaving = events.a1[left] == u64::from(b'R') && events.a2[left] == 0;
        let call = own.clone().find(|&row| events.kind[row] != EventKind::Switch.number());
        let is_open = |row: &usize| events.get(*row).kind().is_call() && events.end_ns[*row] >= event.time_ns;
        let open = call.filter(is_open).filter(|_| !was_leaving);
        let Some(open) = open else { return Some((next, Back::Now)) };
        // A reschedule that is due comes before the write.
        let mut later = (row + 1..events.len()).filter(|&row| events.task[row] == next);
        let is_back = later.next().is_none_or(|row| events.kind[row] != EventKind::Switch.number());
        is_back.then_some((next, Back::AtEndOfCall(events.end_ns[open])))
    }

    /// The rows of a task before one, the latest first.
    fn own_rows(&self, before: usize, task: u32) -> impl Iterator<Item = usize> + Clone + use<'_> {
        (0..before).rev().filter(move |&row| self.recording.events.task[row] == task)
    }

    /// After a switch in a replay in one order.
    pub(in crate::replay) fn rseq_after_switch(&mut self, row: usize, event: &Event) -> Result<()> {
        match self.back_after(row, event) {
            Some((task, Back::Now)) => self.write_rseq(row, task),
            Some((task, Back::AtEndOfCall(end_ns))) => {
                self.rseq.due.push((end_ns, task));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// After a switch in a step that records lead: the write waits for what its task has to do before.
    pub(in crate::replay) fn lead_rseq(
        &mut self,
        interleaving: &mut Interleaving,
        row: usize,
        event: &Event,
    ) -> Result<()> {
        let Some((task, back)) = self.back_after(row, event) else { return Ok(()) };
        let Some(operation) = self.rseq_operation(task)? else { return Ok(()) };
        let cause = self.rseq_cause(row, task);
        interleaving.push_by_kernel(task, (row, cause), operation, matches!(back, Back::Now));
        Ok(())
    }

    /// Threads whose calls have ended by now are back in user mode.
    pub(in crate::replay) fn rseq_due(&mut self, row: usize, now_ns: u64) -> Result<()> {
        while let Some(at) = self.rseq.due.iter().position(|(end_ns, _)| *end_ns <= now_ns) {
            let (_, task) = self.rseq.due.remove(at);
            self.write_rseq(row, task)?;
        }
        Ok(())
    }

    /// The write for a task, which is not owed any more; none if it cannot be.
    fn rseq_operation(&mut self, index: u32) -> Result<Option<Operation>> {
        self.rseq.lost.remove(&index);
        let Some(&addr) = self.rseq.blocks.get(&index) else { return Ok(None) };
        let Some(task) = self.tasks.alive(index).filter(|task| self.machine.running_on(*task).is_some()) else {
            return Ok(None);
        };
        let mm = self.machine.task_mm(task)?;
        let is_allowed = self.machine.allows(mm, VirtAddr(addr), AccessKind::Write);
        Ok(is_allowed.then_some(Operation::Access { task, addr, kind: AccessKind::Write }))
    }

    fn write_rseq(&mut self, row: usize, index: u32) -> Result<()> {
        let Some(operation) = self.rseq_operation(index)? else { return Ok(()) };
        self.book();
        let cause = self.rseq_cause(row, index);
        let before = self.cause;
        self.run(&operation)?;
        match cause {
            Some(cause) => {
                self.cause = (cause, index);
                self.book_by_kernel();
                self.cause = before;
            }
            None => self.discard_log(),
        }
        Ok(())
    }

    /// The event that a task's flushes outside its calls belong to, as the importer has it: its latest fault, else its step.
    fn rseq_cause(&self, row: usize, task: u32) -> Option<usize> {
        let ends_fault = |row: &usize| {
            let kind = self.recording.events.get(*row).kind();
            kind.is_call() || matches!(kind, EventKind::Fault | EventKind::StepBegin | EventKind::StepEnd)
        };
        let latest = self.own_rows(row, task).find(ends_fault);
        let fault = latest.filter(|&row| self.recording.events.kind[row] == EventKind::Fault.number());
        fault.or_else(|| self.step_of.get(&task).copied())
    }
}
