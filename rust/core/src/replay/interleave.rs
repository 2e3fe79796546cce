//! Calls of several tasks at the same time, led by what is seen of each: who has to get where next is said from outside;
//! who holds what keeps it from there is moved out of the way.
//!
//! Nothing here knows a recording. A task is led to a [`Sign`], a thing that probes show of it; between two signs it may
//! stop at once or run on to just before the next, which is what a search over schedules varies.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::machine::{Call, LockKey, Machine, Operation, Outcome, Probe, ProbeHit, Progress};

/// Steps without a sign after which a task is given up: far above the entries of a gather.
const MAX_STEPS: u32 = 1_000_000;
/// How far who waits for whom is followed.
const MAX_WAITS: u32 = 8;

/// What probes show of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// `tlb_gather_mmu`.
    Gather,
    /// `tlb_finish_mmu`.
    Finish,
    /// `tlb_flush_mmu`.
    FlushMmu,
    /// `flush_tlb_batched_pending`.
    BatchedPending,
    /// A request to flush was begun: generation, mask, targets.
    Request,
    /// A page fault, at the first byte of its page.
    Fault(VirtAddr),
    /// A visit of reclaim to an entry, by the first byte of its page.
    UnmapOne(VirtAddr),
    /// The call that an event of this row stands for returned.
    Return(usize),
}

impl Sign {
    fn of(probe: Probe) -> Option<Self> {
        Some(match probe {
            Probe::Gather { .. } => Self::Gather,
            Probe::Finish { .. } => Self::Finish,
            Probe::FlushMmu => Self::FlushMmu,
            Probe::BatchedPending { .. } => Self::BatchedPending,
            Probe::Fault { addr } => Self::Fault(addr.align_down(PAGE_SHIFT)),
            Probe::UnmapOne { addr } => Self::UnmapOne(addr.align_down(PAGE_SHIFT)),
            _ => return None,
        })
    }
}

/// An operation that a task has to do.
#[derive(Clone, Debug)]
struct Due {
    /// Row of the event; several of one row follow each other.
    row: usize,
    operation: Operation,
    /// The kernel does it by itself, in kernel mode: no record of its faults.
    by_kernel: bool,
    /// What it flushes belongs to no operation of the recording.
    is_nobodys: bool,
}

/// What a task of the recording has to do.
#[derive(Clone, Debug, Default)]
struct Actor {
    queue: VecDeque<Due>,
    doing: Option<(usize, Call)>,
    /// Signs given and not asked for.
    signs: VecDeque<Sign>,
    /// A request that was recorded and that the task has not made yet.
    owes_request: bool,
}

/// What one step of a task came to.
enum Turn {
    Ran,
    Blocked(LockKey),
    Idle,
}

/// Tasks with calls in progress, by their index in the recording.
#[derive(Clone, Debug, Default)]
pub(super) struct Interleaving {
    actors: BTreeMap<u32, Actor>,
    /// The row and task for which each operation of the machine was done.
    pub(super) causes: FxHashMap<u32, (usize, u32)>,
    /// Probes hit so far.
    pub(super) probes: Vec<ProbeHit>,
    /// One entry ran alone, but CPUs switched while it ran.
    pub(super) is_alone: bool,
    /// Operations of the machine that the kernel did by itself.
    by_kernel: FxHashSet<u32>,
    /// Those whose flushes belong to no operation of the recording.
    pub(super) nobodys: FxHashSet<u32>,
    /// Forks that are done: row, the machine's new task.
    forked: Vec<(usize, u32)>,
}

impl Interleaving {
    /// Nobody has anything to do; `is_alone` says that one entry ran alone.
    pub(super) fn new(is_alone: bool) -> Self {
        Self { is_alone, ..Self::default() }
    }

    /// Gives a task an operation to do after what it has to do already.
    pub(super) fn push(&mut self, task: u32, row: usize, operation: Operation) {
        let due = Due { row, operation, by_kernel: false, is_nobodys: false };
        self.actors.entry(task).or_default().queue.push_back(due);
    }

    /// Gives a task operations to do before what it has to do already.
    pub(super) fn push_first(&mut self, task: u32, row: usize, operations: Vec<Operation>) {
        let queue = &mut self.actors.entry(task).or_default().queue;
        let due = operations.into_iter().map(|operation| Due { row, operation, by_kernel: false, is_nobodys: false });
        due.rev().for_each(|due| queue.push_front(due));
    }

