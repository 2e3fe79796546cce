//! The page fault: which area it is in, whether it may be, and the program that handles it.

use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::error::Result;
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::super::Machine;
use super::super::frame::Args;
use super::super::operation::{AccessKind, Errno, Outcome};
use super::super::vma::{VmFlags, Vma};
use super::stage::{Stage, Todo};

impl Machine {
    /// Handles a fault at `addr`, of the CPU that `by` runs on; then `then`.
    pub(in super::super) fn fault(
        &mut self,
        by: Initiator,
        mm: MmId,
        addr: VirtAddr,
        kind: AccessKind,
        then: Todo,
    ) -> Result<Stage> {
        if addr >= self.user_end() {
            return Ok(Stage::Done(Outcome::Errno(Errno::Sigsegv)));
        }
        let page = addr.align_down(PAGE_SHIFT);
        let Some(mut vma) = self.mm_ref(mm)?.vmas.find(page).copied() else {
            return Ok(Stage::Done(Outcome::Errno(Errno::Sigsegv)));
        };
        let nr_grown = vma.start.0.saturating_sub(page.0) >> PAGE_SHIFT;
        let may_grow = vma.flags.contains(VmFlags::GROWSDOWN) && nr_grown <= vma.pgoff;
        if !allows(&vma, kind) || nr_grown > 0 && !may_grow {
            return Ok(Stage::Done(Outcome::Errno(Errno::Sigsegv)));
        }
        if let Some(key) = self.blocks_fault(mm, page, &vma) {
            return Ok(Stage::Blocked(key));
        }
        if nr_grown > 0
            && let Some(grown) = self.mm_mut(mm)?.vmas.expand_down(vma.start, page)
        {
            vma = grown;
        }
        let size = vma.file.and_then(|file| self.pages.file(file)).and_then(|file| file.nr_pages);
        if size.is_some_and(|nr_pages| vma.index_of(page) >= nr_pages) {
            return Ok(Stage::Done(Outcome::Errno(Errno::Sigbus)));
        }
        let tells_writes = !matches!(then, Todo::Finish(_));
        let args = Args { range: vma.range(), addr: page, kind: Some(kind), tells_writes, ..Args::default() };
        let mut frame = self.frame(ProgramName::Fault, by, mm, args)?;
        frame.r.vma = vma;
        frame.r.vma_range = vma.range();
        Ok(Stage::Run(frame, then))
    }
}

/// mm/memory.c and arch/x86/mm/fault.c:`access_error`: a read needs any right.
const fn allows(vma: &Vma, kind: AccessKind) -> bool {
    match kind {
        AccessKind::Read => vma.flags.intersects(VmFlags::ACCESS),
        AccessKind::Write => vma.flags.contains(VmFlags::WRITE),
        AccessKind::Exec => vma.flags.contains(VmFlags::EXEC),
    }
}
