//! The steps of those who flush: a generation, who is asked, and the wait for the answers.

use super::OTHER;
use crate::explore::model::op::{Freed, Kind, Op, OpIndex, Scope};
use crate::explore::model::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    /// The steps of those who flush.
    pub(in crate::explore::model) fn exec_engine(
        &self,
        state: &mut [u64; W],
        thread: &ThreadFields,
        op: &Op,
    ) -> Option<OpIndex> {
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
}
