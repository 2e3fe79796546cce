//! Operations at the same time: a [`Call`] is an operation in progress, advanced step by step by whoever schedules.
//!
//! What a step does is in the other files; here is what running alone lets one leave out: locks, requests to flush that
//! CPUs execute one by one, and looking again at what was read before a lock was taken.

use std::sync::Arc;

use crate::addr::VirtAddr;
use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::FlushInProgress;
use crate::program::{CompiledKernel, Instr, Leaf, LockName, Pc, Program, ProgramName};

use super::Machine;
use super::frame::{Frame, Loop, StepStatus};
use super::locks::{LockKey, Want};
use super::operation::{Operation, Outcome};
use super::resolve::{Stage, Todo};

/// What one step of a call came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It did something; more follows.
    Ran,
    /// It did nothing: it waits for this.
    Blocked(LockKey),
    /// It is over.
    Done(Outcome),
}

/// An operation in progress. It holds its locks until it is over: one that is dropped half-way leaves them held.
#[derive(Clone, Debug)]
pub struct Call {
    op: u32,
    operation: Operation,
    stage: Stage,
}

impl Call {
    /// The index of the operation, as in the logs.
    pub const fn op(&self) -> u32 {
        self.op
    }

    /// What is done.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// What it returned, if it is over.
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The request to flush that it waits for.
    pub fn flushing(&self) -> Option<&FlushInProgress> {
        match &self.stage {
            Stage::Run(frame, _) => frame.flushing.as_deref(),
            _ => None,
        }
    }

    /// The program that it runs, and the next instruction.
    pub fn position(&self) -> Option<(ProgramName, Pc)> {
        match &self.stage {
            Stage::Run(frame, _) => Some((frame.program(), frame.pc())),
            _ => None,
        }
    }

    /// Whether it has done nothing yet.
    pub const fn is_new(&self) -> bool {
        matches!(self.stage, Stage::Do(Todo::Begin))
    }
}

/// How much of a call is done at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// One step.
    Step,
    /// All that comes before a flush.
    ToFlush,
    /// The same from the begin of a call, while there is no other: locks are taken, but nobody can hold one.
    ToFlushAlone,
}

impl Machine {
    /// Begins an operation, to be advanced step by step beside others. Nothing is done yet.
    ///
    /// # Errors
    /// If its task does not exist, does not run although it has to, or is in a call.
    pub fn begin(&mut self, operation: Operation) -> Result<Call> {
        let op = self.nr_ops;
        self.nr_ops += 1;
        if operation.needs_running() {
            self.running(operation.task().unwrap_or_default())?;
        }
        if let Some(task) = operation.task() {
            let found = self.task_mut(task)?;
            if found.in_call {
                return Err(Error::Value(format!("task {task}: found it in a call, expected that to be over first")));
            }
            found.in_call = true;
        }
        self.nr_calls += 1;
        Ok(Call { op, operation, stage: Stage::Do(Todo::Begin) })
    }

    /// Does the next step of a call. A request to flush takes a step for each CPU that executes it, the requesting one
    /// first and then by number ([`Self::deliver`] for another order), and one to go on after.
    ///
    /// # Errors
    /// As [`Self::apply`]; the call is over then.
    pub fn advance(&mut self, call: &mut Call) -> Result<Progress> {
        self.advance_by(call, Pace::Step)
    }

