//! Events that only the kernel lab has: steps of a scenario, its accesses and files, the pages that reclaim chose.

use super::driver::{Driver, ReclaimList};
use super::lab::columns::in_region;
use super::lab::runner::is_since;
use super::reclaimed::ReclaimRun;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{AccessKind, FileId, Operation, Outcome};
use crate::trace::{Event, EventKind};

/// The most calls that one record of reclaim is believed to stand for.
const RECLAIM_MAX: u64 = 1 << 14;

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

    /// A page that reclaim chose; those in a row are one list. Inside madvise the machine chooses by itself.
    fn reclaim_page(&mut self, row: usize, event: &Event) -> Result<()> {
        if self.pageout_end.get(&event.task).is_some_and(|end_ns| event.time_ns <= *end_ns) {
            return Ok(());
        }
        let addr = VirtAddr(event.a0 & !(PAGE_SIZE - 1));
        let mapped = |mm: &MmId| self.machine.leaf(*mm, addr).is_some();
        let known = if self.is_lab {
            self.lab_mm(event.a1, event.time_ns)
        } else {
            self.machine.live_mms().map(|(mm, _)| mm).find(mapped)
        };
        let Some(mm) = known else { return Ok(()) };
        let run = ReclaimRun {
            row,
            mm,
            addr,
            nr_calls: event.a2.clamp(1, RECLAIM_MAX),
            done_ns: self.visit_done(event.task, event.time_ns),
        };
        match &mut self.reclaim {
            Some(list) if list.task == event.task && list.end_ns.is_none_or(|end_ns| event.time_ns <= end_ns) => {
                list.runs.push(run);
            }
            _ => {
                self.flush_reclaim()?;
                let end_ns = self.list_end(event.task, event.time_ns);
                let faults = Vec::new();
                self.reclaim = Some(ReclaimList { task: event.task, row, end_ns, runs: vec![run], faults });
            }
        }
        Ok(())
    }

    /// Does what reclaim had done when an event happens: all of its list, if it is one of its own task or later than the
    /// list's end; else what was done by then, so that what other CPUs do meanwhile comes in its place.
    pub(super) fn advance_reclaim(&mut self, event: &Event) -> Result<()> {
        let Some(list) = &self.reclaim else { return Ok(()) };
        let is_own = list.task == event.task;
        if is_own && event.kind() == EventKind::ReclaimPage {
            return Ok(());
        }
        // It may lose its CPU in the middle of a list.
        let leaves = is_own && event.kind() != EventKind::Switch;
        if leaves || list.end_ns.is_some_and(|end_ns| end_ns <= event.time_ns) {
            return self.flush_reclaim();
        }
        let nr_done = list.runs.iter().take_while(|run| run.done_ns <= event.time_ns).count();
        if list.end_ns.is_some() && nr_done > 0 { self.reclaim_part(nr_done) } else { Ok(()) }
    }

    /// Whether a fault met a page that reclaim has taken, although its list goes on: then it has to wait for the list.
    pub(super) fn meets_reclaim(&mut self, row: usize, event: &Event) -> bool {
        let page = event.a0 & !(PAGE_SIZE - 1);
        let pid = |task: u32| self.recording.tasks.get(task as usize).map(|task| task.pid);
        let Some(list) = &mut self.reclaim else { return false };
        // Addresses alone do not tell the address space, but processes of a scenario are copies of one another.
        let meets = list.runs.iter().any(|run| run.covers(page)) && pid(list.task) == pid(event.task);
        if meets {
            list.faults.push(row);
        }
        meets
    }

    /// Reclaims what was collected of the list, to its end.
    pub(super) fn flush_reclaim(&mut self) -> Result<()> {
        let Some(list) = self.reclaim.take() else { return Ok(()) };
        self.reclaim_runs(&list, &list.runs, false)?;
        self.faults_after_reclaim(list.faults)
    }

    /// Reclaims the first pages of the list.
    fn reclaim_part(&mut self, nr_done: usize) -> Result<()> {
        let Some(mut list) = self.reclaim.take() else { return Ok(()) };
        let rest = list.runs.split_off(nr_done);
        let done = std::mem::replace(&mut list.runs, rest);
        self.reclaim_runs(&list, &done, true)?;
        let of_rest =
            |row: &usize| list.runs.iter().any(|run| run.covers(self.recording.events.a0[*row] & !(PAGE_SIZE - 1)));
        let (later, now) = std::mem::take(&mut list.faults).into_iter().partition(of_rest);
        list.faults = later;
        self.reclaim = Some(list);
        self.faults_after_reclaim(now)
    }

    fn reclaim_runs(&mut self, list: &ReclaimList, runs: &[ReclaimRun], goes_on: bool) -> Result<()> {
        self.book();
        let row = runs.first().map_or(list.row, |run| run.row);
        let cpu = self.recording.events.cpu[row];
        let before = std::mem::replace(&mut self.cause, (row, list.task));
        if let Some(task) = self.ensure_running(list.task, cpu)? {
            let pages = self.reclaimed_pages(runs)?;
            self.run(&Operation::Reclaim { task, pages, proactive: true, goes_on })?;
        }
        self.book();
        self.cause = before;
        Ok(())
    }

    /// Faults of others that had to wait for pages of the list.
    fn faults_after_reclaim(&mut self, faults: Vec<usize>) -> Result<()> {
        let before = self.cause;
        for row in faults {
            let event = self.recording.events.get(row);
            self.cause = (row, event.task);
            self.fault(&event)?;
            self.book();
        }
        self.cause = before;
        Ok(())
    }
}
