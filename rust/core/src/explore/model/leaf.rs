//! What each leaf step of the language means when others run beside it. Every leaf has an arm; one that does nothing says
//! why, one that cannot be explored is an error that says what is missing.

use crate::error::Result;
use crate::program::{FlushScope, Instr, Leaf, Pc, Program, RangeArg};

use super::at::{At, LoopKindKey};
use super::leaf_page::Mapping;
use super::op::{Class, Freed, Kind, OpIndex, PageRef, Scope, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};
use crate::explore::scenario::Kind as Content;

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
            Leaf::VmsGatherMunmapVmas => {
                let mut after = at.clone();
                after.detached = true;
                let locked = self.vma_start_write(&mut after);
                let pages = after.range.clone();
                let mut next = self.emit(program, pc + 1, after)?;
                for page in pages {
                    if self.vma_can_go(self.world.pages[usize::from(page)].vma) {
                        let gone = self.vars.write(Var::VmaGone(page));
                        let text = format!("detach the VMA of {}", self.page_text(page));
                        next = self.op(Kind::Set(gone, 1), Class::Visible, next, 0, text);
                    }
                }
                return Ok(self.vma_locks(&locked, next));
            }
            Leaf::MprotectFixup | Leaf::ClearVmaSoftDirty | Leaf::CopyVma | Leaf::DupVma | Leaf::MmapRegion => {
                let mut after = at.clone();
                let locked = self.vma_start_write(&mut after);
                let next = self.emit(program, pc + 1, after)?;
                let next = self.vma_changed(leaf, &at, next);
                return Ok(self.vma_locks(&locked, next));
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
            Leaf::PtepClearFlush => {
                let page = self.page(at)?;
                let next = if self.is_mkclean() {
                    let cleaned = self.local(Local::Cleaned);
                    self.op(Kind::Set(cleaned, 1), Class::Local, next, 0, String::new())
                } else {
                    next
                };
                if self.batches_invalidations() {
                    let next = self.invalidate(at, page, next);
                    return Ok(self.xchg(page, next));
                }
                let what = format!("flush_tlb_page({})", self.page_text(page));
                let flush = self.flush(Scope::Pages(1 << page), &what, next);
                let (accessible, class) = self.pte_accessible();
                let branch = self.op(Kind::Branch(accessible), class, flush, next, "pte_accessible()".to_owned());
                self.xchg(page, branch)
            }
            Leaf::PteClear => {
                let page = self.page(at)?;
                self.op(Kind::ClearPte(page), Class::Visible, next, 0, text(self, page))
            }
            Leaf::PteModify { prot } => {
                self.read_local(Local::New);
                self.op(Kind::Modify(self.page(at)?, prot), Class::Local, next, 0, String::new())
            }
            Leaf::PteMkwrite { only_if } => {
                let vma = at.r.vma.unwrap_or(0);
                let shared = self.world.vmas[usize::from(vma)].kind == Content::File;
                let vma_write = self.vars.read(Var::VmaWrite(self.page(at)?));
                let mapcounts = if shared { Vec::new() } else { self.mapcounts_of_exclusive() };
                self.read_local(Local::New);
                let kind = Kind::Mkwrite { rule: only_if, vma_write, shared, mapcounts };
                self.op(kind, Class::Local, next, 0, String::new())
            }
            Leaf::PteWrprotect => self.new_bits(pte::WRITE, next),
            Leaf::PteMkclean => self.new_bits(pte::DIRTY, next),
            Leaf::PteMkold => self.new_bits(pte::YOUNG, next),
            Leaf::SetPteAt | Leaf::SetPmdAt => {
                let page = self.page(at)?;
                self.read_local(Local::New);
                if self.queues_multicalls(at) {
                    return Ok(self.queue_multicall(page, 0, true, name, next));
                }
                self.op(Kind::SetPte(page), Class::Visible, next, 0, text(self, page))
            }
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
            Leaf::FlushTlbRange { range } => {
                let mut wide = at.clone();
                if range == FlushScope::Vma {
                    wide.r.table = None;
                }
                let pages = match range {
                    FlushScope::Page | FlushScope::Entry => vec![self.page(at)?],
                    FlushScope::Vma | FlushScope::Table | FlushScope::Extent => self.pages_here(&wide),
                    FlushScope::Pmd => return Err(self.error("flush_tlb_range of a PMD: huge entries are not modelled")),
                };
                let mask = pages.iter().fold(0, |mask, page| mask | 1 << page);
                let names: Vec<String> = pages.iter().map(|page| self.page_text(*page)).collect();
                let scope = if range == FlushScope::Page { Scope::Pages(mask) } else { self.with_tables(mask) };
                let freed = if range != FlushScope::Page && self.kernel.constants.flush_tlb_range_freed_tables {
                    Freed::Yes
                } else {
                    Freed::No
                };
                self.flush_of(scope, false, freed, &format!("flush_tlb_range({})", names.join(" ")), next)
            }
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

            Leaf::TlbGatherMmu { fullmm, .. } => {
                let mut first = next;
                for (local, value) in
                    [(Local::Range, 0), (Local::FreedTables, 0), (Local::FullMm, u64::from(fullmm)), (Local::Queued, 0)]
                {
                    first = self.set_local(local, value, first);
                }
                self.flush_pending(1, first)
            }
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

            Leaf::PageRemoveRmap => {
                let vars = self.by_frame(Var::Mapcount, false);
                let frame = self.frame(at)?;
                let what = format!("folio_remove_rmap({})", self.frame_name(at));
                let now = self.op(Kind::AddFrame { vars, frame, by: -1 }, Class::Visible, next, 0, what);
                if !self.delays_rmap() {
                    return Ok(now);
                }
                let page = self.page(at)?;
                self.read_local(Local::Delayed);
                let later = self.op(Kind::DelayRmap(page), Class::Local, next, 0, String::new());
                let delay = self.read_local(Local::DelayRmap);
                self.op(Kind::Branch(Test::Above(delay, 0)), Class::Local, later, now, String::new())
            }
            Leaf::PutPage | Leaf::PutOldPage => {
                let vars = self.by_frame(Var::Refs, false);
                let frame = self.frame(at)?;
                let what = format!("folio_put({})", self.frame_name(at));
                self.op(Kind::AddFrame { vars, frame, by: -1 }, Class::Visible, next, 0, what)
            }
            Leaf::SetPageDirty => {
                self.by_frame(Var::Dirty, false);
                let frame = self.frame(at)?;
                let what = format!("folio_mark_dirty({})", self.frame_name(at));
                self.op(Kind::SetDirty(frame), Class::Visible, next, 0, what)
            }
            Leaf::ClearPageDirty | Leaf::Pageout => self.write_out(at, name, next)?,
            Leaf::FolioTryShareAnonRmap => self.share_anon_rmap(at, next)?,
            Leaf::MarkLazyfree => {
                self.by_frame(Var::Dirty, false);
                self.by_frame(Var::Lazyfree, false);
                let frame = self.frame(at)?;
                let what = format!("folio_mark_lazyfree({})", self.frame_name(at));
                self.op(Kind::MarkLazyfree(frame), Class::Visible, next, 0, what)
            }
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
            Leaf::WpPageReuse => {
                let page = self.page(at)?;
                let bits = pte::WRITE | pte::DIRTY | pte::YOUNG;
                if self.content_of_page(page) == Content::Anon {
                    return Ok(self.op(Kind::Reuse(page, bits), Class::Visible, next, 0, text(self, page)));
                }
                self.op(Kind::SetPteBits(page, bits), Class::Visible, next, 0, text(self, page))
            }
            Leaf::PtepSetAccessFlags => {
                let page = self.page(at)?;
                self.op(Kind::SetPteBits(page, pte::YOUNG), Class::Visible, next, 0, text(self, page))
            }
            Leaf::SetPteNuma => {
                let page = self.page(at)?;
                let vma_write = self.vars.read(Var::VmaWrite(page));
                let shared = self.content_of_page(page) == Content::File;
                let mapcounts = if shared { Vec::new() } else { self.mapcounts_of_exclusive() };
                let kind = Kind::Unhint { page, vma_write, mapcounts };
                self.op(kind, Class::Visible, next, 0, text(self, page))
            }

            Leaf::PageDupRmap => {
                let (counts, refs) = (self.by_frame(Var::Mapcount, false), self.by_frame(Var::Refs, false));
                let frame = self.frame(at)?;
                let kind = Kind::AddFrame { vars: counts, frame, by: 1 };
                let next = self.op(kind, Class::Visible, next, 0, "folio_try_dup_anon_rmap()".to_owned());
                let next = self.share_anon_rmap(at, next)?;
                self.op(Kind::AddFrame { vars: refs, frame, by: 1 }, Class::Visible, next, 0, "folio_get()".to_owned())
            }
            Leaf::SetPteAtChild => {
                let page = self.target_of(self.page(at)?);
                let dirty = if self.content_of_page(page) == Content::File { pte::DIRTY } else { 0 };
                self.read_local(Local::New);
                if self.queues_multicalls(at) {
                    return Ok(self.queue_multicall(page, pte::YOUNG | dirty, true, name, next));
                }
                let kind = Kind::SetPteAs { page, clears: pte::YOUNG | dirty, of_new: true };
                self.op(kind, Class::Visible, next, 0, text(self, page))
            }
            Leaf::SwapDuplicate | Leaf::SetPteAtNew => {
                let page = self.target_of(self.page(at)?);
                if self.queues_multicalls(at) {
                    return Ok(self.queue_multicall(page, 0, false, name, next));
                }
                let kind = Kind::SetPteAs { page, clears: 0, of_new: false };
                self.op(kind, Class::Visible, next, 0, format!("set_pte_at({})", self.page_text(page)))
            }
        })
    }

    // --- what several arms share -------------------------------------------------------------------------------------

    pub(super) fn page(&self, at: &At) -> Result<u8> {
        at.r.page.ok_or_else(|| self.error("a step on an entry outside a loop over entries"))
    }

    pub(super) fn frame(&self, at: &At) -> Result<PageRef> {
        if at.r.frame == PageRef::None {
            Err(self.error("a step on a page outside a loop over pages"))
        } else {
            Ok(at.r.frame)
        }
    }

    pub(super) fn frame_name(&self, at: &At) -> String {
        match (at.r.frame, at.r.page) {
            (PageRef::OfPte, Some(page)) => self.page_text(page),
            (frame, _) => self.frame_text(frame),
        }
    }

    /// The spare frames that any of these pages can get.
    pub(super) fn spare_of(&self, pages: &[u8]) -> u32 {
        let frames = pages.iter().flat_map(|page| &self.world.pages[usize::from(*page)].frames);
        frames.filter(|f| self.world.frames[usize::from(**f)].is_spare).fold(0, |mask, f| mask | 1 << f)
    }

    pub(super) fn is_mkclean(&self) -> bool {
        self.spec().program == crate::program::ProgramName::PageMkclean
    }

    fn is_write_fault(&self) -> bool {
        self.fault.is_some_and(|(_, write)| write)
    }

    /// One variable for each frame.
    pub(super) fn by_frame(&mut self, var: impl Fn(u8) -> Var, reads: bool) -> Vec<VarId> {
        (0..self.world.frames.len() as u8)
            .map(|frame| if reads { self.vars.read(var(frame)) } else { self.vars.write(var(frame)) })
            .collect()
    }

    pub(super) fn pages_of_mm(&self, mm: u8) -> u32 {
        let pages = self.world.pages.iter().enumerate();
        pages.filter(|(_, page)| page.mm == mm).fold(0, |mask, (index, _)| mask | 1 << index)
    }

    pub(super) fn set_local(&mut self, local: Local, value: u64, next: OpIndex) -> OpIndex {
        let var = self.local(local);
        self.op(Kind::Set(var, value), Class::Local, next, 0, String::new())
    }

    fn new_bits(&mut self, bits: u64, next: OpIndex) -> OpIndex {
        self.read_local(Local::New);
        self.op(Kind::ClearNewBits(bits), Class::Local, next, 0, String::new())
    }

    fn clear_bits(&mut self, page: u8, bits: u64, name: &str, next: OpIndex) -> OpIndex {
        let text = format!("{name}({})", self.page_text(page));
        self.vars.read(Var::Pte(page));
        self.op(Kind::ClearPteBits(page, bits), Class::Visible, next, 0, text)
    }

    fn xchg(&mut self, page: u8, next: OpIndex) -> OpIndex {
        use crate::program::ProgramName as P;
        let discards = match self.spec().program {
            P::Munmap | P::Mmap | P::MadviseDontneed | P::ExitMmap => 1,
            P::UnmapMappingRange => 3,
            _ => 0,
        };
        self.read_local(Local::Pte);
        self.vars.read(Var::Pte(page));
        let text = format!("ptep_get_and_clear({})", self.page_text(page));
        self.op(Kind::Xchg { page, discards }, Class::Visible, next, 0, text)
    }

    pub(super) fn isolate(&mut self, frame: PageRef, next: OpIndex, text: String) -> OpIndex {
        self.by_frame(Var::Lru, true);
        self.by_frame(Var::Refs, true);
        self.read_local(Local::Listed);
        self.op(Kind::Isolate(frame), Class::Visible, next, 0, text)
    }

    /// The KSM page of the thread: the first page that gets here.
    fn stable_tree(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let PageRef::Fixed(frame) = self.frame(at)? else {
            return Err(self.error("stable_tree_search outside a loop over pages"));
        };
        self.read_local(Local::Merging);
        self.read_local(Local::NewFrame);
        self.vars.read(Var::Ksm(frame));
        let what = format!("stable_tree_search({})", self.frame_text(PageRef::Fixed(frame)));
        let first = &self.world.pages[usize::from(self.spec().range[0])];
        let kind = Kind::StableTree { frame, is_first: first.frames.contains(&frame) };
        Ok(self.op(kind, Class::Visible, next, 0, what))
    }

    /// One page of a truncated file leaves the page cache.
    pub(super) fn truncate_page(&mut self, frame: u8, next: OpIndex) -> OpIndex {
        self.vars.read(Var::Mapcount(frame));
        self.vars.read(Var::Cached(frame));
        self.vars.write(Var::Refs(frame));
        let page = PageRef::Fixed(frame);
        let name = self.frame_text(page);
        let next = self.release_folio(page, next);
        let text = format!("filemap_remove_folio({name})");
        let next = self.op(Kind::Truncate(frame), Class::Visible, next, 0, text);
        self.acquire_folio(page, next)
    }

    fn vma_changed(&mut self, leaf: Leaf, at: &At, mut next: OpIndex) -> OpIndex {
        match leaf {
            Leaf::MprotectFixup => {
                let (write, none) = (self.spec().write, self.spec().none);
                // One step for all of them: faults are kept out by the VMA's lock.
                let pages = self.pages_here(at);
                for (index, page) in pages.into_iter().enumerate() {
                    let var = self.vars.write(Var::VmaWrite(page));
                    let class = if index == 0 { Class::Visible } else { Class::Urgent };
                    next = self.op(Kind::Set(var, u64::from(write)), class, next, 0, "mprotect_fixup()".to_owned());
                    if self.has_prot_none() {
                        let var = self.vars.read(Var::VmaNone(page));
                        next = self.op(Kind::Set(var, u64::from(none)), Class::Local, next, 0, String::new());
                    }
                }
                next
            }
            Leaf::CopyVma | Leaf::MmapRegion | Leaf::DupVma => {
                let spec = self.spec();
                let pages = if leaf == Leaf::MmapRegion { spec.range.clone() } else { spec.target.clone() };
                for page in pages {
                    let var = self.vars.write(Var::VmaGone(page));
                    let text = format!("{}({})", leaf.name(), self.page_text(page));
                    next = self.vma_flags(leaf, page, next);
                    next = self.op(Kind::Set(var, 0), Class::Visible, next, 0, text);
                    if self.has_tables() && leaf == Leaf::MmapRegion {
                        let linked = self.vars.write(Var::Unlinked(self.world.part_of(page)));
                        next = self.op(Kind::Set(linked, 0), Class::Visible, next, 0, "vma_link()".to_owned());
                    }
                }
                next
            }
            _ => next,
        }
    }

    /// The new VMA of a page has the rights of the one that it is a copy of; what `mmap` maps has all.
    fn vma_flags(&mut self, leaf: Leaf, page: u8, mut next: OpIndex) -> OpIndex {
        let mut vars: Vec<fn(u8) -> Var> = Vec::new();
        if self.anybody_runs(crate::program::ProgramName::Mprotect) {
            vars.push(Var::VmaWrite);
        }
        if self.has_prot_none() {
            vars.push(Var::VmaNone);
        }
        let spec = self.spec();
        let from = spec.target.iter().position(|target| *target == page).map(|index| spec.range[index]);
        for var in vars {
            let to = self.vars.write(var(page));
            let kind = match from {
                Some(from) if leaf != Leaf::MmapRegion => Kind::CopyVar { from: self.vars.read(var(from)), to },
                _ => Kind::Set(to, u64::from(matches!(var(page), Var::VmaWrite(_)))),
            };
            next = self.op(kind, Class::Local, next, 0, String::new());
        }
        next
    }

    /// The page may be the last for which the gather has room: then the walk of the table is left, to be gone on with after
    /// a flush.
    fn may_be_full(&mut self, here: Here<'_>, at: &At, next: OpIndex) -> Result<OpIndex> {
        let page = self.page(at)?;
        let mut left = at.clone();
        let Some(walk) = left.loops.pop().filter(|walk| matches!(walk.kind, LoopKindKey::Pte { .. })) else {
            return Ok(next);
        };
        let Instr::Next { exit, .. } = here.program.code[walk.next as usize] else { return Ok(next) };
        left.r = walk.saved;
        left.left_after = self.pages_here(&left).iter().any(|other| *other > page).then_some(page);
        let flushed = self.emit(here.program, exit, left)?;
        let flushed = self.set_local(Local::ForceFlush, 1, flushed);
        Ok(self.op(Kind::Choose, Class::Visible, next, flushed, "tlb_next_batch()".to_owned()))
    }

    /// The current VMA is a driver's, whose entries hold no references.
    pub(super) fn is_pfn(&self, at: &At) -> bool {
        let pages = at.r.vma.map(|vma| &self.world.vmas[usize::from(vma)].pages);
        pages.is_some_and(|pages| pages.iter().any(|page| self.world.pages[usize::from(*page)].pfn))
    }

    /// Some thread takes all rights from its pages.
    pub(super) fn has_prot_none(&self) -> bool {
        self.world.threads.iter().any(|thread| thread.none)
    }

    /// A fault that finds the entry changed, or no VMA, drops what it has; the hardware will try again.
    pub(super) fn give_up(&mut self, at: &At) -> OpIndex {
        let mut next = self.end;
        if at.allocated {
            let vars = self.by_frame(Var::Refs, false);
            let kind = Kind::AddFrame { vars, frame: PageRef::New, by: -1 };
            next = self.op(kind, Class::Visible, next, 0, "folio_put(new page)".to_owned());
            next = self.set_local(Local::Copying, 0, next);
        }
        for held in at.held.clone() {
            next = self.release_held(held, next);
        }
        next
    }

    /// Whether the scheme delays rmaps at all.
    fn delays_rmap(&self) -> bool {
        let program = self.kernel.program(self.spec().program);
        program.code.iter().any(|instr| matches!(instr, crate::program::Instr::Leaf(Leaf::SetDelayRmap)))
    }
}
