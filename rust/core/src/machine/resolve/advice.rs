//! madvise, numa_hint, clear_refs, collapse: what is done to a range or to all of an mm without unmapping it.

use crate::addr::{PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::page_table::{TableCursor, TableId, TableVisit, table_index};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::Args;
use super::super::operation::{AccessKind, Advice, Errno, Outcome};
use super::super::vma::{VmFlags, Vma};
use super::stage::{Populate, Stage, Todo, Tries};

impl Machine {
    pub(super) fn madvise(&mut self, by: Initiator, mm: MmId, addr: u64, len: u64, advice: Advice) -> Result<Stage> {
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) => range,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        if range.is_empty() {
            return Ok(Stage::Done(Outcome::None));
        }
        match advice {
            Advice::Dontneed | Advice::DontneedLocked => {
                self.madvise_run(ProgramName::MadviseDontneed, by, mm, range, advice)
            }
            Advice::Free => self.madvise_run(ProgramName::MadviseFree, by, mm, range, advice),
            Advice::Cold => self.madvise_run(ProgramName::MadviseCold, by, mm, range, advice),
            Advice::Pageout => self.madvise_run(ProgramName::MadvisePageout, by, mm, range, advice),
            Advice::PopulateRead => self.madvise_populate(mm, range, AccessKind::Read),
            Advice::PopulateWrite => self.madvise_populate(mm, range, AccessKind::Write),
            Advice::Other => Ok(Stage::Done(Outcome::None)),
            _ => self.madvise_vma_behavior(by, mm, range, advice),
        }
    }

    /// Runs a program on a range, up to the first area that the advice does not suit.
    fn madvise_run(
        &mut self,
        program: ProgramName,
        by: Initiator,
        mm: MmId,
        range: VaRange,
        advice: Advice,
    ) -> Result<Stage> {
        let suits = |vma: &Vma| match advice {
            Advice::DontneedLocked => true,
            Advice::Free => !vma.flags.contains(VmFlags::LOCKED) && vma.is_anonymous(),
            _ => !vma.flags.contains(VmFlags::LOCKED),
        };
        let vmas = &self.mm_ref(mm)?.vmas;
        let bad = vmas.overlapping(range).find(|vma| !suits(vma)).map(|vma| vma.start);
        let end = bad.map_or(range.end, |start| start.max(range.start));
        let has_hole = self.mapped_until(mm, range)? < range.end;
        let has_areas = self.mm_ref(mm)?.vmas.overlapping(VaRange::new(range.start, end)).next().is_some();
        match advice {
            _ if !has_areas => {}
            Advice::Dontneed | Advice::DontneedLocked => self.lru_add_drain_unmapping(by.cpu),
            _ => self.lru_add_drain(by.cpu),
        }
        let outcome = if bad.is_some() { Outcome::Errno(Errno::Einval) } else { hole_outcome(has_hole) };
        // Also for nothing: since 6.16 the call has a gather (`madvise_init_tlb`) before it looks at any area.
        let frame = self.frame_on_range(program, by, mm, VaRange::new(range.start, end))?;
        Ok(Stage::run(frame, outcome))
    }

    /// mm/madvise.c:`madvise_vma_behavior`: advice that is a flag of the area. It splits and joins areas, and so decides
    /// how far fault-around and merging reach.
    fn madvise_vma_behavior(&mut self, by: Initiator, mm: MmId, range: VaRange, advice: Advice) -> Result<Stage> {
        let has_hole = self.mapped_until(mm, range)? < range.end;
        let mut at = range.start;
        while let Some(vma) = self.mm_ref(mm)?.vmas.find(at).copied().filter(|vma| vma.start < range.end) {
            let Some(flags) = advised_flags(&vma, advice) else {
                return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
            };
            at = vma.end;
            if flags != vma.flags {
                self.set_vma_flags(by, mm, vma.range().intersect(range), flags)?;
            }
        }
        Ok(Stage::Done(hole_outcome(has_hole)))
    }

    fn madvise_populate(&self, mm: MmId, range: VaRange, kind: AccessKind) -> Result<Stage> {
        let end = self.mapped_until(mm, range)?;
        Ok(Stage::Do(Todo::Populate(Populate {
            at: range.start,
            end,
            kind,
            tries: Tries::default(),
            on_fault: Outcome::Errno(Errno::Efault),
            outcome: hole_outcome(end < range.end),
        })))
    }

    pub(super) fn numa_hint(&self, by: Initiator, mm: MmId, addr: u64, len: u64) -> Result<Stage> {
        match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) if !range.is_empty() => {
                let frame = self.frame_on_range(ProgramName::ChangeProtNuma, by, mm, range)?;
                Ok(Stage::run(frame, Outcome::None))
            }
            Ok(_) => Ok(Stage::Done(Outcome::None)),
            Err(errno) => Ok(Stage::Done(Outcome::Errno(errno))),
        }
    }

    pub(super) fn clear_refs(&mut self, by: Initiator, mm: MmId, kind: u32) -> Result<Stage> {
        match kind {
            1 => {
                self.clear_young(by, mm)?;
                Ok(Stage::Done(Outcome::None))
            }
            4 => {
                let range = self.user_space();
                let frame = self.frame_on_range(ProgramName::ClearRefsSoftDirty, by, mm, range)?;
                Ok(Stage::run(frame, Outcome::None))
            }
            _ => Ok(Stage::Done(Outcome::Errno(Errno::Einval))),
        }
    }

    /// fs/proc/task_mmu.c:`clear_refs_pte_range`: A goes without a flush, since a stale A only delays aging.
    fn clear_young(&mut self, by: Initiator, mm: MmId) -> Result<()> {
        let root = self.mm_ref(mm)?.root;
        let areas: Vec<VaRange> = self.mm_ref(mm)?.vmas.iter().map(Vma::range).collect();
        for area in areas {
            let mut cursor = TableCursor::new(root, area);
            while let Some(visit) = cursor.next(&self.tables) {
                match visit {
                    TableVisit::PteTable { id, range } => {
                        let mut addr = range.start;
                        while addr < range.end {
                            self.clear_young_at(by, mm, id, table_index(addr, 0), addr);
                            addr = VirtAddr(addr.0 + (1 << PAGE_SHIFT));
                        }
                    }
                    TableVisit::HugePmd { range, table, index } => {
                        self.clear_young_at(by, mm, table, index, range.start.align_down(PMD_SHIFT));
                    }
                    TableVisit::HugePud { .. } => {}
                }
            }
        }
        Ok(())
    }

    fn clear_young_at(&mut self, by: Initiator, mm: MmId, table: TableId, index: usize, addr: VirtAddr) {
        let old = self.tables.get(table, index);
        if old.is_present() && old.young() {
            self.note_lazy_mmu(by, mm, addr, old, old.mk_old());
            self.tables.set(table, index, old.mk_old());
        }
    }

    pub(super) fn collapse(&mut self, by: Initiator, mm: MmId, addr: VirtAddr) -> Result<Stage> {
        self.lru_add_drain_all();
        if addr >= self.user_end() {
            return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
        }
        let start = addr.align_down(PMD_SHIFT);
        let range = VaRange::new(start, VirtAddr(start.0 + PMD_SIZE));
        let state = self.mm_ref(mm)?;
        let vma = state.vmas.lookup(start).copied();
        // mm/khugepaged.c:hugepage_vma_revalidate wants an anon_vma: nothing but zero pages is not collapsed.
        let fits = |vma: &Vma| range.end <= vma.end && vma.is_anonymous() && !vma.is_shared() && vma.anon_vma.is_some();
        let (Some(vma), Some(table)) = (vma.filter(fits), self.tables.pte_table(state.root, start)) else {
            return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
        };
        let entries = (0..PTRS_PER_TABLE).map(|index| self.tables.get(table, index));
        let nr_present = entries.clone().filter(|pte| pte.is_present()).count();
        let has_others = entries.clone().any(|pte| !pte.is_none() && !pte.is_present());
        if nr_present == 0 || has_others {
            return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
        }
        let args = Args { range, addr: start, ..Args::default() };
        let mut frame = self.frame(ProgramName::CollapseHugePage, by, mm, args)?;
        frame.r.vma = vma;
        frame.r.vma_range = range;
        frame.r.table_range = range;
        Ok(Stage::run(frame, Outcome::None))
    }
}

