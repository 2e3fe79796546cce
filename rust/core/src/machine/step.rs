//! The one meaning of a program: what each instruction does to the machine. Every driver runs programs through
//! [`Machine::step`], one instruction at a time.
//!
//! Leaf steps are in files of their own by what they act on; loops are in `loops.rs`, conditions in `conditions.rs`.

use std::sync::Arc;

use crate::error::Result;
use crate::program::{Condition, Instr, Leaf, Program, Test};

use super::frame::{Frame, StepStatus};
use super::{Machine, loops};

impl Machine {
    /// Runs one instruction of a program.
    ///
    /// # Errors
    /// When a step finds nothing to act on (a program that validation could not see through), or the model runs out of
    /// page frames.
    pub fn step(&mut self, frame: &mut Frame) -> Result<StepStatus> {
        if let Some(custom) = frame.custom.clone() {
            return self.step_in(&custom, frame);
        }
        let kernel = Arc::clone(&self.kernel);
        self.step_in(kernel.program(frame.program), frame)
    }

    /// Runs a program to its end.
    pub(super) fn run(&mut self, frame: &mut Frame) -> Result<()> {
        let kernel = Arc::clone(&self.kernel);
        let custom = frame.custom.clone();
        let program = custom.as_deref().unwrap_or_else(|| kernel.program(frame.program));
        while self.step_in(program, frame)? != StepStatus::Done {}
        Ok(())
    }

    #[inline]
    pub(super) fn step_in(&mut self, program: &Program, frame: &mut Frame) -> Result<StepStatus> {
        match &program.code[frame.pc as usize] {
            Instr::Leaf(leaf) => {
                self.leaf_step(frame, *leaf)?;
                frame.pc += 1;
            }
            Instr::BranchUnless { condition, target, asks_for_flush } => {
                if self.holds(frame, condition) {
                    frame.pc += 1;
                } else {
                    if *asks_for_flush && frame.r.pte.is_hw_present() && frame.r.pte != frame.r.new_pte {
                        self.counters.nr_flush_avoided += 1;
                    }
                    frame.pc = *target;
                }
            }
            Instr::Jump(target) => frame.pc = *target,
            Instr::Enter(kind) => {
                loops::enter(self, frame, *kind);
                frame.pc += 1;
            }
            Instr::Next { body, on_huge_pmd, on_pmd, exit } => {
                frame.pc = match loops::next(self, frame)? {
                    loops::Item::Plain => *body,
                    loops::Item::HugePmd => *on_huge_pmd,
                    loops::Item::Pmd => *on_pmd,
                    loops::Item::End => *exit,
                };
            }
            Instr::End => {
                self.end_program(frame);
                return Ok(StepStatus::Done);
            }
        }
        Ok(StepStatus::Running)
    }

    #[inline]
    fn holds(&self, frame: &Frame, condition: &Condition) -> bool {
        if let Condition::Test(test) = condition {
            return self.test(frame, *test);
        }
        condition.eval(&mut |test: Test| self.test(frame, test))
    }

    /// Drops what a list still holds; a page list lives at most as long as its operation.
    fn end_program(&mut self, frame: &mut Frame) {
        if self.stepping.is_some() {
            self.locks.put_back(frame.by.op);
        }
        for pfn in std::mem::take(&mut frame.page_list) {
            self.pages.put_ref(pfn);
        }
    }

