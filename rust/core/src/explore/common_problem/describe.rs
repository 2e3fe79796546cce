//! The words for an action, as kernel developers write them.

use super::layout::{ACCESSED, CLEAN_PC, CommonProblem, PRESENT, RMAP, UNMAP_PC, Words};
use super::model::Kind;
use super::{Unmap, cleaner, unmapper};
use crate::explore::search::Action;

impl<const U: usize, const P: usize, const W: usize, const E: usize> CommonProblem<U, P, W, E> {
    pub(super) fn words_for(&self, state: &Words<W>, action: Action) -> String {
        let Some(kind) = Kind::ALL.get((action.0 & 15) as usize) else {
            return format!("unknown action {}", action.0);
        };
        let (cpu, page) = ((action.0 >> 4 & 15) as usize, action.0 >> 8 & 15);
        let at_user = |what: String| format!("CPU{}: {what}", cpu + 2);
        match kind {
            Kind::Unmapper => format!("CPU0: {}", self.unmapper_words(state)),
            Kind::Cleaner => format!("CPU1: {}", self.cleaner_words(state)),
            Kind::Fill | Kind::Refill => at_user(format!("[TLB fill p{page}]")),
            Kind::Evict => at_user(format!("[TLB eviction p{page}]")),
            Kind::SetDirty => at_user(format!("[hardware sets D in the PTE of p{page}]")),
            Kind::RefillDirty => at_user(format!("[TLB fill p{page}, hardware sets D]")),
            Kind::Store => at_user(format!("store to p{page} through a writable dirty entry")),
            Kind::UnmapIpi | Kind::CleanIpi => at_user("IPI: flush".to_owned()),
            Kind::FaultLock => at_user(format!("write fault on p{page}: lock")),
            Kind::FaultPte => at_user(format!("write fault on p{page}: PTE writable and dirty")),
            Kind::FaultUnlock => at_user("write fault: unlock, return".to_owned()),
        }
    }

    fn unmapper_words(&self, state: &Words<W>) -> String {
        use unmapper::at;
        let page = Self::UNMAP_PAGE.get(state);
        let zap = self.options.unmap == Unmap::Zap;
        match UNMAP_PC.get(state) {
            at::LOCK if zap => "zap_pte_range(): pte_offset_map_lock()".to_owned(),
            at::LOCK => "change_pte_range(): pte_offset_map_lock()".to_owned(),
            at::BATCHED_TEST => "flush_tlb_batched_pending()".to_owned(),
            at::PTE if !Self::has(state, page as usize, PRESENT) => format!("PTE of p{page} is not present"),
            at::PTE if zap => format!("ptep_get_and_clear(p{page})"),
            at::PTE => format!("ptep_modify_prot: p{page} read-only"),
            at::SET_DIRTY => format!("set_page_dirty(p{page})"),
            at::REMOVE_RMAP => format!("page_remove_rmap(p{page})"),
            at::FORCED_SEND => "force_flush?".to_owned(),
            at::BATCHED_WAIT | at::FORCED_WAIT | at::FINAL_WAIT => "all IPIs acknowledged".to_owned(),
            at::FLUSH_RMAPS => "tlb_flush_rmaps()".to_owned(),
            at::UNLOCK => "pte_unmap_unlock()".to_owned(),
            at::FINAL_SEND => "flush what is not flushed yet".to_owned(),
            at::RETURN if zap => "free gathered pages, return".to_owned(),
            _ => "return".to_owned(),
        }
    }

    fn cleaner_words(&self, state: &Words<W>) -> String {
        use cleaner::at;
        let page = Self::CLEAN_PAGE.get(state) as usize;
        let absent = !Self::has(state, page, PRESENT);
        match (CLEAN_PC.get(state), self.reclaims()) {
            (at::MAPPED_TEST, _) => {
                format!("page_mapped(p{page})? {}", if Self::has(state, page, RMAP) { "yes" } else { "no" })
            }
            (at::LOCK, _) => "page_vma_mapped_walk(): lock".to_owned(),
            (at::PTE, _) if absent => format!("PTE of p{page} is not present"),
            (at::PTE, false) => format!("page_mkclean(p{page}): ptep_clear_flush()"),
            (at::MKCLEAN_WAIT, false) => format!("all IPIs acknowledged, PTE of p{page} clean and read-only"),
            (at::MKCLEAN_SET_DIRTY, false) | (at::UNMAP_SET_DIRTY, true) => format!("set_page_dirty(p{page})"),
            (at::MKCLEAN_TEST_CLEAR_DIRTY, false) => format!("TestClearPageDirty(p{page})"),
            (at::MKCLEAN_WRITE_OUT, false) | (at::PAGEOUT_WRITE_OUT, true) => format!("write out p{page}"),
            (at::PTE, true) if Self::has(state, page, ACCESSED) => format!("page_referenced(p{page}): clear A"),
            (at::PTE, true) => format!("try_to_unmap(p{page}): ptep_get_and_clear(), set_tlb_ubc_flush_pending()"),
            (at::UNMAP_DROP, true) => format!("page_remove_rmap(p{page}), put_page()"),
            (at::PAGEOUT_TEST, true) => format!("PageDirty(p{page})?"),
            (at::PAGEOUT_WAIT | at::BATCH_WAIT, true) => "all IPIs acknowledged".to_owned(),
            (at::PAGEOUT_CLEAR_DIRTY, true) => format!("clear_page_dirty_for_io(p{page})"),
            (at::REMOVE_MAPPING, true) => format!("__remove_mapping(p{page})"),
            (at::BATCH_SEND, true) => "try_to_unmap_flush()".to_owned(),
            (at::FREE, true) => "free pages".to_owned(),
            _ => "pte_unmap_unlock()".to_owned(),
        }
    }
}
