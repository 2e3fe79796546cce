//! What each leaf step of the language means when others run beside it. Every leaf has an arm; one that does nothing says
//! why, one that cannot be explored is an error that says what is missing.

use crate::error::Result;
use crate::program::{Leaf, Pc, Program, RangeArg};

use super::at::At;
use super::leaf_page::Mapping;
use super::op::{Class, Kind, OpIndex, PageRef};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

/// Where a leaf stands: the program and its instruction.
#[derive(Clone, Copy)]
pub(super) struct Here<'p> {
    pub program: &'p Program,
    pub pc: Pc,
}

impl Unroller<'_> {
    /// The code of a leaf and all that follows it.
    pub(super) fn leaf(&mut self, program: &Program, pc: Pc, leaf: Leaf, at: At) -> Result<OpIndex> {
        let here = Here { program, pc };
        match leaf {
            Leaf::Lock { lock, mode } => return self.lock(here, lock, mode, at),
            Leaf::Unlock { lock } => return self.unlock(here, lock, at),
            Leaf::Downgrade { .. } => return self.downgrade(here, at),
            Leaf::ArchEnterLazyMmuMode | Leaf::ArchLeaveLazyMmuMode if self.batches_in_lazy_mmu() => {
                let mut after = at;
                let enters = leaf == Leaf::ArchEnterLazyMmuMode;
                let nests = self.world.engine.inner_lazy_mmu_keeps_batch;
                after.lazy_mmu = enters || nests;
                let next = self.emit(program, pc + 1, after)?;
                return Ok(if enters || nests { next } else { self.leave_lazy_mmu(next) });
            }
            Leaf::SelectRange { range } => {
                let mut at = at;
                let spec = self.spec();
                at.range = match range {
                    RangeArg::Args | RangeArg::Old => spec.range.clone(),
                    RangeArg::New => spec.target.clone(),
                    RangeArg::Tail => Vec::new(),
                };
                at.detached = false;
                return self.emit(program, pc + 1, at);
            }
            Leaf::SplitHugePmd
            | Leaf::SplitFolio
            | Leaf::DoHugePmdAnonymousPage
            | Leaf::SetPmdAtChild
            | Leaf::MoveHugePmd => {
                return Err(self.error(&format!("{}: huge entries are not modelled", leaf.name())));
            }
            Leaf::TryGetAndClearPmd | Leaf::FreePte => {
                return Err(self.error(&format!("{}: no range of a scenario is a whole table", leaf.name())));
            }
            Leaf::SelectRangeAt { .. } => {
                return Err(self.error("select_range_at: a scenario chooses its ranges itself"));
            }
            Leaf::AllocAnonPage | Leaf::SwapIn | Leaf::MigrateCopy => return self.new_page(here, leaf, &at),
            Leaf::TlbRemovePage if self.world.engine.batches_fill && !self.is_pfn(&at) => {
                let next = self.emit(program, pc + 1, at.clone())?;
                let next = self.may_be_full(here, &at, next)?;
                return self.plain(leaf, &at, next);
            }
            Leaf::FindGetPage => return self.find_page(here, at),
            Leaf::FolioGet if !self.is_pfn(&at) => return self.folio_get(here, at),
            Leaf::FolioPut => return self.folio_put(here, at),
            Leaf::VmsGatherMunmapVmas => return self.gather_vmas(here, &at),
            Leaf::MprotectFixup | Leaf::ClearVmaSoftDirty | Leaf::CopyVma | Leaf::DupVma | Leaf::MmapRegion => {
                return self.change_vmas(here, leaf, &at);
            }
            _ => {}
        }
        let next = self.emit(program, pc + 1, at.clone())?;
        self.plain(leaf, &at, next)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each step of the language")]
    fn plain(&mut self, leaf: Leaf, at: &At, next: OpIndex) -> Result<OpIndex> {
        let name = leaf.name();
        let in_other = |vma: u8| self.world.shared_tables && self.world.vmas[usize::from(vma)].mm != 0;
        self.in_other_mm = at.r.vma.is_some_and(in_other);
        let is_of_page =
            matches!(leaf, Leaf::TlbRemovePage | Leaf::PageRemoveRmap | Leaf::PutPage | Leaf::SetPageDirty);
        if is_of_page && self.is_pfn(at) {
            return Ok(next); // vm_normal_page() finds no page
        }
        let text = |s: &Self, page: u8| format!("{name}({})", s.page_text(page));
        Ok(match leaf {
            // Handled before.
            Leaf::Lock { .. }
            | Leaf::Unlock { .. }
            | Leaf::Downgrade { .. }
            | Leaf::SelectRange { .. }
            | Leaf::SelectRangeAt { .. }
            | Leaf::SplitHugePmd
            | Leaf::SplitFolio
            | Leaf::DoHugePmdAnonymousPage
            | Leaf::SetPmdAtChild
            | Leaf::MoveHugePmd
            | Leaf::TryGetAndClearPmd
            | Leaf::FreePte
            | Leaf::AllocAnonPage
            | Leaf::SwapIn
            | Leaf::MigrateCopy
            | Leaf::FindGetPage
            | Leaf::FolioPut
            | Leaf::VmsGatherMunmapVmas
            | Leaf::MprotectFixup
            | Leaf::ClearVmaSoftDirty
            | Leaf::CopyVma
            | Leaf::DupVma
            | Leaf::MmapRegion
            // Of a page that vm_normal_page() does not find.
            | Leaf::FolioGet
            // Native x86 batches nothing in lazy-MMU mode, and other architectures are refused by the model.
            | Leaf::ArchEnterLazyMmuMode
            | Leaf::ArchLeaveLazyMmuMode
            // The write protection beside it is what tracks stores.
            | Leaf::PteClearSoftDirty
            // The child's address space is in the scenario from the start; no CPU runs it.
            | Leaf::DupMm
            | Leaf::PteAllocChild
            // The VMA was never taken out of the tree.
            | Leaf::VmaDontunmap
            // Nothing in a scenario grows.
            | Leaf::VmaExpand
            // The zero page holds nothing that can be lost or seen by others.
            | Leaf::SetPteZero => next,

            // Where other pages around the range hold the tables, nothing.
            Leaf::FreePgtables => self.free_tables(at, next),
            Leaf::MoveNormalPmd => self.move_table(at, next)?,
            Leaf::PmdpCollapseFlush => self.detach_table(at, next)?,
            Leaf::PudClear => self.unhook_table(at, next),
            Leaf::PtdescPmdPtsDec => self.unshare_table(at, next),
            Leaf::TlbFlushPudRange => self.record_table(at, next),
            Leaf::TlbRemoveTableSyncOne => self.sync_walkers(next),
            Leaf::CollapseCopy => self.collapse_copy(at, next),
            // The table is kept for a split to come, so that it is somebody else's from now on. The huge page itself, which
            // nobody unmaps here, is left out.
            Leaf::SetPmdHuge => self.free_aside(false, name, next),
            Leaf::PteFreeDefer => self.free_aside(true, name, next),

            Leaf::PtepGetAndClear | Leaf::PmdpHugeGetAndClear => {
                let page = self.page(at)?;
                let next = self.invalidate(at, page, next);
                self.xchg(page, next)
            }
            Leaf::PmdpInvalidate => self.invalidate_huge(self.page(at)?, name, true, next),
            Leaf::PmdpInvalidateAd => self.invalidate_huge(self.page(at)?, name, false, next),
            Leaf::PtepClearFlush => self.clear_flush(at, next)?,
            Leaf::PteClear => {
                let page = self.page(at)?;
                self.op(Kind::ClearPte(page), Class::Visible, next, 0, text(self, page))
            }
            Leaf::PteModify { prot } => {
                self.read_local(Local::New);
                self.op(Kind::Modify(self.page(at)?, prot), Class::Local, next, 0, String::new())
            }
            Leaf::PteMkwrite { only_if } => self.mkwrite(at, only_if, next)?,
            Leaf::PteWrprotect => self.new_bits(pte::WRITE, next),
            Leaf::PteMkclean => self.new_bits(pte::DIRTY, next),
            Leaf::PteMkold => self.new_bits(pte::YOUNG, next),
            Leaf::SetPteAt | Leaf::SetPmdAt => self.set_pte(at, name, next)?,
            Leaf::PtepSetWrprotect => {
                let page = self.page(at)?;
                let next = self.invalidate(at, page, next);
                self.clear_bits(page, pte::WRITE, name, next)
            }
            Leaf::PtepClearYoung => self.clear_bits(self.page(at)?, pte::YOUNG, name, next),
            Leaf::ClearYoungDirty => {
                let page = self.page(at)?;
                let next = self.invalidate(at, page, next);
                self.clear_bits(page, pte::YOUNG | pte::DIRTY, name, next)
            }
            Leaf::CountChanged => self.set_local(Local::Changed, 1, next),
            Leaf::SetForceFlush => self.set_local(Local::ForceFlush, 1, next),
            Leaf::SetDelayRmap => self.set_local(Local::DelayRmap, 1, next),

            Leaf::IncTlbFlushPending => self.flush_pending(1, next),
            Leaf::DecTlbFlushPending => self.flush_pending(-1, next),
            Leaf::FlushTlbMm => {
                self.flush_mm("flush_tlb_mm()", next)
            }
            Leaf::FlushTlbRange { range } => self.flush_range(at, range, next)?,
            Leaf::FlushTlbBatchedPending => self.flush_batched(next),
            Leaf::SetTlbUbcFlushPending => self.set_ubc(at, next)?,
            Leaf::TryToUnmapFlush => self.unmap_flush(Local::UbcRequired, name, next),
            Leaf::TryToUnmapFlushDirty => self.unmap_flush(Local::UbcWritable, name, next),
            Leaf::TrackFlushRange => {
                let tracked = self.read_local(Local::Tracked);
                let page = self.page(at)?;
                self.op(Kind::Record(tracked, page), Class::Local, next, 0, String::new())
            }
            Leaf::FlushTrackedRange => self.flush_tracked(at, next),

            Leaf::TlbGatherMmu { fullmm, .. } => self.gather_mmu(fullmm, next),
            Leaf::TlbRemoveTlbEntry
            | Leaf::TlbFlushPteRange
            | Leaf::TlbRemovePmdTlbEntry
            | Leaf::TlbFlushPmdRange => {
                let range = self.read_local(Local::Range);
                let page = self.page(at)?;
                let record = self.op(Kind::Record(range, page), Class::Local, next, 0, String::new());
                self.note_deferral(record)
            }
            Leaf::TlbRemovePage => {
                let page = self.page(at)?;
                self.read_local(Local::Queued);
                self.op(Kind::Queue(page), Class::Local, next, 0, String::new())
            }
            Leaf::TlbFlushMmuTlbonly => self.tlbonly(name, next),
            Leaf::TlbFlushRmaps => self.flush_rmaps(next),
            Leaf::TlbFlushMmu => {
                let next = self.free_queued(next);
                self.tlbonly(name, next)
            }
            Leaf::TlbFinishMmu => self.finish_mmu(next),

            Leaf::NoteDeferredFlush => self.note_deferred(at, next)?,
            Leaf::CheckDeferredFlush => self.check_deferred(at, next)?,
            Leaf::MarkTlbGenDone => {
                let (from, to) = (self.vars.read(Var::TlbGen(0)), self.vars.write(Var::GenCompleted(0)));
                self.op(Kind::CopyVar { from, to }, Class::Visible, next, 0, name.to_owned())
            }

            Leaf::PageRemoveRmap => self.remove_rmap(at, next)?,
            Leaf::PutPage | Leaf::PutOldPage => self.put_page(at, next)?,
            Leaf::SetPageDirty => self.set_page_dirty(at, next)?,
            Leaf::ClearPageDirty | Leaf::Pageout => self.write_out(at, name, next)?,
            Leaf::FolioTryShareAnonRmap => self.share_anon_rmap(at, next)?,
            Leaf::MarkLazyfree => self.mark_lazyfree(at, next)?,
            Leaf::IsolateFolio => {
                let what = format!("folio_isolate_lru({})", self.frame_name(at));
                self.isolate(self.frame(at)?, next, what)
            }
            Leaf::AddToSwap => self.add_to_swap(at, next)?,
            Leaf::SetSwapPte => {
                let page = self.page(at)?;
                self.op(Kind::SetSwap(page), Class::Visible, next, 0, format!("set_pte_at({}, swap)", self.page_text(page)))
            }
            Leaf::RemoveMappingAndFree => self.remove_mapping(at, next)?,
            Leaf::SetMigrationEntry => {
                let page = self.page(at)?;
                self.read_local(Local::Migrated);
                let what = format!("set_pte_at({}, migration)", self.page_text(page));
                self.op(Kind::SetMigration(page), Class::Visible, next, 0, what)
            }
            Leaf::RemoveMigrationPtes => self.remove_migration(at, next)?,

            Leaf::StableTreeSearch => self.stable_tree(at, next)?,
            Leaf::PagesIdentical => {
                let frame = self.frame(at)?;
                let what = format!("pages_identical({}, ksm page)", self.frame_name(at));
                self.op(Kind::Copy(frame), Class::Visible, next, 0, what)
            }
            Leaf::SetPteKsm => self.map_page(at, PageRef::New, None, Mapping::WITH_REFERENCE, next)?,

            Leaf::PteAlloc => {
                let page = self.page(at)?;
                self.read_local(Local::Pte);
                self.vars.read(Var::Pte(page));
                self.op(Kind::ReadPte(page), Class::Visible, next, 0, format!("ptep_get({})", self.page_text(page)))
            }
            Leaf::CopyUserPage => {
                let frame = self.frame(at)?;
                self.op(Kind::Copy(frame), Class::Visible, next, 0, format!("copy_user_page({})", self.frame_name(at)))
            }
            Leaf::SetPteAnon => {
                let write = self.vars.read(Var::VmaWrite(self.page(at)?));
                self.map_page(at, PageRef::New, Some(write), Mapping { dirty: true, ..Mapping::default() }, next)?
            }
            Leaf::MapAround => self.map_page(at, self.frame(at)?, None, Mapping::WITH_REFERENCE, next)?,
            Leaf::SetPteFile { write } => {
                let vma_write = self.vars.read(Var::VmaWrite(self.page(at)?));
                self.map_page(
                    at,
                    self.frame(at)?,
                    write.then_some(vma_write),
                    Mapping { dirty: write, ..Mapping::WITH_REFERENCE },
                    next,
                )?
            }
            Leaf::SetPteSwapIn => {
                let write = self.vars.read(Var::VmaWrite(self.page(at)?));
                let dirty = self.is_write_fault();
                self.map_page(at, PageRef::New, Some(write), Mapping { dirty, sole: true, takes_ref: false }, next)?
            }
            Leaf::WpPageReuse => self.wp_page_reuse(at, name, next)?,
            Leaf::PtepSetAccessFlags => {
                let page = self.page(at)?;
                self.op(Kind::SetPteBits(page, pte::YOUNG), Class::Visible, next, 0, text(self, page))
            }
            Leaf::SetPteNuma => self.set_pte_numa(at, name, next)?,

            Leaf::PageDupRmap => self.dup_rmap(at, next)?,
            Leaf::SetPteAtChild => self.set_pte_of_child(at, name, next)?,
            Leaf::SwapDuplicate | Leaf::SetPteAtNew => self.set_pte_elsewhere(at, name, next)?,
        })
    }

    pub(super) fn is_mkclean(&self) -> bool {
        self.spec().program == crate::program::ProgramName::PageMkclean
    }

    fn is_write_fault(&self) -> bool {
        self.fault.is_some_and(|(_, write)| write)
    }

    pub(super) fn set_local(&mut self, local: Local, value: u64, next: OpIndex) -> OpIndex {
        let var = self.local(local);
        self.op(Kind::Set(var, value), Class::Local, next, 0, String::new())
    }
}
