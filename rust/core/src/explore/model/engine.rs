//! The flush engine of x86 (arch/x86/mm/tlb.c) at the grain of its own races: generations, `mm_cpumask`, `loaded_mm`, lazy
//! CPUs, and the steps of `switch_mm_irqs_off()` and `flush_tlb_func()`. Only scenarios that ask for it have it; in all
//! others a flush asks every user CPU, and each answers in one step.
//!
//! What the TLB holds decides nothing here, so that its entries stay monotone and saturation sound: a CPU with more entries
//! takes the same steps, and flushes drop by address.

use super::invariant::Invariant;
use super::op::{Freed, Kind, Op, OpIndex, Scope};
use super::pte;
use super::vars::Field;
use super::{KernelModel, ThreadFields};
use crate::explore::scenario::EngineSpec;
use crate::explore::search::Action;
use crate::program::{Constants, CpumaskRule, ShouldFlushTlb};

/// `loaded_mm`: another address space, or none.
pub(super) const OTHER: u64 = 0;
/// The address space of the scenario.
pub(super) const MM: u64 = 1;
/// `LOADED_MM_SWITCHING`.
pub(super) const SWITCHING: u64 = 2;

/// The generation that an address space starts with; a request with 0 has none (`TLB_GENERATION_INVALID`).
pub(super) const FIRST_GEN: u64 = 1;

/// Where a CPU is: in user mode, or idle; interrupts are on.
const RUN: u64 = 0;
/// From here on: the steps of a switch to the address space that are done.
const IN: u64 = 1;
/// From here on: those of a switch away.
const OUT: u64 = 8;
/// From here on: those of a return from lazy mode.
const BACK: u64 = 12;
/// From here on, two for each thread: its request has been read, and then executed.
const HANDLER: u64 = 16;

/// The largest value of a CPU's position.
pub(super) const fn last_step(nr_threads: usize) -> u64 {
    HANDLER + 2 * nr_threads as u64
}

/// One step of a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CpuOp {
    LoadSwitching,
    SetMask,
    ClearMask,
    ReadGen,
    LoadCr3,
    LeaveCr3,
    LoadMm,
    LoadOther,
}

impl CpuOp {
    const fn text(self) -> &'static str {
        match self {
            Self::LoadSwitching => "loaded_mm = LOADED_MM_SWITCHING",
            Self::SetMask => "cpumask_set_cpu(mm_cpumask(mm))",
            Self::ClearMask => "cpumask_clear_cpu(mm_cpumask(mm))",
            Self::ReadGen => "read tlb_gen of the mm",
            Self::LoadCr3 => "load_new_mm_cr3(mm)",
            Self::LeaveCr3 => "load_new_mm_cr3(other mm)",
            Self::LoadMm => "loaded_mm = mm",
            Self::LoadOther => "loaded_mm = other mm",
        }
    }
}

/// What a CPU does besides loading and storing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum CpuDeed {
    SwitchIn = 0,
    SwitchOut = 1,
    GoLazy = 2,
    Return = 3,
    /// The next step of what it is in.
    Step = 4,
}

pub(super) const CPU_DEEDS: [CpuDeed; 5] =
    [CpuDeed::SwitchIn, CpuDeed::SwitchOut, CpuDeed::GoLazy, CpuDeed::Return, CpuDeed::Step];

/// What a request is about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    scope: Scope,
    full: bool,
    of_batch: bool,
}

/// Where a CPU's variables lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuFields {
    pub step: Field,
    pub note: Field,
    pub loaded: Field,
    pub cr3: Field,
    pub lazy: Field,
    pub in_mask: Field,
    pub tlb_gen: Field,
    pub batched: Field,
    pub missed: Field,
}

/// The engine of a kernel, with its bugs.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    spec: EngineSpec,
    clears_mask_eagerly: bool,
    asks_loaded_mm: bool,
    skips_old_gen: bool,
    into: Vec<CpuOp>,
    away: Vec<CpuOp>,
    pub cpus: Vec<CpuFields>,
    /// By virtual page: the generation that covers the last time a right was taken from its entry.
    pub page_gen: Vec<Field>,
    /// The largest generation whose flush has returned.
    pub flushed_gen: Field,
}

