//! Steps on page tables, unrolled.

use crate::error::Result;
use crate::explore::model::at::At;
use crate::explore::model::leaf::Here;
use crate::explore::model::op::{Class, Freed, Kind, OpIndex, PageRef, Scope, Test};
use crate::explore::model::unroll::Unroller;
use crate::explore::model::vars::{Local, Var, VarId};
use crate::explore::scenario::Kind as Content;
use crate::program::ProgramName;

use super::TableStep;

impl Unroller<'_> {
    /// Tables are objects in this scenario.
    pub(in crate::explore::model) fn has_tables(&self) -> bool {
        self.world.whole_tables
    }

    /// The scope of a flush that takes tables along, as `flush_tlb_range()` and `flush_tlb_mm()` are.
    pub(in crate::explore::model) fn with_tables(&self, pages: u32) -> Scope {
        if self.has_tables() { Scope::PagesAndTables(pages) } else { Scope::Pages(pages) }
    }

    pub(super) fn table(
        &mut self,
        step: TableStep,
        class: Class,
        next: OpIndex,
        other: OpIndex,
        text: String,
    ) -> OpIndex {
        self.op(Kind::Table(step), class, next, other, text)
    }

    pub(super) fn table_text(&self, region: u8) -> String {
        let pages = self.world.pages_of_table(region);
        pages.first().map_or_else(String::new, |page| format!("table of {}", self.page_text(*page)))
    }

    /// `pte_offset_map_lock()` where tables come and go; where there is none the innermost loop goes on.
    pub(in crate::explore::model) fn map_lock(
        &mut self,
        here: Here<'_>,
        region: u8,
        before: &At,
        next: OpIndex,
    ) -> Result<OpIndex> {
        let other = if let (None, Some(innermost)) = (self.fault, before.loops.last()) {
            let loop_next = innermost.next;
            self.emit(here.program, loop_next, before.clone())?
        } else {
            self.give_up(before)
        };
        let locks: Vec<VarId> =
            (0..self.world.tables.len() as u8).map(|table| self.vars.read(Var::Ptl(table))).collect();
        let unlinked = self.unlinked(before, region);
        let step = TableStep::MapLock { region, locks, unlinked };
        Ok(self.table(step, Class::Visible, next, other, "pte_offset_map_lock()".to_owned()))
    }

    /// Whether what the VMA has in these 2 MiB is out of the reverse map, for those who come by it.
    fn unlinked(&mut self, at: &At, region: u8) -> Option<VarId> {
        let retracts = self.spec().program == ProgramName::CollapseHugePage;
        let vma = at.r.vma.filter(|_| at.in_rmap_walk() || retracts)?;
        let part = self
            .world
            .parts_of_vma(vma)
            .into_iter()
            .find(|page| self.world.pages[usize::from(*page)].table == region)?;
        Some(self.vars.read(Var::Unlinked(part)))
    }

    /// Whether a VMA is out of the reverse map, for those who look for VMAs there.
    pub(in crate::explore::model) fn all_unlinked(&mut self, vma: u8) -> Test {
        let parts = self.world.parts_of_vma(vma);
        Test::All(parts.into_iter().map(|part| Test::Above(self.vars.read(Var::Unlinked(part)), 0)).collect())
    }

    /// Drops the lock of the table that is mapped.
    pub(in crate::explore::model) fn map_unlock(&mut self, next: OpIndex) -> OpIndex {
        self.table(TableStep::MapUnlock, Class::Urgent, next, 0, "pte_unmap_unlock()".to_owned())
    }

    /// A whole table that mremap moves: the block `on_pmd`, if there is a table.
    pub(in crate::explore::model) fn whole_extent(
        &mut self,
        here: Here<'_>,
        on_pmd: crate::program::Pc,
        at: At,
        skip: OpIndex,
    ) -> Result<OpIndex> {
        if on_pmd == here.pc {
            return Err(self.error("for_each_extent without on_pmd: mremap of whole tables"));
        }
        let region = at.r.table.unwrap_or(0);
        let first = self.emit(here.program, on_pmd, at)?;
        let text = format!("pmd_none({})", self.table_text(region));
        Ok(self.table(TableStep::Look(region), Class::Visible, first, skip, text))
    }

    /// `move_normal_pmd()`.
    pub(in crate::explore::model) fn move_table(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let (Some(from), Some(to)) = (at.r.table, at.r.target_table) else {
            return Err(self.error("move_normal_pmd outside an extent"));
        };
        let text = format!("move_normal_pmd({})", self.table_text(from));
        Ok(self.table(TableStep::Move { from, to }, Class::Visible, next, 0, text))
    }

    /// `free_pgtables()`: VMAs leave the reverse map, then the tables that nothing else needs are taken out.
    pub(in crate::explore::model) fn free_tables(&mut self, at: &At, mut next: OpIndex) -> OpIndex {
        if !self.has_tables() {
            return next;
        }
        let mut regions: Vec<u8> = Vec::new();
        for page in &at.range {
            let region = self.world.pages[usize::from(*page)].table;
            let is_whole = self.world.pages_of_table(region).iter().all(|page| at.range.contains(page));
            if is_whole && !regions.contains(&region) {
                regions.push(region);
            }
        }
        for (index, region) in regions.iter().enumerate().rev() {
            let pages = self.world.pages_of_table(*region);
            next = self.remove_table(*region, pages[0], next);
            let mut vmas: Vec<u8> = pages.iter().map(|page| self.world.pages[usize::from(*page)].vma).collect();
            vmas.dedup();
            // A VMA that reaches over several tables leaves with the first; of one that is split, the part that goes.
            let parts = |vma: u8| {
                let mut parts = self.world.parts_of_vma(vma);
                parts.retain(|page| regions.contains(&self.world.pages[usize::from(*page)].table));
                parts
            };
            let is_first = |part: &u8| !regions[..index].contains(&self.world.pages[usize::from(*part)].table);
            let leaving: Vec<Vec<u8>> =
                vmas.into_iter().map(parts).filter(|parts| parts.iter().all(is_first)).collect();
            for parts in leaving.into_iter().rev() {
                next = self.unlink(&parts, next);
            }
        }
        let is_pfn = |page: &u8| self.world.pages[usize::from(*page)].pfn;
        if at.range.iter().any(is_pfn) && !self.world.engine.pfnmap_unlinked_unflushed {
            // Who looks for a driver's VMA and finds none gives its memory to somebody else.
            return self.tlbonly("tlb_free_vmas", next);
        }
        next
    }

    /// `unlink_file_vma()`, `unlink_anon_vmas()`.
    fn unlink(&mut self, parts: &[u8], mut next: OpIndex) -> OpIndex {
        let (readers, writer) = (self.vars.read(Var::RmapReaders), self.vars.read(Var::RmapWriter));
        let vma = self.world.pages[usize::from(parts[0])].vma;
        let is_file = self.world.vmas[usize::from(vma)].kind == Content::File;
        let name = if is_file { "unlink_file_vma()" } else { "unlink_anon_vmas()" };
        next = self.op(Kind::Set(writer, 0), Class::Urgent, next, 0, format!("{name}: unlock"));
        for (index, part) in parts.iter().enumerate().rev() {
            let unlinked = self.vars.write(Var::Unlinked(*part));
            // One store of the kernel: nobody comes between its parts.
            let class = if index == 0 { Class::Visible } else { Class::Urgent };
            next = self.op(Kind::Set(unlinked, 1), class, next, 0, name.to_owned());
        }
        self.op(Kind::AcquireWrite { readers, writer }, Class::Visible, next, 0, format!("{name}: lock"))
    }

    /// `free_pte_range()` and `tlb_remove_table()` for one table.
    fn remove_table(&mut self, region: u8, page: u8, next: OpIndex) -> OpIndex {
        for local in [Local::Tables, Local::FreedTables, Local::Range] {
            self.read_local(local);
        }
        let name = self.table_text(region);
        let text = format!("free the {name}");
        let freed = self.table(TableStep::FreeNow, Class::Visible, next, 0, text);
        let synced = self.sync_walkers(freed);
        let flushed = if self.world.engine.lone_table_freed_unflushed {
            synced
        } else {
            self.tlbonly("tlb_table_invalidate", synced)
        };
        let text = "tlb_remove_table(): allocate a batch".to_owned();
        let batch = self.table(TableStep::Batch, Class::Visible, next, flushed, text);
        let tables = self.read_local(Local::Tables);
        let batch = self.op(Kind::Branch(Test::Above(tables, 0)), Class::Local, batch, next, String::new());
        self.table(TableStep::Take { region, page }, Class::Visible, batch, 0, format!("pmd_clear({name})"))
    }

    /// `tlb_remove_table_sync_one()`: waits for those who walk without locks.
    pub(in crate::explore::model) fn sync_walkers(&mut self, next: OpIndex) -> OpIndex {
        if !self.world.threads.iter().any(|thread| thread.is_walker) {
            return next;
        }
        self.table(TableStep::Sync, Class::Visible, next, 0, "tlb_remove_table_sync_one()".to_owned())
    }

    /// `pmdp_collapse_flush()`.
    pub(in crate::explore::model) fn detach_table(&mut self, at: &At, next: OpIndex) -> Result<OpIndex> {
        let Some(region) = at.r.table.filter(|_| self.has_tables()) else {
            return Err(self.error("pmdp_collapse_flush: the tables stay, expected a scenario with whole_tables"));
        };
        self.read_local(Local::Aside);
        let pages = self.world.pages_of_table(region).iter().fold(0, |mask, page| mask | 1 << page);
        let text = format!("pmdp_collapse_flush({})", self.table_text(region));
        let freed = if self.kernel.constants.flush_tlb_range_freed_tables { Freed::Yes } else { Freed::No };
        let flush = self.flush_of(self.with_tables(pages), false, freed, &text, next);
        let only_empty = at.r.vma.is_some_and(|vma| self.world.vmas[usize::from(vma)].kind == Content::File);
        let step = TableStep::Detach { region, only_empty };
        Ok(self.table(step, Class::Visible, flush, next, text))
    }

    /// `__collapse_huge_page_copy()`: each page in turn, with the table that was taken out locked.
    pub(in crate::explore::model) fn collapse_copy(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let pages = self.world.pages_of_table(at.r.table.unwrap_or(0));
        let mut first = self.map_unlock(next);
        let (counts, refs) = (self.by_frame(Var::Mapcount, false), self.by_frame(Var::Refs, false));
        self.read_local(Local::Pte);
        for page in pages.into_iter().rev() {
            self.vars.read(Var::Pte(page));
            let (name, frame) = (self.page_text(page), PageRef::OfPte);
            let put = Kind::AddFrame { vars: refs.clone(), frame, by: -1 };
            let put = self.op(put, Class::Visible, first, 0, format!("folio_put({name})"));
            let unmap = Kind::AddFrame { vars: counts.clone(), frame, by: -1 };
            let unmap = self.op(unmap, Class::Visible, put, 0, format!("folio_remove_rmap({name})"));
            let clear = self.table(TableStep::Collapse(page), Class::Visible, unmap, 0, format!("ptep_clear({name})"));
            let text = format!("copy_mc_user_highpage({name})");
            let copy = self.op(Kind::Copy(frame), Class::Visible, clear, 0, text);
            let maps = self.op(Kind::Branch(Test::PteMaps), Class::Local, copy, first, String::new());
            first = self.op(Kind::ReadPte(page), Class::Visible, maps, 0, format!("ptep_get({name})"));
        }
        self.table(TableStep::MapAside, Class::Visible, first, next, "pte_offset_map_lock()".to_owned())
    }

    /// `pud_clear()` of an upper entry that names a shared table.
    pub(in crate::explore::model) fn unhook_table(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let region = at.r.table.unwrap_or(0);
        let text = format!("pud_clear({})", self.table_text(region));
        self.table(TableStep::Unhook(region), Class::Visible, next, 0, text)
    }

    /// `ptdesc_pmd_pts_dec()`.
    pub(in crate::explore::model) fn unshare_table(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let of_users = self.world.tables[usize::from(at.r.table.unwrap_or(0))] == 0;
        let text = "ptdesc_pmd_pts_dec()".to_owned();
        self.table(TableStep::Unshare { of_users }, Class::Visible, next, 0, text)
    }

    /// Whether the table here is shared.
    pub(in crate::explore::model) fn table_is_shared(&mut self, at: &At) -> Test {
        let table = at.r.table.and_then(|region| self.world.table_at_start[usize::from(region)]);
        match table.filter(|_| self.world.shared_tables) {
            Some(table) => Test::Above(self.vars.read(Var::Shared(table)), 0),
            None => Test::Const(false),
        }
    }

    /// Records all that is behind the current table in the gather.
    pub(in crate::explore::model) fn record_table(&mut self, at: &At, next: OpIndex) -> OpIndex {
        let pages = self.world.pages_of_table(at.r.table.unwrap_or(0));
        let mask = pages.iter().fold(0, |mask, page| mask | 1_u64 << page);
        let range = self.read_local(Local::Range);
        let next = self.set_local(Local::FreedTables, 1, next);
        self.op(Kind::SetBits(range, mask), Class::Local, next, 0, String::new())
    }

    /// The table that was taken out is freed.
    pub(in crate::explore::model) fn free_aside(&mut self, waits: bool, name: &str, next: OpIndex) -> OpIndex {
        self.table(TableStep::FreeAside { waits }, Class::Visible, next, 0, format!("{name}()"))
    }

    /// Whether there is an upper entry here.
    pub(in crate::explore::model) fn pmd_present(&mut self, at: &At) -> Test {
        match at.r.table.filter(|_| self.has_tables()) {
            Some(region) => Test::Above(self.vars.read(Var::Pmd(region)), 0),
            None => Test::Const(true),
        }
    }

    /// `tlb_table_flush()`.
    pub(in crate::explore::model) fn free_gathered(&mut self, next: OpIndex) -> OpIndex {
        if !self.has_tables() {
            return next;
        }
        let tables = self.read_local(Local::Tables);
        let text = "tlb_table_flush(): free the tables".to_owned();
        let free = self.table(TableStep::FreeGathered, Class::Visible, next, 0, text);
        self.op(Kind::Branch(Test::Above(tables, 0)), Class::Local, free, next, String::new())
    }
}
