//! Tasks of the recording and of the machine, and which runs where.

use rustc_hash::FxHashMap;

use super::driver::Driver;
use crate::addr::{PAGE_SIZE, VaRange, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::machine::{Operation, Outcome, VmFlags};
use crate::trace::Event;
use crate::trace::kinds::{ENTER_UNSEEN, NO_VALUE, SHARES_MM, TASK_IDLE, TASK_KTHREAD, TASK_OTHER, THREAD};

/// Where a program that is not position-independent is mapped.
const PROGRAM: u64 = 0x40_0000;

/// x86-64's number of `clone`, and its flag that makes the child write its id to the address in the fourth argument.
const CLONE: i32 = 56;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;

/// What is known of a task of the recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    NotYet,
    Alive(u32),
    Gone,
}

/// Which task of the machine stands for which of the recording.
#[derive(Clone)]
pub(super) struct Tasks {
    seen: Vec<Seen>,
    /// A live task of the machine for each process id.
    of_pid: FxHashMap<u32, Vec<u32>>,
    /// Per CPU, a process that stands for whatever foreign program ran there.
    foreign: Vec<Option<u32>>,
}

impl Tasks {
    pub(super) fn new(nr_tasks: usize, nr_cpus: usize) -> Self {
        Self { seen: vec![Seen::NotYet; nr_tasks], of_pid: FxHashMap::default(), foreign: vec![None; nr_cpus] }
    }

    fn seen(&self, task: u32) -> Seen {
        self.seen.get(task as usize).copied().unwrap_or(Seen::Gone)
    }

    /// The machine's task, if it was seen and is alive.
    pub(super) fn alive(&self, task: u32) -> Option<u32> {
        match self.seen(task) {
            Seen::Alive(machine_task) => Some(machine_task),
            Seen::NotYet | Seen::Gone => None,
        }
    }

    /// A live task of a process.
    pub(super) fn of_process(&self, pid: u32) -> Option<u32> {
        self.of_pid.get(&pid)?.first().copied()
    }

    /// The machine's tasks that are alive, by their number in the recording.
    pub(super) fn all_alive(&self) -> impl Iterator<Item = u32> {
        (0..self.seen.len() as u32).filter_map(|task| self.alive(task))
    }

    fn add(&mut self, task: u32, pid: u32, machine_task: u32) {
        self.seen[task as usize] = Seen::Alive(machine_task);
        self.of_pid.entry(pid).or_default().push(machine_task);
    }
}