impl Engine {
    pub fn new(constants: &Constants, spec: EngineSpec) -> Self {
        let clears_mask_eagerly = constants.mm_cpumask_rule == CpumaskRule::Eager;
        let mut into = if clears_mask_eagerly {
            vec![CpuOp::SetMask, CpuOp::ReadGen, CpuOp::LoadSwitching, CpuOp::LoadCr3, CpuOp::LoadMm]
        } else {
            vec![CpuOp::LoadSwitching, CpuOp::SetMask, CpuOp::ReadGen, CpuOp::LoadCr3, CpuOp::LoadMm]
        };
        let mut move_op = |op: CpuOp, before: CpuOp| {
            into.retain(|other| *other != op);
            let at = into.iter().position(|other| *other == before).unwrap_or(into.len());
            into.insert(at, op);
        };
        if spec.mask_after_cr3 {
            move_op(CpuOp::SetMask, CpuOp::LoadMm);
        }
        if spec.gen_before_loaded_mm {
            move_op(CpuOp::ReadGen, CpuOp::LoadSwitching);
        }
        let mut away = vec![CpuOp::LoadSwitching, CpuOp::LeaveCr3, CpuOp::LoadOther];
        if clears_mask_eagerly {
            away.insert(0, CpuOp::ClearMask);
        }
        if spec.by_active_mm {
            into = vec![CpuOp::LoadMm, CpuOp::LoadCr3];
            away = vec![CpuOp::LeaveCr3, CpuOp::LoadOther];
        }
        Self {
            spec,
            clears_mask_eagerly,
            asks_loaded_mm: constants.should_flush_tlb == ShouldFlushTlb::LoadedMm,
            skips_old_gen: constants.flush_skips_old_gen,
            into,
            away,
            cpus: Vec::new(),
            page_gen: Vec::new(),
            flushed_gen: Field::default(),
        }
    }

    /// The states that a user CPU can begin in: it runs the address space; it is elsewhere, and was here before or never.
    pub fn set_starts<const W: usize>(&self, start: [u64; W]) -> Vec<[u64; W]> {
        let mut starts = vec![start];
        for cpu in &self.cpus {
            for index in 0..starts.len() {
                let mut running = starts[index];
                cpu.loaded.set(&mut running, MM);
                cpu.cr3.set(&mut running, MM);
                cpu.in_mask.set(&mut running, 1);
                cpu.tlb_gen.set(&mut running, FIRST_GEN);
                if self.spec.switches {
                    let mut before = starts[index];
                    cpu.tlb_gen.set(&mut before, FIRST_GEN);
                    cpu.in_mask.set(&mut before, u64::from(!self.clears_mask_eagerly || self.spec.by_active_mm));
                    starts.push(before);
                    // Never: nothing of it is known; without generations there is no such case.
                    if !self.spec.by_active_mm && !self.clears_mask_eagerly {
                        starts.push(starts[index]);
                    }
                }
                starts[index] = running;
            }
        }
        starts
    }

    fn text_of(&self, op: CpuOp) -> &'static str {
        match op {
            CpuOp::LoadMm if self.spec.by_active_mm => "active_mm = mm",
            CpuOp::LoadOther if self.spec.by_active_mm => "active_mm = other mm",
            op => op.text(),
        }
    }

    /// Interrupts are on.
    fn takes_interrupts<const W: usize>(&self, state: &[u64; W], cpu: &CpuFields) -> bool {
        let step = cpu.step.get(state);
        step == RUN || self.spec.irqs_on_in_use_mm && (IN..OUT).contains(&step)
    }

    /// The last rights taken from these pages' entries are covered by a generation, unless one covers them already.
    fn cover<const W: usize>(&self, state: &mut [u64; W], pages: u32, tlb_gen: u64) {
        for (page, field) in self.page_gen.iter().enumerate() {
            if pages >> page & 1 != 0 && field.mask != 0 && field.get(state) == self.uncovered(page) {
                field.set(state, tlb_gen);
            }
        }
    }

    /// A value of `page_gen` that no generation reaches: the last right taken is not covered yet.
    pub fn uncovered(&self, page: usize) -> u64 {
        self.page_gen[page].mask
    }
}

