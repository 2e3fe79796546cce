//! Entries are read, taken out and stored: what was promised about their pages, and what was copied, is looked at.

use crate::explore::scenario::Kind as Content;

use super::invariant::Invariant;
use super::op::{Kind, Promise};
use super::pte;
use super::vars::Field;
use super::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    #[inline]
    pub(super) fn load(&self, state: &mut [u64; W], thread: &ThreadFields, page: u8) {
        let entry = self.entry(state, thread, page).get(state);
        if !(thread.may_give_up && pte::is_present(entry) && entry & pte::WRITE != 0) {
            thread.visit(state, page);
        }
        thread.pte.set(state, entry);
        thread.new.set(state, entry);
        if !thread.keeps_hold {
            thread.hold.set(state, 0);
        }
    }

    pub(super) fn xchg(&self, state: &mut [u64; W], thread: &ThreadFields, page: u8, discards: u8) {
        self.load(state, thread, page);
        let entry = thread.pte.get(state);
        self.write_pte(state, thread, page, 0);
        if !pte::maps(entry) {
            return;
        }
        let frame = usize::from(pte::frame(entry));
        let kind = if self.frames[frame].content == Content::Anon { 1 } else { 2 };
        if discards & kind != 0 {
            self.frames[frame].newer.set(state, 0);
        } else if entry & pte::DIRTY != 0 {
            thread.hold.set(state, frame as u64 + 1);
        }
    }

    /// An entry that keeps D tells the dirty information on.
    #[inline]
    pub(super) fn settle_hold(state: &mut [u64; W], thread: &ThreadFields, entry: u64) {
        if entry & pte::DIRTY != 0 {
            thread.hold.set(state, 0);
        }
    }

    /// Stores an entry; what was promised about the page ends when it can be used again.
    #[inline]
    pub(super) fn write_pte(&self, state: &mut [u64; W], thread: &ThreadFields, page: u8, entry: u64) {
        self.write_entry(state, page, self.entry(state, thread, page), entry);
        if thread.may_give_up && pte::is_present(entry) && entry & pte::WRITE == 0 {
            thread.visit(state, page);
        }
    }

    pub(super) fn write_entry(&self, state: &mut [u64; W], page: u8, field: Field, entry: u64) {
        if self.engine.is_some() {
            self.note_demotion(state, usize::from(page), field.get(state), entry);
        }
        field.set(state, entry);
        if pte::is_present(entry) {
            let before = *state;
            self.pages_of_entry(&before, page, field).for_each(|page| self.give_back(state, page, entry));
        }
    }

    /// What was promised about the page ends when it can be used again.
    #[inline]
    pub(super) fn give_back(&self, state: &mut [u64; W], page: u8, entry: u64) {
        let fields = &self.pages[usize::from(page)];
        {
            let is_writable = entry & pte::WRITE != 0;
            fields.unmapped.set(state, 0);
            if is_writable {
                fields.protected.set(state, 0);
            }
            for thread in self.threads.iter().filter(|thread| thread.visited.mask != 0) {
                if thread.unmaps >> page & 1 != 0 || is_writable && thread.protects >> page & 1 != 0 {
                    let visited = thread.visited.get(state);
                    thread.visited.set(state, visited & !(1 << page));
                }
            }
        }
    }

    /// Stores an entry that maps another frame than before: nobody may use the old one any more (I12), and what was
    /// stored to it since it was copied is lost (I5).
    pub(super) fn install(&self, state: &mut [u64; W], thread: &ThreadFields, page: u8, entry: u64) {
        self.check_copy(state, thread);
        if self.checks(Invariant::OneFrame)
            && !self.is_expected(state, page)
            && self.maps_another(state, page, pte::frame(entry))
        {
            self.saw(state, Invariant::OneFrame);
        }
        let allows_nothing = self.pages[usize::from(page)].vma_none.get(state) != 0;
        self.write_pte(state, thread, page, if allows_nothing { protnone(entry) } else { entry });
    }

    /// What the thread has copied is about to be replaced by the copy.
    pub(super) fn check_copy(&self, state: &mut [u64; W], thread: &ThreadFields) {
        let copied = thread.copying.get(state);
        if copied != 0 && self.frames[copied as usize - 1].late.get(state) != 0 {
            self.saw(state, Invariant::StableCopy);
        }
    }

    /// The same, and it is.
    pub(super) fn settle_copy(&self, state: &mut [u64; W], thread: &ThreadFields) {
        self.check_copy(state, thread);
        thread.copying.set(state, 0);
    }

    /// A call that changes what the application sees at the page is on its way.
    pub(super) fn is_expected(&self, state: &[u64; W], page: u8) -> bool {
        self.threads
            .iter()
            .filter(|thread| thread.changes >> page & 1 != 0 && thread.pc.get(state) != thread.start)
            .any(|thread| !matches!(self.op_of(state, thread).kind, Kind::Done))
    }

    /// Some CPU has the page translated to another frame.
    pub(super) fn maps_another(&self, state: &[u64; W], page: u8, frame: u8) -> bool {
        self.slots
            .iter()
            .enumerate()
            .any(|(slot, (of, to))| *of == page && *to != frame && self.tlb.iter().any(|cpu| cpu[slot].get(state) != 0))
    }

    pub(super) fn saw(&self, state: &mut [u64; W], invariant: Invariant) {
        if self.checks(invariant) {
            let seen = self.seen.get(state) | 1 << invariant.event_bit();
            self.seen.set(state, seen);
        }
    }

    pub(super) fn promise(&self, state: &mut [u64; W], thread: &ThreadFields, promise: Promise) {
        let visited = thread.visited.get(state) as u32;
        for (index, fields) in self.pages.iter().enumerate() {
            if promise.unmaps >> index & 1 != 0
                && fields.must_be_gone
                && pte::maps(self.entry_now(state, index as u8).get(state))
            {
                self.saw(state, Invariant::UnmapSync);
            }
            if (promise.unmaps & visited) >> index & 1 != 0 {
                fields.unmapped.set(state, 1);
            }
            if (promise.protects & visited) >> index & 1 != 0 {
                fields.protected.set(state, 1);
            }
        }
        for (index, fields) in self.frames.iter().enumerate() {
            // If another gave the content up since, that call is still on its way and takes later stores along.
            if promise.frees >> index & 1 != 0 && fields.freer.get(state) == thread.index as u64 + 1 {
                fields.kept.set(state, 1);
            }
        }
    }

    /// The reverse map of an anonymous page is changed by way of its VMA's anon_vma, which `unlink_anon_vmas()` may have freed.
    pub(super) fn use_anon_vma(&self, state: &mut [u64; W], page: u8, frame: u8) {
        let part = self.blueprint.world.part_of(page);
        let is_anon = self.frames[usize::from(frame)].content == Content::Anon;
        if is_anon && self.blueprint.place_of(super::vars::Var::Unlinked(part)).get(state) != 0 {
            self.saw(state, Invariant::RmapLife);
        }
    }
}

/// The entry without any right: not present for the hardware, but it keeps its frame.
pub(super) fn protnone(entry: u64) -> u64 {
    if pte::is_present(entry) { pte::absent(entry & !pte::WRITE, pte::PROTNONE) } else { entry }
}
