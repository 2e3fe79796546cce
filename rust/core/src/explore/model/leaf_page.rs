//! Pages on their way: mapped, written out, put to swap and read back, moved to another frame.

use crate::error::Result;

use super::at::At;
use super::op::{Class, Kind, OpIndex, PageRef, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};

/// How a page comes to be mapped.
#[derive(Clone, Copy, Default)]
pub(super) struct Mapping {
    /// Dirty, if it is writable.
    pub dirty: bool,
    /// With a reference of its own; else it takes over that of the thread.
    pub takes_ref: bool,
    /// Not writable if another entry refers to the page.
    pub sole: bool,
}

impl Mapping {
    pub const WITH_REFERENCE: Self = Self { dirty: false, takes_ref: true, sole: false };
}

impl Unroller<'_> {
    /// Maps a page at the current address: the rmap first, then the entry.
    pub(super) fn map_page(
        &mut self,
        at: &At,
        frame: PageRef,
        write: Option<VarId>,
        mapping: Mapping,
        next: OpIndex,
    ) -> Result<OpIndex> {
        let Mapping { dirty, takes_ref, sole } = mapping;
        if sole {
            self.by_frame(Var::Mapcount, true);
        }
        let page = self.page(at)?;
        self.vars.read(Var::Pte(page));
        if frame == PageRef::New {
            self.read_local(Local::NewFrame);
        }
        let name = self.page_text(page);
        let next = self.op(Kind::CopyDone, Class::Local, next, 0, String::new());
        let kind = Kind::MapPage { page, frame, write, dirty, sole };
        let next = self.op(kind, Class::Visible, next, 0, format!("set_pte_at({name}, {})", self.frame_text(frame)));
        let counts = self.by_frame(Var::Mapcount, false);
        let kind = Kind::AddFrame { vars: counts, frame, by: 1 };
        let next = self.op(kind, Class::Visible, next, 0, format!("folio_add_rmap({})", self.frame_text(frame)));
        if !takes_ref {
            return Ok(next);
        }
        let refs = self.by_frame(Var::Refs, false);
        let kind = Kind::AddFrame { vars: refs, frame, by: 1 };
        Ok(self.op(kind, Class::Visible, next, 0, format!("folio_get({})", self.frame_text(frame))))
    }

    fn fixed(&self, at: &At, name: &str) -> Result<u8> {
        match at.r.frame {
            PageRef::Fixed(frame) => Ok(frame),
            _ => Err(self.error(&format!("{name} outside a loop over pages"))),
        }
    }

    /// The dirty flag is taken, then the content is written.
    pub(super) fn write_out(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, name)?;
        self.vars.read(Var::Dirty(frame));
        self.read_local(Local::Cleaned);
        let page = self.frame_text(PageRef::Fixed(frame));
        let write = self.op(Kind::WriteOut(frame), Class::Visible, next, 0, format!("write out {page}"));
        let text = format!("folio_test_clear_dirty({page})");
        Ok(self.op(Kind::TestClearDirty(frame), Class::Visible, write, next, text))
    }

    pub(super) fn add_to_swap(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, "add_to_swap")?;
        let page = PageRef::Fixed(frame);
        let name = self.frame_text(page);
        let (cache, refs) = (self.by_frame(Var::Cached, false), self.by_frame(Var::Refs, false));
        self.by_frame(Var::Dirty, false);
        let next = self.op(Kind::SetDirty(page), Class::Visible, next, 0, format!("folio_mark_dirty({name})"));
        let kind = Kind::AddFrame { vars: refs, frame: page, by: 1 };
        let next = self.op(kind, Class::Urgent, next, 0, format!("folio_get({name})"));
        let kind = Kind::SetFrame { vars: cache, frame: page, value: 1 };
        Ok(self.op(kind, Class::Visible, next, 0, format!("add_to_swap({name})")))
    }

    pub(super) fn remove_mapping(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let frame = self.fixed(at, "remove_mapping_and_free")?;
        for var in [Var::Mapcount(frame), Var::Dirty(frame), Var::Cached(frame), Var::Refs(frame)] {
            self.vars.read(var);
        }
        let text = format!("__remove_mapping({})", self.frame_text(PageRef::Fixed(frame)));
        Ok(self.op(Kind::RemoveMapping(frame), Class::Visible, next, 0, text))
    }

    pub(super) fn swap_in(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let spare = self.spare_of(&[self.page(at)?]);
        let cached = self.by_frame(Var::Cached, true);
        let refs = self.by_frame(Var::Refs, false);
        self.read_local(Local::NewFrame);
        let read = self.op(Kind::Alloc(spare), Class::Visible, next, 0, "swap_readpage(new page)".to_owned());
        // Found and got are one: what is found is given only if it could be got while it was there (folio_try_get()).
        let kind = Kind::AddFrame { vars: refs, frame: PageRef::New, by: 1 };
        let get = self.op(kind, Class::Local, next, 0, String::new());
        let found = self.op(Kind::UseOld, Class::Local, get, 0, String::new());
        self.read_local(Local::Pte);
        let in_cache = Test::Pte { mask: pte::ON_DISK, value: 0 };
        let test = Test::All(vec![in_cache, Test::FrameAbove(cached, 0)]);
        Ok(self.op(Kind::Branch(test), Class::Visible, found, read, "swap_cache_get_folio()".to_owned()))
    }

    pub(super) fn migrate_copy(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let PageRef::Fixed(frame) = at.r.frame else { return next };
        for var in [Var::Dirty, Var::Refs, Var::Lazyfree] {
            self.by_frame(var, false);
        }
        self.by_frame(Var::Cached, true);
        self.read_local(Local::NewFrame);
        let page = PageRef::Fixed(frame);
        let name = self.frame_text(page);
        let copy = self.op(Kind::Copy(page), Class::Visible, next, 0, format!("folio_copy({name})"));
        let replace = self.op(Kind::Replace(frame), Class::Visible, copy, 0, format!("folio_migrate_mapping({name})"));
        // The new page is locked until all entries lead to it (`migrate_folio_unmap()`), so that nobody else moves it on.
        self.by_frame(Var::FolioLock, true);
        let locked = self.op(Kind::AcquireFolio(PageRef::New), Class::Local, replace, 0, String::new());
        let spare = self.spare_of(&self.pages_of(frame));
        self.op(Kind::Alloc(spare), Class::Visible, locked, 0, "alloc_migration_target()".to_owned())
    }

    /// `remove_migration_pte()` for each entry, under its lock.
    pub(super) fn remove_migration(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let from = self.fixed(at, "remove_migration_ptes")?;
        let refs = self.by_frame(Var::Refs, false);
        self.by_frame(Var::Mapcount, false);
        // The ghost of the copy ends with a step of its own: stores see it, so that it must not end with an unlock.
        let next = self.op(Kind::CopyDone, Class::Local, next, 0, String::new());
        let kind = Kind::AddFrame { vars: refs, frame: PageRef::New, by: -1 };
        let next = self.op(kind, Class::Visible, next, 0, "folio_put(new page)".to_owned());
        let mut next = self.release_folio(PageRef::New, next);
        let migrated = self.read_local(Local::Migrated);
        for page in self.pages_of(from).into_iter().rev() {
            let table = self.world.pages[usize::from(page)].table;
            let after = next;
            let lock = self.vars.read(Var::Ptl(table));
            let kind = Kind::Set(lock, 0);
            let unlock = self.op(kind, Class::Urgent, after, 0, "pte_unmap_unlock()".to_owned());
            let text = format!("remove_migration_pte({})", self.page_text(page));
            self.vars.read(Var::Pte(page));
            let set = self.op(Kind::RemoveMigration { page, from }, Class::Visible, unlock, 0, text);
            let take = self.op(Kind::Acquire(lock), Class::Visible, set, 0, "pte_offset_map_lock()".to_owned());
            next = self.op(Kind::Branch(Test::Bit(migrated, page)), Class::Local, take, after, String::new());
        }
        Ok(next)
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

    pub(super) fn isolate(&mut self, frame: PageRef, next: OpIndex, text: String) -> OpIndex {
        self.by_frame(Var::Lru, true);
        self.by_frame(Var::Refs, true);
        self.read_local(Local::Listed);
        self.op(Kind::Isolate(frame), Class::Visible, next, 0, text)
    }

    /// The KSM page of the thread: the first page that gets here.
    pub(super) fn stable_tree(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
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
}
