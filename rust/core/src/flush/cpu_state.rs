//! What a CPU has loaded, and which mm's entries its PCID slots hold (`struct tlb_state`, the per-CPU `cpu_tlbstate`).

use super::context::{INIT_MM, MmId};

/// What one PCID slot of a CPU holds (`struct tlb_context`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TlbContext {
    /// The `ctx_id` of the mm whose entries are there; 0 = none yet.
    pub ctx_id: u64,
    /// The mm's generation up to which flushes were done there.
    pub tlb_gen: u64,
}

/// The flush state of one CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuTlbState {
    /// The mm whose page tables CR3 points to.
    pub loaded_mm: MmId,
    /// The slot that `loaded_mm` has.
    pub loaded_mm_asid: u16,
    /// The slot that the next unknown mm takes.
    pub next_asid: u16,
    /// The CPU runs no task of `loaded_mm`: it only keeps its page tables loaded, and compares generations before a
    /// task runs there again.
    pub is_lazy: bool,
    /// The slots; their number never changes.
    pub ctxs: Box<[TlbContext]>,
}

impl CpuTlbState {
    /// A CPU as it comes up: `init_mm` in slot 0.
    pub(super) fn new(nr_slots: u16, init_ctx: TlbContext) -> Self {
        let mut ctxs = vec![TlbContext::default(); usize::from(nr_slots)].into_boxed_slice();
        ctxs[0] = init_ctx;
        Self { loaded_mm: INIT_MM, loaded_mm_asid: 0, next_asid: 1, is_lazy: false, ctxs }
    }

    /// The slot that is loaded.
    #[inline]
    pub fn loaded_ctx(&self) -> TlbContext {
        self.ctxs[usize::from(self.loaded_mm_asid)]
    }

    #[inline]
    pub(super) fn loaded_ctx_mut(&mut self) -> &mut TlbContext {
        &mut self.ctxs[usize::from(self.loaded_mm_asid)]
    }

    /// The slot that holds entries of the mm with `ctx_id`.
    #[inline]
    pub fn slot_of(&self, ctx_id: u64) -> Option<u16> {
        self.ctxs.iter().position(|ctx| ctx.ctx_id == ctx_id).map(|slot| slot as u16)
    }

    /// The slot for the mm of `next`, and whether it must be flushed before use (`choose_new_asid`).
    pub(super) fn choose_new_asid(&mut self, pcid: bool, next: TlbContext) -> (u16, bool) {
        if !pcid {
            return (0, true);
        }
        if let Some(slot) = self.slot_of(next.ctx_id) {
            return (slot, self.ctxs[usize::from(slot)].tlb_gen < next.tlb_gen);
        }
        let mut slot = self.next_asid;
        self.next_asid += 1;
        if usize::from(slot) >= self.ctxs.len() {
            slot = 0;
            self.next_asid = 1;
        }
        (slot, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: TlbContext = TlbContext { ctx_id: 1, tlb_gen: 1 };

    /// Chooses a slot and takes it, as a switch does.
    fn take(cpu: &mut CpuTlbState, pcid: bool, ctx_id: u64, tlb_gen: u64) -> (u16, bool) {
        let next = TlbContext { ctx_id, tlb_gen };
        let (slot, need_flush) = cpu.choose_new_asid(pcid, next);
        cpu.ctxs[usize::from(slot)] = next;
        (slot, need_flush)
    }

    #[test]
    fn without_pcid_there_is_one_slot_and_every_switch_flushes() {
        let mut cpu = CpuTlbState::new(1, INIT);
        assert_eq!(take(&mut cpu, false, 2, 1), (0, true));
        assert_eq!(take(&mut cpu, false, 2, 1), (0, true));
        assert_eq!(cpu.next_asid, 1);
    }

    #[test]
    fn a_known_mm_flushes_only_if_it_missed_a_generation() {
        let mut cpu = CpuTlbState::new(6, INIT);
        assert_eq!(take(&mut cpu, true, 2, 1), (1, true));
        assert_eq!(take(&mut cpu, true, 1, 1), (0, false));
        assert_eq!(take(&mut cpu, true, 2, 1), (1, false));
        assert_eq!(take(&mut cpu, true, 2, 3), (1, true));
        assert_eq!(cpu.slot_of(2), Some(1));
        assert_eq!(cpu.slot_of(9), None);
    }

    #[test]
    fn slots_are_reused_in_turn() {
        let mut cpu = CpuTlbState::new(6, INIT);
        let slots: Vec<_> = (2..10).map(|ctx_id| take(&mut cpu, true, ctx_id, 1)).collect();
        let expected = [1, 2, 3, 4, 5, 0, 1, 2].map(|slot| (slot, true));
        assert_eq!(slots, expected);
        // ctx 2 lost slot 1 to ctx 8, so it comes back as an unknown one.
        assert_eq!(take(&mut cpu, true, 2, 1), (3, true));
    }
}
