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
use crate::program::{CompiledKernel, Instr, LockMode, LockName, LoopKind, Pc, Program, ProgramName, PteFilter};

use super::leaf::Here;
use super::op::{Class, Kind, Op, OpIndex, PageRef, Promise, Test};
use super::vars::{Local, Var, VarId, Vars};

/// A lock that a thread holds, with what it is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Held {
    Mmap(LockMode),
    Vma(u8),
    VmaWrite(u8),
    Ptl(u8),
    NewPtl(Option<u8>),
    Pml(u8),
    NewPml,
    Rmap(LockMode),
    Folio(PageRef),
}

impl Held {
    /// The lock of the language that this is; `vma_start_write` has none.
    pub const fn name(self) -> Option<LockName> {
        Some(match self {
            Self::VmaWrite(_) => return None,
            Self::Mmap(_) => LockName::MmapLock,
            Self::Vma(_) => LockName::VmaLock,
            Self::Ptl(_) => LockName::Ptl,
            Self::NewPtl(_) => LockName::NewPtl,
            Self::Pml(_) => LockName::Pml,
            Self::NewPml => LockName::NewPml,
            Self::Rmap(_) => LockName::RmapLock,
            Self::Folio(_) => LockName::FolioLock,
        })
    }
}

/// A loop that is being run through. `next` is its instruction that advances it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Loop {
    pub kind: LoopKindKey,
    items: Vec<Item>,
    index: usize,
    pub next: Pc,
    saved: Registers,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum LoopKindKey {
    Vma,
    RmapVma,
    Table,
    Pte { only_present: bool },
    Extent,
    Page { keep: bool },
    Mapping,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Item {
    Vma(u8),
    Table(u8),
    Page(u8),
    Extent(u8, u8),
    Frame(u8),
}

/// What loops set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Registers {
    pub vma: Option<u8>,
    pub table: Option<u8>,
    pub target_table: Option<u8>,
    pub page: Option<u8>,
    pub frame: PageRef,
}

/// The static part of a frame.
#[expect(clippy::struct_excessive_bools, reason = "each is known or not where a step stands, on its own")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct At {
    pub r: Registers,
    pub range: Vec<u8>,
    pub loops: Vec<Loop>,
    pub held: Vec<Held>,
    /// VMAs were detached by `vms_gather_munmap_vmas`.
    pub detached: bool,
    /// A frame was allocated that nobody knows yet.
    pub allocated: bool,
    /// A pass over a list of pages that keeps them for a later pass: migration keeps them locked too (mm/migrate.c),
    /// although its program, in which locks pair within a loop, says otherwise.
    pub keeps_folios_locked: bool,
    /// Such a pass is over: a page that is on the list is locked. (Which ones are would make as many copies of the code
    /// as there are sets of pages.)
    pub listed_are_locked: bool,
    /// Inside a lazy-MMU section of an architecture that batches in it.
    pub lazy_mmu: bool,
}

impl At {
    pub fn holds(&self, name: LockName) -> bool {
        self.held.iter().any(|held| held.name() == Some(name))
    }

    /// Whoever comes by the reverse map finds a VMA only while it is there.
    pub fn in_rmap_walk(&self) -> bool {
        self.loops.iter().any(|l| matches!(l.kind, LoopKindKey::Mapping | LoopKindKey::RmapVma))
    }

