//! Huge pages: one page, mapped by an upper entry, under the lock of the table above it.
//!
//! Such a page is the only one in its 2 MiB, and its entry is the upper one. A walk looks at it without the lock first: if
//! it is none, there is nothing to do. Splits, moves and faults on huge pages are not modelled.

use crate::error::Result;
use crate::explore::scenario::World;
use crate::program::Pc;

use super::at::{At, Held};
use super::leaf::Here;
use super::op::{Class, Kind, OpIndex, PageRef, Test};
use super::pte;
use super::tables::TableStep;
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    /// The huge page of these 2 MiB.
    pub(super) fn huge_page_of(&self, table: u8) -> Option<u8> {
        self.world.pages_of_table(table).into_iter().find(|page| self.world.pages[usize::from(*page)].huge)
    }

    /// The current page is huge.
    pub(super) fn is_huge(&self, at: &At) -> bool {
        let of_frame = |frame: u8| {
            let is = |page: &u8| self.world.pages[usize::from(*page)].huge;
            self.pages_of(frame).iter().any(is)
        };
        match (at.r.page, at.r.frame) {
            (Some(page), _) => self.world.pages[usize::from(page)].huge,
            (None, PageRef::Fixed(frame)) => of_frame(frame),
            _ => false,
        }
    }

    /// A walk of tables comes to a huge entry: its block, unless there is none or the entry is none, as seen without a lock.
    pub(super) fn at_huge_entry(
        &mut self,
        here: Here<'_>,
        block: Pc,
        page: u8,
        mut at: At,
        skip: OpIndex,
    ) -> Result<OpIndex> {
        if block == here.pc {
            return Ok(skip);
        }
        at.r.page = Some(page);
        at.r.frame = PageRef::OfPte;
        let first = self.emit(here.program, block, at)?;
        self.read_local(Local::Pte);
        self.vars.read(Var::Pte(page));
        let is_none = Test::Pte { mask: pte::PRESENT | 0x30, value: 0 };
        let branch = self.op(Kind::Branch(is_none), Class::Local, skip, first, String::new());
        let text = format!("pmdp_get_lockless({})", self.page_text(page));
        Ok(self.op(Kind::ReadPte(page), Class::Visible, branch, 0, text))
    }

    /// `pmd_trans_huge_lock()`, `page_vma_mapped_walk()`: what is under the lock is looked at again.
    pub(super) fn look_under_pml(&mut self, here: Here<'_>, before: &At, next: OpIndex) -> Result<OpIndex> {
        let (Some(page), Some(innermost)) = (before.r.page.filter(|_| self.is_huge(before)), before.loops.last())
        else {
            return Ok(next);
        };
        let loop_next = innermost.next;
        let skip = self.emit(here.program, loop_next, before.clone())?;
        let skip = self.release_held(Held::Pml(0), skip);
        self.read_local(Local::Pte);
        self.vars.read(Var::Pte(page));
        let name = self.page_text(page);
        if let (true, PageRef::Fixed(frame)) = (before.in_mapping_loop(), before.r.frame) {
            let text = format!("page_vma_mapped_walk({name})");
            return Ok(self.op(Kind::ReadIfMaps(page, frame), Class::Urgent, next, skip, text));
        }
        let is_none = Test::Pte { mask: pte::PRESENT | 0x30, value: 0 };
        let branch = self.op(Kind::Branch(is_none), Class::Local, skip, next, String::new());
        Ok(self.op(Kind::ReadPte(page), Class::Urgent, branch, 0, format!("pmd_trans_huge_lock({name})")))
    }

    /// `pmdp_invalidate()`, with its flush or without.
    pub(super) fn invalidate_huge(&mut self, page: u8, name: &str, flushes: bool, next: OpIndex) -> OpIndex {
        self.read_local(Local::Pte);
        self.vars.read(Var::Pte(page));
        let text = format!("{name}({})", self.page_text(page));
        let next = if flushes { self.flush(self.with_tables(1 << page), &text, next) } else { next };
        self.op(Kind::Table(TableStep::Invalidate(page)), Class::Visible, next, 0, text)
    }
}

/// Whether what is mapped at a huge page when an unmapping call returns is what was there when it came by: no fault maps
/// anything.
pub(super) fn must_be_gone(world: &World, page: u8) -> bool {
    use crate::program::ProgramName::Fault;
    world.pages[usize::from(page)].huge && !world.threads.iter().any(|thread| thread.program == Fault)
}
