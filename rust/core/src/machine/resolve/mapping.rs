//! Mappings: mmap, munmap, brk, mprotect.

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VaRange, VirtAddr};
use crate::error::{Error, Result};
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::Args;
use super::super::hardware::MAX_FAULTS;
use super::super::mm::{MMAP_BASE, MMAP_MIN, START_BRK};
use super::super::operation::{AccessKind, Errno, Operation, Outcome};
use super::super::vma::{VmFlags, Vma};
use super::stage::{Populate, Stage, Todo, Tries};

impl Machine {
    pub(super) fn mmap(&mut self, by: Initiator, mm: MmId, operation: &Operation) -> Result<Stage> {
        let Operation::Mmap { addr, len, prot, shared, fixed, noreplace, populate, growsdown, file, pgoff, .. } =
            *operation
        else {
            return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
        };
        let file = file.map(|file| self.file_id(file)).transpose()?;
        if len == 0 || shared && growsdown || !VirtAddr(addr).is_aligned(PAGE_SHIFT) {
            return Ok(Stage::Done(Outcome::Errno(Errno::Einval)));
        }
        if pgoff.checked_add(len.div_ceil(PAGE_SIZE)).is_none() {
            return Ok(Stage::Done(Outcome::Errno(Errno::Eoverflow)));
        }
        // Address 0 asks for a choice even of a fixed mapping.
        let is_fixed = (fixed || noreplace) && addr != 0;
        let range = match self.choose_range(mm, addr, len, is_fixed)? {
            Ok(range) => range,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        if noreplace && !self.mm_ref(mm)?.vmas.is_free(range) {
            return Ok(Stage::Done(Outcome::Errno(Errno::Eexist)));
        }
        let mut flags = VmFlags::from_bits_truncate(prot) & VmFlags::ACCESS;
        flags.set(VmFlags::SHARED, shared);
        flags.set(VmFlags::GROWSDOWN, growsdown);
        let nr_pages = range.len_bytes() >> PAGE_SHIFT;
        let (file, pgoff) = match (file, shared) {
            (Some(file), _) => (Some(file), pgoff),
            // Shared anonymous memory is a file that only its mappings know (shmem_zero_setup).
            (None, true) => (Some(self.pages.create_file(true, Some(nr_pages))), 0),
            (None, false) => (None, range.start.0 >> PAGE_SHIFT),
        };
        let args =
            Args { range, new_vma: Some(Vma::new(range, flags.accounted(), file, pgoff)), populate, ..Args::default() };
        let frame = self.frame(ProgramName::Mmap, by, mm, args)?;
        let outcome = Outcome::Value(range.start.0);
        if !populate {
            return Ok(Stage::run(frame, outcome));
        }
        let writes = flags.contains(VmFlags::WRITE) && !shared;
        let kind = if writes { AccessKind::Write } else { AccessKind::Read };
        let (at, end, tries) = (range.start, range.end, Tries::default());
        let then = Todo::Populate(Populate { at, end, kind, tries, on_fault: outcome, outcome });
        Ok(Stage::Run(frame, then))
    }

    /// Where a new mapping goes: at `addr` if it is fixed or free there, else as high as there is room.
    pub(super) fn choose_range(
        &self,
        mm: MmId,
        addr: u64,
        len: u64,
        fixed: bool,
    ) -> Result<std::result::Result<VaRange, Errno>> {
        let range = self.page_range(addr, len, Errno::Enomem);
        let vmas = &self.mm_ref(mm)?.vmas;
        if fixed {
            return Ok(range);
        }
        if let (true, Ok(range)) = (addr != 0, range)
            && vmas.is_free(range)
        {
            return Ok(Ok(range));
        }
        let Ok(size) = self.page_range(0, len, Errno::Enomem) else {
            return Ok(Err(Errno::Enomem));
        };
        let size = size.len_bytes();
        let found = vmas.find_gap_topdown(size, MMAP_MIN, MMAP_BASE);
        Ok(found.map(|start| VaRange::new(start, VirtAddr(start.0 + size))).ok_or(Errno::Enomem))
    }

    /// Touches each page of a range in order, till one fails. `faultin_page()`: an entry that allows the access is left as
    /// it is, A bit and all; else it faults.
    pub(super) fn populate(&mut self, by: Initiator, mm: MmId, mut state: Populate) -> Result<Stage> {
        while state.at < state.end {
            let leaf = self.leaf(mm, state.at).filter(|(pte, _)| pte.is_hw_present());
            if leaf.is_none_or(|(pte, _)| state.kind == AccessKind::Write && !pte.write()) {
                return self.populate_page(by, mm, state);
            }
            state.at = VirtAddr(state.at.0 + (1 << PAGE_SHIFT));
            state.tries = Tries::default();
        }
        Ok(Stage::Done(state.outcome))
    }

    fn populate_page(&mut self, by: Initiator, mm: MmId, mut state: Populate) -> Result<Stage> {
        let addr = state.at;
        if !state.tries.again(self.locks.turn(), MAX_FAULTS) {
            return Err(Error::Program {
                program: ProgramName::Fault.name().to_owned(),
                step: "as a whole".to_owned(),
                message: format!("found no end of faults at {addr} of mm {mm}, expected an entry that allows access"),
            });
        }
        let next = self.fault(by, mm, addr, state.kind, Todo::Populate(state))?;
        Ok(match next {
            Stage::Done(Outcome::Errno(_)) => Stage::Done(state.on_fault),
            other => other,
        })
    }

    pub(super) fn munmap(&self, by: Initiator, mm: MmId, addr: u64, len: u64) -> Result<Stage> {
        let range = match self.page_range(addr, len, Errno::Einval) {
            Ok(range) if len > 0 => range,
            _ => return Ok(Stage::Done(Outcome::Errno(Errno::Einval))),
        };
        Ok(Stage::run(self.frame_on_range(ProgramName::Munmap, by, mm, range)?, Outcome::None))
    }

    pub(super) fn brk(&mut self, by: Initiator, mm: MmId, addr: VirtAddr) -> Result<Stage> {
        let state = self.mm_ref(mm)?;
        let old = state.brk;
        let old_end = state.heap().end;
        if addr < START_BRK || addr > self.user_end() {
            return Ok(Stage::Done(Outcome::Value(old.0)));
        }
        let new_end = addr.align_up(PAGE_SHIFT);
        if new_end > old_end {
            let range = VaRange::new(old_end, new_end);
            let flags = VmFlags::READ | VmFlags::WRITE;
            let either = self.kernel.constants.anon_vma_merges_either_way;
            let vmas = &mut self.mm_mut(mm)?.vmas;
            if !vmas.is_free(range) {
                return Ok(Stage::Done(Outcome::Value(old.0)));
            }
            vmas.insert(Vma::new(range, flags.accounted(), None, old_end.0 >> PAGE_SHIFT));
            vmas.merge_at(old_end, either);
        }
        self.mm_mut(mm)?.brk = addr;
        let outcome = Outcome::Value(addr.0);
        if new_end < old_end {
            let tail = VaRange::new(new_end, old_end);
            return Ok(Stage::run(self.frame_on_range(ProgramName::Munmap, by, mm, tail)?, outcome));
        }
        Ok(Stage::Done(outcome))
    }

    pub(super) fn mprotect(&self, by: Initiator, mm: MmId, addr: u64, len: u64, prot: u32) -> Result<Stage> {
        let range = match self.page_range(addr, len, Errno::Enomem) {
            Ok(range) => range,
            Err(errno) => return Ok(Stage::Done(Outcome::Errno(errno))),
        };
        let end = self.mapped_until(mm, range)?;
        let outcome = if end < range.end { Outcome::Errno(Errno::Enomem) } else { Outcome::None };
        if range.start < end {
            let args = Args {
                range: VaRange::new(range.start, end),
                prot: VmFlags::from_bits_truncate(prot) & VmFlags::ACCESS,
                ..Args::default()
            };
            return Ok(Stage::run(self.frame(ProgramName::Mprotect, by, mm, args)?, outcome));
        }
        Ok(Stage::Done(outcome))
    }
}