    #[inline]
    #[expect(clippy::too_many_lines, reason = "one line for each step of the language")]
    pub(super) fn leaf_step(&mut self, frame: &mut Frame, leaf: Leaf) -> Result<()> {
        match leaf {
            // An operation that runs alone takes no locks; for calls, call.rs does before it comes here.
            Leaf::Lock { .. } | Leaf::Unlock { .. } | Leaf::Downgrade { .. } | Leaf::CopyUserPage
            // The contents of pages are not modelled: those of one call of KSM are taken to be equal.
            | Leaf::PagesIdentical
            // The old VMA was never taken out of the tree.
            | Leaf::VmaDontunmap
            // No table belongs to two address spaces; nobody walks beside an operation of replay.
            | Leaf::PudClear | Leaf::PtdescPmdPtsDec | Leaf::TlbRemoveTableSyncOne => Ok(()),

            Leaf::PtepGetAndClear | Leaf::PmdpHugeGetAndClear => self.ptep_get_and_clear(frame),
            Leaf::PteClear => self.pte_clear(frame),
            Leaf::PteModify { prot } => {
                self.pte_modify(frame, prot);
                Ok(())
            }
            Leaf::PteMkwrite { only_if } => {
                self.pte_mkwrite(frame, only_if);
                Ok(())
            }
            Leaf::PteWrprotect => {
                frame.r.new_pte = frame.r.new_pte.wrprotect();
                Ok(())
            }
            Leaf::PteMkclean => {
                frame.r.new_pte = frame.r.new_pte.mk_clean();
                Ok(())
            }
            Leaf::PteMkold => {
                frame.r.new_pte = frame.r.new_pte.mk_old();
                Ok(())
            }
            Leaf::PteClearSoftDirty => {
                frame.r.new_pte = frame.r.new_pte.clear_soft_dirty();
                Ok(())
            }
            Leaf::SetPteAt | Leaf::SetPmdAt => self.write_entry(frame, frame.r.new_pte),
            Leaf::PtepSetWrprotect => self.change_entry(frame, crate::page_table::Pte::wrprotect),
            Leaf::PtepClearYoung => self.change_entry(frame, crate::page_table::Pte::mk_old),
            Leaf::ClearYoungDirty => self.change_entry(frame, |pte| pte.mk_old().mk_clean()),
            Leaf::PtepClearFlush => self.ptep_clear_flush(frame),
            Leaf::PmdpInvalidate => self.pmdp_invalidate(frame, true),
            Leaf::PmdpInvalidateAd => self.pmdp_invalidate(frame, false),
            Leaf::ArchEnterLazyMmuMode => {
                self.arch_enter_lazy_mmu_mode(frame);
                Ok(())
            }
            Leaf::ArchLeaveLazyMmuMode => {
                self.arch_leave_lazy_mmu_mode(frame);
                Ok(())
            }

            Leaf::CountChanged => {
                frame.nr_changed += 1;
                Ok(())
            }
            Leaf::SetForceFlush => {
                frame.force_flush = true;
                Ok(())
            }
            Leaf::SetDelayRmap => {
                frame.delay_rmap = true;
                frame.gather()?.delay_rmap();
                Ok(())
            }
            Leaf::FlushTlbRange { range } => {
                self.flush_scope(frame, range);
                Ok(())
            }
            Leaf::FlushTlbMm => {
                self.flush_mm(frame);
                Ok(())
            }
            Leaf::IncTlbFlushPending => {
                self.mm_mut(frame.r.mm)?.tlb_flush_pending += 1;
                Ok(())
            }
            Leaf::DecTlbFlushPending => self.dec_tlb_flush_pending(frame),
            Leaf::FlushTlbBatchedPending => self.flush_tlb_batched_pending(frame),
            Leaf::SetTlbUbcFlushPending => self.set_tlb_ubc_flush_pending(frame),
            Leaf::TryToUnmapFlush => self.try_to_unmap_flush(frame, false),
            Leaf::TryToUnmapFlushDirty => self.try_to_unmap_flush(frame, true),
            Leaf::TrackFlushRange => {
                frame.track_flush_range();
                Ok(())
            }
            Leaf::FlushTrackedRange => self.flush_tracked_range(frame),

            Leaf::TlbGatherMmu { fullmm, light } => self.tlb_gather_mmu(frame, fullmm, light),
            Leaf::TlbRemoveTlbEntry | Leaf::TlbFlushPteRange => {
                let addr = frame.r.addr;
                frame.gather()?.remove_tlb_entry(addr);
                Ok(())
            }
            Leaf::TlbRemovePmdTlbEntry | Leaf::TlbFlushPmdRange => {
                let addr = frame.r.addr;
                frame.gather()?.remove_pmd_tlb_entry(addr);
                Ok(())
            }
            Leaf::TlbRemovePage => self.tlb_remove_page(frame),
            Leaf::TlbFlushMmuTlbonly => self.tlb_flush_mmu_tlbonly(frame),
            Leaf::TlbFlushRmaps => self.tlb_flush_rmaps(frame),
            Leaf::TlbFlushMmu => self.tlb_flush_mmu_early(frame),
            Leaf::TlbFinishMmu => self.tlb_finish_mmu(frame),
            Leaf::FreePgtables => self.free_pgtables(frame),
            Leaf::TryGetAndClearPmd => {
                self.try_get_and_clear_pmd(frame);
                Ok(())
            }
            Leaf::FreePte => Self::free_pte(frame),
            Leaf::NoteDeferredFlush => self.note_deferred_flush(frame),
            Leaf::CheckDeferredFlush => self.check_deferred_flush(frame),
            Leaf::MarkTlbGenDone => self.mark_tlb_gen_done(frame),

            Leaf::SelectRange { range } => {
                frame.select_range(range);
                Ok(())
            }
            Leaf::SelectRangeAt { addr, len, prot } => {
                Self::select_range_at(frame, addr, len, prot);
                Ok(())
            }
            Leaf::VmsGatherMunmapVmas => self.vms_gather_munmap_vmas(frame),
            Leaf::MmapRegion => self.mmap_region(frame),
            Leaf::MprotectFixup => self.mprotect_fixup(frame),
            Leaf::ClearVmaSoftDirty => self.clear_vma_soft_dirty(frame),
            Leaf::VmaExpand => self.vma_expand(frame),
            Leaf::CopyVma => self.copy_vma(frame),

            Leaf::PageRemoveRmap => self.page_remove_rmap(frame),
            Leaf::PutPage | Leaf::PutOldPage => {
                let page = frame.page()?;
                self.pages.put_ref_and_swap_cache(page);
                Ok(())
            }
            Leaf::FolioTryShareAnonRmap => self.with_page(frame, |page| page.exclusive = false),
            Leaf::FolioGet => self.folio_get(frame),
            Leaf::FolioPut => {
                self.folio_put(frame);
                Ok(())
            }
            Leaf::SetPageDirty => self.with_page(frame, |page| page.dirty = true),
            Leaf::ClearPageDirty => self.with_page(frame, |page| page.dirty = false),
            Leaf::Pageout => {
                self.pages.page_out(frame.page()?, self.has_swap);
                Ok(())
            }
            Leaf::MarkLazyfree => self.with_page(frame, |page| {
                page.lazyfree = true;
                page.dirty = false;
            }),
            Leaf::StableTreeSearch => self.stable_tree_search(frame),
            Leaf::SetPteKsm => self.set_pte_ksm(frame),
            Leaf::IsolateFolio => self.isolate_folio(frame),
            Leaf::AddToSwap => {
                let page = frame.page()?;
                if self.has_swap {
                    self.pages.add_to_swap(page);
                }
                Ok(())
            }
            Leaf::SetSwapPte => self.set_swap_pte(frame),
            Leaf::RemoveMappingAndFree => self.remove_mapping_and_free(frame),
            Leaf::SetMigrationEntry => self.set_migration_entry(frame),
            Leaf::MigrateCopy => self.migrate_copy(frame),
            Leaf::RemoveMigrationPtes => self.remove_migration_ptes(frame),

            Leaf::SplitHugePmd => self.split_huge_pmd(frame),
            Leaf::SplitFolio => self.split_folio(frame),
            Leaf::PmdpCollapseFlush => {
                self.pmdp_collapse_flush(frame);
                Ok(())
            }
            Leaf::TlbFlushPudRange => {
                let start = frame.r.table_range.start;
                frame.gather()?.remove_pud_entry(start);
                Ok(())
            }
            Leaf::PteFreeDefer => {
                self.free_set_aside(frame);
                Ok(())
            }
            Leaf::CollapseCopy => self.collapse_copy(frame),
            Leaf::SetPmdHuge => self.set_pmd_huge(frame),

            Leaf::PteAlloc => self.pte_alloc(frame),
            Leaf::DoHugePmdAnonymousPage => self.do_huge_pmd_anonymous_page(frame),
            Leaf::AllocAnonPage => self.alloc_anon_page(frame),
            Leaf::FindGetPage => self.find_get_page(frame),
            Leaf::SetPteAnon => self.set_pte_anon(frame),
            Leaf::SetPteZero => self.set_pte_zero(frame),
            Leaf::SetPteFile { write } => self.set_pte_file(frame, write),
            Leaf::MapAround => self.map_around(frame),
            Leaf::WpPageReuse => self.wp_page_reuse(frame),
            Leaf::PtepSetAccessFlags => self.ptep_set_access_flags(frame),
            Leaf::SwapIn => self.swap_in(frame),
            Leaf::SetPteSwapIn => self.set_pte_swap_in(frame),
            Leaf::SetPteNuma => self.set_pte_numa(frame),

            Leaf::DupMm => self.dup_mm(frame),
            Leaf::DupVma => self.dup_vma(frame),
            Leaf::PteAllocChild => self.pte_alloc_child(frame),
            Leaf::PageDupRmap => self.page_dup_rmap(frame),
            Leaf::SetPteAtChild | Leaf::SetPmdAtChild => self.set_pte_at_child(frame),
            Leaf::SwapDuplicate => self.swap_duplicate(frame),

            Leaf::MoveNormalPmd => self.move_normal_pmd(frame),
            Leaf::SetPteAtNew => self.set_pte_at_new(frame, true),
            Leaf::MoveHugePmd => self.set_pte_at_new(frame, false),
        }
    }
}