    /// Steps as [`Self::advance`] does, as many as come before the call asks for a flush, has to wait, or is over.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_to_flush(&mut self, call: &mut Call) -> Result<Progress> {
        self.advance_by(call, Pace::ToFlush)
    }

    fn advance_by(&mut self, call: &mut Call, pace: Pace) -> Result<Progress> {
        if let Stage::Done(outcome) = call.stage {
            return Ok(Progress::Done(outcome));
        }
        if let Some(key) = self.waits_for_cpu(call)? {
            return Ok(Progress::Blocked(key));
        }
        self.stepping = Some(call.op);
        self.locks.turn_of(call.op);
        self.pages.set_locked(self.locks.folios_of_others(call.op));
        // From its begin to its first flush a call without others can neither wait nor find anything changed.
        let pace = if pace == Pace::ToFlush && call.is_new() && self.nr_calls == 1 { Pace::ToFlushAlone } else { pace };
        let kernel = Arc::clone(&self.kernel);
        // Nobody else does anything in between: who runs where, and what others have locked, stays as it is.
        let progress = loop {
            match self.advance_stage(&kernel, (call.op, &call.operation), &mut call.stage, pace) {
                Ok(Progress::Ran) if pace != Pace::Step && call.flushing().is_none() => {}
                progress => break progress,
            }
        };
        self.stepping = None;
        self.pages.set_locked(std::iter::empty());
        if let Ok(Progress::Ran | Progress::Blocked(_)) = progress {
            return progress;
        }
        self.end_call(call);
        progress
    }

    /// `cpu` executes the request to flush that a call waits for; false if it has nothing to do for it (yet).
    pub fn deliver(&mut self, call: &mut Call, cpu: CpuId) -> bool {
        let Stage::Run(frame, _) = &mut call.stage else { return false };
        let Some(flush) = &mut frame.flushing else { return false };
        self.locks.turn_of(call.op);
        self.engine.deliver(flush, cpu)
    }

    /// The request to flush that a call waits for goes out to who is in the mask now, if nobody has executed it yet.
    pub fn choose_targets_again(&self, call: &mut Call) {
        if let Stage::Run(frame, _) = &mut call.stage
            && let Some(flush) = &mut frame.flushing
        {
            self.engine.choose_again(flush);
        }
    }

    /// A call's walk over entries that are taken away stops before the first at or behind an address, as if a reschedule
    /// was due there, and goes on after.
    pub fn reschedule_at(&mut self, call: &Call, addr: VirtAddr) {
        self.resched = Some((call.op, addr));
    }

    /// No walk stops any more.
    pub const fn reschedule_nowhere(&mut self) {
        self.resched = None;
    }

    /// The locks that a call holds, in the order in which it took them; true: for writing.
    pub fn locks_of(&self, call: &Call) -> Vec<(LockKey, bool)> {
        self.locks.of(call.op).collect()
    }

    /// Whether a task is in a call and cannot be preempted there: it holds the lock of a page table, or is flushing.
    pub fn is_atomic(&self, task: u32) -> bool {
        self.locks.spinlock_of(task).is_some()
    }

    /// Whether a task runs on a CPU.
    pub fn runs(&self, task: u32) -> bool {
        self.task(task).is_ok_and(|found| self.cpus[found.cpu.index()].curr == Some(task))
    }

    /// Calls begun and not over.
    pub const fn nr_calls(&self) -> u32 {
        self.nr_calls
    }

    /// An operation beside calls in progress, which has to get through without waiting for them.
    pub(super) fn apply_beside_calls(&mut self, operation: &Operation) -> Result<Outcome> {
        let mut call = self.begin(operation.clone())?;
        loop {
            match self.advance(&mut call)? {
                Progress::Ran => {}
                Progress::Done(outcome) => return Ok(outcome),
                Progress::Blocked(key) => {
                    self.end_call(&call);
                    return Err(Error::Value(format!("found {key} held by a call in progress, expected it free")));
                }
            }
        }
    }

    fn end_call(&mut self, call: &Call) {
        self.locks.release_all(call.op);
        self.nr_calls -= 1;
        if let Some(Some(task)) = call.operation.task().and_then(|task| self.tasks.get_mut(task as usize)) {
            task.in_call = false;
        }
    }

    /// A task that was switched out goes on when it runs again, maybe elsewhere.
    fn waits_for_cpu(&self, call: &mut Call) -> Result<Option<LockKey>> {
        if !call.operation.needs_running() {
            return Ok(None);
        }
        let task = call.operation.task().unwrap_or_default();
        let cpu = self.task(task)?.cpu;
        if self.cpus[cpu.index()].curr != Some(task) {
            return Ok(Some(LockKey::Cpu(task)));
        }
        if let Stage::Run(frame, _) = &mut call.stage {
            frame.by.cpu = cpu;
        }
        Ok(None)
    }

    fn advance_stage(
        &mut self,
        kernel: &CompiledKernel,
        (op, operation): (u32, &Operation),
        stage: &mut Stage,
        pace: Pace,
    ) -> Result<Progress> {
        let next = match stage {
            Stage::Run(frame, todo) => match self.advance_frame(kernel, frame, pace)? {
                StepStatus::Running => return Ok(Progress::Ran),
                StepStatus::Blocked(key) => return Ok(Progress::Blocked(key)),
                StepStatus::Done => {
                    self.locks.release_all(op);
                    let next = self.go_on(operation, todo.clone(), Some(frame))?;
                    if matches!(next, Stage::Blocked(_)) {
                        let todo = todo.clone();
                        *stage = Stage::Do(todo);
                    }
                    next
                }
            },
            Stage::Do(todo) => {
                let todo = todo.clone();
                self.go_on(operation, todo, None)?
            }
            Stage::Blocked(_) | Stage::Done(_) => return Ok(Progress::Ran),
        };
        match next {
            Stage::Blocked(key) => Ok(Progress::Blocked(key)),
            Stage::Done(outcome) => {
                *stage = Stage::Done(outcome);
                Ok(Progress::Done(outcome))
            }
            Stage::Run(mut frame, todo) => {
                // What was looked up for the program is protected by the lock that it takes first.
                if let Some(Instr::Leaf(Leaf::Lock { .. })) = frame.code(kernel).first() {
                    self.advance_frame(kernel, &mut frame, Pace::Step)?;
                }
                *stage = Stage::Run(frame, todo);
                Ok(Progress::Ran)
            }
            next @ Stage::Do(_) => {
                *stage = next;
                Ok(Progress::Ran)
            }
        }
    }

    /// One step of a program: up to and with its next leaf, or one CPU of a flush. Or all steps up to a flush.
    fn advance_frame(&mut self, kernel: &CompiledKernel, frame: &mut Frame, pace: Pace) -> Result<StepStatus> {
        if let Some(flush) = &mut frame.flushing {
            let Some(cpu) = flush.waiting().first().copied() else {
                self.end_flush(frame)?;
                return Ok(StepStatus::Running);
            };
            self.engine.deliver(flush, cpu);
            return Ok(StepStatus::Running);
        }
        let custom = frame.custom.clone();
        let program = custom.as_deref().unwrap_or_else(|| kernel.program(frame.program));
        loop {
            match &program.code[frame.pc as usize] {
                Instr::Leaf(leaf) => match self.advance_leaf(frame, *leaf, pace)? {
                    StepStatus::Running if pace != Pace::Step && frame.flushing.is_none() => {}
                    status => return Ok(status),
                },
                Instr::Next { .. } if walks_unlocked(frame) => {
                    if let Some(key) = self.next_and_lock(program, frame)? {
                        return Ok(StepStatus::Blocked(key));
                    }
                }
                Instr::End => return self.step_in(program, frame),
                _ => {
                    self.step_in(program, frame)?;
                }
            }
        }
    }

    fn advance_leaf(&mut self, frame: &mut Frame, leaf: Leaf, pace: Pace) -> Result<StepStatus> {
        let has_others = pace != Pace::ToFlushAlone;
        let op = frame.by.op;
        match leaf {
            Leaf::Lock { lock, mode } => {
                let wants = self.wants(frame, lock, mode);
                if has_others {
                    if let Some(key) = self.locks.blocker(op, &wants) {
                        return Ok(StepStatus::Blocked(key));
                    }
                    if self.fault_is_stale(frame, lock) {
                        self.give_up_fault(frame);
                        return Ok(StepStatus::Done);
                    }
                }
                self.take(frame, lock, &wants);
            }
            Leaf::Unlock { lock } => self.unlock(frame, lock)?,
            Leaf::Downgrade { lock } => self.locks.downgrade(op, lock),
            Leaf::SwapIn if self.swap_entry_is_gone(frame) => {
                self.give_up_fault(frame);
                return Ok(StepStatus::Done);
            }
            leaf => {
                if has_others && let Some(key) = self.locks.blocker(op, &self.needs_free(frame, leaf)) {
                    return Ok(StepStatus::Blocked(key));
                }
                self.leaf_step(frame, leaf)?;
                if let Some(flush) = &frame.flushing {
                    let key = LockKey::Preemption(flush.initiator().cpu);
                    self.take(frame, LockName::Ptl, &[Want::new(key, false)]);
                }
            }
        }
        frame.pc += 1;
        Ok(StepStatus::Running)
    }

    fn take(&mut self, frame: &Frame, name: LockName, wants: &[Want]) {
        self.locks.take(frame.by.op, frame.by.task, name, wants);
    }

    /// Advances a walk to where its body takes the lock of what it came to: between the two, what it found could change.
    /// With the lock held by another call, nothing is done.
    fn next_and_lock(&mut self, program: &Program, frame: &mut Frame) -> Result<Option<LockKey>> {
        let before = frame.walk();
        self.step_in(program, frame)?;
        let Instr::Leaf(Leaf::Lock { lock: lock @ (LockName::Ptl | LockName::Pml), mode }) =
            program.code[frame.pc as usize]
        else {
            return Ok(None);
        };
        let wants = self.wants(frame, lock, mode);
        if let Some(key) = self.locks.blocker(frame.by.op, &wants) {
            frame.walk_back(before);
            return Ok(Some(key));
        }
        self.take(frame, lock, &wants);
        frame.pc += 1;
        Ok(None)
    }

    /// All CPUs have executed the flush: it returns, and the step that asked for it goes on.
    fn end_flush(&mut self, frame: &mut Frame) -> Result<()> {
        let Some(flush) = frame.flushing.take() else { return Ok(()) };
        self.locks.release_key(frame.by.op, LockKey::Preemption(flush.initiator().cpu));
        self.engine.end_flush(*flush);
        for after in std::mem::take(&mut frame.after) {
            self.after_flush(frame, after)?;
        }
        Ok(())
    }
}

/// Whether the innermost loop walks what only the lock taken in its body protects.
fn walks_unlocked(frame: &Frame) -> bool {
    matches!(frame.loops.last(), Some(Loop::Table { .. } | Loop::Mapping { .. } | Loop::Extent { .. }))
}
