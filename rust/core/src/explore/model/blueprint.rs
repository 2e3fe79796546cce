//! From a kernel and a scenario to a model: unrolls, drops what nobody can see, lays the state out.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::explore::scenario::{Kind as Content, Mapped, Scenario, World};
use crate::program::{CompiledKernel, LazyMmu, ProgramName};

use super::engine::{CpuFields, Engine, FIRST_GEN};
use super::hardware::{READ, WRITE, WRITE_DIRTY};
use super::op::{Kind, Op, OpIndex, Promise};
use super::unroll::Unroller;
use super::vars::{Field, Local, Var, Vars, cpu_of};
use super::{FrameFields, KernelModel, NO_WAIT, PageFields, ThreadFields, declare, liveness, prune, pte};

/// Everything about a model but the size of its states.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The scenario, every choice made.
    pub world: World,
    /// The kernel's name.
    pub kernel: String,
    /// Invariants asked for, one bit each.
    pub checked: u32,
    /// 64-bit words of a state.
    pub nr_words: usize,
    /// Bits of them in use.
    pub nr_bits: u32,
    /// The locks that the programs take, by the names of the language.
    pub locks: Vec<&'static str>,
    ops: Vec<Op>,
    starts: Vec<OpIndex>,
    vars: Vars,
    fields: Vec<Field>,
    columns: Vec<Field>,
    waiting: Vec<Vec<OpIndex>>,
    waits: Vec<u32>,
    slots: Vec<(u8, u8)>,
    can_be_freed: Vec<bool>,
    pte_bits: u64,
    engine: Option<Engine>,
}

impl Blueprint {
    /// Unrolls the programs of a kernel for a scenario.
    ///
    /// # Errors
    /// What the scenario cannot be, or which step of a program cannot be explored.
    pub fn new(kernel: &CompiledKernel, scenario: &Scenario, checked: u32) -> Result<Self> {
        if kernel.constants.lazy_mmu != LazyMmu::None && scenario.whole_tables {
            let message = "found whole_tables with lazy_mmu per_pte or multicall, expected lazy_mmu none";
            return Err(Error::Value(format!("kernel {}: {message}", kernel.name)));
        }
        let world = scenario.world()?;
        let mut unroller = Unroller::new(kernel, &world);
        let mut starts = Vec::new();
        for thread in 0..world.threads.len() as u8 {
            starts.push(unroller.thread_code(thread)?);
        }
        let young_matters = unroller.young_matters;
        let (mut ops, mut vars) = (unroller.ops, unroller.vars);
        let locks = locks_taken(kernel, &world);
        prune::drop_private_locks(&mut ops, &mut vars);

        let mut slots = Vec::new();
        for (index, page) in world.pages.iter().enumerate() {
            if page.mm == 0 {
                slots.extend(page.frames.iter().map(|frame| (index as u8, *frame)));
            }
        }
        let can_be_freed: Vec<bool> = (0..world.frames.len()).map(|frame| can_be_freed(&world, frame)).collect();
        declare::declare(&world, &slots, &can_be_freed, checked, &mut vars);

        prune::drop_unseen_writes(&mut ops, &vars);
        prune::start_visibly(&mut ops, &starts);
        let (waiting, waits) = prune::number(&ops, &starts, world.threads.len());
        let nr_words;
        let (fields, columns);
        let nr_adds = |wanted: Var| {
            let id = vars.find(wanted);
            let adds = |op: &&Op| match &op.kind {
                Kind::Add(var, by) => Some(*var) == id && *by > 0,
                Kind::Send { .. } | Kind::BumpGen(_) | Kind::AddBatch(_) => wanted == Var::TlbGen(0),
                _ => false,
            };
            ops.iter().filter(adds).count() as u64
        };
        let nr_batched = nr_adds(Var::BatchPending(0)).max(1);
        let engine = world.engine.is_detailed().then(|| Engine::new(&kernel.constants, world.engine));
        let nr_gens = nr_adds(Var::TlbGen(0)) + 1 + if engine.is_some() { FIRST_GEN } else { 0 };
        {
            let width = |var: Var| declare::width(var, &world, &slots, &waiting, nr_batched, nr_gens);
            let (placed, cpu_columns, words) = vars.place(world.users, width);
            fields = placed;
            // Who flushes asks one CPU after the other: they have names then.
            columns = if engine.is_some() { Vec::new() } else { cpu_columns };
            nr_words = words;
        }
        let nr_bits = fields.iter().map(|field| field.mask.count_ones()).sum();
        let pte_bits = if young_matters { u64::MAX } else { !pte::YOUNG };
        Ok(Self {
            world,
            kernel: kernel.name.clone(),
            checked,
            nr_words,
            nr_bits,
            locks,
            ops,
            starts,
            vars,
            fields,
            columns,
            waiting,
            waits,
            slots,
            can_be_freed,
            pte_bits,
            engine,
        })
    }

