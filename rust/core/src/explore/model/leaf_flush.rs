//! Flushes, unrolled to small steps: who must be told, and the wait for the answers.

use crate::error::Result;
use crate::program::{Condition, FlushScope, Instr, Leaf, PendingTracking, ProgramName, ProtSource, Test as Asked};

use super::at::At;
use super::op::{Class, Freed, Kind, OpIndex, Scope, Test};
use super::pte;
use super::unroll::Unroller;
use super::vars::{Local, Var};

impl Unroller<'_> {
    /// Whether any thread's program has the leaf.
    pub(super) fn any_program_has(&self, wanted: impl Fn(&Leaf) -> bool) -> usize {
        let has = |program: ProgramName| {
            let code = &self.kernel.program(program).code;
            code.iter().any(|instr| matches!(instr, Instr::Leaf(leaf) if wanted(leaf)))
        };
        self.world.threads.iter().filter(|thread| !thread.is_walker && has(thread.program)).count()
    }

    /// Whether any thread's program has the condition.
    fn any_program_asks(&self, wanted: Asked) -> bool {
        fn has(condition: &Condition, wanted: Asked) -> bool {
            match condition {
                Condition::Test(asked) => *asked == wanted,
                Condition::Not(inner) => has(inner, wanted),
                Condition::All(list) | Condition::Any(list) => list.iter().any(|inner| has(inner, wanted)),
            }
        }
        let asks = |instr: &Instr| matches!(instr, Instr::BranchUnless { condition, .. } if has(condition, wanted));
        let mut programs = self.world.threads.iter().filter(|thread| !thread.is_walker);
        programs.any(|thread| self.kernel.program(thread.program).code.iter().any(asks))
    }

    /// Whether anybody can see another's `tlb_flush_pending`.
    pub(super) fn pending_matters(&self) -> bool {
        let nr_threads =
            self.any_program_has(|leaf| matches!(leaf, Leaf::TlbGatherMmu { .. } | Leaf::IncTlbFlushPending));
        let asks = self.has_protnone() || self.any_program_asks(Asked::MmTlbFlushPending);
        nr_threads > 1 || nr_threads == 1 && asks
    }

    /// Whether an entry can be protnone, if only until its call changes it again.
    pub(super) fn can_be_protnone(&self) -> bool {
        let has_huge = self.world.pages.iter().any(|page| page.huge);
        let makes = |leaf: &Leaf| match leaf {
            Leaf::PteModify { prot } => *prot == ProtSource::None,
            Leaf::PmdpInvalidate | Leaf::PmdpInvalidateAd => has_huge,
            _ => false,
        };
        self.has_protnone() || self.any_program_has(makes) > 0
    }

    /// Whether mprotect or NUMA balancing leaves entries protnone.
    pub(super) fn has_protnone(&self) -> bool {
        self.world.threads.iter().any(|thread| thread.none || thread.program == ProgramName::ChangeProtNuma)
    }

    /// A flush of all user CPUs; if there is none, nothing.
    pub(super) fn flush(&mut self, scope: Scope, text: &str, next: OpIndex) -> OpIndex {
        let freed = if matches!(scope, Scope::Gather(_)) { Freed::Gather } else { Freed::No };
        self.flush_of(scope, false, freed, text, next)
    }

    /// `flush_tlb_mm()`.
    pub(super) fn flush_mm(&mut self, text: &str, next: OpIndex) -> OpIndex {
        let all = self.pages_of_mm(0);
        self.flush_of(self.with_tables(all), true, Freed::Yes, text, next)
    }

    pub(super) fn flush_of(&mut self, scope: Scope, full: bool, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        if self.world.users == 0 || self.in_other_mm {
            return next;
        }
        if self.batches_invalidations() && scope != Scope::LazyBatch {
            // Hash MMUs are told of each entry; flushes of ranges do nothing.
            return next;
        }
        if self.world.engine.tlbi {
            let wait = self.dsb(text, next);
            return self.tlbi(scope, Class::Urgent, text, wait);
        }
        if self.world.engine.is_detailed() {
            let wait = self.ask_cpus(scope, full, freed, text, next);
            if self.world.engine.by_active_mm {
                return wait;
            }
            self.read_local(Local::FlushGen);
            self.vars.read(Var::TlbGen(0));
            return self.op(Kind::BumpGen(scope), Class::Visible, wait, 0, format!("{text}: inc_mm_tlb_gen()"));
        }
        for cpu in 0..self.world.users {
            self.read_local(Local::Pending(cpu));
        }
        self.vars.write(Var::TlbGen(0));
        // Requests commute with all that others do, unless their generations are looked at.
        let tracks_gens = self.kernel.constants.pending_tracking != PendingTracking::Mm;
        let class = if tracks_gens { Class::Visible } else { Class::Urgent };
        let wait = self.op(Kind::Wait(scope), Class::Urgent, next, 0, format!("{text}: all have answered"));
        self.op(Kind::Send { scope, mm: 0 }, class, wait, 0, format!("{text}: send IPIs"))
    }

    pub(super) fn tlbi(&mut self, scope: Scope, class: Class, text: &str, next: OpIndex) -> OpIndex {
        for cpu in 0..self.world.users {
            self.read_local(Local::Pending(cpu));
        }
        self.read_local(Local::Tlbi);
        self.op(Kind::Tlbi(scope), class, next, 0, format!("{text}: TLBI"))
    }

    /// Waits for one's own invalidations, and for nobody else's.
    pub(super) fn dsb(&mut self, text: &str, next: OpIndex) -> OpIndex {
        self.op(Kind::Dsb, Class::Urgent, next, 0, format!("{text}: DSB"))
    }

    /// Looks at one CPU after the other, sends IPIs, and waits.
    fn ask_cpus(&mut self, scope: Scope, full: bool, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        let wait = Kind::Await { scope, full, of_batch: false };
        self.ask(wait, freed, text, next)
    }

    pub(super) fn ask(&mut self, wait: Kind, freed: Freed, text: &str, next: OpIndex) -> OpIndex {
        let of_batch = matches!(wait, Kind::Await { of_batch: true, .. });
        let mut first = self.op(wait, Class::Visible, next, 0, format!("{text}: all have answered"));
        for cpu in (0..self.world.users).rev() {
            self.read_local(Local::Pending(cpu));
            let kind = Kind::AskCpu { cpu, freed, of_batch };
            first = self.op(kind, Class::Visible, first, 0, format!("{text}: looks at user {cpu}"));
        }
        first
    }

    pub(super) fn flush_pending(&mut self, by: i8, next: OpIndex) -> OpIndex {
        if !self.pending_matters() {
            return next;
        }
        let var = self.vars.write(Var::FlushPending(u8::from(self.in_other_mm)));
        let name = if by > 0 { "inc" } else { "dec" };
        let text = format!("{name}_tlb_flush_pending()");
        let kind = if self.world.engine.tlb_flush_pending_is_bool {
            Kind::Set(var, u64::from(by > 0))
        } else {
            Kind::Add(var, by)
        };
        self.op(kind, Class::Visible, next, 0, text)
    }

    pub(super) fn pte_accessible(&mut self) -> (Test, Class) {
        if self.has_protnone() && self.pending_matters() {
            let pending = self.vars.read(Var::FlushPending(u8::from(self.in_other_mm)));
            (Test::PteAccessible { pending }, Class::Visible)
        } else {
            (Test::Pte { mask: pte::PRESENT, value: pte::PRESENT }, Class::Local)
        }
    }

    pub(super) fn pages_of_mm(&self, mm: u8) -> u32 {
        let pages = self.world.pages.iter().enumerate();
        pages.filter(|(_, page)| page.mm == mm).fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// `flush_tlb_range()`.
    pub(super) fn flush_range(&mut self, at: &At, range: FlushScope, next: OpIndex) -> Result<OpIndex> {
        let mut wide = at.clone();
        if range == FlushScope::Vma {
            wide.r.table = None;
        }
        let pages = match range {
            FlushScope::Page | FlushScope::Entry => vec![self.page(at)?],
            FlushScope::Vma | FlushScope::Table | FlushScope::Extent => self.pages_here(&wide),
            FlushScope::Pmd => return Err(self.error("flush_tlb_range of a PMD: huge entries are not modelled")),
        };
        let mask = pages.iter().fold(0, |mask, page| mask | 1 << page);
        let names: Vec<String> = pages.iter().map(|page| self.page_text(*page)).collect();
        let scope = if range == FlushScope::Page { Scope::Pages(mask) } else { self.with_tables(mask) };
        let freed = if range != FlushScope::Page && self.kernel.constants.flush_tlb_range_freed_tables {
            Freed::Yes
        } else {
            Freed::No
        };
        Ok(self.flush_of(scope, false, freed, &format!("flush_tlb_range({})", names.join(" ")), next))
    }
}
