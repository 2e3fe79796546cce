//! Switching a CPU to another mm, and leaving one loaded without using it.

use super::context::{INIT_MM, MmId};
use super::cpu_state::TlbContext;
use super::engine::Engine;
use super::log::{NO_REQUEST, TlbFlushReason};
use super::rules::MmCpumaskRule;
use crate::cpumask::CpuId;

impl Engine {
    /// Loads `next` on a CPU (`switch_mm_irqs_off`). What the CPU missed while it was lazy or had another mm loaded is
    /// caught up with here, by generations.
    pub fn switch_mm(&mut self, cpu: CpuId, next: MmId) {
        let state = &mut self.cpus[cpu.index()];
        let prev = state.loaded_mm;
        let was_lazy = std::mem::replace(&mut state.is_lazy, false);
        let context = self.contexts[next.index()].as_ref().expect("the mm was dropped");
        let next_ctx = TlbContext { ctx_id: context.ctx_id, tlb_gen: context.tlb_gen };
        if prev == next {
            if was_lazy && state.loaded_ctx().tlb_gen != next_ctx.tlb_gen {
                let slot = state.loaded_mm_asid;
                self.load_flushed(cpu, slot, next_ctx);
            }
            return;
        }
        let (slot, need_flush) = state.choose_new_asid(self.pcid, next_ctx);
        state.loaded_mm = next;
        state.loaded_mm_asid = slot;
        self.move_mm_cpumask(cpu, prev, next);
        if need_flush {
            self.load_flushed(cpu, slot, next_ctx);
        }
    }

    /// The CPU stops running tasks of the mm that it has loaded, and keeps it loaded (`enter_lazy_tlb`).
    pub fn enter_lazy_tlb(&mut self, cpu: CpuId) {
        let state = &mut self.cpus[cpu.index()];
        if state.loaded_mm != INIT_MM {
            state.is_lazy = true;
        }
    }

    /// Keeps masks and counts of the mms when a CPU goes from `prev` to `next`.
    fn move_mm_cpumask(&mut self, cpu: CpuId, prev: MmId, next: MmId) {
        let is_eager = self.rules.mm_cpumask_rule == MmCpumaskRule::Eager;
        let left = self.context_mut(prev);
        left.nr_loaded -= 1;
        if is_eager && prev != INIT_MM {
            left.mm_cpumask.clear(cpu);
        }
        self.free_context_if_unused(prev);
        let entered = self.context_mut(next);
        entered.nr_loaded += 1;
        if next != INIT_MM {
            entered.mm_cpumask.set(cpu);
        }
    }

    /// Writes CR3 without the no-flush bit.
    fn load_flushed(&mut self, cpu: CpuId, slot: u16, ctx: TlbContext) {
        let pcid = self.pcid_of_slot(slot);
        if let Some(tlbs) = &mut self.tlbs {
            tlbs.flush_pcid(cpu.index(), pcid);
        }
        self.cpus[cpu.index()].ctxs[usize::from(slot)] = ctx;
        self.log.event(NO_REQUEST, cpu, TlbFlushReason::TaskSwitch, -1);
    }
}
