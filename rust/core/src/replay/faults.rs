//! Page faults: the recording says which page faulted and how, and so corrects what the machine only guessed.
//!
//! An x86 error code tells whether the entry was present. Where the machine has it otherwise, the recording is right:
//! a page that the machine thinks mapped was not (fault-around did not map it, since it was not in the page cache), one
//! that it thinks absent was mapped read-only (fault-around did, or it was there before the recording began).
//!
//! A page that was there before the recording, or was made by `execve` (the arguments, the end of the data), was there in
//! the other address spaces too that forks made since: all of them share it, until all but one have copied it.

use super::driver::Driver;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{AccessKind, AdoptKind, MMAP_MIN, Operation, Outcome};
use crate::trace::Event;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const FETCH: u64 = 16;
/// Bytes taken over around a fault where nothing is known to be mapped: a fault-around window.
const WINDOW: u64 = 16 * PAGE_SIZE;

impl Driver<'_> {
    /// A page fault.
    pub(super) fn fault(&mut self, event: &Event) -> Result<()> {
        let addr = VirtAddr(event.a0);
        if !(MMAP_MIN..self.machine.user_end()).contains(&addr) {
            self.note("fault outside user space");
            return Ok(());
        }
        if self.step_covers(event) {
            return Ok(()); // the scenario's access faulted by itself
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        if event.a1 & (PRESENT | FETCH) == PRESENT | FETCH {
            // No kernel makes a present entry executable in a fault: execution was not allowed.
            self.note("fault that the kernel answered with a signal");
            return Ok(());
        }
        let mm = self.machine.task_mm(task)?;
        let kind = if event.a1 & WRITE != 0 {
            AccessKind::Write
        } else if event.a1 & FETCH != 0 {
            AccessKind::Exec
        } else {
            AccessKind::Read
        };
        let is_known = self.machine.vma_at(mm, addr).is_some();
        if !self.adopt_for_fault(mm, addr, kind, event.a1 & PRESENT != 0, is_known)? {
            self.note("fault that the kernel answered with a signal");
            return Ok(());
        }
        if event.a1 & (PRESENT | WRITE) == PRESENT | WRITE {
            self.adopt_for_family(mm, addr, is_known)?;
        }
        self.correct(mm, addr, event.a1)?;
        let access = Operation::Access { task, addr: addr.0, kind };
        if let Outcome::Errno(_) = self.run_last(&Operation::Fault { task, addr: addr.0, kind }, Some(access))? {
            // The kernel may have killed the task, or the rights were changed by what is not in the recording.
            self.note("fault that the machine answers with a signal");
        }
        Ok(())
    }

    /// Makes the machine's entry what the error code says it was.
    pub(super) fn correct(&mut self, mm: MmId, addr: VirtAddr, error_code: u64) -> Result<()> {
        let leaf = self.machine.leaf(mm, addr);
        let present = leaf.is_some_and(|(pte, _)| pte.is_hw_present());
        if error_code & PRESENT == 0 {
            if present {
                if self.machine.swap_out_unseen(mm, addr)? {
                    self.note("page that reclaim took unseen");
                } else {
                    self.note("page that fault-around was thought to have mapped");
                    self.machine.forget_page(mm, addr)?;
                }
            }
            return Ok(());
        }
        let write = error_code & WRITE != 0;
        match leaf {
            Some((pte, _)) if present => {
                if write && pte.write() {
                    self.note("write fault on an entry thought writable");
                    self.machine.write_protect(mm, addr);
                }
            }
            _ => {
                self.note("page mapped before it was seen");
                let anonymous = self.machine.vma_at(mm, addr).is_some_and(|vma| vma.file.is_none());
                let kind = if anonymous { AdoptKind::ZeroPage } else { AdoptKind::FileReadOnly };
                self.machine.forget_page(mm, addr)?;
                self.machine.adopt_page(mm, addr, kind)?;
            }
        }
        Ok(())
    }

    /// Takes a mapping over where one must have been; whether the access is allowed. Rights are never guessed: a mapping
    /// taken over has all of them, so what is not allowed was forbidden by a recorded call.
    fn adopt_for_fault(
        &mut self,
        mm: MmId,
        addr: VirtAddr,
        kind: AccessKind,
        present: bool,
        is_known: bool,
    ) -> Result<bool> {
        if is_known {
            return Ok(self.machine.allows(mm, addr, kind));
        }
        let start = VirtAddr(addr.0 & !(WINDOW - 1));
        let window = VaRange::new(start, VirtAddr(start.0 + WINDOW));
        let range = window.intersect(self.machine.gap_around(mm, addr));
        self.adopt_unknown(mm, range, kind == AccessKind::Write && !present)?;
        Ok(true)
    }

    /// Where a page is about to be written that was there before: lets all address spaces of the family have it that have
    /// nothing there. A fault of any of them would have shown a page that came later, except one of a file, which
    /// fault-around may have mapped in an area that is known.
    fn adopt_for_family(&mut self, mm: MmId, addr: VirtAddr, is_known: bool) -> Result<()> {
        let may_be_older = |driver: &Self, of: MmId, is_known: bool| {
            let vma = driver.machine.vma_at(of, addr);
            driver.machine.leaf(of, addr).is_none() && (!is_known || vma.is_none_or(crate::machine::Vma::is_anonymous))
        };
        if self.copied_from.is_empty() || !may_be_older(self, mm, is_known) {
            return Ok(());
        }
        let mut family = vec![mm];
        for relative in self.relatives(mm) {
            if !may_be_older(self, relative, true) {
                continue;
            }
            if self.machine.vma_at(relative, addr).is_none() {
                let start = addr.align_down(PAGE_SHIFT);
                self.adopt_unknown(relative, VaRange::new(start, VirtAddr(start.0 + PAGE_SIZE)), true)?;
            }
            family.push(relative);
        }
        if family.len() > 1 {
            self.note("page mapped before it was seen");
            self.machine.adopt_shared_page(&family, addr, AdoptKind::Anon { write: false })?;
        }
        Ok(())
    }

    /// The other address spaces that share an ancestor with this one through forks, or are one, by number.
    fn relatives(&self, mm: MmId) -> Vec<MmId> {
        let first = |mm: MmId| std::iter::successors(Some(mm), |mm| self.copied_from.get(mm).copied()).last();
        let of_family = first(mm);
        let mms = self.copied_from.iter().flat_map(|(to, from)| [*to, *from]);
        let mut found: Vec<MmId> =
            mms.filter(|&other| other != mm && self.machine.mm(other).is_some() && first(other) == of_family).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
