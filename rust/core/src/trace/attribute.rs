//! Which event a flush belongs to.
//!
//! The rules, for a flush that a task does itself:
//! 1. inside a recorded call (between its enter and its exit) it belongs to the call. One exception: after a kernel-mode
//!    fault in the call that was a write to a present page (copy on write, write protection), the next request belongs
//!    to the fault, and only that one: such a fault sends one request at most, everything else is the call's;
//! 2. outside a call it belongs to the task's latest fault, if the task entered or left no recorded call since (calls
//!    that are not recorded remain invisible, therefore this is inferred);
//! 3. after the task's exit it belongs to the exit;
//! 4. inside a scenario's step, and nothing of the above, to the step; else to nothing.
//!
//! A user-mode fault ends a call that is still open: its exit was not recorded. A flush that a CPU does because it was
//! told belongs to the operation of the sender: [`Senders`] for recordings without generations.

use super::events::row_number;
use super::kinds::Attribution;

const ERROR_PRESENT_WRITE: u64 = 3;

/// What a task is doing; rows are rows of the event table.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Doing {
    call: Option<usize>,
    fault: Option<Fault>,
    exit: Option<usize>,
    step: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    row: usize,
    /// It can be the cause although a call is open.
    writes_present: bool,
}

impl Doing {
    /// The open call.
    pub(super) fn call(&self) -> Option<usize> {
        self.call
    }

    /// The row of the task's exit.
    pub(super) fn exit(&self) -> Option<usize> {
        self.exit
    }

    pub(super) fn enter(&mut self, row: usize) {
        self.call = Some(row);
        self.fault = None;
    }

    pub(super) fn leave(&mut self) {
        self.call = None;
        self.fault = None;
    }

    pub(super) fn begin_fault(&mut self, row: usize, error_code: u64) {
        self.fault = Some(Fault { row, writes_present: error_code & ERROR_PRESENT_WRITE == ERROR_PRESENT_WRITE });
    }

    pub(super) fn begin_exit(&mut self, row: usize) {
        self.leave();
        self.exit = Some(row);
    }

    pub(super) fn begin_step(&mut self, row: usize) {
        self.leave();
        self.step = Some(row);
    }

    pub(super) fn end_step(&mut self) {
        self.leave();
        self.step = None;
    }

    /// The event to which what the task does now belongs.
    pub(super) fn owner(&self) -> (i64, Attribution) {
        let (row, how) = match (self.call, self.fault) {
            (Some(_), Some(fault)) if fault.writes_present => (fault.row, Attribution::Fault),
            (Some(call), _) => (call, Attribution::Call),
            (None, Some(fault)) => (fault.row, Attribution::Fault),
            (None, None) => match (self.exit, self.step) {
                (Some(exit), _) => (exit, Attribution::Exit),
                (None, Some(step)) => (step, Attribution::Step),
                (None, None) => return (-1, Attribution::Unknown),
            },
        };
        (row_number(row), how)
    }

    /// The owner of a new flush request; a fault inside a call owns one only.
    pub(super) fn open_request(&mut self) -> (i64, Attribution) {
        let owner = self.owner();
        if self.call.is_some() && owner.1 == Attribution::Fault {
            self.fault = None;
        }
        owner
    }
}

/// A task that told other CPUs to flush and has done nothing else since, so that they may still be obeying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Send {
    /// Row of the flush record.
    pub row: usize,
    /// The operation that it belongs to.
    pub op_event: i64,
    pub task: u32,
    pub pid: Option<u32>,
    pub cpu: u16,
}

/// Who may be waiting for other CPUs. A sender waits without being preempted, so any other event of it ends the wait.
#[derive(Default)]
pub(super) struct Senders(Vec<Send>);

impl Senders {
    pub(super) fn begin(&mut self, send: Send) {
        self.end(send.task);
        self.0.push(send);
    }

    pub(super) fn end(&mut self, task: u32) {
        if !self.0.is_empty() {
            self.0.retain(|send| send.task != task);
        }
    }

    /// The send that `cpu`, running a task of process `pid`, obeys: the latest one of the same process on another CPU, else
    /// the latest one on another CPU (the CPU may no longer run the address space, and vfork shares one).
    pub(super) fn of(&self, cpu: u16, pid: Option<u32>) -> Option<Send> {
        let others = || self.0.iter().rev().filter(|send| send.cpu != cpu);
        others().find(|send| pid.is_some() && send.pid == pid).or_else(|| others().next()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_owns_what_happens_inside_it() {
        let mut doing = Doing::default();
        assert_eq!(doing.open_request(), (-1, Attribution::Unknown));
        doing.begin_fault(1, 6);
        assert_eq!(doing.open_request(), (1, Attribution::Fault));
        assert_eq!(doing.open_request(), (1, Attribution::Fault), "reclaim in a fault may flush again and again");
        doing.enter(2);
        assert_eq!(doing.open_request(), (2, Attribution::Call), "the fault before the call is over");
        doing.leave();
        assert_eq!(doing.open_request(), (-1, Attribution::Unknown), "nothing of the task is known to go on");
    }

    #[test]
    fn a_write_fault_on_a_present_page_inside_a_call_owns_one_request() {
        let mut doing = Doing::default();
        doing.enter(2);
        doing.begin_fault(3, 0);
        assert_eq!(doing.open_request(), (2, Attribution::Call));
        doing.begin_fault(4, 3);
        assert_eq!(doing.open_request(), (4, Attribution::Fault));
        assert_eq!(doing.open_request(), (2, Attribution::Call));
    }

    #[test]
    fn exit_and_step_own_the_rest() {
        let mut doing = Doing::default();
        doing.begin_step(5);
        assert_eq!(doing.owner(), (5, Attribution::Step));
        doing.begin_exit(6);
        assert_eq!(doing.owner(), (6, Attribution::Exit));
    }

    #[test]
    fn who_obeys_finds_the_sender_of_its_process() {
        let mut senders = Senders::default();
        let send = |row, task, pid, cpu| Send { row, op_event: row_number(row), task, pid: Some(pid), cpu };
        senders.begin(send(1, 1, 10, 0));
        senders.begin(send(2, 2, 20, 1));
        assert_eq!(senders.of(2, Some(10)).map(|send| send.row), Some(1));
        assert_eq!(senders.of(2, None).map(|send| send.row), Some(2));
        assert_eq!(senders.of(1, Some(20)).map(|send| send.row), Some(1), "a CPU does not send to itself");
        senders.end(1);
        senders.end(2);
        assert!(senders.of(2, Some(10)).is_none());
    }
}
