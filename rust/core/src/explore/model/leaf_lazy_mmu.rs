//! What waits for the end of a lazy-MMU section: invalidations of entries, stores to them.

use crate::program::LazyMmu;

use super::at::At;
use super::op::{Class, Kind, OpIndex, Scope};
use super::unroll::Unroller;
use super::vars::Local;

impl Unroller<'_> {
    /// The architecture is told of each entry that changes, and takes what it is told inside a lazy-MMU section together.
    pub(super) fn batches_invalidations(&self) -> bool {
        self.kernel.constants.lazy_mmu == LazyMmu::PerPte && self.world.users > 0
    }

    /// Entries that are stored inside a lazy-MMU section are stored at its end, by multicalls.
    pub(super) fn queues_multicalls(&self, at: &At) -> bool {
        at.lazy_mmu && self.kernel.constants.lazy_mmu == LazyMmu::Multicall
    }

    /// Something is batched in lazy-MMU sections.
    pub(super) fn batches_in_lazy_mmu(&self) -> bool {
        self.batches_invalidations() || self.kernel.constants.lazy_mmu == LazyMmu::Multicall
    }

    pub(super) fn queue_multicall(
        &mut self,
        page: u8,
        clears: u64,
        of_new: bool,
        name: &str,
        next: OpIndex,
    ) -> OpIndex {
        self.read_local(Local::Multicall(page));
        self.read_local(if of_new { Local::New } else { Local::Pte });
        let text = format!("{name}({}): queued", self.page_text(page));
        self.op(Kind::QueueMulticall { page, clears, of_new }, Class::Visible, next, 0, text)
    }

    /// What a changed entry asks for: a place in the batch, or, outside a section, the invalidation at once.
    pub(super) fn invalidate(&mut self, at: &At, page: u8, next: OpIndex) -> OpIndex {
        if !self.batches_invalidations() {
            return next;
        }
        let next = if at.lazy_mmu { next } else { self.drain("flush of the entry", next) };
        for cpu in 0..2 {
            self.read_local(Local::LazyBatch(cpu));
        }
        self.read_local(Local::Pte);
        self.op(Kind::Invalidate(page), Class::Local, next, 0, String::new())
    }

    /// The batch of the CPU on which the thread is now.
    pub(super) fn drain(&mut self, text: &str, next: OpIndex) -> OpIndex {
        let done = self.op(Kind::EmptyLazyBatch, Class::Local, next, 0, String::new());
        self.flush(Scope::LazyBatch, text, done)
    }

    /// The section ends: its batch is drained, on whichever CPU that is.
    pub(super) fn leave_lazy_mmu(&mut self, mut next: OpIndex) -> OpIndex {
        if !self.batches_invalidations() {
            for page in (0..self.world.pages.len() as u8).rev() {
                let text = format!("multicall: set_pte({})", self.page_text(page));
                next = self.op(Kind::Multicall(page), Class::Visible, next, 0, text);
            }
            return next;
        }
        let stays = self.drain("arch_leave_lazy_mmu_mode()", next);
        if !self.world.engine.lazy_mmu_preempts {
            return stays;
        }
        let moved = self.read_local(Local::Moved);
        let text = "preempted, goes on on another CPU".to_owned();
        let elsewhere = self.op(Kind::Set(moved, 1), Class::Visible, stays, 0, text);
        self.op(Kind::Choose, Class::Visible, stays, elsewhere, "arch_leave_lazy_mmu_mode()".to_owned())
    }
}
