//! What only the lab's recording can know about pages: which ones reclaim took, and which accesses had to fault.
//!
//! Neither looks at flushes. Reclaim's choice hangs on the order of LRU lists and on which pages were used lately; whether a
//! page of a file faults, on what fault-around and read-ahead found in the page cache. Both are taken over and counted.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::runner::is_relro;
use super::unseen::Unseen;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{AccessKind, AdoptKind, Operation, Outcome, VmFlags};
use crate::replay::driver::Driver;
use crate::trace::{Event, EventKind, FlushKind, Recording};

/// `madvise` that cuts a hole into a file, in all who map it (include/uapi/asm-generic/mman-common.h: `MADV_REMOVE`).
const MADV_REMOVE: u64 = 9;

/// Whether a flush record must be about the own address space of the task that made it.
fn is_about_own_mm(recording: &Recording, row: usize) -> bool {
    let (events, flushes) = (&recording.events, &recording.flushes);
    let cause = usize::try_from(flushes.op_event[row]).ok().map(|cause| events.get(cause));
    let of_call = |kinds: &[EventKind]| cause.as_ref().is_some_and(|cause| kinds.contains(&cause.kind()));
    match FlushKind::from_number(flushes.kind[row]) {
        Some(FlushKind::GatherFull) => true,
        Some(FlushKind::Gather) => {
            let removes =
                cause.as_ref().is_some_and(|cause| cause.kind() == EventKind::Madvise && cause.a2 == MADV_REMOVE);
            let own = [
                EventKind::Mmap,
                EventKind::Munmap,
                EventKind::Brk,
                EventKind::Mprotect,
                EventKind::Mremap,
                EventKind::Madvise,
            ];
            of_call(&own) && !removes
        }
        Some(FlushKind::MmRange) => of_call(&[EventKind::Fork]),
        Some(FlushKind::PtepClearFlush) => of_call(&[EventKind::Fault]),
        _ => false,
    }
}

/// In an x86 error code: the fault was a write.
const FAULT_WRITE: u64 = 2;

/// What reclaim did with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum VisitStep {
    /// It visited an area where the page could be.
    Visit,
    /// The page was dirty and nobody mapped it any more, so what was deferred had to be flushed.
    Dirty,
    /// It was flushed.
    Flush,
    /// The list is done; what is flushed next is the whole list's.
    ListEnd,
}

/// What the lab's records say of the whole recording, found before it is replayed.
pub(in crate::replay) struct LabEvidence {
    /// Processes by the lab's number of their address space, each with the time in ns since when. The lab names it by what the
    /// process does that must be about its own (a gather in munmap, say); without that it has no records about the address
    /// space. The number stands for the structure's place in memory, which another process gets when one has ended.
    pids_of_mm: FxHashMap<u32, Vec<(u64, u32)>>,
    /// The processes whose address space it does not name.
    unnamed_pids: Vec<u32>,
    /// Rows of accesses that ran alone, so that their faults are told by nothing but the state of the memory.
    alone: FxHashSet<usize>,
    /// Per task, when its lists of reclaim ended (`try_to_unmap_flush` is entered, flush or not), in ns, in order.
    list_ends: FxHashMap<u32, Vec<u64>>,
    /// Per task, what reclaim did, and when in ns, in order.
    visit_steps: BTreeMap<u32, Vec<(u64, VisitStep)>>,
    /// Switches that flushed.
    flushed_switches: FxHashSet<usize>,
    /// Switches that only their flushes show.
    pub(super) unseen: Unseen,
}

