//! What only the lab's recording can know about pages: which ones reclaim took, and which accesses had to fault.
//!
//! Neither looks at flushes. Reclaim's choice hangs on the order of LRU lists and on which pages were used lately; whether a
//! page of a file faults, on what fault-around and read-ahead found in the page cache. Both are taken over and counted.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{AccessKind, AdoptKind, VmFlags};
use crate::replay::driver::Driver;
use crate::trace::{Event, EventKind, FlushKind, Recording};

/// What the lab's records say of the whole recording, found before it is replayed.
pub(in crate::replay) struct LabEvidence {
    /// Process ids in the order in which the lab numbers address spaces: that of their first sign of life.
    pids: Vec<u32>,
    /// Rows of accesses that ran alone, so that their faults are told by nothing but the state of the memory.
    alone: FxHashSet<usize>,
    /// Per task, when its lists of reclaim ended (`try_to_unmap_flush` is entered, flush or not), in ns, in order.
    list_ends: FxHashMap<u32, Vec<u64>>,
}

impl LabEvidence {
    pub(in crate::replay) fn new(recording: &Recording) -> Self {
        let mut pids = Vec::new();
        let mut steps: FxHashMap<u64, FxHashSet<u32>> = FxHashMap::default();
        let mut step_of: FxHashMap<u32, u64> = FxHashMap::default();
        let mut accesses = Vec::new();
        for row in 0..recording.events.len() {
            let event = recording.events.get(row);
            let Some(task) = recording.tasks.get(event.task as usize) else { continue };
            if !pids.contains(&task.pid) {
                pids.push(task.pid);
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
        let flushes = &recording.flushes;
        for row in (0..flushes.len()).filter(|&row| flushes.kind[row] == FlushKind::UnmapFlush.number()) {
            list_ends.entry(flushes.task[row]).or_default().push(flushes.time_ns[row]);
        }
        Self { pids, alone, list_ends }
    }
}

impl Driver<'_> {
    /// The machine's address space for one of the lab's numbers.
    pub(in crate::replay) fn lab_mm(&self, number: u64) -> Option<MmId> {
        let pid = self.lab.as_ref()?.pids.get(usize::try_from(number).ok()?)?;
        self.machine.task_mm(self.tasks.of_process(*pid)?).ok()
    }

    /// Whether a list of reclaim ended between two pages that a task took.
    pub(in crate::replay) fn list_ended(&self, task: u32, from_ns: u64, to_ns: u64) -> bool {
        let ends = self.lab.as_ref().and_then(|lab| lab.list_ends.get(&task));
        ends.is_some_and(|ends| ends.get(ends.partition_point(|end| *end < from_ns)).is_some_and(|end| *end < to_ns))
    }

    /// Reclaim took the page at an address, so it was mapped there. Tells whether the machine has it mapped now.
    pub(in crate::replay) fn adopt_reclaimed(&mut self, mm: MmId, addr: VirtAddr) -> Result<bool> {
        let leaf = self.machine.leaf(mm, addr);
        if leaf.is_some_and(|(pte, _)| pte.is_present()) {
            return Ok(true);
        }
        let Some(vma) = self.machine.vma_at(mm, addr).copied() else { return Ok(false) };
        self.note("page that reclaim took, mapped before it was seen");
        self.machine.forget_page(mm, addr)?;
        let is_copy = vma.file.is_none() || vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
        let kind = if is_copy { AdoptKind::Anon { write: vma.is_writable() } } else { AdoptKind::FileReadOnly };
        self.machine.adopt_page(mm, addr, kind)?;
        Ok(true)
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