impl<const W: usize> KernelModel<W> {
    /// The CPU's user code can run: its translations can be used.
    #[inline]
    pub(super) fn runs_user(&self, state: &[u64; W], cpu: usize) -> bool {
        let Some(engine) = &self.engine else { return true };
        let cpu = &engine.cpus[cpu];
        cpu.step.get(state) == RUN && cpu.loaded.get(state) == MM && cpu.lazy.get(state) == 0
    }

    /// The CPU can walk the page tables.
    #[inline]
    pub(super) fn can_walk(&self, state: &[u64; W], cpu: usize) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.cpus[cpu].cr3.get(state) == MM)
    }

    fn drop_entries(&self, state: &mut [u64; W], cpu: usize, covered: u32) {
        for (slot, (page, _)) in self.slots.iter().enumerate() {
            if covered >> page & 1 != 0 {
                self.tlb[cpu][slot].set(state, 0);
            }
        }
    }

    /// A right was taken from an entry.
    pub(super) fn note_demotion(&self, state: &mut [u64; W], page: usize, old: u64, new: u64) {
        let Some(engine) = &self.engine else { return };
        let lost = |bit: u64| old & bit != 0 && new & bit == 0;
        let demoted = pte::is_present(old)
            && (!pte::is_present(new) || pte::frame(old) != pte::frame(new) || lost(pte::WRITE) || lost(pte::DIRTY));
        if demoted && engine.page_gen[page].mask != 0 {
            engine.page_gen[page].set(state, engine.uncovered(page));
        }
    }

    /// A table is taken out of the tree: all rights of what it maps are.
    pub(super) fn note_unlinked(&self, state: &mut [u64; W], region: u8) {
        let Some(engine) = &self.engine else { return };
        for page in self.blueprint.world.pages_of_table(region).iter().map(|page| usize::from(*page)) {
            if engine.page_gen[page].mask != 0 && pte::is_present(self.entry_now(state, page as u8).get(state)) {
                engine.page_gen[page].set(state, engine.uncovered(page));
            }
        }
    }

    /// The steps of those who flush.
    pub(super) fn exec_engine(&self, state: &mut [u64; W], thread: &ThreadFields, op: &Op) -> Option<OpIndex> {
        let Some(engine) = &self.engine else { return Some(op.next) };
        match &op.kind {
            Kind::NoteDeferral if thread.range.get(state) == 0 => {
                let tlb_gen = self.tlb_gen.get(state);
                thread.defer_gen.set(state, tlb_gen);
            }
            Kind::BumpGen(scope) => {
                let known = self.tlb_gen.get(state);
                let deferred = thread.defer_gen.get(state);
                let is_raised = matches!(scope, Scope::Gather(_)) && deferred != 0 && known > deferred;
                if !is_raised {
                    self.add(state, self.tlb_gen, 1);
                }
                let tlb_gen = self.tlb_gen.get(state);
                thread.flush_gen.set(state, tlb_gen);
                let covered = Self::covered(state, thread, *scope);
                engine.cover(state, covered, tlb_gen);
            }
            Kind::AddBatch(page) => {
                self.add(state, self.tlb_gen, 1);
                let tlb_gen = self.tlb_gen.get(state);
                thread.flush_gen.set(state, tlb_gen);
                engine.cover(state, 1 << page, tlb_gen);
            }
            Kind::OrBatchMask => {
                for (cpu, fields) in engine.cpus.iter().enumerate() {
                    if fields.in_mask.get(state) != 0 {
                        thread.batch_mask[cpu].set(state, 1);
                    }
                }
            }
            Kind::OrBatchedCpus => {
                for fields in &engine.cpus {
                    if fields.in_mask.get(state) != 0 {
                        fields.batched.set(state, 1);
                    }
                }
            }
            Kind::AskCpu { cpu, freed, of_batch } => {
                let fields = &engine.cpus[usize::from(*cpu)];
                let is_in =
                    if *of_batch { thread.batch_mask[usize::from(*cpu)].get(state) } else { fields.in_mask.get(state) };
                let frees = match freed {
                    Freed::No => false,
                    Freed::Yes => true,
                    Freed::Gather => thread.freed_tables.get(state) != 0,
                };
                let loaded = fields.loaded.get(state);
                let is_lazy = fields.lazy.get(state) != 0;
                let wanted = frees && !(is_lazy && engine.spec.lazy_is_never_asked)
                    || engine.spec.by_active_mm
                    || !is_lazy && (!engine.asks_loaded_mm || *of_batch || loaded != OTHER);
                if *of_batch {
                    thread.batch_mask[usize::from(*cpu)].set(state, 0);
                }
                if is_in != 0 && wanted {
                    thread.pending[usize::from(*cpu)].set(state, 1);
                }
            }
            Kind::Await { .. } => {
                if thread.pending.iter().any(|pending| pending.get(state) != 0) {
                    return None;
                }
                let done = thread.flush_gen.get(state).max(engine.flushed_gen.get(state));
                engine.flushed_gen.set(state, done);
                thread.flush_gen.set(state, 0);
            }
            _ => {}
        }
        Some(op.next)
    }

    /// What user CPUs do besides loading and storing: switch, go lazy, answer.
    pub(super) fn engine_steps(&self, state: &[u64; W], mut emit: impl FnMut(Action, [u64; W])) {
        let Some(engine) = &self.engine else { return };
        for (index, cpu) in engine.cpus.iter().enumerate() {
            for deed in CPU_DEEDS {
                let mut next = *state;
                if self.cpu_deed(&mut next, engine, index, deed) {
                    emit(super::hardware::cpu_action(index, deed as usize), next);
                }
            }
            if !engine.takes_interrupts(state, cpu) {
                continue;
            }
            for thread in &self.threads {
                if thread.pending[index].get(state) != 0 {
                    let mut next = *state;
                    self.enter_handler(&mut next, engine, index, thread);
                    emit(super::hardware::ipi_action(index, thread.index), next);
                }
            }
        }
    }

    fn cpu_deed(&self, state: &mut [u64; W], engine: &Engine, index: usize, deed: CpuDeed) -> bool {
        let cpu = &engine.cpus[index];
        let step = cpu.step.get(state);
        let (loaded, lazy) = (cpu.loaded.get(state), cpu.lazy.get(state) != 0);
        let moves = engine.spec.switches;
        if deed == CpuDeed::Step {
            return step != RUN && self.cpu_step(state, engine, index, step);
        }
        if step != RUN {
            return false;
        }
        match deed {
            CpuDeed::SwitchIn if loaded == OTHER && (moves || engine.spec.lazy) => {
                self.cpu_op(state, engine, index, engine.into[0]);
                cpu.step.set(state, IN);
            }
            CpuDeed::SwitchOut if loaded == MM && moves => {
                cpu.lazy.set(state, 0);
                self.cpu_op(state, engine, index, engine.away[0]);
                cpu.step.set(state, OUT);
            }
            CpuDeed::GoLazy if loaded == MM && !lazy && engine.spec.lazy => cpu.lazy.set(state, 1),
            CpuDeed::Return if lazy => {
                if engine.spec.gen_before_loaded_mm {
                    cpu.note.set(state, self.tlb_gen.get(state));
                } else {
                    cpu.lazy.set(state, 0);
                }
                cpu.step.set(state, BACK);
            }
            _ => return false,
        }
        true
    }

    fn cpu_step(&self, state: &mut [u64; W], engine: &Engine, index: usize, step: u64) -> bool {
        let cpu = &engine.cpus[index];
        let next = if step >= HANDLER {
            self.handler_step(state, engine, index, step)
        } else if step >= BACK {
            if step == BACK {
                if engine.spec.gen_before_loaded_mm {
                    cpu.lazy.set(state, 0);
                } else {
                    cpu.note.set(state, self.tlb_gen.get(state));
                }
                if cpu.note.get(state) == cpu.tlb_gen.get(state) { RUN } else { BACK + 1 }
            } else {
                self.flush_slot(state, index, cpu);
                RUN
            }
        } else {
            let (ops, base) = if step >= OUT { (&engine.away, OUT) } else { (&engine.into, IN) };
            let done = (step - base) as usize + 1;
            self.cpu_op(state, engine, index, ops[done]);
            if done + 1 == ops.len() { RUN } else { step + 1 }
        };
        if next == RUN {
            cpu.note.set(state, 0);
        }
        cpu.step.set(state, next);
        true
    }

    /// All that the slot has goes if its generation is old; it is new then.
    fn flush_slot(&self, state: &mut [u64; W], index: usize, cpu: &CpuFields) {
        if cpu.tlb_gen.get(state) < cpu.note.get(state) {
            self.drop_entries(state, index, u32::MAX);
            self.drop_all_cached(state, index);
        }
        let note = cpu.note.get(state);
        cpu.tlb_gen.set(state, note);
    }

    fn cpu_op(&self, state: &mut [u64; W], engine: &Engine, index: usize, op: CpuOp) {
        let cpu = &engine.cpus[index];
        match op {
            CpuOp::LoadSwitching => cpu.loaded.set(state, SWITCHING),
            CpuOp::SetMask => cpu.in_mask.set(state, 1),
            CpuOp::ClearMask => cpu.in_mask.set(state, 0),
            CpuOp::ReadGen => {
                let tlb_gen = self.tlb_gen.get(state);
                cpu.note.set(state, tlb_gen);
            }
            CpuOp::LoadCr3 => {
                if engine.spec.by_active_mm {
                    cpu.note.set(state, FIRST_GEN);
                }
                self.flush_slot(state, index, cpu);
                cpu.cr3.set(state, MM);
            }
            CpuOp::LeaveCr3 => cpu.cr3.set(state, OTHER),
            CpuOp::LoadMm => cpu.loaded.set(state, MM),
            CpuOp::LoadOther => cpu.loaded.set(state, OTHER),
        }
    }

    /// What the thread asks CPUs for: it waits for them, or is still looking at others.
    fn request_of(&self, state: &[u64; W], thread: &ThreadFields) -> Option<Asked> {
        let mut op = self.op_of(state, thread);
        while matches!(op.kind, Kind::AskCpu { .. }) {
            op = &self.ops[op.next as usize];
        }
        match op.kind {
            Kind::Await { scope, full, of_batch } => Some(Asked { scope, full, of_batch }),
            _ => None,
        }
    }

    /// `flush_tlb_func()` up to its reading of the generation.
    fn enter_handler(&self, state: &mut [u64; W], engine: &Engine, index: usize, thread: &ThreadFields) {
        let cpu = &engine.cpus[index];
        let answered = |state: &mut [u64; W]| thread.pending[index].set(state, 0);
        let Some(Asked { scope, full, of_batch }) = self.request_of(state, thread) else { return answered(state) };
        let loaded = cpu.loaded.get(state);
        if engine.spec.by_active_mm {
            // What is loaded is flushed, if `active_mm` says that it is the one; else its next switch must.
            if loaded != MM {
                cpu.tlb_gen.set(state, 0);
            } else if cpu.cr3.get(state) == MM {
                let covered = Self::covered(state, thread, scope);
                self.drop_entries(state, index, covered);
            } else {
                cpu.missed.set(state, 1);
            }
            return answered(state);
        }
        if loaded != MM {
            if !of_batch && !engine.clears_mask_eagerly {
                cpu.in_mask.set(state, 0);
            }
            return answered(state);
        }
        if cpu.lazy.get(state) != 0 {
            // switch_mm_irqs_off(NULL, &init_mm): nobody else can tell its steps apart.
            cpu.lazy.set(state, 0);
            for op in &engine.away {
                self.cpu_op(state, engine, index, *op);
            }
            return answered(state);
        }
        let requested = if of_batch { 0 } else { thread.flush_gen.get(state) };
        let known = cpu.tlb_gen.get(state);
        let has_gen = requested != 0 || engine.spec.gen_zero_is_old;
        if engine.skips_old_gen && has_gen && requested <= known {
            return answered(state);
        }
        let tlb_gen = self.tlb_gen.get(state);
        if tlb_gen == known {
            return answered(state);
        }
        if full && !engine.spec.clears_batched_late {
            cpu.batched.set(state, 0);
        }
        cpu.note.set(state, tlb_gen);
        cpu.step.set(state, HANDLER + 2 * thread.index as u64);
    }

    /// The flush itself, and what comes after it.
    fn handler_step(&self, state: &mut [u64; W], engine: &Engine, index: usize, step: u64) -> u64 {
        let cpu = &engine.cpus[index];
        let thread = &self.threads[((step - HANDLER) / 2) as usize];
        if (step - HANDLER) % 2 == 1 {
            cpu.batched.set(state, 0);
            thread.pending[index].set(state, 0);
            return RUN;
        }
        let Some(Asked { scope, full, of_batch }) = self.request_of(state, thread) else { return RUN };
        let (known, note) = (cpu.tlb_gen.get(state), cpu.note.get(state));
        let requested = if of_batch { 0 } else { thread.flush_gen.get(state) };
        let is_part = !full && thread.full_mm.get(state) == 0 && requested == known + 1 && requested == note;
        if is_part {
            let covered = Self::covered(state, thread, scope);
            self.drop_entries(state, index, covered);
            self.drop_cached(state, index, thread, scope);
        } else {
            self.drop_entries(state, index, u32::MAX);
            self.drop_all_cached(state, index);
        }
        cpu.tlb_gen.set(state, note);
        if full && engine.spec.clears_batched_late && cpu.batched.get(state) != 0 {
            return step + 1;
        }
        thread.pending[index].set(state, 0);
        RUN
    }

    /// I8 and I9.
    pub(super) fn engine_violations(&self, state: &[u64; W]) -> u32 {
        let Some(engine) = &self.engine else { return 0 };
        let mut found = 0;
        for (index, cpu) in engine.cpus.iter().enumerate() {
            let runs = self.runs_user(state, index);
            let known = cpu.tlb_gen.get(state);
            if runs && (known < engine.flushed_gen.get(state) || cpu.missed.get(state) != 0) {
                found |= Invariant::Coverage.bit();
            }
            for (slot, (page, frame)) in self.slots.iter().enumerate() {
                let field = engine.page_gen[usize::from(*page)];
                if field.mask == 0 || known < field.get(state) {
                    continue;
                }
                if self.tlb[index][slot].get(state) & !Self::walked(state, self.entry_now(state, *page), *frame) != 0 {
                    found |= Invariant::GenSound.bit();
                }
            }
        }
        found
    }

    /// What a CPU does, in words.
    pub(super) fn cpu_text(&self, state: &[u64; W], index: usize, deed: usize) -> String {
        let Some(engine) = &self.engine else { return String::new() };
        let cpu = &engine.cpus[index];
        let step = cpu.step.get(state);
        match CPU_DEEDS[deed] {
            CpuDeed::SwitchIn => format!("switch_mm(mm): {}", engine.text_of(engine.into[0])),
            CpuDeed::SwitchOut => format!("switch_mm(other): {}", engine.text_of(engine.away[0])),
            CpuDeed::GoLazy => "enter_lazy_tlb()".to_owned(),
            CpuDeed::Return if engine.spec.gen_before_loaded_mm => "switch_mm(mm): read tlb_gen of the mm".to_owned(),
            CpuDeed::Return => "switch_mm(mm): is_lazy = false".to_owned(),
            CpuDeed::Step if step >= HANDLER => {
                if (step - HANDLER) % 2 == 1 {
                    "[clears its bit in the batch's mask]".to_owned()
                } else {
                    "[flush_tlb_func(): flushes]".to_owned()
                }
            }
            CpuDeed::Step if step == BACK && engine.spec.gen_before_loaded_mm => "is_lazy = false".to_owned(),
            CpuDeed::Step if step == BACK => "read tlb_gen of the mm".to_owned(),
            CpuDeed::Step if step > BACK => "flushes what is old".to_owned(),
            CpuDeed::Step => {
                let (ops, base) = if step >= OUT { (&engine.away, OUT) } else { (&engine.into, IN) };
                engine.text_of(ops[(step - base) as usize + 1]).to_owned()
            }
        }
    }

    /// Whether a step of a CPU is that of an interrupt.
    pub(super) fn is_in_handler(&self, state: &[u64; W], index: usize) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.cpus[index].step.get(state) >= HANDLER)
    }
}