impl LabEvidence {
    pub(in crate::replay) fn new(recording: &Recording) -> Self {
        let flushes = &recording.flushes;
        let mut pids_of_mm: FxHashMap<u32, Vec<(u64, u32)>> = FxHashMap::default();
        for row in (0..flushes.len()).filter(|&row| is_about_own_mm(recording, row)) {
            if let Some(task) = recording.tasks.get(flushes.task[row] as usize) {
                let pids = pids_of_mm.entry(flushes.mm[row]).or_default();
                if pids.last().is_none_or(|(_, pid)| *pid != task.pid) {
                    pids.push((flushes.time_ns[row], task.pid));
                }
            }
        }
        let mut unnamed_pids: Vec<u32> = recording.tasks.iter().map(|task| task.pid).collect();
        unnamed_pids.sort_unstable();
        unnamed_pids.dedup();
        unnamed_pids.retain(|pid| !pids_of_mm.values().flatten().any(|(_, named)| named == pid));
        let mut steps: FxHashMap<u64, FxHashSet<u32>> = FxHashMap::default();
        let mut step_of: FxHashMap<u32, u64> = FxHashMap::default();
        let mut accesses = Vec::new();
        for row in 0..recording.events.len() {
            let event = recording.events.get(row);
            if event.task as usize >= recording.tasks.len() {
                continue;
            }
            match event.kind() {
                EventKind::StepBegin => {
                    steps.entry(event.a0).or_default().insert(event.task);
                    step_of.insert(event.task, event.a0);
                }
                EventKind::Access => accesses.push((row, step_of.get(&event.task).copied())),
                _ => {}
            }
        }
        let is_alone = |step: Option<u64>| step.and_then(|step| steps.get(&step)).is_some_and(|tasks| tasks.len() == 1);
        let alone = accesses.into_iter().filter(|(_, step)| is_alone(*step)).map(|(row, _)| row).collect();
        let mut list_ends: FxHashMap<u32, Vec<u64>> = FxHashMap::default();
        for row in (0..flushes.len()).filter(|&row| flushes.kind[row] == FlushKind::UnmapFlush.number()) {
            list_ends.entry(flushes.task[row]).or_default().push(flushes.time_ns[row]);
        }
        let mut visit_steps: BTreeMap<u32, Vec<(u64, VisitStep)>> = BTreeMap::new();
        let events = &recording.events;
        for row in (0..events.len()).filter(|&row| events.kind[row] == EventKind::ReclaimPage.number()) {
            visit_steps.entry(events.task[row]).or_default().push((events.time_ns[row], VisitStep::Visit));
        }
        for row in 0..flushes.len() {
            let step = match FlushKind::from_number(flushes.kind[row]) {
                Some(FlushKind::UnmapFlushDirty) => VisitStep::Dirty,
                Some(FlushKind::BatchFlush) => VisitStep::Flush,
                Some(FlushKind::UnmapFlush) => VisitStep::ListEnd,
                _ => continue,
            };
            if let Some(steps) = visit_steps.get_mut(&flushes.task[row]) {
                steps.push((flushes.time_ns[row], step));
            }
        }
        for steps in visit_steps.values_mut() {
            steps.sort_by_key(|(time, _)| *time);
        }
        let flushed_switches = (0..flushes.len())
            .filter(|&row| flushes.kind[row] == FlushKind::TlbFlushEvent.number())
            .filter_map(|row| usize::try_from(flushes.op_event[row]).ok())
            .filter(|&cause| events.kind[cause] == EventKind::Switch.number())
            .collect();
        let unseen = Unseen::of(recording);
        Self { pids_of_mm, unnamed_pids, alone, list_ends, visit_steps, flushed_switches, unseen }
    }

    /// Whether a task that reclaims has a record after one time and not after another, in ns.
    pub(in crate::replay) fn did_between(&self, task: u32, after_ns: u64, until_ns: u64) -> bool {
        let upto = |steps: &[(u64, VisitStep)], time_ns| steps.partition_point(|(time, _)| *time <= time_ns);
        self.visit_steps.get(&task).is_some_and(|steps| upto(steps, after_ns) < upto(steps, until_ns))
    }

    /// Whether a switch flushed.
    pub(in crate::replay) fn flushed_at(&self, switch: usize) -> bool {
        self.flushed_switches.contains(&switch)
    }
}

/// When what a visit led to was done, of what its task did: the flush of a dirty page that nobody maps any more follows it at once, but
/// what is flushed after the list's end is the whole list's.
fn done_after(steps: &[(u64, VisitStep)], visit_ns: u64) -> u64 {
    match steps[steps.partition_point(|(time, _)| *time <= visit_ns)..] {
        [(_, VisitStep::Dirty), (time, VisitStep::Flush), ..] | [(time, VisitStep::Dirty), ..] => time,
        _ => visit_ns,
    }
}