/// The flags of an area after the advice; none where the kernel refuses it (`EINVAL`).
fn advised_flags(vma: &Vma, advice: Advice) -> Option<VmFlags> {
    let none = VmFlags::empty();
    let (set, clear) = match advice {
        Advice::Normal => (none, VmFlags::RAND_READ | VmFlags::SEQ_READ),
        Advice::Random => (VmFlags::RAND_READ, VmFlags::SEQ_READ),
        Advice::Sequential => (VmFlags::SEQ_READ, VmFlags::RAND_READ),
        Advice::Hugepage => (VmFlags::HUGEPAGE, VmFlags::NOHUGEPAGE),
        Advice::Nohugepage => (VmFlags::NOHUGEPAGE, VmFlags::HUGEPAGE),
        Advice::Dontfork => (VmFlags::DONTCOPY, none),
        Advice::Dofork => (none, VmFlags::DONTCOPY),
        Advice::Dontdump => (VmFlags::DONTDUMP, none),
        Advice::Dodump => (none, VmFlags::DONTDUMP),
        // mm/ksm.c:`ksm_madvise` passes over shared memory.
        Advice::Mergeable if !vma.is_shared() => (VmFlags::MERGEABLE, none),
        Advice::Unmergeable => (none, VmFlags::MERGEABLE),
        Advice::Wipeonfork if vma.is_shared() || !vma.is_anonymous() => return None,
        Advice::Wipeonfork => (VmFlags::WIPEONFORK, none),
        Advice::Keeponfork => (none, VmFlags::WIPEONFORK),
        _ => (none, none),
    };
    Some(vma.flags.difference(clear) | set)
}

const fn hole_outcome(has_hole: bool) -> Outcome {
    if has_hole { Outcome::Errno(Errno::Enomem) } else { Outcome::None }
}
