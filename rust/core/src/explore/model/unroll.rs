//! From a program of the kernel to small steps on fixed variables: every loop is run through with what the scenario has,
//! conditions that the scenario decides are decided, and the rest become branches.
//!
//! This is partial evaluation: a position is an instruction with the static part of the frame ([`At`]); each is unrolled
//! once. What the machine's replay leaves out because nothing runs beside an operation is added here: locks wait,
//! a fault that finds the entry changed under the lock gives up (`pte_same`), a walk of the reverse map looks at the map
//! count first and skips entries that do not map the page (`page_vma_mapped_walk`).

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::explore::scenario::{Kind as Content, Thread, World};
use crate::program::{CompiledKernel, Instr, Pc, Program, ProgramName};

use super::at::{At, Registers};
use super::leaf::Here;
use super::op::{Class, Kind, Op, OpIndex, PageRef, Promise, Test};
use super::vars::{Local, Var, VarId, Vars};

/// Unrolls the programs of all threads into one code.
pub(super) struct Unroller<'a> {
    pub kernel: &'a CompiledKernel,
    pub world: &'a World,
    pub vars: Vars,
    pub ops: Vec<Op>,
    /// The thread whose program is unrolled.
    pub thread: u8,
    /// The virtual page and the access of the fault that is unrolled.
    pub fault: Option<(u8, bool)>,
    /// Where a fault that gives up, or that ends, goes on.
    pub end: OpIndex,
    /// The step that is unrolled works in the second address space of shared tables, which no user CPU runs.
    pub in_other_mm: bool,
    /// Some program asks whether an entry was accessed.
    pub young_matters: bool,
    memo: HashMap<(Pc, At), OpIndex>,
}

impl<'a> Unroller<'a> {
    pub fn new(kernel: &'a CompiledKernel, world: &'a World) -> Self {
        let mut unroller = Self {
            kernel,
            world,
            vars: Vars::default(),
            ops: Vec::new(),
            thread: 0,
            fault: None,
            end: 0,
            in_other_mm: false,
            young_matters: false,
            memo: HashMap::new(),
        };
        unroller.vars.read(Var::One);
        unroller
    }