impl Driver<'_> {
    /// The machine's address space for what one of the lab's numbers stood for at a time.
    pub(in crate::replay) fn lab_mm(&self, number: u64, time_ns: u64) -> Option<MmId> {
        let pids = self.lab.as_ref()?.pids_of_mm.get(&u32::try_from(number).ok()?)?;
        // What it was before its first gather is the same process's.
        let until_now = pids.partition_point(|(since, _)| *since <= time_ns).max(1);
        let own = pids[..until_now].iter().rev().chain(&pids[until_now..]);
        let mut alive = own.filter_map(|(_, pid)| self.machine.task_mm(self.tasks.of_process(*pid)?).ok());
        alive.next()
    }

    /// The address spaces of which the lab has no records, since it does not name them.
    pub(in crate::replay) fn unnamed_mms(&self) -> Vec<MmId> {
        let pids = self.lab.as_ref().map_or(&[][..], |lab| &lab.unnamed_pids);
        pids.iter().filter_map(|pid| self.machine.task_mm(self.tasks.of_process(*pid)?).ok()).collect()
    }

    /// When the list of reclaim ended that a task was at.
    pub(in crate::replay) fn list_end(&self, task: u32, time_ns: u64) -> Option<u64> {
        let ends = self.lab.as_ref()?.list_ends.get(&task)?;
        ends.get(ends.partition_point(|end| *end < time_ns)).copied()
    }

    /// When what a visit of reclaim led to was done: a page is flushed and written before the next one is visited.
    pub(in crate::replay) fn visit_done(&self, task: u32, time_ns: u64) -> u64 {
        let steps = self.lab.as_ref().and_then(|lab| lab.visit_steps.get(&task));
        steps.map_or(time_ns, |steps| done_after(steps, time_ns))
    }

    /// Reclaim took the page at an address, so it was mapped there. Tells whether the machine has it mapped now. `next` are
    /// the address spaces that reclaim visits at the same address right after: forks share what was there before them, and a
    /// walk visits all areas of a page before those of the next one.
    pub(in crate::replay) fn adopt_reclaimed(&mut self, mm: MmId, addr: VirtAddr, next: &[MmId]) -> Result<bool> {
        let leaf = self.machine.leaf(mm, addr);
        if leaf.is_some_and(|(pte, _)| pte.is_present()) {
            return Ok(true);
        }
        let Some(vma) = self.machine.vma_at(mm, addr).copied() else { return Ok(false) };
        self.note("page that reclaim took, mapped before it was seen");
        if leaf.is_some_and(|(pte, _)| pte.swap_slot().is_some()) && self.swap_in_unseen(mm, addr)? {
            return Ok(true);
        }
        self.machine.forget_page(mm, addr)?;
        let is_copy = vma.file.is_none() || vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
        let is_copied = is_copy || is_relro(&self.recording.meta, addr);
        let kind = match (is_copied, vma.is_writable()) {
            (true, true) => AdoptKind::Anon { write: true },
            (true, false) => AdoptKind::AnonProtected,
            (false, _) => AdoptKind::FileReadOnly,
        };
        let sharers: Vec<MmId> = next.iter().copied().filter(|other| self.shares_unseen(mm, *other, addr)).collect();
        if !is_copy || sharers.is_empty() {
            self.machine.adopt_page(mm, addr, kind)?;
        } else {
            self.machine.adopt_shared_page(&[&[mm], &sharers[..]].concat(), addr, AdoptKind::AnonProtected)?;
        }
        Ok(true)
    }

    /// Whether an address space could share with a relative a page from before the fork: nothing was seen of it there.
    fn shares_unseen(&self, mm: MmId, other: MmId, addr: VirtAddr) -> bool {
        let descends = |from: MmId, to: MmId| self.machine.mm(to).is_some_and(|found| found.ancestors.contains(&from));
        let is_copy = self.machine.vma_at(other, addr).is_some_and(|vma| !vma.is_shared());
        (descends(mm, other) || descends(other, mm)) && is_copy && self.machine.leaf(other, addr).is_none()
    }

    /// Maps a page again that was read back from swap: by another thread's fault that had to wait for reclaim to be done with
    /// the page, else by one in kernel mode, which nothing records: the kernel writes there (`rseq`, results of calls).
    fn swap_in_unseen(&mut self, mm: MmId, addr: VirtAddr) -> Result<bool> {
        let runs_in_mm = |task: &u32| {
            self.machine.running_on(*task).is_some() && self.machine.task_mm(*task).is_ok_and(|found| found == mm)
        };
        let Some(task) = self.tasks.all_alive().find(runs_in_mm) else { return Ok(false) };
        let kind = if self.waited_to_read(addr) { AccessKind::Read } else { AccessKind::Write };
        self.book();
        let outcome = self.machine.apply(&Operation::Fault { task, addr: addr.0, kind })?;
        self.discard_log();
        Ok(outcome == Outcome::None)
    }

    /// Whether another thread than the one that reclaims had a read fault at a page since reclaim visited it the time before
    /// the last.
    fn waited_to_read(&self, addr: VirtAddr) -> bool {
        let (row, reclaimer) = self.cause;
        let events = &self.recording.events;
        let mut nr_visits = 0;
        for row in (0..row).rev().filter(|&row| events.a0[row] & !(PAGE_SIZE - 1) == addr.0) {
            match events.get(row).kind() {
                EventKind::ReclaimPage if nr_visits == 1 => return false,
                EventKind::ReclaimPage => nr_visits += 1,
                EventKind::Fault if events.task[row] != reclaimer => return events.a1[row] & FAULT_WRITE == 0,
                _ => {}
            }
        }
        false
    }

    /// The faults that an access led to in the recording: page -> error code. None if it did not run alone.
    pub(in crate::replay) fn faults_of(&self, row: usize, access: &Event) -> Option<FxHashMap<u64, u64>> {
        if !self.lab.as_ref()?.alone.contains(&row) {
            return None;
        }
        let mut faults = FxHashMap::default();
        for later in row + 1..self.recording.events.len() {
            if self.recording.events.task[later] != access.task {
                continue;
            }
            let event = self.recording.events.get(later);
            match event.kind() {
                EventKind::Fault => {
                    faults.entry(event.a0 & !(PAGE_SIZE - 1)).or_insert(event.a1);
                }
                EventKind::StepEnd | EventKind::StepBegin | EventKind::Exit => break,
                _ => {}
            }
        }
        Some(faults)
    }

    /// Makes the entry for one access such that it faults if, and as, it did in the recording.
    pub(in crate::replay) fn heed_fault(
        &mut self,
        mm: MmId,
        addr: VirtAddr,
        kind: AccessKind,
        error_code: Option<u64>,
    ) -> Result<()> {
        if let Some(error_code) = error_code {
            return self.correct(mm, addr, error_code);
        }
        let present = self.machine.leaf(mm, addr).is_some_and(|(pte, _)| pte.is_hw_present());
        let of_file = self.machine.vma_at(mm, addr).is_some_and(|vma| vma.file.is_some());
        if !present && of_file && kind == AccessKind::Read {
            self.note("page that fault-around was not thought to have mapped");
            self.machine.forget_page(mm, addr)?;
            self.machine.adopt_page(mm, addr, AdoptKind::FileReadOnly)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{VisitStep, done_after};

    #[test]
    fn a_page_is_done_with_its_own_flush_and_not_with_that_of_its_list() {
        use VisitStep::{Dirty, Flush, ListEnd, Visit};
        let own = [(1, Visit), (2, Visit), (3, Dirty), (4, Flush), (9, ListEnd)];
        assert_eq!((done_after(&own, 1), done_after(&own, 2)), (1, 4), "visited again before the page was flushed");
        assert_eq!(done_after(&[(2, Visit), (3, Dirty), (5, Visit)], 2), 3, "dirty, but nothing was left to flush");
        assert_eq!(done_after(&[(2, Visit), (3, Dirty), (4, ListEnd), (5, Flush)], 2), 3, "the list's flush");
        assert_eq!(done_after(&[(2, Visit), (4, ListEnd), (5, Flush)], 2), 2, "clean");
    }
}
