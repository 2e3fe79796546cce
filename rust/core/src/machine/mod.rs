//! The machine: CPUs, address spaces, pages and a kernel whose operations are programs of steps.
//!
//! [`Machine::apply`] runs one operation to its end; [`Machine::begin`] and [`Machine::advance`] run several at the same
//! time, step by step, with their locks. Both give a step its one meaning (`docs/machine.md` and `docs/steps.md` are the
//! contract). The state is a value: a clone goes its own way.
//!
//! Invariants between operations: the areas of an mm are disjoint; each present entry of a page that is not a zero page
//! is in that page's reverse map and the other way round; a page's reference count is what `pages/mod.rs` says; every open
//! gather is finished. The same operations give the same state, log and counters on every run.
//!
//! Not here: costs, in which order calls are advanced (a driver's choice), and whether a kernel is *right*: a machine runs
//! wrong programs as faithfully as correct ones.

mod adopt;
mod call;
mod conditions;
mod config;
mod counters;
mod dump;
mod evidence;
mod exclusion;
mod frame;
mod gather;
mod hardware;
mod locks;
mod loops;
mod lru;
mod mm;
mod operation;
mod pages;
mod probes;
mod resolve;
mod rmap;
mod rmap_walk;
mod step;
mod steps_fault;
mod steps_flush;
mod steps_fork;
mod steps_gather;
mod steps_huge;
mod steps_ksm;
mod steps_mremap;
mod steps_page;
mod steps_pte;
mod steps_vma;
mod vma;

pub use adopt::AdoptKind;
pub use call::{Call, Progress};
pub use config::MachineConfig;
pub use counters::Counters;
pub use frame::{Frame, StepStatus};
pub use gather::{GatherFlush, GatherLimits, MmuGather};
pub use locks::LockKey;
pub use mm::{Cpu, FlushBatched, MMAP_BASE, MMAP_MIN, Mm, START_BRK, Task, TlbUbc};
pub use operation::{AccessKind, Advice, Errno, Operation, Outcome};
pub use pages::{File, FileId, HUGE_ZERO_PFN, Page, PageKind, Pages, ZERO_PFN};
pub use probes::{Probe, ProbeHit};
pub use rmap::{Mapping, Rmap};
pub use rmap_walk::RmapVisit;
pub use vma::{VmFlags, Vma, VmaTree};

use std::sync::Arc;

use crate::addr::{PageSize, VirtAddr};
use crate::cpumask::{CpuId, CpuMask};
use crate::error::{Error, Result};
use crate::flush::{Engine, INIT_MM, Initiator, MmId};
use crate::page_table::{PageTables, Pte};
use crate::program::{CompiledKernel, Thp};

/// A machine that runs one kernel.
#[derive(Clone)]
pub struct Machine {
    kernel: Arc<CompiledKernel>,
    thp: Thp,
    has_swap: bool,
    tables: PageTables,
    engine: Engine,
    pages: Pages,
    /// By mm id; [`INIT_MM`] and dead ones are none.
    mms: Vec<Option<Mm>>,
    /// By task id; dead ones are none.
    tasks: Vec<Option<Task>>,
    cpus: Vec<Cpu>,
    now_ns: u64,
    /// Operations applied so far: the index of the next one.
    nr_ops: u32,
    counters: Counters,
    no_cpus: CpuMask,
    /// The call that is being advanced; none while an operation runs alone.
    stepping: Option<u32>,
    /// Calls begun and not ended.
    nr_calls: u32,
    /// Heads of reverse maps of anonymous pages so far.
    nr_anon_vmas: u32,
    /// Where a call's walk stops because a reschedule is due: the call's operation, the address.
    resched: Option<(u32, crate::addr::VirtAddr)>,
    /// What those calls hold.
    locks: locks::Locks,
    probes: probes::ProbeLog,
}

impl Machine {
    /// A machine at its start: idle CPUs that have `init_mm` loaded, no task, no page in use.
    ///
    /// # Errors
    /// If the configuration or a constant of the kernel is out of bounds.
    pub fn new(config: &MachineConfig, kernel: Arc<CompiledKernel>) -> Result<Self> {
        let rules = config::flush_rules(&kernel.constants);
        let geometry = config.geometry();
        let engine = Engine::new(config.nr_cpus, geometry.as_ref(), config.pcid, rules)?;
        Ok(Self {
            has_swap: config.swap,
            thp: config.thp.unwrap_or(kernel.constants.thp),
            kernel,
            tables: PageTables::new(config.levels()?),
            engine,
            pages: Pages::default(),
            mms: vec![None],
            tasks: Vec::new(),
            cpus: vec![Cpu::default(); config.nr_cpus as usize],
            now_ns: 0,
            nr_ops: 0,
            counters: Counters::default(),
            no_cpus: CpuMask::new(config.nr_cpus)?,
            stepping: None,
            nr_calls: 0,
            nr_anon_vmas: 0,
            resched: None,
            locks: locks::Locks::default(),
            probes: probes::ProbeLog::default(),
        })
    }

