//! `gup_fast_fallback()` (mm/gup.c): takes pages by a walk of the page tables without locks, interrupts off.
//!
//! What keeps a table there meanwhile is that whoever frees it waits for CPUs with interrupts off: by RCU, or by an IPI to
//! all (`tlb_remove_table_sync_one()`). A flush of TLBs is taken to be no such IPI, as where it is a broadcast of the
//! hardware. One section for each page; what is taken is put again some time later.

use crate::explore::model::op::{Class, Kind, OpIndex, PageRef, Test};
use crate::explore::model::pte;
use crate::explore::model::unroll::Unroller;
use crate::explore::model::vars::{Local, Var};

use super::TableStep;

impl Unroller<'_> {
    /// The whole program.
    pub(in crate::explore::model) fn gup_code(&mut self, done: OpIndex) -> OpIndex {
        let refs = self.by_frame(Var::Refs, true);
        self.read_local(Local::Pte);
        let walk = self.read_local(Local::Walk);
        let mut first = done;
        for page in self.spec().range.clone().into_iter().rev() {
            self.vars.read(Var::Pte(page));
            let (name, frame) = (self.page_text(page), PageRef::OfPte);
            let region = self.world.pages[usize::from(page)].table;
            let put = |s: &mut Self, next: OpIndex, text: String| {
                s.op(Kind::AddFrame { vars: refs.clone(), frame, by: -1 }, Class::Visible, next, 0, text)
            };
            let unpin = put(self, first, format!("unpin_user_page({name})"));
            let failed = put(self, first, format!("folio_put({name})"));
            let text = format!("{name} unchanged? local_irq_enable()");
            let recheck = self.table(TableStep::Recheck { page }, Class::Visible, unpin, failed, text);
            let leave = self.op(Kind::Set(walk, 0), Class::Local, first, 0, String::new());
            let get = self.table(TableStep::TryGet, Class::Visible, recheck, leave, format!("try_grab_folio({name})"));
            let present = Test::Pte { mask: pte::PRESENT, value: pte::PRESENT };
            let present = self.op(Kind::Branch(present), Class::Local, get, leave, String::new());
            let text = format!("ptep_get_lockless({name})");
            let read = self.op(Kind::ReadPte(page), Class::Visible, present, 0, text);
            let text = format!("local_irq_disable(), pmdp_get({})", self.table_text(region));
            first = self.table(TableStep::WalkStart(region), Class::Visible, read, first, text);
        }
        first
    }
}
