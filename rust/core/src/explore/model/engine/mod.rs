//! The flush engine of x86 (arch/x86/mm/tlb.c) at the grain of its own races: generations, `mm_cpumask`, `loaded_mm`, lazy
//! CPUs, and the steps of `switch_mm_irqs_off()` and `flush_tlb_func()`. Only scenarios that ask for it have it; in all
//! others a flush asks every user CPU, and each answers in one step.
//!
//! What the TLB holds decides nothing here, so that its entries stay monotone and saturation sound: a CPU with more entries
//! takes the same steps, and flushes drop by address.

mod handler;
mod request;
mod switch;
mod text;

use self::switch::{CPU_DEEDS, CpuOp};
use super::KernelModel;
use super::invariant::Invariant;
use super::pte;
use super::vars::Field;
use crate::explore::scenario::EngineSpec;
use crate::explore::search::Action;
use crate::program::{Constants, CpumaskRule, ShouldFlushTlb};

/// `loaded_mm`: another address space, or none.
const OTHER: u64 = 0;
/// The address space of the scenario.
const MM: u64 = 1;
/// `LOADED_MM_SWITCHING`.
const SWITCHING: u64 = 2;

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
}
