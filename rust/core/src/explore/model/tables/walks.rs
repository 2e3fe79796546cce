//! What CPUs cache of the way to page tables, and the walks through it.
//!
//! A walk reads the upper entry, then the entry: two moments. So a CPU first caches the upper entry (it may do so at any
//! time while that stands), and fills its TLB from the table that its cached entry leads to, whatever has become of the
//! upper entry since. It may hold several for the same addresses. All of it is monotone: one more lets it do more.

use crate::explore::model::op::Scope;
use crate::explore::model::vars::Field;
use crate::explore::model::{KernelModel, ThreadFields};

impl<const W: usize> KernelModel<W> {
    /// Calls `take` with each way by which a CPU can walk to a virtual page: its number, and the entry found there.
    #[inline]
    pub(in crate::explore::model) fn for_each_walk(
        &self,
        state: &[u64; W],
        cpu: usize,
        page: u8,
        mut take: impl FnMut(usize, Field),
    ) {
        if self.tables.are_fixed() {
            return take(0, self.pages[usize::from(page)].pte);
        }
        let region = self.tables.region[usize::from(page)];
        for (number, ((of, table), cached)) in self.tables.upper.iter().zip(&self.tables.psc[cpu]).enumerate() {
            if *of == region && cached.get(state) != 0 {
                take(number, self.entry_in(page, u64::from(*table) + 1));
            }
        }
    }

    /// The upper entries that a CPU has not cached and could: their numbers and variables.
    pub(in crate::explore::model) fn uncached<'a>(
        &'a self,
        state: &'a [u64; W],
        cpu: usize,
    ) -> impl Iterator<Item = (usize, Field)> + 'a {
        let all = self.tables.upper.iter().zip(self.tables.psc.get(cpu).into_iter().flatten()).enumerate();
        let can =
            move |(region, table): (u8, u8)| self.tables.pmd[usize::from(region)].get(state) == u64::from(table) + 1;
        all.filter(move |(_, (upper, cached))| cached.get(state) == 0 && can(**upper))
            .map(|(number, (_, cached))| (number, *cached))
    }

    /// The upper entries that a CPU has cached.
    pub(in crate::explore::model) fn cached<'a>(
        &'a self,
        state: &'a [u64; W],
        cpu: usize,
    ) -> impl Iterator<Item = (usize, Field)> + 'a {
        let all = self.tables.psc.get(cpu).into_iter().flatten().copied().enumerate();
        all.filter(move |(_, cached)| cached.get(state) != 0)
    }

    /// A flush on a CPU drops what it has cached of the way to the pages covered, if it is one for tables too.
    pub(in crate::explore::model) fn drop_cached(
        &self,
        state: &mut [u64; W],
        cpu: usize,
        thread: &ThreadFields,
        scope: Scope,
    ) {
        if self.tables.are_fixed() || !Self::covers_tables(state, thread, scope) {
            return;
        }
        let covered = Self::covered(state, thread, scope);
        let is_covered = |region: u8| {
            let pages = self.tables.region.iter().enumerate();
            pages.into_iter().any(|(page, of)| *of == region && covered >> page & 1 != 0)
        };
        for ((region, _), cached) in self.tables.upper.iter().zip(&self.tables.psc[cpu]) {
            let is_exec = |page: &u8| self.blueprint.world.pages[usize::from(*page)].exec;
            let is_kept = thread.keeps_exec && self.blueprint.world.pages_of_table(*region).iter().any(is_exec);
            if is_covered(*region) && !is_kept {
                cached.set(state, 0);
            }
        }
    }

    /// The name of an upper entry that CPUs cache.
    pub(in crate::explore::model) fn upper_name(&self, number: usize) -> String {
        let (region, table) = self.tables.upper[number];
        let world = &self.blueprint.world;
        let name = |of: u8| world.pages_of_table(of).first().map_or("?", |page| &world.pages[usize::from(*page)].name);
        if region == table {
            format!("table of {}", name(region))
        } else {
            format!("table of {} at {}", name(table), name(region))
        }
    }
}
