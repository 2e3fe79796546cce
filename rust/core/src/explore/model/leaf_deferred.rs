//! Generations of the consolidated scheme, unrolled: which flush was deferred, and whether it has come to its end.

use crate::error::Result;
use crate::program::PendingTracking;

use super::at::At;
use super::op::{Class, Kind, OpIndex, Test};
use super::unroll::Unroller;
use super::vars::{Local, Var, VarId};

impl Unroller<'_> {
    fn defer_var(&mut self, at: &At) -> Result<Option<VarId>> {
        let tracking = self.kernel.constants.pending_tracking;
        let nr_vmas = self.world.vmas.len() as u8;
        Ok(match tracking {
            PendingTracking::Mm => None,
            PendingTracking::MmGen => Some(self.vars.read(Var::DeferGen(0))),
            PendingTracking::Vma => at.r.vma.map(|vma| self.vars.read(Var::DeferGen(1 + vma))),
            PendingTracking::Table => {
                let table = at.r.table.ok_or_else(|| self.error("a deferred flush outside a table"))?;
                Some(self.vars.read(Var::DeferGen(1 + nr_vmas + table)))
            }
        })
    }

    pub(super) fn note_deferred(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let Some(defer) = self.defer_var(at)? else { return Ok(next) };
        let tlb_gen = self.vars.read(Var::TlbGen(0));
        Ok(self.op(Kind::NoteGen { defer, tlb_gen }, Class::Visible, next, 0, "note_deferred_flush()".to_owned()))
    }

    pub(super) fn check_deferred(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let Some(defer) = self.defer_var(at)? else { return Ok(next) };
        let completed = self.vars.read(Var::GenCompleted(0));
        let range = self.read_local(Local::Range);
        let mut wide = at.clone();
        let taken = match self.kernel.constants.pending_tracking {
            PendingTracking::Vma => {
                wide.r.table = None;
                let pages = self.pages_here(&wide);
                let mask = pages.iter().fold(0, |mask, page| mask | 1u64 << page);
                self.op(Kind::SetBits(range, mask), Class::Local, next, 0, String::new())
            }
            PendingTracking::Table => {
                let pages = self.pages_here(&wide);
                let mask = pages.iter().fold(0, |mask, page| mask | 1u64 << page);
                self.op(Kind::SetBits(range, mask), Class::Local, next, 0, String::new())
            }
            PendingTracking::Mm | PendingTracking::MmGen => {
                let all = u64::from(self.pages_of_mm(0));
                self.op(Kind::SetBits(range, all), Class::Local, next, 0, String::new())
            }
        };
        let test = Test::Exceeds(defer, completed);
        Ok(self.op(Kind::Branch(test), Class::Visible, taken, next, "check_deferred_flush()".to_owned()))
    }
}
