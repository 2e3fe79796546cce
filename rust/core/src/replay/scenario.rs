//! Events that only the kernel lab has: steps of a scenario, its accesses and files, the pages that reclaim chose.

use super::driver::Driver;
use super::lab::columns::in_region;
use super::lab::runner::is_since;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::machine::{AccessKind, FileId, Operation, Outcome};
use crate::trace::{Event, EventKind};

impl Driver<'_> {
    /// An event of a scenario.
    pub(super) fn scenario(&mut self, row: usize, event: &Event) -> Result<()> {
        match event.kind() {
            EventKind::StepBegin => {
                self.step_of.insert(event.task, row);
                Ok(())
            }
            EventKind::StepEnd => {
                self.step_of.remove(&event.task);
                self.step_files.remove(&event.task);
                if self.is_lab { self.count_step(event) } else { Ok(()) }
            }
            EventKind::StepFile => {
                self.step_files.insert(event.task, event.a0);
                Ok(())
            }
            EventKind::Access => self.accesses(row, event),
            EventKind::ReclaimPage => self.reclaim_page(row, event),
            EventKind::Mkfile => {
                self.file_by_name(event.a0, Some(event.a1))?;
                self.machine.lru_add_unseen(CpuId(event.cpu), event.a1);
                Ok(())
            }
            EventKind::Fsync => {
                self.on_file(event, |task, file| Operation::Fsync { task, file, from_page: 0, nr_pages: None })
            }
            EventKind::Ftruncate => {
                let from_page = event.a1;
                self.on_file(event, |task, file| Operation::Truncate { task, file, from_page, nr_pages: None })
            }
            EventKind::Fpunch => {
                let file = self.file_by_name(event.a0, None)?;
                let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
                self.punch(task, file, event.a1, event.a2)
            }
            EventKind::ClearRefs => {
                if let Some(task) = self.ensure_running(event.task, event.cpu)? {
                    self.expect_done(&Operation::ClearRefs { task, kind: event.a0 as u32 })?;
                }
                Ok(())
            }
            _ => Ok(()), // modes, waits, Creclaim: switches and ReclaimPage events say what came of them
        }
    }

    /// A hole in a file. In the lab's ext4 (fs/ext4/inode.c: `ext4_punch_hole`) it ends with the page in which the file ends, and
    /// there is none behind that.
    pub(super) fn punch(&mut self, task: u32, file: FileId, from_page: u64, nr_pages: u64) -> Result<()> {
        let file_info = self.machine.pages().file(file);
        let end_of_file = file_info.filter(|found| self.is_lab && !found.shmem).and_then(|found| found.nr_pages);
        if self.punches_after_writeback() {
            self.expect_done(&Operation::Fsync { task, file: file.0, from_page, nr_pages: Some(nr_pages) })?;
        }
        let nr_pages = match end_of_file {
            Some(size) if from_page >= size => return Ok(()),
            Some(size) => nr_pages.min(size + 1 - from_page),
            None => nr_pages,
        };
        self.expect_done(&Operation::Truncate { task, file: file.0, from_page, nr_pages: Some(nr_pages) })
    }

    /// Whether ext4, which the lab uses, writes the dirty pages of a hole back before it punches it (fs/ext4/inode.c:
    /// `ext4_punch_hole`, until v6.13).
    pub(super) fn punches_after_writeback(&self) -> bool {
        self.is_lab && !is_since(self.recording.meta.kernel.as_deref().unwrap_or_default(), (6, 14))
    }

    fn on_file(&mut self, event: &Event, operation: impl FnOnce(u32, u32) -> Operation) -> Result<()> {
        let file = self.file_by_name(event.a0, None)?.0;
        if let Some(task) = self.ensure_running(event.task, event.cpu)? {
            self.expect_done(&operation(task, file))?;
        }
        Ok(())
    }

    /// One access per page; the faults that they need are the machine's own.
    fn accesses(&mut self, row: usize, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let kind = if event.a3 != 0 { AccessKind::Write } else { AccessKind::Read };
        let mm = self.machine.task_mm(task)?;
        let faults = self.faults_of(row, event);
        let step = usize::try_from(event.a2.max(1)).unwrap_or(usize::MAX);
        for page in (0..event.a1).step_by(step) {
            let addr = event.a0.saturating_add(page.saturating_mul(PAGE_SIZE));
            if let Some(faults) = &faults {
                self.heed_fault(mm, VirtAddr(addr), kind, faults.get(&addr).copied())?;
            }
            if let Outcome::Errno(_) = self.run(&Operation::Access { task, addr, kind })? {
                self.note("access of a scenario that the machine answers with a signal");
                break;
            }
        }
        Ok(())
    }

    /// Whether a fault comes from an access that the scenario asked for, so that the machine had it by itself.
    pub(super) fn step_covers(&self, event: &Event) -> bool {
        self.step_of.contains_key(&event.task) && in_region(event.a0)
    }
}