impl Driver<'_> {
    /// The machine's task for one of the recording; made now if the recording did not show its start. None for a task
    /// that is gone or not of the recording.
    pub(super) fn machine_task(&mut self, task: u32) -> Result<Option<u32>> {
        match self.tasks.seen(task) {
            Seen::Alive(machine_task) => Ok(Some(machine_task)),
            Seen::Gone => Ok(None),
            Seen::NotYet => {
                let pid = self.recording.tasks[task as usize].pid;
                let sibling = self.tasks.of_pid.get(&pid).and_then(|tasks| tasks.first().copied());
                let operation = match sibling {
                    Some(task) => Operation::CloneThread { task },
                    None => Operation::CreateProcess {},
                };
                self.note(if sibling.is_some() { "thread start not recorded" } else { "process start not recorded" });
                let machine_task = self.id(&operation)?;
                self.tasks.add(task, pid, machine_task);
                if sibling.is_none() && !self.is_lab {
                    self.adopt_program(machine_task)?;
                }
                Ok(Some(machine_task))
            }
        }
    }

    /// Makes the task run on the CPU where the recording shows it; None if it cannot.
    pub(super) fn ensure_running(&mut self, task: u32, cpu: u16) -> Result<Option<u32>> {
        let is_first = self.is_lab && self.tasks.of_pid.is_empty();
        let Some(machine_task) = self.machine_task(task)? else { return Ok(None) };
        let cpu = u32::from(cpu);
        if self.machine.running_on(machine_task) == Some(cpu) {
            return Ok(Some(machine_task));
        }
        self.stop(machine_task)?;
        self.run(&Operation::Schedule { cpu, task: Some(machine_task) })?;
        if is_first {
            self.adopt_runner(task, machine_task)?;
        }
        if let Some(addr) = self.child_tids.remove(&task) {
            self.write_child_tid(machine_task, addr)?;
        }
        Ok(Some(machine_task))
    }

    /// Takes a task off its CPU.
    fn stop(&mut self, machine_task: u32) -> Result<()> {
        if let Some(cpu) = self.machine.running_on(machine_task) {
            self.run(&Operation::Schedule { cpu, task: None })?;
        }
        Ok(())
    }

    /// A context switch.
    pub(super) fn switch(&mut self, event: &Event) -> Result<()> {
        let cpu = u32::from(event.cpu);
        let late = self.in_flight.arriving(event.cpu, event.time_ns);
        self.switch_to(event, cpu)?;
        if let Some(mm) = late {
            self.machine.engine_mut().deliver_late(CpuId(event.cpu), mm);
        }
        Ok(())
    }

    fn switch_to(&mut self, event: &Event, cpu: u32) -> Result<()> {
        let next = u32::try_from(event.a0).unwrap_or(TASK_OTHER);
        match next {
            TASK_IDLE | TASK_KTHREAD => {
                self.run(&Operation::Schedule { cpu, task: None })?;
            }
            TASK_OTHER => {
                let foreign = self.foreign(event.cpu)?;
                self.run(&Operation::Schedule { cpu, task: Some(foreign) })?;
                // The pages that it makes fill the CPU's batch, nobody knows when.
                self.machine.lru_add_drain(CpuId(event.cpu));
            }
            next => {
                if self.ensure_running(next, event.cpu)?.is_none() {
                    // A task after its exit has no address space: as a kernel thread.
                    self.run(&Operation::Schedule { cpu, task: None })?;
                }
            }
        }
        Ok(())
    }

    /// A process that stands for whatever foreign program ran on a CPU.
    pub(super) fn foreign(&mut self, cpu: u16) -> Result<u32> {
        if let Some(task) = self.tasks.foreign[cpu as usize] {
            return Ok(task);
        }
        let task = self.id(&Operation::CreateProcess {})?;
        self.tasks.foreign[cpu as usize] = Some(task);
        Ok(task)
    }

    /// fork, vfork, clone, clone3, seen by the parent.
    pub(super) fn fork_call(&mut self, event: &Event) -> Result<()> {
        if event.ret < 0 {
            return Ok(());
        }
        let Some(parent) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let shares = event.flags & (SHARES_MM | THREAD) != 0;
        self.see_child(event, shares);
        self.new_task(parent, event.a5, shares)
    }

    /// Where the child of a fork call will write its id, and has its block.
    pub(super) fn see_child(&mut self, event: &Event, is_thread: bool) {
        if self.is_lab {
            self.rseq.see_child(event, u32::try_from(event.a5).unwrap_or(TASK_OTHER), is_thread);
        }
        if self.is_lab && event.nr == CLONE && event.a0 & CLONE_CHILD_SETTID != 0 {
            self.child_tids.insert(u32::try_from(event.a5).unwrap_or(TASK_OTHER), event.a3);
        }
    }

    /// A new task whose fork call was not recorded.
    pub(super) fn process_fork(&mut self, event: &Event) -> Result<()> {
        let Some(parent) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let child = event.a0;
        let pid = |task: u64| self.recording.tasks.get(usize::try_from(task).unwrap_or(usize::MAX)).map(|t| t.pid);
        let shares = pid(child).is_some() && pid(child) == pid(u64::from(event.task));
        self.new_task(parent, child, shares)
    }

    fn new_task(&mut self, parent: u32, child: u64, shares_mm: bool) -> Result<()> {
        let operation =
            if shares_mm { Operation::CloneThread { task: parent } } else { Operation::Fork { task: parent } };
        let machine_task = self.id(&operation)?;
        self.new_task_made(parent, child, machine_task)
    }

    /// A new task of the machine stands for one of the recording.
    pub(super) fn new_task_made(&mut self, parent: u32, child: u64, machine_task: u32) -> Result<()> {
        let index = u32::try_from(child).unwrap_or(TASK_OTHER);
        let known = child != NO_VALUE && (index as usize) < self.recording.tasks.len();
        if known && self.tasks.seen(index) != Seen::NotYet {
            // It ran before its parent's call was seen to begin: fork's flush is due all the same.
            self.note("child seen before its fork");
        }
        if known && self.tasks.seen(index) == Seen::NotYet {
            let pid = self.recording.tasks[index as usize].pid;
            self.tasks.add(index, pid, machine_task);
            let (from, to) = (self.machine.task_mm(parent)?, self.machine.task_mm(machine_task)?);
            if from != to {
                self.copied_from.insert(to, from);
            }
            if let Some(&heap) = self.heaps.get(&from) {
                self.heaps.insert(to, heap);
            }
        } else {
            self.note("child not in the recording");
            self.run(&Operation::Exit { task: machine_task })?;
        }
        Ok(())
    }

    /// execve begins. The kernel may first move the task to another CPU (`sched_exec`) and read the file, so the new address
    /// space comes with the task's next sign of life: a fault inside the call, or whatever follows it.
    pub(super) fn exec(&mut self, row: usize, event: &Event) {
        if event.flags & ENTER_UNSEEN != 0 {
            self.note("call whose begin was not recorded");
        } else if event.ret >= 0 {
            self.exec_of.insert(event.task, row);
        }
    }

    /// If the task of this event is in an execve, that has taken effect by now.
    pub(super) fn finish_exec(&mut self, event: &Event) -> Result<()> {
        let Some(row) = self.exec_of.remove(&event.task) else { return Ok(()) };
        self.cause = (row, event.task);
        if let Some(task) = self.ensure_running(event.task, event.cpu)? {
            self.run(&Operation::Exec { task })?;
            self.set_up_stack(task)?;
        }
        self.book();
        Ok(())
    }

    /// The execves that nothing followed in the recording.
    pub(super) fn finish_execs(&mut self) -> Result<()> {
        let mut open: Vec<(usize, u32)> = self.exec_of.iter().map(|(task, row)| (*row, *task)).collect();
        open.sort_unstable();
        for (row, _) in open {
            self.finish_exec(&self.recording.events.get(row))?;
        }
        Ok(())
    }

    /// execve writes the arguments to a page at the top of user space and then moves it to where the stack shall be
    /// (`setup_arg_pages()` of fs/exec.c). How many pages the arguments take and where the stack comes to lie is not in
    /// the recording: one page, some gigabytes further down.
    fn set_up_stack(&mut self, task: u32) -> Result<()> {
        let top = self.machine.levels().user_end().0 - PAGE_SIZE;
        let (old, new) = (top - PAGE_SIZE, top - (9 << 30));
        let page = |addr| Operation::Mmap {
            task,
            addr,
            len: PAGE_SIZE,
            prot: 3,
            shared: false,
            fixed: true,
            noreplace: false,
            populate: true,
            growsdown: false,
            file: None,
            pgoff: 0,
        };
        self.run(&page(old))?;
        self.expect_done(&Operation::Mremap {
            task,
            old,
            old_len: PAGE_SIZE,
            new_len: PAGE_SIZE,
            maymove: true,
            fixed: true,
            dontunmap: false,
            new,
        })?;
        self.adopt_program(task)
    }

    /// Every process has a program mapped low and a stack mapped high, whatever else the recording shows: munmap frees the
    /// page tables between its neighbours. A page each stands for them.
    fn adopt_program(&mut self, task: u32) -> Result<()> {
        let mm = self.machine.task_mm(task)?;
        let page = |start: u64| VaRange::new(VirtAddr(start), VirtAddr(start + PAGE_SIZE));
        let stack = self.machine.levels().user_end().0 - (1 << 40);
        self.machine.adopt_vma(mm, page(PROGRAM).start, page(PROGRAM).end, VmFlags::ACCESS, None, 0)?;
        if self.machine.next_vma(mm, VirtAddr(stack)).is_none() {
            let top = page(self.machine.levels().user_end().0 - 3 * PAGE_SIZE);
            self.machine.adopt_vma(mm, top.start, top.end, VmFlags::ACCESS, None, 0)?;
        }
        Ok(())
    }

    /// The task is gone.
    pub(super) fn exit(&mut self, row: usize, event: &Event) -> Result<()> {
        if let Some(call) = self.exit_of.remove(&event.task) {
            self.cause = (call, event.task);
        } else {
            self.cause = (row, event.task);
        }
        if self.is_lab && event.a0 == 1 {
            self.exit_siblings(event.task)?;
        }
        self.exit_task(event.task, event.cpu)
    }

    /// The task takes the address space down, so the other threads have let go of it, although the records of their exits
    /// may come later (kernel/exit.c: `exit_mm()` is before `trace_sched_process_exit()` in Linux 6.1).
    fn exit_siblings(&mut self, index: u32) -> Result<()> {
        let pid = self.recording.tasks[index as usize].pid;
        for other in 0..self.recording.tasks.len() as u32 {
            if other != index
                && self.recording.tasks[other as usize].pid == pid
                && let Seen::Alive(task) = self.tasks.seen(other)
            {
                let cpu = self.machine.task(task)?.cpu.0;
                self.exit_task(other, cpu)?;
            }
        }
        Ok(())
    }

    /// Tasks that were exiting when the recording ended.
    pub(super) fn exit_rest(&mut self) -> Result<()> {
        let mut open: Vec<(usize, u32)> = self.exit_of.drain().map(|(task, row)| (row, task)).collect();
        open.sort_unstable();
        for (row, task) in open {
            self.cause = (row, task);
            self.exit_task(task, self.recording.events.cpu[row])?;
            self.book();
        }
        Ok(())
    }

    fn exit_task(&mut self, index: u32, cpu: u16) -> Result<()> {
        let Some(task) = self.ensure_running(index, cpu)? else { return Ok(()) };
        self.run(&Operation::Exit { task })?;
        self.tasks.seen[index as usize] = Seen::Gone;
        let pid = self.recording.tasks[index as usize].pid;
        if let Some(tasks) = self.tasks.of_pid.get_mut(&pid) {
            tasks.retain(|t| *t != task);
        }
        Ok(())
    }

    /// Does an operation that makes something and gives its id.
    pub(super) fn id(&mut self, operation: &Operation) -> Result<u32> {
        match self.run(operation)? {
            Outcome::Value(id) => {
                u32::try_from(id).map_err(|_| Error::Value(format!("found id {id}, expected 32 bits")))
            }
            other => Err(Error::Value(format!("found {other:?} for {operation:?}, expected an id"))),
        }
    }
}