    pub fn in_mapping_loop(&self) -> bool {
        self.loops.last().is_some_and(|l| l.kind == LoopKindKey::Mapping)
    }
}

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

    fn enter(&self, kind: LoopKind, mut at: At, next: Pc) -> At {
        let pages = &self.world.pages;
        let saved = at.r.clone();
        let mut items = Vec::new();
        let mut push = |item: Item| {
            if !items.contains(&item) {
                items.push(item);
            }
        };
        let kind = match kind {
            LoopKind::Vma => {
                at.range.iter().for_each(|page| push(Item::Vma(pages[usize::from(*page)].vma)));
                LoopKindKey::Vma
            }
            LoopKind::RmapVma => {
                let frames = self.frames_of(&self.spec().range);
                let mapping = frames.iter().flat_map(|frame| self.pages_of(*frame));
                let mut vmas: Vec<u8> = mapping.map(|page| pages[usize::from(page)].vma).collect();
                vmas.sort_unstable();
                for vma in vmas {
                    push(Item::Vma(vma));
                }
                LoopKindKey::RmapVma
            }
            LoopKind::Table => {
                self.pages_here(&at).iter().for_each(|page| push(Item::Table(pages[usize::from(*page)].table)));
                LoopKindKey::Table
            }
            LoopKind::Pte(filter) => {
                self.pages_here(&at).iter().for_each(|page| push(Item::Page(*page)));
                LoopKindKey::Pte { only_present: filter == PteFilter::Present }
            }
            LoopKind::Extent => {
                for page in &at.range {
                    let to = self.target_of(*page);
                    push(Item::Extent(pages[usize::from(*page)].table, pages[usize::from(to)].table));
                }
                LoopKindKey::Extent
            }
            LoopKind::Page { keep } => {
                let frames = if self.spec().program == ProgramName::MadvisePageout {
                    (0..self.world.frames.len() as u8).collect()
                } else if self.has_list() {
                    let of_page = |page: &u8| self.world.pages[usize::from(*page)].frames.clone();
                    self.spec().range.iter().flat_map(of_page).collect()
                } else {
                    self.frames_of(&self.spec().range)
                };
                for frame in frames {
                    push(Item::Frame(frame));
                }
                at.keeps_folios_locked = keep && self.spec().program == ProgramName::MigratePages;
                LoopKindKey::Page { keep }
            }
            LoopKind::Mapping { shared_only } => {
                let fits = |page: &u8| !shared_only || self.content_of_page(*page) == Content::File;
                if let PageRef::Fixed(frame) = at.r.frame {
                    // What another page maps because KSM merged it is a KSM page, which is not merged again.
                    let is_own = |page: &u8| {
                        self.spec().program != ProgramName::KsmMerge
                            || self.world.frames[usize::from(frame)].is_spare
                            || self.world.pages[usize::from(*page)].frames[0] == frame
                    };
                    self.pages_of(frame)
                        .iter()
                        .filter(|page| fits(page) && is_own(page))
                        .for_each(|page| push(Item::Page(*page)));
                }
                LoopKindKey::Mapping
            }
        };
        at.loops.push(Loop { kind, items, index: 0, next, saved });
        at
    }

    /// The virtual pages of the operation within the current VMA and table.
    pub fn pages_here(&self, at: &At) -> Vec<u8> {
        let in_rmap_loop = at.loops.iter().any(|l| l.kind == LoopKindKey::RmapVma);
        let candidates: Vec<u8> = if in_rmap_loop {
            let frames = self.frames_of(&self.spec().range);
            let mut pages: Vec<u8> = frames.iter().flat_map(|frame| self.pages_of(*frame)).collect();
            pages.sort_unstable();
            pages
        } else {
            at.range.clone()
        };
        let fits = |page: &u8| {
            let info = &self.world.pages[usize::from(*page)];
            let in_vma = at.r.vma.is_none_or(|vma| vma == info.vma);
            let in_table = at.r.table.is_none_or(|table| table == info.table);
            let to_table =
                at.r.target_table
                    .is_none_or(|table| self.world.pages[usize::from(self.target_of(*page))].table == table);
            in_vma && in_table && to_table
        };
        candidates.into_iter().filter(fits).collect()
    }

    /// Where a page of the range is moved or copied to.
    pub fn target_of(&self, page: u8) -> u8 {
        let spec = self.spec();
        let index = spec.range.iter().position(|p| *p == page).unwrap_or(0);
        spec.target.get(index).copied().unwrap_or(page)
    }

    /// What is done once before a loop: the map count is looked at before the reverse map is walked.
    fn before_loop(
        &mut self,
        kind: LoopKind,
        first: OpIndex,
        program: &Program,
        outside: &At,
        next: Pc,
    ) -> Result<OpIndex> {
        let (LoopKind::Mapping { .. }, PageRef::Fixed(frame)) = (kind, outside.r.frame) else {
            return Ok(first);
        };
        let Instr::Next { exit, .. } = program.code[next as usize] else {
            return Ok(first);
        };
        let unmapped = self.emit(program, exit, outside.clone())?;
        let count = self.vars.read(Var::Mapcount(frame));
        let text = format!("page_mapped({})", self.frame_text(PageRef::Fixed(frame)));
        Ok(self.op(Kind::Branch(Test::Above(count, 0)), Class::Visible, first, unmapped, text))
    }

    fn advance(&mut self, here: Here<'_>, mut at: At) -> Result<OpIndex> {
        let program = here.program;
        let Instr::Next { body, on_huge_pmd, on_pmd: _, exit } = program.code[here.pc as usize] else {
            return Err(self.error("an instruction that advances no loop"));
        };
        let innermost = at.loops.len() - 1;
        let state = at.loops[innermost].clone();
        let Some(item) = state.items.get(state.index).copied() else {
            at.loops.pop();
            at.r = state.saved.clone();
            if matches!(state.kind, LoopKindKey::Page { .. }) {
                at.listed_are_locked = at.keeps_folios_locked;
                at.keeps_folios_locked = false;
            }
            let end = self.emit(program, exit, at)?;
            if let (LoopKindKey::Page { keep: false }, true) = (state.kind, self.has_list()) {
                return Ok(self.op(Kind::DropList, Class::Visible, end, 0, "folio_put() for the list".to_owned()));
            }
            return Ok(end);
        };
        at.loops[innermost].index += 1;
        let mut skipping = at.clone();
        let pages = &self.world.pages;
        match item {
            Item::Vma(vma) => {
                at.r.vma = Some(vma);
                let first = self.emit(program, body, at.clone())?;
                let changed = self.local(Local::Changed);
                let first = self.op(Kind::Set(changed, 0), Class::Local, first, 0, String::new());
                let can_be_gone = self.vma_can_go(vma) && !at.detached && state.kind == LoopKindKey::Vma;
                if state.kind == LoopKindKey::RmapVma && self.has_tables() {
                    let skip = self.emit(program, state.next, skipping)?;
                    let unlinked = self.all_unlinked(vma);
                    let class = if at.holds(LockName::RmapLock) { Class::Local } else { Class::Visible };
                    return Ok(self.op(Kind::Branch(unlinked), class, skip, first, "vma_interval_tree".to_owned()));
                }
                if !can_be_gone && self.world.vmas[usize::from(vma)].exists || at.detached {
                    return Ok(first);
                }
                let skip = self.emit(program, state.next, skipping)?;
                let Some(page) = self.pages_here(&at).first().copied() else { return Ok(first) };
                let gone = self.vars.read(Var::VmaGone(page));
                let text = "find_vma()".to_owned();
                let class = if at.holds(LockName::MmapLock) { Class::Local } else { Class::Visible };
                Ok(self.op(Kind::Branch(Test::Above(gone, 0)), class, skip, first, text))
            }
            Item::Table(table) => {
                at.r.table = Some(table);
                if let Some(page) = self.huge_page_of(table) {
                    let skip = self.emit(program, state.next, skipping)?;
                    return self.at_huge_entry(here, on_huge_pmd, page, at, skip);
                }
                let first = self.emit(program, body, at.clone())?;
                let (force, delay) = (self.local(Local::ForceFlush), self.local(Local::DelayRmap));
                let first = self.op(Kind::Set(force, 0), Class::Local, first, 0, String::new());
                let first = self.op(Kind::Set(delay, 0), Class::Local, first, 0, String::new());
                Ok(first)
            }
            Item::Extent(old, new) => {
                at.r.table = Some(old);
                at.r.target_table = Some(new);
                self.extent(here, (old, new), at, skipping)
            }
            Item::Page(page) if state.kind == LoopKindKey::Mapping => {
                let info = &pages[usize::from(page)];
                at.r.vma = Some(info.vma);
                at.r.table = Some(info.table);
                at.r.page = Some(page);
                if info.huge && on_huge_pmd == here.pc {
                    return self.emit(program, state.next, skipping);
                }
                self.emit(program, if info.huge { on_huge_pmd } else { body }, at)
            }
            Item::Page(page) => {
                at.r.page = Some(page);
                at.r.frame = PageRef::OfPte;
                let first = self.emit(program, body, at.clone())?;
                skipping.r = at.r.clone();
                let skip = self.emit(program, state.next, skipping)?;
                let only_present = matches!(state.kind, LoopKindKey::Pte { only_present: true });
                let wanted = if only_present {
                    Test::PteMaps
                } else {
                    Test::Not(Box::new(Test::Pte { mask: super::pte::PRESENT | 0x30, value: 0 }))
                };
                let delay = self.local(Local::DelayRmap);
                let first = self.op(Kind::Set(delay, 0), Class::Local, first, 0, String::new());
                self.read_local(Local::Pte);
                let branch = self.op(Kind::Branch(wanted), Class::Local, first, skip, String::new());
                let text = format!("ptep_get({})", self.page_text(page));
                self.vars.read(Var::Pte(page));
                // Under the lock only the hardware's A and D can change, and these might as well have changed before it.
                let class = if at.holds(LockName::Ptl) { self.under_ptl() } else { Class::Visible };
                Ok(self.op(Kind::ReadPte(page), class, branch, 0, text))
            }
            Item::Frame(frame) => {
                at.r.frame = PageRef::Fixed(frame);
                let first = self.emit(program, body, at)?;
                if !self.lists_are_dynamic() {
                    return Ok(first);
                }
                let skip = self.emit(program, state.next, skipping)?;
                let listed = self.read_local(Local::Listed);
                let test = Test::Bit(listed, frame);
                Ok(self.op(Kind::Branch(test), Class::Local, first, skip, String::new()))
            }
        }
    }

    /// When an entry is read under the lock of its table: at once, unless the table can come to stand elsewhere meanwhile,
    /// where a CPU has cached the entry before its D is set.
    pub fn under_ptl(&self) -> Class {
        if self.has_tables() { Class::Visible } else { Class::Urgent }
    }

    /// One piece of mremap's move: a table as a whole, or its entries.
    fn extent(&mut self, here: Here<'_>, (old, new): (u8, u8), at: At, skipping: At) -> Result<OpIndex> {
        let Instr::Next { body, on_pmd, .. } = here.program.code[here.pc as usize] else {
            return Err(self.error("an instruction that advances no loop"));
        };
        if self.huge_page_of(old).is_some() {
            return Err(self.error("move_huge_pmd: moves of huge pages are not modelled"));
        }
        if self.world.moves_whole(self.spec(), old) == Some(new) {
            let skip = self.emit(here.program, here.pc, skipping)?;
            return self.whole_extent(here, on_pmd, at, skip);
        }
        let first = self.emit(here.program, body, at)?;
        let force = self.local(Local::ForceFlush);
        Ok(self.op(Kind::Set(force, 0), Class::Local, first, 0, String::new()))
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