    /// Gives a task something that the kernel does by itself at a row: before, or after, what it has to do already. What it
    /// flushes belongs to `cause`, or to nobody.
    pub(super) fn push_by_kernel(
        &mut self,
        task: u32,
        (row, cause): (usize, Option<usize>),
        operation: Operation,
        is_first: bool,
    ) {
        let queue = &mut self.actors.entry(task).or_default().queue;
        let row = cause.unwrap_or(row);
        let due = Due { row, operation, by_kernel: true, is_nobodys: cause.is_none() };
        if is_first { queue.push_front(due) } else { queue.push_back(due) }
    }

    /// Whether a probe was hit that the recording would not show: a fault in kernel mode.
    pub(super) fn hides(&self, hit: &ProbeHit) -> bool {
        matches!(hit.probe, Probe::Fault { .. }) && self.by_kernel.contains(&hit.op)
    }

    /// Whether a task has a call in progress.
    pub(super) fn is_in_call(&self, task: u32) -> bool {
        self.actors.get(&task).is_some_and(|actor| actor.doing.is_some())
    }

    /// Leads a task to a sign; false if it does not give it before it has nothing more to do.
    pub(super) fn until(&mut self, machine: &mut Machine, task: u32, sign: Sign) -> Result<bool> {
        self.make_owed(machine, task)?;
        self.lead(machine, task, sign)
    }

    /// Lets a task come to just before its next sign, which is the request that a record of it tells of: the record is
    /// made when `flush_tlb_mm_range` is entered, and the generation raised a moment later.
    pub(super) fn owe_request(&mut self, machine: &mut Machine, task: u32) -> Result<()> {
        self.make_owed(machine, task)?;
        self.run_ahead(machine, task)?;
        self.actors.entry(task).or_default().owes_request = true;
        Ok(())
    }

    /// A task makes the request that it owes.
    pub(super) fn make_owed(&mut self, machine: &mut Machine, task: u32) -> Result<()> {
        if self.actors.get_mut(&task).is_some_and(|actor| std::mem::take(&mut actor.owes_request)) {
            self.lead(machine, task, Sign::Request)?;
        }
        Ok(())
    }

    /// The task that owes a request and has its call on a CPU.
    pub(super) fn owing_on(&self, machine: &Machine, cpu: CpuId) -> Option<u32> {
        let of_machine = machine.cpu(cpu)?.curr?;
        let owes = |actor: &Actor| {
            let runs = actor.doing.as_ref().and_then(|(_, call)| call.operation().task());
            actor.owes_request && runs == Some(of_machine)
        };
        self.actors.iter().find(|(_, actor)| owes(actor)).map(|(task, _)| *task)
    }

