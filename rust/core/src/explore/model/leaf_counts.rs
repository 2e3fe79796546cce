//! What is counted and noted of a page: its mappings, its references, its flags.

use crate::error::Result;
use crate::program::Leaf;

use super::at::At;
use super::op::{Class, Kind, OpIndex, PageRef, Test};
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};

impl Unroller<'_> {
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

    /// One variable for each frame.
    pub(super) fn by_frame(&mut self, var: impl Fn(u8) -> Var, reads: bool) -> Vec<VarId> {
        (0..self.world.frames.len() as u8)
            .map(|frame| if reads { self.vars.read(var(frame)) } else { self.vars.write(var(frame)) })
            .collect()
    }

    /// `folio_remove_rmap()`, or, where the scheme delays it, a note to do so after the flush.
    pub(super) fn remove_rmap(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
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
        Ok(self.op(Kind::Branch(Test::Above(delay, 0)), Class::Local, later, now, String::new()))
    }

    /// One more entry maps the page, with a reference.
    pub(super) fn dup_rmap(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let (counts, refs) = (self.by_frame(Var::Mapcount, false), self.by_frame(Var::Refs, false));
        let frame = self.frame(at)?;
        let kind = Kind::AddFrame { vars: counts, frame, by: 1 };
        let next = self.op(kind, Class::Visible, next, 0, "folio_try_dup_anon_rmap()".to_owned());
        let next = self.share_anon_rmap(at, next)?;
        Ok(self.op(Kind::AddFrame { vars: refs, frame, by: 1 }, Class::Visible, next, 0, "folio_get()".to_owned()))
    }

    /// `folio_put()`.
    pub(super) fn put_page(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let vars = self.by_frame(Var::Refs, false);
        let frame = self.frame(at)?;
        let what = format!("folio_put({})", self.frame_name(at));
        Ok(self.op(Kind::AddFrame { vars, frame, by: -1 }, Class::Visible, next, 0, what))
    }

    /// `folio_mark_dirty()`.
    pub(super) fn set_page_dirty(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        self.by_frame(Var::Dirty, false);
        let frame = self.frame(at)?;
        let what = format!("folio_mark_dirty({})", self.frame_name(at));
        Ok(self.op(Kind::SetDirty(frame), Class::Visible, next, 0, what))
    }

    /// `folio_mark_lazyfree()`.
    pub(super) fn mark_lazyfree(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        self.by_frame(Var::Dirty, false);
        self.by_frame(Var::Lazyfree, false);
        let frame = self.frame(at)?;
        let what = format!("folio_mark_lazyfree({})", self.frame_name(at));
        Ok(self.op(Kind::MarkLazyfree(frame), Class::Visible, next, 0, what))
    }

    /// Whether the scheme delays rmaps at all.
    fn delays_rmap(&self) -> bool {
        let program = self.kernel.program(self.spec().program);
        program.code.iter().any(|instr| matches!(instr, crate::program::Instr::Leaf(Leaf::SetDelayRmap)))
    }
}
