//! From an operation to the programs that do it: arguments checked as the system call checks them, addresses chosen,
//! areas and pages looked up (`docs/machine.md` section 4). A file for each family of operations.

mod advice;
mod custom;
mod fault;
mod file;
mod mapping;
mod process;
mod reclaim;
mod remap;
mod stage;

pub(super) use stage::{Stage, Todo, Tries};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VaRange, VirtAddr};
use crate::cpumask::CpuId;
use crate::error::{Error, Result};
use crate::flush::{Initiator, MmId};
use crate::program::ProgramName;

use super::Machine;
use super::frame::{Args, Frame};
use super::operation::{Errno, Operation, Outcome};
use super::pages::FileId;
use super::probes::Probe;
use file::fsync;

impl Machine {
    /// Does one operation, from its arguments to what it returns.
    ///
    /// # Errors
    /// On an operation that makes no sense here: a task, CPU or file that there is not, a task that does not run. What a
    /// system call would refuse is an [`Outcome::Errno`] instead. While calls are in progress ([`Self::begin`]): on an
    /// operation that would have to wait for one of them. A kernel whose programs do not fit together is an error too; the
    /// machine is not to be used after that.
    pub fn apply(&mut self, operation: &Operation) -> Result<Outcome> {
        if self.nr_calls > 0 {
            return self.apply_beside_calls(operation);
        }
        let outcome = self.apply_alone(operation);
        self.nr_ops += 1;
        outcome
    }

    fn apply_alone(&mut self, operation: &Operation) -> Result<Outcome> {
        let mut stage = self.resolve(operation)?;
        loop {
            stage = match stage {
                Stage::Do(todo) => self.go_on(operation, todo, None)?,
                Stage::Run(mut frame, todo) => {
                    self.run(&mut frame)?;
                    self.go_on(operation, todo, Some(&mut frame))?
                }
                Stage::Done(outcome) => return Ok(outcome),
                Stage::Blocked(key) => {
                    return Err(Error::Value(format!("found {key} held, expected no call in progress")));
                }
            };
        }
    }

    /// From the arguments to the first thing to do.
    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn resolve(&mut self, operation: &Operation) -> Result<Stage> {
        if let Some(key) = self.blocks_begin(operation)? {
            return Ok(Stage::Blocked(key));
        }
        match *operation {
            Operation::CreateProcess {} => Ok(Stage::Done(self.create_process())),
            Operation::CreateFile { shmem, nr_pages } => {
                Ok(Stage::Done(Outcome::Value(u64::from(self.pages.create_file(shmem, nr_pages).0))))
            }
            Operation::CloneThread { task } => self.clone_thread(task).map(Stage::Done),
            Operation::Fork { task } => self.fork(task),
            Operation::Exec { task } => self.exec(task),
            Operation::Exit { task } => self.exit(task),
            Operation::Schedule { cpu, task } => self.schedule(cpu, task).map(Stage::Done),
            Operation::Mmap { task, .. } => {
                let (by, mm) = self.running(task)?;
                self.mmap(by, mm, operation)
            }
            Operation::Munmap { task, addr, len } => {
                let (by, mm) = self.running(task)?;
                self.munmap(by, mm, addr, len)
            }
            Operation::Mprotect { task, addr, len, prot } => {
                let (by, mm) = self.running(task)?;
                self.mprotect(by, mm, addr, len, prot)
            }
            Operation::Brk { task, addr } => {
                let (by, mm) = self.running(task)?;
                self.brk(by, mm, VirtAddr(addr))
            }
            Operation::Mremap { task, .. } => {
                let (by, mm) = self.running(task)?;
                self.mremap(by, mm, operation)
            }
            Operation::Madvise { task, addr, len, advice } => {
                let (by, mm) = self.running(task)?;
                self.madvise(by, mm, addr, len, advice)
            }
            Operation::Msync { task, addr, len, sync } => {
                let (_, mm) = self.running(task)?;
                self.msync(mm, addr, len, sync)
            }
            Operation::Fsync { task, file, from_page, nr_pages } => {
                self.running(task)?;
                let to = nr_pages.map_or(u64::MAX, |nr_pages| from_page.saturating_add(nr_pages));
                Ok(fsync(self.file_id(file)?, from_page, to))
            }
            Operation::Truncate { task, file, from_page, nr_pages } => {
                let (by, mm) = self.running(task)?;
                let file = self.file_id(file)?;
                self.truncate(by, mm, file, from_page, nr_pages)
            }
            Operation::ClearRefs { task, kind } => {
                let (by, mm) = self.running(task)?;
                self.clear_refs(by, mm, kind)
            }
            Operation::Reclaim { task, .. } => {
                self.running(task)?;
                Ok(Stage::Do(Todo::Reclaim { next: 0 }))
            }
            Operation::Migrate { task, ref pages } => {
                let (by, mm) = self.running(task)?;
                self.migrate(by, mm, pages)
            }
            Operation::NumaHint { task, addr, len } => {
                let (by, mm) = self.running(task)?;
                self.numa_hint(by, mm, addr, len)
            }
            Operation::KsmMerge { task, addr, len } => {
                let (by, mm) = self.running(task)?;
                self.ksm_merge(by, mm, addr, len)
            }
            Operation::WpSharedMappingRange { task, file, from_page, nr_pages } => {
                let (by, mm) = self.running(task)?;
                let file = self.file_id(file)?;
                self.wp_shared_mapping_range(by, mm, file, from_page, nr_pages)
            }
            Operation::Collapse { task, addr } => {
                let (by, mm) = self.running(task)?;
                self.collapse(by, mm, VirtAddr(addr))
            }
            Operation::Access { task, addr, kind } => {
                let (by, mm) = self.running(task)?;
                self.access(by, mm, VirtAddr(addr), kind, Tries::default())
            }
            Operation::Fault { task, addr, kind } => {
                let (by, mm) = self.running(task)?;
                if VirtAddr(addr) < self.user_end() {
                    self.drop_faulting(by.cpu, VirtAddr(addr));
                }
                self.hit(by, mm, Probe::Fault { addr: VirtAddr(addr) });
                self.fault(by, mm, VirtAddr(addr), kind, Todo::Finish(Outcome::None))
            }
            Operation::Run { task, addr, len, prot, ref steps } => {
                let (by, mm) = self.running(task)?;
                self.run_custom(by, mm, (addr, len), prot, steps)
            }
            Operation::AdvanceTime { ns } => {
                self.now_ns = self.now_ns.saturating_add(ns);
                Ok(Stage::Done(Outcome::None))
            }
        }
    }