    /// The flush engine, with its log and the TLBs.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The flush engine, to take its log or to switch it off.
    pub const fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The kernel that the machine runs.
    pub const fn kernel(&self) -> &Arc<CompiledKernel> {
        &self.kernel
    }

    /// Pages, files and swap.
    pub const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The page tables.
    pub const fn tables(&self) -> &PageTables {
        &self.tables
    }

    /// The time in nanoseconds; only trimming of masks looks at it.
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Sets the time; it does not go back.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Operations applied so far.
    pub const fn nr_ops(&self) -> u32 {
        self.nr_ops
    }

    /// A live address space.
    #[inline]
    pub fn mm(&self, id: MmId) -> Option<&Mm> {
        self.mms.get(id.index())?.as_ref()
    }

    /// The live address spaces, by id.
    pub fn live_mms(&self) -> impl Iterator<Item = (MmId, &Mm)> {
        (0..).map(MmId).zip(&self.mms).filter_map(|(id, mm)| Some((id, mm.as_ref()?)))
    }

    #[inline]
    fn mm_ref(&self, id: MmId) -> Result<&Mm> {
        self.mm(id).ok_or_else(|| no_mm(id))
    }

    #[inline]
    fn mm_mut(&mut self, id: MmId) -> Result<&mut Mm> {
        self.mms.get_mut(id.index()).and_then(Option::as_mut).ok_or_else(|| no_mm(id))
    }

    /// A live task.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn task(&self, task: u32) -> Result<&Task> {
        self.tasks.get(task as usize).and_then(Option::as_ref).ok_or_else(|| no_task(task))
    }

    fn task_mut(&mut self, task: u32) -> Result<&mut Task> {
        self.tasks.get_mut(task as usize).and_then(Option::as_mut).ok_or_else(|| no_task(task))
    }

    /// The address space of a live task.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn task_mm(&self, task: u32) -> Result<MmId> {
        Ok(self.task(task)?.mm)
    }

    /// What a CPU runs.
    pub fn cpu(&self, cpu: CpuId) -> Option<&Cpu> {
        self.cpus.get(cpu.index())
    }

    /// The area that holds `addr`.
    pub fn vma_at(&self, mm: MmId, addr: VirtAddr) -> Option<&Vma> {
        self.mm(mm)?.vmas.lookup(addr)
    }

    /// The entry that maps `addr`, in any form but none, with the size of the page.
    pub fn leaf(&self, mm: MmId, addr: VirtAddr) -> Option<(Pte, PageSize)> {
        self.tables.leaf(self.mm(mm)?.root, addr)
    }

    /// A new address space with one user to be.
    fn create_mm(&mut self) -> MmId {
        let id = self.engine.new_context(self.now_ns);
        let mm = Mm::new(self.tables.alloc_root(), self.no_cpus.clone());
        self.mms.resize(id.index(), None);
        self.mms.push(Some(mm));
        id
    }

    /// A new task that does not run.
    fn create_task(&mut self, mm: MmId, cpu: CpuId) -> u32 {
        self.tasks.push(Some(Task {
            mm,
            cpu,
            running: false,
            in_call: false,
            tlb_ubc: TlbUbc { cpumask: self.no_cpus.clone(), flush_required: false, writable: false },
        }));
        self.tasks.len() as u32 - 1
    }

    /// Who asks for the flushes of the operation that runs now.
    fn initiator(&self, task: u32) -> Result<Initiator> {
        Ok(Initiator { op: self.stepping.unwrap_or(self.nr_ops), task, cpu: self.task(task)?.cpu })
    }

    /// The same, for an operation that needs its task to run.
    fn running(&self, task: u32) -> Result<(Initiator, MmId)> {
        let by = self.initiator(task)?;
        if self.cpus[by.cpu.index()].curr != Some(task) {
            return Err(Error::Value(format!(
                "task {task}: found it not running, expected it on CPU {} (schedule it first)",
                by.cpu
            )));
        }
        Ok((by, self.task(task)?.mm))
    }
}

fn no_mm(id: MmId) -> Error {
    let what = if id == INIT_MM { "init_mm, which has no areas" } else { "no live mm" };
    Error::Value(format!("mm {id}: found {what}, expected one of a task"))
}

fn no_task(task: u32) -> Error {
    Error::Value(format!("task {task}: found none, expected a live task"))
}
