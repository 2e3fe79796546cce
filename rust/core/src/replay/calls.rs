//! System calls, from what the kernel got to what the machine does.

use super::driver::Driver;
use crate::addr::{PAGE_SIZE, PMD_SHIFT, PMD_SIZE, VaRange, VirtAddr};
use crate::error::Result;
use crate::flush::MmId;
use crate::machine::{Advice, FileId, MMAP_MIN, Operation, Outcome, VmFlags};
use crate::trace::kinds::{ENTER_UNSEEN, FAILED};
use crate::trace::{Event, EventKind};

// include/uapi/asm-generic/mman-common.h, mman.h, linux/mman.h (v6.18).
const MAP_SHARED: u64 = 0x01;
const MAP_TYPE: u64 = 0x0f;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_GROWSDOWN: u64 = 0x100;
const MAP_LOCKED: u64 = 0x2000;
const MAP_POPULATE: u64 = 0x8000;
const MAP_NONBLOCK: u64 = 0x1_0000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_DONTUNMAP: u64 = 4;
const MADV_REMOVE: u64 = 9;
pub(super) const MADV_COLLAPSE: u64 = 25;
const MS_SYNC: u64 = 4;
const ENOMEM: i64 = -12;
const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
const PROT_ALL: u64 = 7;
/// The most that a call is believed to have faulted in, in bytes: 16 GiB.
const POPULATE_MAX: u64 = 16 << 30;