    /// What comes after a stage; `frame` is the program that has just ended, if there was one. Nothing is done if it has
    /// to wait.
    pub(super) fn go_on(&mut self, operation: &Operation, todo: Todo, frame: Option<&mut Frame>) -> Result<Stage> {
        if frame.as_ref().is_some_and(|frame| frame.program() == ProgramName::Fault) {
            self.counters.nr_faults += 1;
        }
        match todo {
            Todo::Begin => self.resolve(operation),
            Todo::Finish(outcome) => Ok(Stage::Done(outcome)),
            Todo::ForkTask => self.fork_task(frame),
            Todo::Mmput { mm, exits } => self.mmput(operation, mm, exits),
            Todo::DropMm { mm, exits } => self.drop_mm(operation, mm, exits),
            Todo::DropPages { file, from, to, again } => {
                let (by, mm) = self.caller(operation)?;
                self.drop_pages(by, mm, (file, from, to), again)
            }
            Todo::Writeback { parts, next, outcome } => {
                let (by, mm) = self.caller(operation)?;
                self.writeback(by, mm, parts, next, outcome)
            }
            Todo::Reclaim { next } => {
                let (by, mm) = self.caller(operation)?;
                self.reclaim(by, mm, operation, next)
            }
            Todo::Populate(populate) => {
                let (by, mm) = self.caller(operation)?;
                self.populate(by, mm, populate)
            }
            Todo::Access(tries) => {
                let (by, mm) = self.caller(operation)?;
                let Operation::Access { addr, kind, .. } = *operation else { return Ok(Stage::Done(Outcome::None)) };
                self.access(by, mm, VirtAddr(addr), kind, tries)
            }
            Todo::PageFault(tries) => {
                let (by, mm) = self.caller(operation)?;
                let Operation::Access { addr, kind, .. } = *operation else { return Ok(Stage::Done(Outcome::None)) };
                self.page_fault(by, mm, VirtAddr(addr), kind, tries)
            }
        }
    }

    /// Who does an operation, where, and in which mm.
    fn caller(&self, operation: &Operation) -> Result<(Initiator, MmId)> {
        let task = operation.task().unwrap_or_default();
        Ok((self.initiator(task)?, self.task_mm(task)?))
    }

    /// The byte after the last that user space may map: one guard page below the end (`TASK_SIZE_MAX`).
    pub(crate) fn user_end(&self) -> VirtAddr {
        VirtAddr(self.tables.levels().user_end().0 - PAGE_SIZE)
    }

    fn user_space(&self) -> VaRange {
        VaRange::new(VirtAddr(0), self.user_end())
    }

    /// The pages from `addr` on, rounded up; `outside` is what a range beyond user space gives.
    fn page_range(&self, addr: u64, len: u64, outside: Errno) -> std::result::Result<VaRange, Errno> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::Einval);
        }
        let end = self.user_end().0;
        if addr > end || len > end - addr {
            return Err(outside);
        }
        // User space ends at a page's border, so that rounding up stays inside.
        let start = VirtAddr(addr);
        Ok(VaRange::new(start, VirtAddr(addr + len).align_up(PAGE_SHIFT)))
    }

    fn file_id(&self, file: u32) -> Result<FileId> {
        if self.pages.file(FileId(file)).is_some() {
            return Ok(FileId(file));
        }
        Err(Error::Value(format!("file {file}: found none, expected a file that was created")))
    }

    fn cpu_id(&self, cpu: u32) -> Result<CpuId> {
        if (cpu as usize) < self.cpus.len() {
            return Ok(CpuId(cpu as u16));
        }
        Err(Error::Value(format!("CPU {cpu}: found {} CPUs, expected a number below that", self.cpus.len())))
    }

    /// A program of an operation, at its start.
    fn frame(&self, program: ProgramName, by: Initiator, mm: MmId, args: Args) -> Result<Box<Frame>> {
        let root = self.mm_ref(mm)?.root;
        Ok(Box::new(Frame::new(program, by, mm, root, args)))
    }

    /// A program over a range of an mm.
    fn frame_on_range(&self, program: ProgramName, by: Initiator, mm: MmId, range: VaRange) -> Result<Box<Frame>> {
        self.frame(program, by, mm, Args { range, ..Args::default() })
    }

    /// The end of what is mapped from the start of a range on without a hole.
    fn mapped_until(&self, mm: MmId, range: VaRange) -> Result<VirtAddr> {
        let mut end = range.start;
        for vma in self.mm_ref(mm)?.vmas.overlapping(range) {
            if vma.start > end {
                break;
            }
            end = vma.end.min(range.end);
        }
        Ok(end)
    }
}
