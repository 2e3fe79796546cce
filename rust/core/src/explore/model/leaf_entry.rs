//! Steps on one entry of a page table: taken out, changed, stored.

use crate::error::Result;
use crate::explore::scenario::Kind as Content;
use crate::program::MkWriteRule;

use super::at::At;
use super::op::{Class, Kind, OpIndex, Scope};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    pub(super) fn page(&self, at: &At) -> Result<u8> {
        at.r.page.ok_or_else(|| self.error("a step on an entry outside a loop over entries"))
    }

    pub(super) fn new_bits(&mut self, bits: u64, next: OpIndex) -> OpIndex {
        self.read_local(Local::New);
        self.op(Kind::ClearNewBits(bits), Class::Local, next, 0, String::new())
    }

    pub(super) fn clear_bits(&mut self, page: u8, bits: u64, name: &str, next: OpIndex) -> OpIndex {
        let text = format!("{name}({})", self.page_text(page));
        self.vars.read(Var::Pte(page));
        self.op(Kind::ClearPteBits(page, bits), Class::Visible, next, 0, text)
    }

    pub(super) fn xchg(&mut self, page: u8, next: OpIndex) -> OpIndex {
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

    /// `ptep_clear_flush()`.
    pub(super) fn clear_flush(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
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
        Ok(self.xchg(page, branch))
    }

    /// `pte_mkwrite()`, if the rule allows it.
    pub(super) fn mkwrite(&mut self, at: &At, only_if: MkWriteRule, next: OpIndex) -> Result<OpIndex> {
        let vma = at.r.vma.unwrap_or(0);
        let shared = self.world.vmas[usize::from(vma)].kind == Content::File;
        let vma_write = self.vars.read(Var::VmaWrite(self.page(at)?));
        let mapcounts = if shared { Vec::new() } else { self.mapcounts_of_exclusive() };
        self.read_local(Local::New);
        let kind = Kind::Mkwrite { rule: only_if, vma_write, shared, mapcounts };
        Ok(self.op(kind, Class::Local, next, 0, String::new()))
    }

    /// The new entry is stored.
    pub(super) fn set_pte(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let page = self.page(at)?;
        self.read_local(Local::New);
        if self.queues_multicalls(at) {
            return Ok(self.queue_multicall(page, 0, true, name, next));
        }
        Ok(self.op(Kind::SetPte(page), Class::Visible, next, 0, format!("{name}({})", self.page_text(page))))
    }

    /// The entry is copied to a child, clean and old.
    pub(super) fn set_pte_of_child(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let page = self.target_of(self.page(at)?);
        let dirty = if self.content_of_page(page) == Content::File { pte::DIRTY } else { 0 };
        self.read_local(Local::New);
        if self.queues_multicalls(at) {
            return Ok(self.queue_multicall(page, pte::YOUNG | dirty, true, name, next));
        }
        let kind = Kind::SetPteAs { page, clears: pte::YOUNG | dirty, of_new: true };
        Ok(self.op(kind, Class::Visible, next, 0, format!("{name}({})", self.page_text(page))))
    }

    /// The entry is stored, as it was read, where the current page is copied or moved to.
    pub(super) fn set_pte_elsewhere(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let page = self.target_of(self.page(at)?);
        if self.queues_multicalls(at) {
            return Ok(self.queue_multicall(page, 0, false, name, next));
        }
        let kind = Kind::SetPteAs { page, clears: 0, of_new: false };
        Ok(self.op(kind, Class::Visible, next, 0, format!("set_pte_at({})", self.page_text(page))))
    }

    /// A page that is the process's own is written where it is.
    pub(super) fn wp_page_reuse(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let page = self.page(at)?;
        let bits = pte::WRITE | pte::DIRTY | pte::YOUNG;
        let text = format!("{name}({})", self.page_text(page));
        if self.content_of_page(page) == Content::Anon {
            return Ok(self.op(Kind::Reuse(page, bits), Class::Visible, next, 0, text));
        }
        Ok(self.op(Kind::SetPteBits(page, bits), Class::Visible, next, 0, text))
    }

    /// A hinting entry becomes one of its VMA again.
    pub(super) fn set_pte_numa(&mut self, at: &At, name: &str, next: OpIndex) -> Result<OpIndex> {
        let page = self.page(at)?;
        let vma_write = self.vars.read(Var::VmaWrite(page));
        let shared = self.content_of_page(page) == Content::File;
        let mapcounts = if shared { Vec::new() } else { self.mapcounts_of_exclusive() };
        let kind = Kind::Unhint { page, vma_write, mapcounts };
        Ok(self.op(kind, Class::Visible, next, 0, format!("{name}({})", self.page_text(page))))
    }
}
