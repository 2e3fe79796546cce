//! What a user CPU does besides loading and storing: it switches to the address space and away, goes lazy and comes back.

use super::{BACK, CpuFields, Engine, FIRST_GEN, HANDLER, IN, MM, OTHER, OUT, RUN, SWITCHING};
use crate::explore::model::KernelModel;

/// One step of a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CpuOp {
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
    pub(super) const fn text(self) -> &'static str {
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

impl<const W: usize> KernelModel<W> {
    pub(super) fn cpu_deed(&self, state: &mut [u64; W], engine: &Engine, index: usize, deed: CpuDeed) -> bool {
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

    pub(super) fn cpu_op(&self, state: &mut [u64; W], engine: &Engine, index: usize, op: CpuOp) {
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
}
