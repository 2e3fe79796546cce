//! Tasks: made, copied, given a new program, ended, put on a CPU.

use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::Args;
use super::super::operation::Outcome;
use super::super::probes::Probe;

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

    pub(super) fn fork(&mut self, task: u32) -> Result<Outcome> {
        let (by, mm) = self.running(task)?;
        let args = Args { range: self.user_space(), ..Args::default() };
        let mut frame = self.frame(ProgramName::Fork, by, mm, args)?;
        self.run(&mut frame)?;
        let child = frame.child.ok_or_else(|| frame.error("a child mm at the end of fork (dup_mm)", "none"))?;
        Ok(Outcome::Value(u64::from(self.create_task(child, by.cpu))))
    }

    pub(super) fn exec(&mut self, task: u32) -> Result<Outcome> {
        let by = self.initiator(task)?;
        let old = self.task(task)?.mm;
        let new = self.create_mm();
        self.task_mut(task)?.mm = new;
        if self.cpus[by.cpu.index()].curr == Some(task) {
            self.engine.switch_mm(by.cpu, new);
        }
        self.mmput(by, old)?;
        Ok(Outcome::None)
    }

    pub(super) fn exit(&mut self, task: u32) -> Result<Outcome> {
        let by = self.initiator(task)?;
        let mm = self.task(task)?.mm;
        if self.cpus[by.cpu.index()].curr == Some(task) {
            self.engine.enter_lazy_tlb(by.cpu);
            self.cpus[by.cpu.index()].curr = None;
        }
        self.task_mut(task)?.running = false;
        self.mmput(by, mm)?;
        self.tasks[task as usize] = None;
        Ok(Outcome::None)
    }

    /// One user less; the last one tears the address space down.
    fn mmput(&mut self, by: Initiator, id: MmId) -> Result<()> {
        let mm = self.mm_mut(id)?;
        mm.mm_users -= 1;
        if mm.mm_users > 0 {
            return Ok(());
        }
        let args = Args { range: self.user_space(), ..Args::default() };
        let mut frame = self.frame(ProgramName::ExitMmap, by, id, args)?;
        let range = frame.r.range;
        self.mm_mut(id)?.vmas.detach(range, &mut frame.detached);
        frame.walks_detached = true;
        self.hit(by, id, Probe::ExitMmap);
        self.run(&mut frame)?;
        self.tables.free_tree(frame.r.root);
        self.mms[id.index()] = None;
        self.engine.drop_context(id);
        Ok(())
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
