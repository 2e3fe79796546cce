//! Steps on VMAs: taken out of the tree, made, given other rights.

use crate::error::Result;
use crate::program::Leaf;

use super::at::At;
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex};
use super::unroll::Unroller;
use super::vars::Var;

impl Unroller<'_> {
    /// The VMAs leave the tree; their pages are still mapped.
    pub(super) fn gather_vmas(&mut self, here: Here<'_>, at: &At) -> Result<OpIndex> {
        let mut after = at.clone();
        after.detached = true;
        let locked = self.vma_start_write(&mut after);
        let pages = after.range.clone();
        let mut next = self.emit(here.program, here.pc + 1, after)?;
        for page in pages {
            if self.vma_can_go(self.world.pages[usize::from(page)].vma) {
                let gone = self.vars.write(Var::VmaGone(page));
                let text = format!("detach the VMA of {}", self.page_text(page));
                next = self.op(Kind::Set(gone, 1), Class::Visible, next, 0, text);
            }
        }
        Ok(self.vma_locks(&locked, next))
    }

    /// VMAs are made or changed, under their locks.
    pub(super) fn change_vmas(&mut self, here: Here<'_>, leaf: Leaf, at: &At) -> Result<OpIndex> {
        let mut after = at.clone();
        let locked = self.vma_start_write(&mut after);
        let next = self.emit(here.program, here.pc + 1, after)?;
        let next = self.vma_changed(leaf, at, next);
        Ok(self.vma_locks(&locked, next))
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

    /// The current VMA is a driver's, whose entries hold no references.
    pub(super) fn is_pfn(&self, at: &At) -> bool {
        let pages = at.r.vma.map(|vma| &self.world.vmas[usize::from(vma)].pages);
        pages.is_some_and(|pages| pages.iter().any(|page| self.world.pages[usize::from(*page)].pfn))
    }

    /// Some thread takes all rights from its pages.
    pub(super) fn has_prot_none(&self) -> bool {
        self.world.threads.iter().any(|thread| thread.none)
    }
}
