//! The interrupt on a CPU that is asked: `flush_tlb_func()`.

use super::{Engine, HANDLER, MM, RUN};
use crate::explore::model::op::{Kind, Scope};
use crate::explore::model::{KernelModel, ThreadFields};

/// What a request is about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    scope: Scope,
    full: bool,
    of_batch: bool,
}

impl<const W: usize> KernelModel<W> {
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
    pub(super) fn enter_handler(&self, state: &mut [u64; W], engine: &Engine, index: usize, thread: &ThreadFields) {
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
    pub(super) fn handler_step(&self, state: &mut [u64; W], engine: &Engine, index: usize, step: u64) -> u64 {
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
}
