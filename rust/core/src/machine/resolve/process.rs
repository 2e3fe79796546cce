//! Tasks: made, copied, given a new program, ended, put on a CPU.

use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::MmId;
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::{Args, Frame};
use super::super::operation::{Operation, Outcome};
use super::super::probes::Probe;
use super::stage::{Stage, Todo};

impl Machine {
    pub(super) fn create_process(&mut self) -> Outcome {
        let mm = self.create_mm();
        Outcome::Value(u64::from(self.create_task(mm, CpuId(0))))
    }

    pub(super) fn clone_thread(&mut self, task: u32) -> Result<Outcome> {
        let parent = self.task(task)?;
        let (mm, cpu) = (parent.mm, parent.cpu);
        self.mm_mut(mm)?.mm_users += 1;
        Ok(Outcome::Value(u64::from(self.create_task(mm, cpu))))
    }

    pub(super) fn fork(&self, task: u32) -> Result<Stage> {
        let (by, mm) = self.running(task)?;
        let args = Args { range: self.user_space(), ..Args::default() };
        Ok(Stage::Run(self.frame(ProgramName::Fork, by, mm, args)?, Todo::ForkTask))
    }

    /// The task for the mm that the program made.
    pub(super) fn fork_task(&mut self, frame: Option<&mut Frame>) -> Result<Stage> {
        let Some(frame) = frame else { return Ok(Stage::Done(Outcome::None)) };
        let child = frame.child.ok_or_else(|| frame.error("a child mm at the end of fork (dup_mm)", "none"))?;
        Ok(Stage::Done(Outcome::Value(u64::from(self.create_task(child, frame.by.cpu)))))
    }

    pub(super) fn exec(&mut self, task: u32) -> Result<Stage> {
        let by = self.initiator(task)?;
        let old = self.task(task)?.mm;
        let new = self.create_mm();
        self.lru_add_drain(by.cpu); // fs/exec.c:shift_arg_pages
        self.task_mut(task)?.mm = new;
        if self.cpus[by.cpu.index()].curr == Some(task) {
            self.engine.switch_mm(by.cpu, new);
        }
        Ok(Stage::Do(Todo::Mmput { mm: old, exits: false }))
    }

    pub(super) fn exit(&mut self, task: u32) -> Result<Stage> {
        let by = self.initiator(task)?;
        let mm = self.task(task)?.mm;
        if self.cpus[by.cpu.index()].curr == Some(task) {
            self.engine.enter_lazy_tlb(by.cpu);
            self.cpus[by.cpu.index()].curr = None;
        }
        self.task_mut(task)?.running = false;
        Ok(Stage::Do(Todo::Mmput { mm, exits: true }))
    }

    /// One user less; the last one tears the address space down.
    pub(super) fn mmput(&mut self, operation: &Operation, id: MmId, exits: bool) -> Result<Stage> {
        let by = self.initiator(operation.task().unwrap_or_default())?;
        let mm = self.mm_mut(id)?;
        mm.mm_users -= 1;
        if mm.mm_users > 0 {
            return if exits { self.drop_task(operation) } else { Ok(Stage::Done(Outcome::None)) };
        }
        let args = Args { range: self.user_space(), ..Args::default() };
        let mut frame = self.frame(ProgramName::ExitMmap, by, id, args)?;
        let range = frame.r.range;
        self.mm_mut(id)?.vmas.detach(range, &mut frame.detached);
        frame.walks_detached = true;
        self.lru_add_drain_unmapping(by.cpu);
        self.hit(by, id, Probe::ExitMmap);
        Ok(Stage::Run(frame, Todo::DropMm { mm: id, exits }))
    }

    /// What is left of an address space that was taken down goes.
    pub(super) fn drop_mm(&mut self, operation: &Operation, id: MmId, exits: bool) -> Result<Stage> {
        self.tables.free_tree(self.mm_ref(id)?.root);
        self.mms[id.index()] = None;
        self.engine.drop_context(id);
        if exits { self.drop_task(operation) } else { Ok(Stage::Done(Outcome::None)) }
    }

    fn drop_task(&mut self, operation: &Operation) -> Result<Stage> {
        let task = operation.task().unwrap_or_default();
        self.task(task)?;
        self.tasks[task as usize] = None;
        Ok(Stage::Done(Outcome::None))
    }

    pub(super) fn schedule(&mut self, cpu: u32, task: Option<u32>) -> Result<Outcome> {
        let cpu = self.cpu_id(cpu)?;
        if let Some(next) = task {
            let found = self.task(next)?;
            if found.running && found.cpu != cpu {
                return Err(Error::Value(format!(
                    "task {next}: found it running on CPU {}, expected it not running (to schedule it on CPU {cpu})",
                    found.cpu
                )));
            }
        }
        if let Some(prev) = self.cpus[cpu.index()].curr.take() {
            self.task_mut(prev)?.running = false;
        }
        let Some(next) = task else {
            self.engine.enter_lazy_tlb(cpu);
            return Ok(Outcome::None);
        };
        self.cpus[cpu.index()].curr = task;
        let entry = self.task_mut(next)?;
        entry.running = true;
        entry.cpu = cpu;
        let mm = entry.mm;
        self.engine.switch_mm(cpu, mm);
        Ok(Outcome::None)
    }
}