    pub fn spec(&self) -> &'a Thread {
        &self.world.threads[usize::from(self.thread)]
    }

    /// The start of a thread's code.
    pub fn thread_code(&mut self, thread: u8) -> Result<OpIndex> {
        self.thread = thread;
        let done = self.op(Kind::Done, Class::Visible, 0, 0, String::new());
        let spec = self.spec();
        if spec.is_walker {
            return if self.has_tables() {
                Ok(self.gup_code(done))
            } else {
                Err(self.error("it, expected a scenario with whole_tables"))
            };
        }
        let program = self.kernel.program(spec.program);
        if spec.is_faulter || spec.program == ProgramName::Fault {
            return self.fault_code(program, done);
        }
        self.memo.clear();
        self.fault = None;
        let promise = self.promise();
        let text = format!("{}() returns", spec.operation);
        let mut end = self.op(Kind::Return(promise), Class::Visible, done, 0, text);
        if spec.truncates {
            for frame in self.frames_of(&spec.range).into_iter().rev() {
                end = self.truncate_page(frame, end);
            }
        }
        self.end = end;
        let mut at = Self::start(spec);
        if spec.program == ProgramName::CollapseHugePage {
            at.r = self.registers_at(spec.range[0]);
        }
        let start = self.emit(program, 0, at)?;
        Ok(self.isolation(start))
    }

    fn fault_code(&mut self, program: &Program, done: OpIndex) -> Result<OpIndex> {
        let spec = self.spec();
        let idle = self.op(Kind::Idle(Vec::new()), Class::Visible, 0, 0, "page fault".to_owned());
        let mut targets = Vec::new();
        for &page in &spec.range {
            if self.world.pages[usize::from(page)].huge {
                return Err(self.error("faults on huge pages"));
            }
            let can_read_fault = self.can_be_absent(page);
            for write in [true, false] {
                if !write && (!can_read_fault || !spec.is_faulter) || !spec.is_faulter && write != spec.write {
                    continue;
                }
                self.memo.clear();
                self.fault = Some((page, write));
                self.end = if spec.is_faulter { idle } else { done };
                let mut at = Self::start(spec);
                at.r = self.registers_at(page);
                let target = self.emit(program, 0, at)?;
                targets.push((page, write, target));
                self.vars.read(Var::Pte(page));
            }
        }
        self.fault = None;
        self.ops[idle as usize].kind = Kind::Idle(targets);
        Ok(idle)
    }

    /// Whether anything in the scenario takes the page's entry away.
    fn can_be_absent(&self, page: u8) -> bool {
        let absent_at_start = self.world.pages[usize::from(page)].mapped == crate::explore::scenario::Mapped::None;
        absent_at_start
            || self.world.threads.iter().any(|thread| {
                matches!(
                    thread.program,
                    ProgramName::MadviseDontneed
                        | ProgramName::ShrinkFolioList
                        | ProgramName::MadvisePageout
                        | ProgramName::UnmapMappingRange
                        | ProgramName::ChangeProtNuma
                )
            })
    }

    /// The frame's registers for an operation at one address.
    fn registers_at(&self, page: u8) -> Registers {
        let info = &self.world.pages[usize::from(page)];
        Registers {
            vma: Some(info.vma),
            table: Some(info.table),
            target_table: None,
            page: Some(page),
            frame: PageRef::OfPte,
        }
    }

    fn start(spec: &Thread) -> At {
        At {
            r: Registers { vma: None, table: None, target_table: None, page: None, frame: PageRef::None },
            range: spec.range.clone(),
            loops: Vec::new(),
            held: Vec::new(),
            detached: false,
            allocated: false,
            keeps_folios_locked: false,
            listed_are_locked: false,
            left_after: None,
            lazy_mmu: false,
        }
    }

    /// The frames that the pages of a range map at the start.
    pub fn frames_of(&self, range: &[u8]) -> Vec<u8> {
        let mut frames: Vec<u8> = Vec::new();
        for page in range {
            let frame = self.world.pages[usize::from(*page)].frames[0];
            if !frames.contains(&frame) {
                frames.push(frame);
            }
        }
        frames
    }

    /// The virtual pages that can map a frame, by address.
    pub fn pages_of(&self, frame: u8) -> Vec<u8> {
        let maps = |page: &u8| self.world.pages[usize::from(*page)].frames.contains(&frame);
        (0..self.world.pages.len() as u8).filter(maps).collect()
    }

    /// What the thread promises by returning.
    pub fn promise(&self) -> Promise {
        let spec = self.spec();
        let mask = |pages: &[u8]| pages.iter().fold(0, |mask, page| mask | 1 << page);
        let mapping_pages: Vec<u8> =
            self.frames_of(&spec.range).into_iter().flat_map(|frame| self.pages_of(frame)).collect();
        let mut promise = Promise::default();
        match spec.program {
            ProgramName::Munmap | ProgramName::MadviseDontneed | ProgramName::Mremap | ProgramName::Mmap => {
                promise.unmaps = mask(&spec.range);
            }
            ProgramName::ExitMmap | ProgramName::UnmapMappingRange => promise.unmaps = mask(&mapping_pages),
            ProgramName::Mprotect if spec.none => {
                promise.unmaps = mask(&spec.range);
                promise.protects = promise.unmaps;
            }
            ProgramName::Mprotect if !spec.write => promise.protects = mask(&spec.range),
            ProgramName::ClearRefsSoftDirty | ProgramName::KsmMerge => promise.protects = mask(&spec.range),
            ProgramName::Fork => {
                let is_private = |page: &&u8| self.content_of_page(**page) == Content::Anon;
                promise.protects = spec.range.iter().filter(is_private).fold(0, |mask, page| mask | 1 << page);
            }
            ProgramName::WpSharedMappingRange | ProgramName::PageMkclean => promise.protects = mask(&mapping_pages),
            ProgramName::MadviseFree => promise.frees = self.frames_of(&spec.range).iter().fold(0, |m, f| m | 1 << f),
            _ => {}
        }
        promise
    }

    pub fn content_of_page(&self, page: u8) -> Content {
        self.world.vmas[usize::from(self.world.pages[usize::from(page)].vma)].kind
    }

    /// Adds a step; those that only pass on are left out.
    pub fn op(&mut self, kind: Kind, class: Class, next: OpIndex, other: OpIndex, text: String) -> OpIndex {
        if let Kind::Branch(Test::Const(value)) = kind {
            return if value { next } else { other };
        }
        if matches!(kind, Kind::Branch(_)) && next == other {
            return next;
        }
        self.ops.push(Op { kind, class, next, other, text, thread: self.thread });
        self.ops.len() as OpIndex - 1
    }

    pub fn local(&mut self, local: Local) -> VarId {
        self.vars.write(Var::Thread(self.thread, local))
    }

    pub fn read_local(&mut self, local: Local) -> VarId {
        self.vars.read(Var::Thread(self.thread, local))
    }

    pub fn error(&self, what: &str) -> Error {
        let spec = self.spec();
        Error::Value(format!("kernel {}: {}: the explorer cannot run {what}", self.kernel.name, spec.operation))
    }

    /// The code from an instruction on.
    pub fn emit(&mut self, program: &Program, pc: Pc, at: At) -> Result<OpIndex> {
        let key = (pc, at);
        if let Some(found) = self.memo.get(&key) {
            return Ok(*found);
        }
        let at = key.1.clone();
        let found = match &program.code[pc as usize] {
            Instr::End => self.end_of_program(&at),
            Instr::Jump(target) => self.emit(program, *target, at)?,
            Instr::Enter(kind) => {
                let at = self.enter(*kind, at, pc + 1);
                let first = self.emit(program, pc + 1, at)?;
                self.before_loop(*kind, first, program, &key.1, pc + 1)?
            }
            Instr::Next { .. } => self.advance(Here { program, pc }, at)?,
            Instr::BranchUnless { condition, target, .. } => {
                let (test, class) = self.test(condition, &at)?;
                match test {
                    Test::Const(true) => self.emit(program, pc + 1, at)?,
                    Test::Const(false) => self.emit(program, *target, at)?,
                    open => {
                        let words = self.test_text(&open, &at);
                        let then = self.emit(program, pc + 1, at.clone())?;
                        let otherwise = self.emit(program, *target, at)?;
                        self.op(Kind::Branch(open), class, then, otherwise, words)
                    }
                }
            }
            Instr::Leaf(leaf) => self.leaf(program, pc, *leaf, at)?,
        };
        self.memo.insert(key, found);
        Ok(found)
    }

    fn end_of_program(&mut self, _at: &At) -> OpIndex {
        let end = self.end;
        if self.has_list() {
            return self.op(Kind::DropList, Class::Visible, end, 0, "folio_put() for the list".to_owned());
        }
        end
    }

    /// Whether any thread takes VMAs away.
    pub fn vma_can_go(&self, vma: u8) -> bool {
        !self.world.vmas[usize::from(vma)].exists
            || self.world.threads.iter().any(|thread| {
                matches!(thread.program, ProgramName::Munmap | ProgramName::Mmap | ProgramName::Mremap)
                    && thread.range.iter().any(|page| self.world.pages[usize::from(*page)].vma == vma)
            })
    }

    /// The thread works on a list of pages that it isolates.
    pub fn has_list(&self) -> bool {
        matches!(
            self.spec().program,
            ProgramName::ShrinkFolioList
                | ProgramName::MigratePages
                | ProgramName::MadvisePageout
                | ProgramName::KsmMerge
        )
    }

    /// Which pages are on the list is known only when the thread runs.
    pub fn lists_are_dynamic(&self) -> bool {
        self.has_list()
    }

    /// Pages are isolated before the program starts, as its callers do; MADV_PAGEOUT does it itself.
    fn isolation(&mut self, start: OpIndex) -> OpIndex {
        let spec = self.spec();
        if !self.has_list() || spec.program == ProgramName::MadvisePageout {
            return start;
        }
        let mut first = start;
        for page in spec.range.iter().rev() {
            let frames = &self.world.pages[usize::from(*page)].frames;
            if spec.program == ProgramName::KsmMerge {
                first = self.hold(*page, first);
                continue;
            }
            let which = if frames.len() == 1 { PageRef::Fixed(frames[0]) } else { PageRef::MappedAt(*page) };
            self.vars.read(Var::Pte(*page));
            let text = format!("folio_isolate_lru({})", self.page_text(*page));
            first = self.isolate(which, first, text);
        }
        first
    }

    /// KSM looks its pages up and takes a reference, no more.
    fn hold(&mut self, page: u8, next: OpIndex) -> OpIndex {
        self.by_frame(Var::Refs, true);
        self.read_local(Local::Listed);
        self.vars.read(Var::Pte(page));
        let text = format!("get_mergeable_page({})", self.page_text(page));
        self.op(Kind::Hold(page), Class::Visible, next, 0, text)
    }

    pub fn page_text(&self, page: u8) -> String {
        self.world.pages[usize::from(page)].name.clone()
    }

    pub fn frame_text(&self, frame: PageRef) -> String {
        match frame {
            PageRef::Fixed(frame) => self
                .world
                .pages
                .iter()
                .find(|page| page.frames[0] == frame)
                .map_or_else(|| format!("f{frame}"), |page| page.name.clone()),
            PageRef::New => "new page".to_owned(),
            PageRef::MappedAt(page) => self.page_text(page),
            PageRef::OfPte | PageRef::None => "page".to_owned(),
        }
    }
}
