//! What the steps on page tables do to a state, and how a state shows that a table was used after it was freed.

use super::TableStep;
use crate::explore::model::invariant::{Invariant, meets};
use crate::explore::model::op::{Op, OpIndex, Scope};
use crate::explore::model::pte;
use crate::explore::model::vars::Field;
use crate::explore::model::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    /// The entry of a virtual page for a thread: in the table that it has mapped, else in the one that stands there now.
    /// Where no table is, a field without room: none, and what is stored is lost.
    #[inline]
    pub(in crate::explore::model) fn entry(&self, state: &[u64; W], thread: &ThreadFields, page: u8) -> Field {
        if self.tables.are_fixed() {
            return self.pages[usize::from(page)].pte;
        }
        match thread.walk.get(state) {
            0 => self.entry_now(state, page),
            table => self.entry_in(page, table),
        }
    }

    /// The entry of a virtual page in the table that stands there now.
    #[inline]
    pub(in crate::explore::model) fn entry_now(&self, state: &[u64; W], page: u8) -> Field {
        if self.tables.are_fixed() {
            return self.pages[usize::from(page)].pte;
        }
        self.entry_in(page, self.tables.pmd[usize::from(self.tables.region[usize::from(page)])].get(state))
    }

    /// The entry of a virtual page in a table (its number + 1).
    pub(super) fn entry_in(&self, page: u8, table: u64) -> Field {
        let cells = &self.tables.cells[usize::from(page)];
        let cell = (table as usize).checked_sub(1).and_then(|table| cells[table]);
        cell.map_or(Field::default(), |cell| self.pages[usize::from(cell)].pte)
    }

    /// The virtual page whose variable holds the entry of a page in the table that a thread has mapped.
    pub(in crate::explore::model) fn home_of(&self, state: &[u64; W], thread: &ThreadFields, page: u8) -> u8 {
        let table = (thread.walk.get(state) as usize).checked_sub(1);
        let cells = self.tables.cells.get(usize::from(page));
        table.zip(cells).and_then(|(table, cells)| cells[table]).unwrap_or(page)
    }

    /// The virtual pages at which an entry stands now.
    pub(in crate::explore::model) fn pages_of_entry(
        &self,
        state: &[u64; W],
        page: u8,
        entry: Field,
    ) -> impl Iterator<Item = u8> {
        let fixed = self.tables.are_fixed();
        let all = if fixed { page..page + 1 } else { 0..self.pages.len() as u8 };
        all.filter(move |other| fixed || self.entry_now(state, *other) == entry)
    }

    /// Whether a flush drops what CPUs have cached of the way to tables.
    pub(super) fn covers_tables(state: &[u64; W], thread: &ThreadFields, scope: Scope) -> bool {
        match scope {
            Scope::PagesAndTables(_) => true,
            Scope::Gather(_) => thread.freed_tables.get(state) != 0,
            Scope::Pages(_) | Scope::Tracked => false,
        }
    }

    /// Takes a step; None: it has to wait.
    #[expect(clippy::too_many_lines, reason = "one arm for each step")]
    pub(in crate::explore::model) fn table_step(
        &self,
        state: &mut [u64; W],
        thread: &ThreadFields,
        op: &Op,
        step: &TableStep,
    ) -> Option<OpIndex> {
        let tables = &self.tables;
        match step {
            TableStep::MapLock { region, locks, unlinked } => {
                let table = tables.pmd[usize::from(*region)].get(state);
                if table == 0 || unlinked.is_some_and(|var| self.field(var).get(state) != 0) {
                    self.visit_region(state, thread, *region);
                    return Some(op.other);
                }
                let lock = self.field(locks[table as usize - 1]);
                if lock.get(state) != 0 {
                    return None;
                }
                lock.set(state, 1);
                thread.walk.set(state, table);
            }
            TableStep::MapUnlock => {
                if let Some(lock) = (thread.walk.get(state) as usize).checked_sub(1) {
                    tables.ptl[lock].set(state, 0);
                }
                thread.walk.set(state, 0);
            }
            TableStep::Look(region) => {
                if tables.pmd[usize::from(*region)].get(state) == 0 {
                    self.visit_region(state, thread, *region);
                    return Some(op.other);
                }
            }
            TableStep::Take { region, page } => {
                let pmd = tables.pmd[usize::from(*region)];
                if let Some(table) = pmd.get(state).checked_sub(1) {
                    pmd.set(state, 0);
                    thread.tables.set(state, thread.tables.get(state) | 1 << table);
                    thread.freed_tables.set(state, 1);
                    thread.record(state, *page);
                }
            }
            TableStep::Batch => return Some(op.next),
            TableStep::FreeGathered | TableStep::FreeNow => {
                let gathered = thread.tables.get(state);
                for table in (0..tables.freed.len()).filter(|table| gathered >> table & 1 != 0) {
                    tables.freed[table].set(state, 1);
                    if *step == TableStep::FreeNow {
                        tables.reused[table].set(state, 1);
                    }
                }
                thread.tables.set(state, 0);
            }
            TableStep::Move { from, to } => {
                let (old, new) = (tables.pmd[usize::from(*from)], tables.pmd[usize::from(*to)]);
                let table = old.get(state);
                if table == 0 {
                    // A none entry names page 0 of memory, which becomes a page table.
                    self.saw(state, Invariant::NoStaleTable);
                }
                old.set(state, 0);
                new.set(state, table);
                self.visit_region(state, thread, *from);
            }
            TableStep::Detach { region, only_empty } => {
                let pmd = tables.pmd[usize::from(*region)];
                let is_used = |page: usize| {
                    tables.region[page] == *region && !pte::is_none(self.entry_now(state, page as u8).get(state))
                };
                if *only_empty && (0..tables.region.len()).any(is_used) {
                    return Some(op.other);
                }
                thread.aside.set(state, pmd.get(state));
                pmd.set(state, 0);
            }
            TableStep::Unhook(region) => {
                tables.pmd[usize::from(*region)].set(state, 0);
                self.visit_region(state, thread, *region);
            }
            TableStep::Unshare { of_users } => {
                if let Some(table) = (thread.walk.get(state) as usize).checked_sub(1) {
                    tables.shared[table].set(state, 0);
                    if *of_users {
                        // From now on it maps whatever the other one wants it to. The hardware may walk through it until
                        // the flush, as it may through any table that is taken out.
                        tables.reused[table].set(state, 1);
                    }
                }
            }
            TableStep::MapAside => {
                let table = thread.aside.get(state);
                let Some(index) = (table as usize).checked_sub(1) else { return Some(op.other) };
                if tables.ptl[index].get(state) != 0 {
                    return None;
                }
                tables.ptl[index].set(state, 1);
                thread.walk.set(state, table);
            }
            TableStep::Collapse(page) => {
                self.settle_copy(state, thread);
                self.entry(state, thread, *page).set(state, 0);
            }
            TableStep::FreeAside { waits } => {
                if let Some(table) = (thread.aside.get(state) as usize).checked_sub(1) {
                    tables.freed[table].set(state, 1);
                    tables.reused[table].set(state, u64::from(!waits));
                }
                thread.aside.set(state, 0);
            }
            TableStep::Invalidate(page) => {
                self.load(state, thread, *page);
                let entry = thread.pte.get(state);
                if pte::is_present(entry) {
                    let absent = pte::absent(entry & !pte::WRITE, pte::PROTNONE);
                    self.entry(state, thread, *page).set(state, absent);
                }
            }
            TableStep::Sync => {
                if self.threads.iter().any(|thread| thread.is_walker && thread.walk.get(state) != 0) {
                    return None;
                }
            }
            TableStep::WalkStart(region) => {
                let table = tables.pmd[usize::from(*region)].get(state);
                if table == 0 {
                    return Some(op.other);
                }
                thread.walk.set(state, table);
            }
            TableStep::TryGet => {
                let refs = self.frames[usize::from(pte::frame(thread.pte.get(state)))].refs;
                if refs.get(state) == 0 {
                    return Some(op.other);
                }
                self.add(state, refs, 1);
            }
            TableStep::Recheck { page } => {
                let region = usize::from(tables.region[usize::from(*page)]);
                let is_same = self.entry(state, thread, *page).get(state) == thread.pte.get(state)
                    && tables.pmd[region].get(state) == thread.walk.get(state);
                thread.walk.set(state, 0);
                if !is_same {
                    return Some(op.other);
                }
            }
        }
        Some(op.next)
    }

    /// The thread has come by all that is in these 2 MiB.
    fn visit_region(&self, state: &mut [u64; W], thread: &ThreadFields, region: u8) {
        let pages = (0..self.tables.region.len()).filter(|page| self.tables.region[*page] == region);
        pages.for_each(|page| thread.visit(state, page as u8));
    }

    /// Whether a walk can reach a table that was freed: one of the hardware, through what a CPU has cached, or one of
    /// software that takes no lock.
    pub(in crate::explore::model) fn reaches_freed_table(&self, state: &[u64; W]) -> bool {
        let is_reused = |table: u64| {
            let index = (table as usize).checked_sub(1);
            index.is_some_and(|table| self.tables.reused[table].get(state) != 0)
        };
        if self.threads.iter().any(|thread| thread.is_walker && is_reused(thread.walk.get(state))) {
            return true;
        }
        let freed = self.tables.freed.iter().zip(&self.tables.psc_mask);
        freed.into_iter().any(|(freed, mask)| freed.get(state) != 0 && meets(state, mask))
    }
}