    /// The steps.
    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Where each thread starts.
    pub(super) fn starts(&self) -> &[OpIndex] {
        &self.starts
    }

    /// A step's number among those that its thread waits at, if it is one of them.
    pub(super) fn wait_of(&self, op: OpIndex) -> u32 {
        self.waits[op as usize]
    }

    /// The variables by number, those too that take no room.
    pub(super) fn variable_names(&self) -> &[Var] {
        self.vars.all()
    }

    /// What a thread promises by returning.
    fn promised(&self, thread: usize) -> Promise {
        let own = |op: &&Op| usize::from(op.thread) == thread;
        let promise = |op: &Op| if let Kind::Return(promise) = op.kind { Some(promise) } else { None };
        self.ops.iter().filter(own).find_map(promise).unwrap_or_default()
    }

    /// The variables that are in the state, with their places.
    pub(super) fn variables(&self) -> impl Iterator<Item = (Var, Field)> + '_ {
        self.vars.all().iter().copied().zip(self.fields.iter().copied()).filter(|(_, field)| field.mask != 0)
    }

    pub(super) fn place_of(&self, var: Var) -> Field {
        self.vars.find(var).map_or(Field::default(), |id| self.fields[usize::from(id.0)])
    }

    /// The model on states of `W` words.
    ///
    /// # Errors
    /// States take more words than that.
    pub fn model<const W: usize>(&self) -> Result<KernelModel<W>> {
        if self.nr_words > W {
            let message = format!("states take {} words, expected at most {W}", self.nr_words);
            return Err(Error::Value(format!("scenario: {message}")));
        }
        let threads: Vec<ThreadFields> = (0..self.world.threads.len()).map(|index| self.thread(index)).collect();
        let is_register = |local: Local| !matches!(local, Local::Pc | Local::Pending(_) | Local::BatchMask(_));
        let register_masks: Vec<[u64; W]> = (0..threads.len() as u8)
            .map(|thread| self.mask(|var| matches!(var, Var::Thread(of, local) if of == thread && is_register(local))))
            .collect();
        let keep = liveness::keep_masks(&self.ops, &self.waits, |thread, local| {
            self.place_of(Var::Thread(thread, local)).bits::<W>()
        });
        let pages = (0..self.world.pages.len() as u8).map(|page| self.page::<W>(page)).collect();
        let frames = (0..self.world.frames.len() as u8).map(|frame| self.frame::<W>(frame)).collect();
        let tlb = (0..self.world.users)
            .map(|cpu| (0..self.slots.len() as u8).map(|slot| self.place_of(Var::Tlb(cpu, slot))).collect())
            .collect();
        let filled = (0..self.slots.len() as u8)
            .map(|slot| {
                [READ, WRITE, WRITE_DIRTY].map(|entry| {
                    let mut mask = [0; W];
                    for cpu in 0..self.world.users {
                        self.place_of(Var::Tlb(cpu, slot)).set(&mut mask, entry);
                    }
                    mask
                })
            })
            .collect();
        let number_of = |slot: (u8, u8)| self.slots.iter().position(|known| *known == slot).map(|at| at as u8);
        let slot_of = (0..self.world.pages.len() as u8)
            .map(|page| (0..self.world.frames.len() as u8).map(|frame| number_of((page, frame))).collect())
            .collect();
        let monotone =
            self.mask(|var| matches!(var, Var::Tlb(..) | Var::Psc(..) | Var::Newer(_) | Var::Late(_) | Var::Seen));
        let mut model = KernelModel {
            blueprint: self.clone(),
            ops: self.ops.clone(),
            waits: self.waits.clone(),
            fields: self.fields.clone(),
            threads,
            register_masks,
            keep,
            pages,
            frames,
            slots: self.slots.clone(),
            slot_of,
            filled,
            tlb,
            tables: self.tables(),
            columns: self.columns.clone(),
            twins: self.twins(),
            monotone,
            of_users: self.mask(|var| cpu_of(var).is_some()),
            tlb_gen: self.place_of(Var::TlbGen(0)),
            engine: self.engine.clone().map(|engine| self.place_engine(engine)),
            batch_pending: self.place_of(Var::BatchPending(0)),
            batch_flushed: self.place_of(Var::BatchFlushed(0)),
            seen: self.place_of(Var::Seen),
            checked: self.checked,
            pte_bits: self.pte_bits,
            start: [0; W],
            counter_left: Arc::default(),
        };
        model.start = self.start(&model);
        if model.engine.is_some() {
            model.tlb_gen.set(&mut model.start, FIRST_GEN);
        }
        for thread in &mut model.threads {
            thread.start = thread.pc.get(&model.start);
        }
        Ok(model)
    }

    fn place_engine(&self, mut engine: Engine) -> Engine {
        engine.cpus = (0..self.world.users)
            .map(|cpu| CpuFields {
                step: self.place_of(Var::CpuStep(cpu)),
                note: self.place_of(Var::CpuNote(cpu)),
                loaded: self.place_of(Var::LoadedMm(cpu)),
                cr3: self.place_of(Var::Cr3(cpu)),
                lazy: self.place_of(Var::IsLazy(cpu)),
                in_mask: self.place_of(Var::InMask(cpu)),
                tlb_gen: self.place_of(Var::CpuGen(cpu)),
                batched: self.place_of(Var::BatchedCpu(cpu)),
                missed: self.place_of(Var::Missed(cpu)),
            })
            .collect();
        engine.page_gen = (0..self.world.pages.len() as u8).map(|page| self.place_of(Var::PageGen(page))).collect();
        engine.flushed_gen = self.place_of(Var::FlushedGen);
        engine
    }

    fn mask<const W: usize>(&self, wanted: impl Fn(Var) -> bool) -> [u64; W] {
        let mut mask = [0; W];
        for (var, field) in self.vars.all().iter().zip(&self.fields) {
            if wanted(*var) {
                field.set(&mut mask, u64::MAX);
            }
        }
        mask
    }

    fn thread(&self, index: usize) -> ThreadFields {
        let spec = &self.world.threads[index];
        let at = |local: Local| self.place_of(Var::Thread(index as u8, local));
        let unmaps = spec.range.iter().fold(0, |mask, page| mask | 1 << page);
        let changes = match spec.program {
            ProgramName::Munmap
            | ProgramName::Mmap
            | ProgramName::MadviseDontneed
            | ProgramName::MadviseFree
            | ProgramName::Mremap
            | ProgramName::ExitMmap => unmaps,
            ProgramName::UnmapMappingRange => u32::MAX,
            _ => 0,
        };
        ThreadFields {
            pc: at(Local::Pc),
            pte: at(Local::Pte),
            new: at(Local::New),
            range: at(Local::Range),
            full_mm: at(Local::FullMm),
            freed_tables: at(Local::FreedTables),
            tlbi: at(Local::Tlbi),
            lazy_batch: [at(Local::LazyBatch(0)), at(Local::LazyBatch(1))],
            moved: at(Local::Moved),
            multicall: (0..self.world.pages.len() as u8).map(|page| at(Local::Multicall(page))).collect(),
            flush_gen: at(Local::FlushGen),
            defer_gen: at(Local::DeferGen),
            batch_mask: (0..self.world.users).map(|cpu| at(Local::BatchMask(cpu))).collect(),
            queued: at(Local::Queued),
            delayed: at(Local::Delayed),
            pending: (0..self.world.users).map(|cpu| at(Local::Pending(cpu))).collect(),
            batch_pending: at(Local::BatchPending),
            batch_flushed: at(Local::BatchFlushed),
            listed: at(Local::Listed),
            new_frame: at(Local::NewFrame),
            cleaned: at(Local::Cleaned),
            tracked: at(Local::Tracked),
            hold: at(Local::Hold),
            writing: at(Local::Writing),
            copying: at(Local::Copying),
            migrated: at(Local::Migrated),
            merging: at(Local::Merging),
            walk: at(Local::Walk),
            aside: at(Local::Aside),
            tables: at(Local::Tables),
            may_give_up: spec.program == ProgramName::KsmMerge,
            is_walker: spec.is_walker,
            keeps_exec: self.world.engine.table_flush_trusts_last_vma
                && spec.range.last().is_some_and(|page| !self.world.pages[usize::from(*page)].exec),
            waiting: self.waiting[index].clone(),
            isolates: spec.program != ProgramName::KsmMerge,
            keeps_hold: spec.program == ProgramName::PageMkclean,
            visited: at(Local::Visited),
            changes,
            unmaps: self.promised(index).unmaps,
            protects: self.promised(index).protects,
            start: 0,
            index,
        }
    }

    fn page<const W: usize>(&self, page: u8) -> PageFields<W> {
        let of_page = |wanted: u64| {
            let mut mask = [0; W];
            for cpu in 0..self.world.users {
                for (slot, (of, _)) in self.slots.iter().enumerate() {
                    if *of == page {
                        let field = self.place_of(Var::Tlb(cpu, slot as u8));
                        let known = field.get(&mask);
                        field.set(&mut mask, known | wanted);
                    }
                }
            }
            mask
        };
        PageFields {
            pte: self.place_of(Var::Pte(page)),
            vma_none: self.place_of(Var::VmaNone(page)),
            unmapped: self.place_of(Var::Unmapped(page)),
            protected: self.place_of(Var::Protected(page)),
            must_be_gone: super::huge::must_be_gone(&self.world, page),
            tlb_mask: of_page(0b111),
            tlb_dirty_mask: of_page(0b100),
        }
    }

    fn frame<const W: usize>(&self, frame: u8) -> FrameFields<W> {
        let to_frame = |wanted: u64| {
            let mut mask = [0; W];
            for cpu in 0..self.world.users {
                for (slot, (_, to)) in self.slots.iter().enumerate() {
                    if *to == frame {
                        let field = self.place_of(Var::Tlb(cpu, slot as u8));
                        let known = field.get(&mask);
                        field.set(&mut mask, known | wanted);
                    }
                }
            }
            mask
        };
        let info = self.world.frames[usize::from(frame)];
        FrameFields {
            content: info.kind,
            is_spare: info.is_spare,
            can_be_freed: self.can_be_freed[usize::from(frame)],
            dirty: self.place_of(Var::Dirty(frame)),
            mapcount: self.place_of(Var::Mapcount(frame)),
            refs: self.place_of(Var::Refs(frame)),
            copied: self.place_of(Var::Copied(frame)),
            lock: self.place_of(Var::FolioLock(frame)),
            lazyfree: self.place_of(Var::Lazyfree(frame)),
            ksm: self.place_of(Var::Ksm(frame)),
            not_exclusive: self.place_of(Var::NotExclusive(frame)),
            cached: self.place_of(Var::Cached(frame)),
            lru: self.place_of(Var::Lru(frame)),
            newer: self.place_of(Var::Newer(frame)),
            late: self.place_of(Var::Late(frame)),
            kept: self.place_of(Var::Kept(frame)),
            freer: self.place_of(Var::Freer(frame)),
            is_truncated: self.world.threads.iter().any(|thread| {
                let maps = |page: &u8| self.world.pages[usize::from(*page)].frames.contains(&frame);
                thread.program == ProgramName::UnmapMappingRange && thread.range.iter().any(maps)
            }) || info.pfn,
            tlb_mask: to_frame(0b111),
            tlb_dirty_mask: to_frame(0b100),
        }
    }

    fn start<const W: usize>(&self, model: &KernelModel<W>) -> [u64; W] {
        let mut state = [0; W];
        self.place_of(Var::One).set(&mut state, 1);
        model.start_tables(&mut state);
        for (index, page) in self.world.pages.iter().enumerate() {
            let frame = page.frames[0];
            let flags = match page.mapped {
                Mapped::None => continue,
                Mapped::Read => 0,
                Mapped::Write => pte::WRITE,
                Mapped::Dirty => pte::WRITE | pte::DIRTY,
            };
            let entry = pte::present(frame, (flags | pte::YOUNG) & self.pte_bits);
            model.pages[index].pte.set(&mut state, entry);
            if page.pfn {
                continue;
            }
            let fields = &model.frames[usize::from(frame)];
            for counter in [fields.mapcount, fields.refs] {
                let count = counter.get(&state);
                counter.set(&mut state, count + 1);
            }
            let others =
                self.world.pages.iter().filter(|other| other.frames[0] == frame && other.mapped != Mapped::None);
            let is_shared = others.count() > 1;
            fields.not_exclusive.set(&mut state, u64::from(is_shared));
        }
        for fields in model.frames.iter().filter(|fields| !fields.is_spare) {
            fields.lru.set(&mut state, 1);
            if fields.content == Content::File {
                // In the page cache, which holds a reference.
                fields.cached.set(&mut state, 1);
                let count = fields.refs.get(&state);
                fields.refs.set(&mut state, count + 1);
            }
        }
        for vma in &self.world.vmas {
            for page in &vma.pages {
                self.place_of(Var::VmaWrite(*page)).set(&mut state, 1);
            }
            if !vma.exists {
                for page in &vma.pages {
                    self.place_of(Var::VmaGone(*page)).set(&mut state, 1);
                }
            }
        }
        for (thread, start) in model.threads.iter().zip(&self.starts) {
            let wait = self.waits[*start as usize];
            if wait == NO_WAIT {
                model.run(&mut state, thread.index, *start);
            } else {
                thread.pc.set(&mut state, u64::from(wait));
            }
        }
        state
    }
}

/// The locks of the programs, by name, for the verdict.
fn locks_taken(kernel: &CompiledKernel, world: &World) -> Vec<&'static str> {
    use crate::program::{Instr, Leaf};
    let mut names = BTreeSet::new();
    for thread in world.threads.iter().filter(|thread| !thread.is_walker) {
        for instr in &kernel.program(thread.program).code {
            if let Instr::Leaf(Leaf::Lock { lock, .. }) = instr {
                names.insert(lock.name());
            }
        }
    }
    names.into_iter().collect()
}

/// Whether the last reference of a frame can go.
fn can_be_freed(world: &World, frame: usize) -> bool {
    let info = world.frames[frame];
    info.kind == Content::Anon
        || info.is_spare
        || world.threads.iter().any(|thread| {
            thread.truncates
                || matches!(
                    thread.program,
                    ProgramName::ShrinkFolioList | ProgramName::MadvisePageout | ProgramName::MigratePages
                )
        })
}
