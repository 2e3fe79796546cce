//! Loops of programs, run through with what the scenario has.

use crate::error::Result;
use crate::explore::scenario::Kind as Content;
use crate::program::{Instr, LockName, LoopKind, Pc, Program, ProgramName, PteFilter};

use super::at::{At, Item, Loop, LoopKindKey};
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex, PageRef, Test};
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    pub(super) fn enter(&self, kind: LoopKind, mut at: At, next: Pc) -> At {
        let pages = &self.world.pages;
        let saved = at.r.clone();
        let mut items = Vec::new();
        let mut push = |item: Item| {
            if !items.contains(&item) {
                items.push(item);
            }
        };
        let kind = match kind {
            LoopKind::Vma => {
                at.range.iter().for_each(|page| push(Item::Vma(pages[usize::from(*page)].vma)));
                LoopKindKey::Vma
            }
            LoopKind::RmapVma => {
                let frames = self.frames_of(&self.spec().range);
                let mapping = frames.iter().flat_map(|frame| self.pages_of(*frame));
                let mut vmas: Vec<u8> = mapping.map(|page| pages[usize::from(page)].vma).collect();
                vmas.sort_unstable();
                for vma in vmas {
                    push(Item::Vma(vma));
                }
                LoopKindKey::RmapVma
            }
            LoopKind::Table => {
                self.pages_here(&at).iter().for_each(|page| push(Item::Table(pages[usize::from(*page)].table)));
                LoopKindKey::Table
            }
            LoopKind::Pte(filter) => {
                let left_after = at.left_after.take();
                let is_left = |page: &&u8| left_after.is_none_or(|last| **page > last);
                self.pages_here(&at).iter().filter(is_left).for_each(|page| push(Item::Page(*page)));
                LoopKindKey::Pte { only_present: filter == PteFilter::Present }
            }
            LoopKind::Extent => {
                for page in &at.range {
                    let to = self.target_of(*page);
                    push(Item::Extent(pages[usize::from(*page)].table, pages[usize::from(to)].table));
                }
                LoopKindKey::Extent
            }
            LoopKind::Page { keep } => {
                let frames = if self.spec().program == ProgramName::MadvisePageout {
                    (0..self.world.frames.len() as u8).collect()
                } else if self.has_list() {
                    let of_page = |page: &u8| self.world.pages[usize::from(*page)].frames.clone();
                    self.spec().range.iter().flat_map(of_page).collect()
                } else {
                    self.frames_of(&self.spec().range)
                };
                for frame in frames {
                    push(Item::Frame(frame));
                }
                at.keeps_folios_locked = keep && self.spec().program == ProgramName::MigratePages;
                LoopKindKey::Page { keep }
            }
            LoopKind::Mapping { shared_only } => {
                let fits = |page: &u8| !shared_only || self.content_of_page(*page) == Content::File;
                if let PageRef::Fixed(frame) = at.r.frame {
                    // What another page maps because KSM merged it is a KSM page, which is not merged again.
                    let is_own = |page: &u8| {
                        self.spec().program != ProgramName::KsmMerge
                            || self.world.frames[usize::from(frame)].is_spare
                            || self.world.pages[usize::from(*page)].frames[0] == frame
                    };
                    self.pages_of(frame)
                        .iter()
                        .filter(|page| fits(page) && is_own(page))
                        .for_each(|page| push(Item::Page(*page)));
                }
                LoopKindKey::Mapping
            }
        };
        at.loops.push(Loop { kind, items, index: 0, next, saved });
        at
    }

    /// The virtual pages of the operation within the current VMA and table.
    pub fn pages_here(&self, at: &At) -> Vec<u8> {
        let in_rmap_loop = at.loops.iter().any(|l| l.kind == LoopKindKey::RmapVma);
        let candidates: Vec<u8> = if in_rmap_loop {
            let frames = self.frames_of(&self.spec().range);
            let mut pages: Vec<u8> = frames.iter().flat_map(|frame| self.pages_of(*frame)).collect();
            pages.sort_unstable();
            pages
        } else {
            at.range.clone()
        };
        let fits = |page: &u8| {
            let info = &self.world.pages[usize::from(*page)];
            let in_vma = at.r.vma.is_none_or(|vma| vma == info.vma);
            let in_table = at.r.table.is_none_or(|table| table == info.table);
            let to_table =
                at.r.target_table
                    .is_none_or(|table| self.world.pages[usize::from(self.target_of(*page))].table == table);
            in_vma && in_table && to_table
        };
        candidates.into_iter().filter(fits).collect()
    }

    /// Where a page of the range is moved or copied to.
    pub fn target_of(&self, page: u8) -> u8 {
        let spec = self.spec();
        let index = spec.range.iter().position(|p| *p == page).unwrap_or(0);
        spec.target.get(index).copied().unwrap_or(page)
    }

    /// What is done once before a loop: the map count is looked at before the reverse map is walked.
    pub(super) fn before_loop(
        &mut self,
        kind: LoopKind,
        first: OpIndex,
        program: &Program,
        outside: &At,
        next: Pc,
    ) -> Result<OpIndex> {
        let (LoopKind::Mapping { .. }, PageRef::Fixed(frame)) = (kind, outside.r.frame) else {
            return Ok(first);
        };
        let Instr::Next { exit, .. } = program.code[next as usize] else {
            return Ok(first);
        };
        let unmapped = self.emit(program, exit, outside.clone())?;
        let count = self.vars.read(Var::Mapcount(frame));
        let text = format!("page_mapped({})", self.frame_text(PageRef::Fixed(frame)));
        Ok(self.op(Kind::Branch(Test::Above(count, 0)), Class::Visible, first, unmapped, text))
    }

    pub(super) fn advance(&mut self, here: Here<'_>, mut at: At) -> Result<OpIndex> {
        let program = here.program;
        let Instr::Next { body, on_huge_pmd, on_pmd: _, exit } = program.code[here.pc as usize] else {
            return Err(self.error("an instruction that advances no loop"));
        };
        let innermost = at.loops.len() - 1;
        if at.loops[innermost].kind == LoopKindKey::Table && at.left_after.is_some() {
            // The body once more, for the rest of the table (zap_pte_range's `goto retry`).
            at.loops[innermost].index -= 1;
        }
        let state = at.loops[innermost].clone();
        let Some(item) = state.items.get(state.index).copied() else {
            at.loops.pop();
            at.r = state.saved.clone();
            if matches!(state.kind, LoopKindKey::Page { .. }) {
                at.listed_are_locked = at.keeps_folios_locked;
                at.keeps_folios_locked = false;
            }
            let end = self.emit(program, exit, at)?;
            if let (LoopKindKey::Page { keep: false }, true) = (state.kind, self.has_list()) {
                return Ok(self.op(Kind::DropList, Class::Visible, end, 0, "folio_put() for the list".to_owned()));
            }
            return Ok(end);
        };
        at.loops[innermost].index += 1;
        let mut skipping = at.clone();
        let pages = &self.world.pages;
        match item {
            Item::Vma(vma) => {
                at.r.vma = Some(vma);
                let first = self.emit(program, body, at.clone())?;
                let changed = self.local(Local::Changed);
                let first = self.op(Kind::Set(changed, 0), Class::Local, first, 0, String::new());
                self.if_vma_is_there(here, &state, vma, &at, skipping, first)
            }
            Item::Table(table) => {
                at.r.table = Some(table);
                if let Some(page) = self.huge_page_of(table) {
                    let skip = self.emit(program, state.next, skipping)?;
                    return self.at_huge_entry(here, on_huge_pmd, page, at, skip);
                }
                let first = self.emit(program, body, at.clone())?;
                let (force, delay) = (self.local(Local::ForceFlush), self.local(Local::DelayRmap));
                let first = self.op(Kind::Set(force, 0), Class::Local, first, 0, String::new());
                let first = self.op(Kind::Set(delay, 0), Class::Local, first, 0, String::new());
                Ok(first)
            }
            Item::Extent(old, new) => {
                at.r.table = Some(old);
                at.r.target_table = Some(new);
                self.extent(here, (old, new), at, skipping)
            }
            Item::Page(page) if state.kind == LoopKindKey::Mapping => {
                let info = &pages[usize::from(page)];
                at.r.vma = Some(info.vma);
                at.r.table = Some(info.table);
                at.r.page = Some(page);
                if info.huge && on_huge_pmd == here.pc {
                    return self.emit(program, state.next, skipping);
                }
                self.emit(program, if info.huge { on_huge_pmd } else { body }, at)
            }
            Item::Page(page) => {
                at.r.page = Some(page);
                at.r.frame = PageRef::OfPte;
                let first = self.emit(program, body, at.clone())?;
                skipping.r = at.r.clone();
                let skip = self.emit(program, state.next, skipping)?;
                let only_present = matches!(state.kind, LoopKindKey::Pte { only_present: true });
                let wanted = if only_present {
                    Test::PteMaps
                } else {
                    Test::Not(Box::new(Test::Pte { mask: super::pte::PRESENT | 0x30, value: 0 }))
                };
                let delay = self.local(Local::DelayRmap);
                let first = self.op(Kind::Set(delay, 0), Class::Local, first, 0, String::new());
                self.read_local(Local::Pte);
                let branch = self.op(Kind::Branch(wanted), Class::Local, first, skip, String::new());
                let text = format!("ptep_get({})", self.page_text(page));
                self.vars.read(Var::Pte(page));
                // Under the lock only the hardware's A and D can change, and these might as well have changed before it.
                let class = if at.holds(LockName::Ptl) { self.under_ptl() } else { Class::Visible };
                Ok(self.op(Kind::ReadPte(page), class, branch, 0, text))
            }
            Item::Frame(frame) => {
                at.r.frame = PageRef::Fixed(frame);
                let first = self.emit(program, body, at)?;
                if !self.lists_are_dynamic() {
                    return Ok(first);
                }
                let skip = self.emit(program, state.next, skipping)?;
                let listed = self.read_local(Local::Listed);
                let test = Test::Bit(listed, frame);
                Ok(self.op(Kind::Branch(test), Class::Local, first, skip, String::new()))
            }
        }
    }

    /// When an entry is read under the lock of its table: at once, unless the table can come to stand elsewhere meanwhile,
    /// where a CPU has cached the entry before its D is set.
    pub fn under_ptl(&self) -> Class {
        if self.has_tables() { Class::Visible } else { Class::Urgent }
    }

    /// The body for a VMA, if that is still where the loop looks for it: in the tree, or in the reverse map.
    fn if_vma_is_there(
        &mut self,
        here: Here<'_>,
        of: &Loop,
        vma: u8,
        at: &At,
        skipping: At,
        first: OpIndex,
    ) -> Result<OpIndex> {
        if of.kind == LoopKindKey::RmapVma && self.has_tables() {
            let skip = self.emit(here.program, of.next, skipping)?;
            let unlinked = self.all_unlinked(vma);
            let class = if at.holds(LockName::RmapLock) { Class::Local } else { Class::Visible };
            return Ok(self.op(Kind::Branch(unlinked), class, skip, first, "vma_interval_tree_iter".to_owned()));
        }
        let can_be_gone = self.vma_can_go(vma) && of.kind == LoopKindKey::Vma;
        if at.detached || !can_be_gone && self.world.vmas[usize::from(vma)].exists {
            return Ok(first);
        }
        let skip = self.emit(here.program, of.next, skipping)?;
        let Some(page) = self.pages_here(at).first().copied() else { return Ok(first) };
        let gone = self.vars.read(Var::VmaGone(page));
        let class = if at.holds(LockName::MmapLock) { Class::Local } else { Class::Visible };
        Ok(self.op(Kind::Branch(Test::Above(gone, 0)), class, skip, first, "find_vma()".to_owned()))
    }

    /// One piece of mremap's move: a table as a whole, or its entries.
    pub(super) fn extent(&mut self, here: Here<'_>, (old, new): (u8, u8), at: At, skipping: At) -> Result<OpIndex> {
        let Instr::Next { body, on_pmd, .. } = here.program.code[here.pc as usize] else {
            return Err(self.error("an instruction that advances no loop"));
        };
        if self.huge_page_of(old).is_some() {
            return Err(self.error("move_huge_pmd: moves of huge pages are not modelled"));
        }
        if self.world.moves_whole(self.spec(), old) == Some(new) {
            let skip = self.emit(here.program, here.pc, skipping)?;
            return self.whole_extent(here, on_pmd, at, skip);
        }
        let first = self.emit(here.program, body, at)?;
        let force = self.local(Local::ForceFlush);
        Ok(self.op(Kind::Set(force, 0), Class::Local, first, 0, String::new()))
    }
}
