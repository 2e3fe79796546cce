//! Where page faults get their pages from, and what keeps a page from being written in place while it is copied.

use crate::error::Result;
use crate::explore::scenario::Thread;
use crate::program::{Leaf, ProgramName};

use super::at::{At, Held};
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex, PageRef};
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};

impl Unroller<'_> {
    /// A page of the thread's own that nobody knows yet.
    pub(super) fn new_page(&mut self, here: Here<'_>, leaf: Leaf, at: &At) -> Result<OpIndex> {
        let mut after = at.clone();
        after.allocated = true;
        if leaf == Leaf::SwapIn {
            after.r.frame = PageRef::New;
        }
        let next = self.emit(here.program, here.pc + 1, after)?;
        Ok(match leaf {
            Leaf::SwapIn => self.swap_in(at, next)?,
            Leaf::MigrateCopy => self.migrate_copy(at, next),
            _ => {
                let spare = self.spare_of(&[self.page(at)?]);
                self.op(Kind::Alloc(spare), Class::Visible, next, 0, "alloc_page()".to_owned())
            }
        })
    }

    pub(super) fn find_page(&mut self, here: Here<'_>, at: At) -> Result<OpIndex> {
        let mut after = at;
        let page = self.page(&after)?;
        let frame = self.world.pages[usize::from(page)].frames[0];
        after.r.frame = PageRef::Fixed(frame);
        let next = self.emit(here.program, here.pc + 1, after)?;
        self.vars.write(Var::Refs(frame));
        if !self.file_pages_can_go() {
            return Ok(next);
        }
        self.vars.read(Var::Cached(frame));
        let text = format!("filemap_get_folio({})", self.page_text(page));
        Ok(self.op(Kind::FindPage(frame), Class::Visible, next, 0, text))
    }

    /// Whether a page of a file can leave the page cache.
    fn file_pages_can_go(&self) -> bool {
        use ProgramName::{MadvisePageout, ShrinkFolioList};
        let takes = |thread: &Thread| thread.truncates || matches!(thread.program, ShrinkFolioList | MadvisePageout);
        self.world.threads.iter().any(takes)
    }

    pub(super) fn folio_get(&mut self, here: Here<'_>, mut at: At) -> Result<OpIndex> {
        at.held.push(Held::Reference);
        let next = self.emit(here.program, here.pc + 1, at)?;
        Ok(self.reference(1, "folio_get", next))
    }

    /// Nothing where nothing was got: of a page that `vm_normal_page()` does not find.
    pub(super) fn folio_put(&mut self, here: Here<'_>, mut at: At) -> Result<OpIndex> {
        let held = at.held.iter().rposition(|held| *held == Held::Reference);
        let held = held.map(|index| at.held.remove(index));
        let next = self.emit(here.program, here.pc + 1, at)?;
        Ok(held.map_or(next, |held| self.release_held(held, next)))
    }

    /// A reference of the page of `pte`, taken or dropped by a fault that copies it.
    pub(super) fn reference(&mut self, by: i8, name: &str, next: OpIndex) -> OpIndex {
        let (refs, copied) = (self.by_frame(Var::Refs, false), self.by_frame(Var::Copied, false));
        self.read_local(Local::Pte);
        let text = match self.fault {
            Some((page, _)) => format!("{name}({})", self.page_text(page)),
            None => name.to_owned(),
        };
        self.op(Kind::Reference { refs, copied, by }, Class::Visible, next, 0, text)
    }

    /// What tells whether an anonymous page may be written in place.
    pub(super) fn mapcounts_of_exclusive(&mut self) -> Vec<VarId> {
        if self.tells_exclusive() {
            self.by_frame(Var::NotExclusive, true);
        }
        self.by_frame(Var::Mapcount, true)
    }

    pub(super) fn share_anon_rmap(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let vars = self.by_frame(Var::NotExclusive, false);
        let kind = Kind::SetFrame { vars, frame: self.frame(at)?, value: 1 };
        let text = format!("folio_try_share_anon_rmap({})", self.frame_name(at));
        Ok(self.op(kind, Class::Visible, next, 0, text))
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
}
