//! The steps of CPUs in words.

use super::switch::{CPU_DEEDS, CpuDeed, CpuOp};
use super::{BACK, Engine, HANDLER, IN, OUT};
use crate::explore::model::KernelModel;

impl Engine {
    fn text_of(&self, op: CpuOp) -> &'static str {
        match op {
            CpuOp::LoadMm if self.spec.by_active_mm => "active_mm = mm",
            CpuOp::LoadOther if self.spec.by_active_mm => "active_mm = other mm",
            op => op.text(),
        }
    }
}

impl<const W: usize> KernelModel<W> {
    /// What a CPU does, in words.
    pub(in crate::explore::model) fn cpu_text(&self, state: &[u64; W], index: usize, deed: usize) -> String {
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
    pub(in crate::explore::model) fn is_in_handler(&self, state: &[u64; W], index: usize) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.cpus[index].step.get(state) >= HANDLER)
    }
}