    fn lead(&mut self, machine: &mut Machine, task: u32, sign: Sign) -> Result<bool> {
        for _ in 0..MAX_STEPS {
            while let Some(given) = self.actors.entry(task).or_default().signs.pop_front() {
                if given == sign {
                    return Ok(true);
                }
            }
            if let Sign::Fault(page) = sign
                && self.is_past(task, page)
            {
                return Ok(false);
            }
            match self.step(machine, task)? {
                Turn::Ran => {}
                Turn::Idle => return Ok(false),
                Turn::Blocked(key) => {
                    if !self.make_way(machine, task, key, 0)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Whether the accesses of a task have come beyond a page: they ascend.
    fn is_past(&self, task: u32, page: VirtAddr) -> bool {
        let Some(actor) = self.actors.get(&task) else { return false };
        let of_user = |call: &&(usize, Call)| !self.by_kernel.contains(&call.1.op());
        let of_call = actor.doing.as_ref().filter(of_user).map(|(_, call)| call.operation());
        let next = actor.queue.iter().find(|due| !due.by_kernel);
        match of_call.or_else(|| next.map(|due| &due.operation)) {
            Some(Operation::Access { addr, .. }) => VirtAddr(*addr).align_down(PAGE_SHIFT) > page,
            _ => false,
        }
    }

    /// The row of the call that a task is in.
    pub(super) fn row_of_call(&self, task: u32) -> Option<usize> {
        self.actors.get(&task)?.doing.as_ref().map(|(row, _)| *row)
    }

    /// The row of what a task has to do next.
    pub(super) fn next_row(&self, task: u32) -> Option<usize> {
        self.actors.get(&task)?.queue.front().map(|due| due.row)
    }

    /// Does all that a task has to do.
    pub(super) fn finish(&mut self, machine: &mut Machine, task: u32) -> Result<bool> {
        self.until(machine, task, Sign::Return(usize::MAX))?;
        Ok(!self.is_in_call(task))
    }

    /// Takes the forks that were done since the last time: row, the machine's new task.
    pub(super) fn take_forked(&mut self) -> Vec<(usize, u32)> {
        std::mem::take(&mut self.forked)
    }

    /// The tasks that were given anything.
    pub(super) fn tasks(&self) -> Vec<u32> {
        self.actors.keys().copied().collect()
    }

    /// Runs a task on to just before its next sign, or to where it has to wait. A call that gives no sign any more is done to
    /// its end: when it returned is recorded, when it did its work is not.
    pub(super) fn run_ahead(&mut self, machine: &mut Machine, task: u32) -> Result<()> {
        let (mut other, mut other_machine) = (self.clone(), machine.clone());
        let nr_signs = other.nr_signs(task);
        let mut nr_steps = 0;
        while nr_steps < MAX_STEPS && matches!(other.step(&mut other_machine, task)?, Turn::Ran) {
            if other.nr_signs(task) > nr_signs {
                nr_steps += u32::from(other.has_returned(task) && !self.accesses(task));
                break;
            }
            nr_steps += 1;
        }
        for _ in 0..nr_steps {
            self.step(machine, task)?;
        }
        Ok(())
    }

    /// Lets a task get to the end of the fault that it is in, and not to the access again.
    pub(super) fn finish_fault(&mut self, machine: &mut Machine, task: u32) -> Result<()> {
        let is_handled = |actor: &Actor| actor.doing.as_ref().is_none_or(|(_, call)| call.position().is_none());
        for _ in 0..MAX_STEPS {
            if self.actors.get(&task).is_none_or(is_handled) || !matches!(self.step(machine, task)?, Turn::Ran) {
                break;
            }
        }
        Ok(())
    }

    /// Whether the latest sign of a task is that a call returned.
    fn has_returned(&self, task: u32) -> bool {
        self.actors.get(&task).is_some_and(|actor| matches!(actor.signs.back(), Some(Sign::Return(_))))
    }

    /// Whether what a task does, or will do next, is an access of its own.
    fn accesses(&self, task: u32) -> bool {
        let Some(actor) = self.actors.get(&task) else { return false };
        let doing = actor.doing.as_ref().map(|(_, call)| call.operation());
        matches!(doing.or_else(|| actor.queue.front().map(|due| &due.operation)), Some(Operation::Access { .. }))
    }

    fn nr_signs(&self, task: u32) -> usize {
        self.actors.get(&task).map_or(0, |actor| actor.signs.len())
    }

    /// `cpu` executes what the task on `requester` asked for; nothing if it asks for nothing. With `chooses_again` the first
    /// that does so comes after the targets were chosen again.
    pub(super) fn deliver(&mut self, machine: &mut Machine, requester: CpuId, cpu: CpuId, chooses_again: bool) {
        for (_, call) in self.actors.values_mut().filter_map(|actor| actor.doing.as_mut()) {
            if call.flushing().is_some_and(|flush| flush.initiator().cpu == requester) {
                if chooses_again {
                    machine.choose_targets_again(call);
                }
                machine.deliver(call, cpu);
                return;
            }
        }
    }

    /// Leads a task to a sign with its walk stopped at an address on the way.
    pub(super) fn until_stopped(&mut self, machine: &mut Machine, task: u32, sign: Sign, at: VirtAddr) -> Result<bool> {
        if let Some((_, call)) = self.actors.get(&task).and_then(|actor| actor.doing.as_ref()) {
            machine.reschedule_at(call, at);
        }
        let found = self.until(machine, task, sign);
        machine.reschedule_nowhere();
        found
    }

    /// Lets the task of the machine that runs on a CPU leave the section in which it cannot be preempted.
    pub(super) fn leave_atomic(&mut self, machine: &mut Machine, running: u32) -> Result<()> {
        let task = self.actors.iter().find_map(|(task, actor)| {
            let (_, call) = actor.doing.as_ref()?;
            (call.operation().task() == Some(running)).then_some(*task)
        });
        if let Some(task) = task {
            for _ in 0..MAX_STEPS {
                if !machine.is_atomic(running) || !matches!(self.step(machine, task)?, Turn::Ran) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, machine: &mut Machine, task: u32) -> Result<Turn> {
        let actor = self.actors.entry(task).or_default();
        if actor.doing.is_none() {
            let Some(Due { row, operation, by_kernel, is_nobodys }) = actor.queue.pop_front() else {
                return Ok(Turn::Idle);
            };
            let of_machine = operation.task().unwrap_or_default();
            if !machine.runs(of_machine) {
                bring_back(machine, of_machine)?;
            }
            let call = machine.begin(operation)?;
            if is_nobodys {
                self.nobodys.insert(call.op());
            } else {
                self.causes.insert(call.op(), (row, task));
            }
            if by_kernel {
                self.by_kernel.insert(call.op());
            }
            actor.doing = Some((row, call));
        }
        let Some((row, call)) = &mut actor.doing else { return Ok(Turn::Idle) };
        let was_flushing = call.flushing().is_some();
        let before = machine.engine().counters().nr_flush_requests;
        let progress = machine.advance(call)?;
        let nr_logged = machine.engine().counters().nr_flush_requests - before;
        for hit in machine.take_probes() {
            let is_hidden = matches!(hit.probe, Probe::Fault { .. }) && self.by_kernel.contains(&hit.op);
            actor.signs.extend(Sign::of(hit.probe).filter(|_| !is_hidden));
            self.probes.push(hit);
        }
        // A request gives its sign when it begins; one that is made at once (the split of a huge page), when it is logged.
        let is_flushing = call.flushing().is_some();
        let nr_made = nr_logged.saturating_sub(was_flushing.into()) + u64::from(!was_flushing && is_flushing);
        actor.signs.extend((0..nr_made).map(|_| Sign::Request));
        Ok(match progress {
            Progress::Ran => Turn::Ran,
            Progress::Blocked(key) => Turn::Blocked(key),
            Progress::Done(outcome) => {
                if let (Operation::Fork { .. }, Outcome::Value(child)) = (call.operation(), outcome) {
                    self.forked.extend(u32::try_from(child).map(|child| (*row, child)));
                }
                // Accesses of one event are one thing to do.
                if actor.queue.front().is_none_or(|next| next.row != *row) {
                    actor.signs.push_back(Sign::Return(*row));
                }
                actor.doing = None;
                Turn::Ran
            }
        })
    }

    /// Who holds what a task waits for goes a step on; false if nobody can.
    fn make_way(&mut self, machine: &mut Machine, task: u32, key: LockKey, depth: u32) -> Result<bool> {
        if let LockKey::Cpu(of_machine) = key {
            bring_back(machine, of_machine)?;
            return Ok(machine.runs(of_machine));
        }
        if depth > MAX_WAITS {
            return Ok(false);
        }
        let holds = |actor: &Actor| {
            actor.doing.as_ref().is_some_and(|(_, call)| machine.locks_of(call).iter().any(|(held, _)| *held == key))
        };
        let Some(holder) = self.actors.iter().find(|(other, actor)| **other != task && holds(actor)).map(|(id, _)| *id)
        else {
            return Ok(false);
        };
        match self.step(machine, holder)? {
            Turn::Ran => Ok(true),
            Turn::Idle => Ok(false),
            Turn::Blocked(next) => self.make_way(machine, holder, next, depth + 1),
        }
    }
}

/// A task that was switched out although it has something to do runs again where it ran last.
fn bring_back(machine: &mut Machine, task: u32) -> Result<()> {
    let cpu = u32::from(machine.task(task)?.cpu.0);
    let curr = machine.cpu(CpuId(cpu as u16)).and_then(|cpu| cpu.curr);
    if curr.is_none_or(|other| !machine.is_atomic(other)) {
        machine.apply(&Operation::Schedule { cpu, task: Some(task) })?;
    }
    Ok(())
}