const fn page_up(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

fn advice(number: u64) -> Option<Advice> {
    Some(match number {
        4 => Advice::Dontneed,
        8 => Advice::Free,
        0 => Advice::Normal,
        1 => Advice::Random,
        2 => Advice::Sequential,
        10 => Advice::Dontfork,
        11 => Advice::Dofork,
        12 => Advice::Mergeable,
        13 => Advice::Unmergeable,
        14 => Advice::Hugepage,
        15 => Advice::Nohugepage,
        16 => Advice::Dontdump,
        17 => Advice::Dodump,
        18 => Advice::Wipeonfork,
        19 => Advice::Keeponfork,
        20 => Advice::Cold,
        21 => Advice::Pageout,
        22 => Advice::PopulateRead,
        23 => Advice::PopulateWrite,
        3 => Advice::Other,
        24 => Advice::DontneedLocked,
        _ => return None,
    })
}

impl Driver<'_> {
    /// A system call that was recorded.
    pub(super) fn call(&mut self, row: usize, event: &Event) -> Result<()> {
        if event.flags & ENTER_UNSEEN != 0 {
            self.note("call whose begin was not recorded");
            return Ok(());
        }
        let nr_open = self.nesting.of_call(row);
        let task = self.tasks.alive(event.task).filter(|_| nr_open > 0);
        let Some(mm) = task.map(|task| self.machine.task_mm(task)).transpose()? else {
            return self.call_alone(event);
        };
        self.note("call that ran while others had a gather open");
        self.machine.hold_gathers(mm, nr_open)?;
        self.call_alone(event)?;
        self.machine.release_gathers(mm, nr_open)
    }

    pub(super) fn call_alone(&mut self, event: &Event) -> Result<()> {
        match event.kind() {
            EventKind::Fork => self.fork_call(event),
            EventKind::Mmap => self.mmap(event),
            EventKind::Munmap => self.munmap(event),
            EventKind::Mprotect => self.mprotect(event),
            EventKind::Mremap => self.mremap(event),
            EventKind::Brk => self.brk(event),
            EventKind::Madvise => self.madvise(event),
            EventKind::Msync => self.msync(event),
            EventKind::Shmdt => self.shmdt(event),
            EventKind::ProcessMadvise if event.flags & FAILED == 0 => self.process_madvise(event),
            EventKind::Shmat if event.flags & FAILED == 0 => {
                // It grows with the faults on it.
                self.note("shmat: the segment's size is not in the recording");
                Ok(())
            }
            EventKind::Mlock if event.ret == 0 => self.mlock(event),
            EventKind::Munlock if event.ret == 0 => self.set_locked(event, false),
            _ => Ok(()), // these change no translation that is there
        }
    }

    /// An operation that the kernel did; the machine must be able to as well.
    pub(super) fn expect_done(&mut self, operation: &Operation) -> Result<()> {
        if let Outcome::Errno(_) = self.run(operation)? {
            self.note("operation that the kernel did and the machine refused");
        }
        Ok(())
    }

    /// The same for the last one of a call, which may be left in progress.
    fn expect_last_done(&mut self, operation: &Operation) -> Result<()> {
        if let Outcome::Errno(_) = self.run_last(operation, None)? {
            self.note("operation that the kernel did and the machine refused");
        }
        Ok(())
    }

    fn mmap(&mut self, event: &Event) -> Result<()> {
        if event.ret < 0 && event.ret >= -4095 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let (addr, len) = (event.ret.cast_unsigned(), page_up(event.a1));
        let flags = event.a3;
        let fixed = flags & MAP_FIXED != 0;
        if !fixed {
            // The kernel found the place free: what the machine has there it only guessed.
            self.forget_range(mm, addr, addr.saturating_add(len))?;
        }
        let shared = flags & MAP_TYPE & MAP_SHARED != 0 && flags & MAP_TYPE != 2;
        let file = if flags & MAP_ANONYMOUS != 0 { None } else { Some(self.file_of(event, mm)?.0) };
        let mut populate = flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE || flags & MAP_LOCKED != 0;
        if populate && len > POPULATE_MAX {
            self.note("more memory to fault in than is modelled");
            populate = false;
        }
        self.mapped.insert((mm, len), addr);
        let mapping = Operation::Mmap {
            task,
            addr,
            len,
            prot: (event.a2 & PROT_ALL) as u32,
            shared,
            fixed: true,
            noreplace: flags & MAP_FIXED_NOREPLACE != 0 && !fixed,
            populate,
            growsdown: flags & MAP_GROWSDOWN != 0,
            file,
            pgoff: event.a5 / PAGE_SIZE,
        };
        self.expect_done(&mapping)?;
        if flags & MAP_LOCKED != 0 {
            self.machine.set_locked(task, VaRange::new(VirtAddr(addr), VirtAddr(addr.saturating_add(len))), true)?;
        }
        Ok(())
    }

    /// The file that an mmap maps. In a scenario it has a name; else it is known by its descriptor only.
    fn file_of(&mut self, event: &Event, mm: MmId) -> Result<FileId> {
        if let Some(name) = self.step_files.remove(&event.task) {
            return self.file_by_name(name, None);
        }
        let key = (mm, event.a4 & 0xffff_ffff);
        if let Some(&file) = self.files_by_fd.get(&key) {
            return Ok(file);
        }
        let file = self.new_file(None)?;
        self.files_by_fd.insert(key, file);
        Ok(file)
    }

    fn munmap(&mut self, event: &Event) -> Result<()> {
        if event.ret != 0 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        self.expect_last_done(&Operation::Munmap { task, addr: event.a0, len: page_up(event.a1) })
    }

    fn mprotect(&mut self, event: &Event) -> Result<()> {
        if event.ret != 0 || event.a1 == 0 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let len = page_up(event.a1);
        self.adopt_holes(task, event.a0, event.a0.saturating_add(len))?;
        self.expect_last_done(&Operation::Mprotect { task, addr: event.a0, len, prot: (event.a2 & PROT_ALL) as u32 })
    }

    fn mremap(&mut self, event: &Event) -> Result<()> {
        if event.ret < 0 && event.ret >= -4095 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let (old_len, new_len) = (page_up(event.a1), page_up(event.a2));
        let new = event.ret.cast_unsigned();
        let flags = event.a3;
        let moved = new != event.a0 || flags & MREMAP_DONTUNMAP != 0;
        self.adopt_holes(task, event.a0, event.a0.saturating_add(old_len.min(new_len).max(PAGE_SIZE)))?;
        if flags & 2 == 0 && moved {
            self.forget_range(mm, new, new.saturating_add(new_len))?;
        }
        if !moved && new_len > old_len {
            self.forget_range(mm, new.saturating_add(old_len), new.saturating_add(new_len))?;
        }
        let operation = Operation::Mremap {
            task,
            old: event.a0,
            old_len,
            new_len,
            maymove: flags & MREMAP_MAYMOVE != 0 || moved,
            fixed: moved,
            dontunmap: flags & MREMAP_DONTUNMAP != 0,
            new: if moved { new } else { 0 },
        };
        let range = |start: u64| start..start.saturating_add(old_len);
        let reaches = self.machine.vma_at(mm, VirtAddr(event.a0)).map_or(u64::MAX, |vma| vma.end.0);
        let is_of_several = moved && old_len == new_len && reaches < range(event.a0).end;
        let overlaps = range(event.a0).start < range(new).end && range(new).start < range(event.a0).end;
        if is_of_several && !overlaps {
            return self.move_areas(mm, &operation);
        }
        self.expect_done(&operation)
    }

    /// A move of several areas: since v6.17 one after the other (mm/mremap.c:`remap_move`).
    fn move_areas(&mut self, mm: MmId, operation: &Operation) -> Result<()> {
        let Operation::Mremap { old, old_len, new, .. } = *operation else { return Ok(()) };
        let end = old.saturating_add(old_len);
        let mut at = old;
        while let Some(vma) = self.machine.next_vma(mm, VirtAddr(at)).copied().filter(|vma| at.max(vma.start.0) < end) {
            let start = at.max(vma.start.0);
            let len = vma.end.0.min(end) - start;
            let mut part = operation.clone();
            if let Operation::Mremap { old: from, old_len, new_len, new: to, .. } = &mut part {
                (*from, *old_len, *new_len, *to) = (start, len, len, new.saturating_add(start - old));
            }
            self.expect_done(&part)?;
            at = start + len;
        }
        Ok(())
    }

    /// The recording tells where the heap is; the machine's own brk is not used.
    fn brk(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let end = page_up(event.ret.cast_unsigned());
        let (start, old) = *self.heaps.entry(mm).or_insert((end, end));
        if end > old {
            self.forget_range(mm, old, end)?;
            self.expect_done(&Operation::Mmap {
                task,
                addr: old,
                len: end - old,
                prot: 3,
                shared: false,
                fixed: true,
                noreplace: false,
                populate: false,
                growsdown: false,
                file: None,
                pgoff: 0,
            })?;
        } else if end < old {
            self.expect_done(&Operation::Munmap { task, addr: end, len: old - end })?;
        }
        self.heaps.insert(mm, (start.min(end), end));
        Ok(())
    }

    fn madvise(&mut self, event: &Event) -> Result<()> {
        // What the kernel refuses at some area (EINVAL) is done up to there, and so are faults up to one that ends in a signal.
        let populates = matches!(advice(event.a2), Some(Advice::PopulateRead | Advice::PopulateWrite));
        let is_done = [0, ENOMEM, EINVAL].contains(&event.ret) || populates && event.ret == EFAULT;
        if !is_done || event.a1 == 0 {
            return Ok(());
        }
        if event.a2 == MADV_COLLAPSE {
            return self.collapse(event);
        }
        if event.a2 == MADV_REMOVE {
            return self.remove(event);
        }
        let Some(advice) = advice(event.a2) else {
            if event.ret == EINVAL {
                return Ok(());
            }
            self.note("madvise with an advice that is not modelled");
            return Ok(());
        };
        if matches!(advice, Advice::PopulateRead | Advice::PopulateWrite) && event.a1 > POPULATE_MAX {
            self.note("more memory to fault in than is modelled");
            return Ok(());
        }
        if advice == Advice::Pageout {
            self.pageout_end.insert(event.task, event.end_ns);
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let len = page_up(event.a1);
        if event.ret == 0 {
            self.adopt_holes(task, event.a0, event.a0.saturating_add(len))?;
        }
        let outcome = self.run_last(&Operation::Madvise { task, addr: event.a0, len, advice }, None)?;
        if matches!(outcome, Outcome::Errno(_)) && event.ret == 0 {
            self.note("operation that the kernel did and the machine refused");
        }
        Ok(())
    }

    /// `MADV_REMOVE`: a hole in the file of each shared mapping of the range (mm/madvise.c:`madvise_remove`), as far as the
    /// kernel came.
    fn remove(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let Some((mut at, end)) = self.user_pages(event.a0, event.a0.saturating_add(event.a1)) else { return Ok(()) };
        while let Some(vma) = self.machine.next_vma(mm, VirtAddr(at)).copied().filter(|vma| vma.start.0 < end) {
            let start = vma.start.max(VirtAddr(at));
            at = vma.end.0;
            // Mapped to be read is enough where it might be written (`vma_is_shared_maywrite`); if not, the call says EACCES.
            let Some(file) = vma.file.filter(|_| vma.is_shared()) else { break };
            let nr_pages = (vma.end.0.min(end) - start.0) / PAGE_SIZE;
            self.punch(task, file, vma.index_of(start), nr_pages)?;
        }
        Ok(())
    }

    /// `MADV_COLLAPSE`: each 2 MiB of the range becomes a huge page.
    fn collapse(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let Some((start, end)) = self.user_pages(event.a0, event.a0.saturating_add(event.a1)) else { return Ok(()) };
        if end - start > POPULATE_MAX {
            self.note("more memory to fault in than is modelled");
            return Ok(());
        }
        let mut addr = VirtAddr(start).align_up(PMD_SHIFT);
        while addr.0 + PMD_SIZE <= end {
            self.run(&Operation::Collapse { task, addr: addr.0 })?;
            addr = VirtAddr(addr.0 + PMD_SIZE);
        }
        Ok(())
    }

    /// The ranges lie in the caller's memory and are not in the recording, but their sum is: the call returns it. One range
    /// of the length of a mapping is taken for the latest such mapping of the caller.
    fn process_madvise(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let len = event.ret.cast_unsigned();
        let (Some(&addr), Some(advice), 1) = (self.mapped.get(&(mm, len)), advice(event.a3), event.a2) else {
            self.note("process_madvise: its ranges are not in the recording");
            return Ok(());
        };
        self.note("process_madvise: its range inferred from its length");
        self.run(&Operation::Madvise { task, addr, len, advice })?;
        Ok(())
    }

    fn msync(&mut self, event: &Event) -> Result<()> {
        if event.ret != 0 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let sync = event.a2 & MS_SYNC != 0;
        self.run(&Operation::Msync { task, addr: event.a0, len: page_up(event.a1), sync })?;
        Ok(())
    }

    /// Locked memory is faulted in, writable private memory by writing.
    fn mlock(&mut self, event: &Event) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let (start, end) = (event.a0 & !(PAGE_SIZE - 1), page_up(event.a0.saturating_add(event.a1)));
        if end.saturating_sub(start) > POPULATE_MAX {
            self.note("more memory to fault in than is modelled");
            return Ok(());
        }
        self.adopt_holes(task, start, end)?;
        self.set_locked(event, true)?;
        let writable = self
            .machine
            .vma_at(mm, VirtAddr(start))
            .is_some_and(|vma| vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE);
        let advice = if writable { Advice::PopulateWrite } else { Advice::PopulateRead };
        self.run(&Operation::Madvise { task, addr: start, len: end - start, advice })?;
        Ok(())
    }

    fn set_locked(&mut self, event: &Event, locked: bool) -> Result<()> {
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let Some((start, end)) = self.user_pages(event.a0, event.a0.saturating_add(event.a1)) else { return Ok(()) };
        self.machine.set_locked(task, VaRange::new(VirtAddr(start), VirtAddr(end)), locked)
    }

    fn shmdt(&mut self, event: &Event) -> Result<()> {
        if event.ret != 0 {
            return Ok(());
        }
        let Some(task) = self.ensure_running(event.task, event.cpu)? else { return Ok(()) };
        let mm = self.machine.task_mm(task)?;
        let Some(vma) = self.machine.vma_at(mm, VirtAddr(event.a0)) else { return Ok(()) };
        let (start, end) = (vma.start.0, vma.end.0);
        self.expect_done(&Operation::Munmap { task, addr: start, len: end - start })
    }

    /// Takes over what must have been mapped where a call worked although the recording did not show it being mapped.
    pub(super) fn adopt_holes(&mut self, task: u32, start: u64, end: u64) -> Result<()> {
        let mm = self.machine.task_mm(task)?;
        let Some((mut at, end)) = self.user_pages(start, end) else { return Ok(()) };
        while at < end {
            let next = self.machine.next_vma(mm, VirtAddr(at)).map(|vma| (vma.start.0, vma.end.0));
            let hole_end = next.map_or(end, |(vma_start, _)| vma_start.min(end));
            if at < hole_end {
                self.adopt_unknown(mm, VaRange::new(VirtAddr(at), VirtAddr(hole_end)), false)?;
            }
            at = next.map_or(end, |(_, vma_end)| vma_end);
        }
        Ok(())
    }

    /// Takes over a private mapping that was made before the recording began, or by exec: all rights, and a file of its
    /// own unless it must be anonymous.
    pub(super) fn adopt_unknown(&mut self, mm: MmId, range: VaRange, anonymous: bool) -> Result<()> {
        self.note("mapping made before the recording or by exec, taken over");
        let file = if anonymous { None } else { Some(self.new_file(None)?) };
        let pgoff = if anonymous { range.start.vpn().0 } else { 0 };
        self.machine.adopt_vma(mm, range.start, range.end, VmFlags::ACCESS, file, pgoff)
    }

    /// The pages of user space in a range of bytes; none if there are none. A call that did not return (its task was
    /// killed) may have had any arguments.
    fn user_pages(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let start = (start & !(PAGE_SIZE - 1)).max(MMAP_MIN.0);
        let end = page_up(end).min(self.machine.user_end().0);
        (start < end).then_some((start, end))
    }

    /// Drops what the machine only guessed to be there.
    pub(super) fn forget_range(&mut self, mm: MmId, start: u64, end: u64) -> Result<()> {
        let Some((start, end)) = self.user_pages(start, end) else { return Ok(()) };
        if self.machine.next_vma(mm, VirtAddr(start)).is_some_and(|vma| vma.start.0 < end) {
            self.note("mapping that was only guessed, dropped");
            self.machine.forget_range(mm, VaRange::new(VirtAddr(start), VirtAddr(end)))?;
        }
        Ok(())
    }

    /// The file of a name, made with a size if it was not known.
    pub(super) fn file_by_name(&mut self, name: u64, nr_pages: Option<u64>) -> Result<FileId> {
        if let Some(&file) = self.files_by_name.get(&name) {
            return Ok(file);
        }
        let file = self.new_file(nr_pages)?;
        self.files_by_name.insert(name, file);
        Ok(file)
    }

    pub(super) fn new_file(&mut self, nr_pages: Option<u64>) -> Result<FileId> {
        Ok(FileId(self.id(&Operation::CreateFile { shmem: false, nr_pages })?))
    }
}
