//! Page tables as objects: they are linked in an upper entry, are taken out, move, are freed, and CPUs cache the way to them.
//!
//! Only scenarios with `whole_tables` have them; in all others a table is where it was, other pages around those of the
//! scenario hold it, and nothing here takes room in a state.
//!
//! A table has the number of the 2 MiB that it maps at the start. An entry lies in its table; the variable that holds it is
//! that of the virtual page which stands there at the start, so that a table that moves takes its entries along.

mod gup;
mod run;
mod unroll;
mod walks;

use crate::explore::scenario::World;

use super::KernelModel;
use super::blueprint::Blueprint;
use super::vars::{Field, Local, Var, VarId, Vars};

/// A step on page tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableStep {
    /// `pte_offset_map_lock()`: maps the table that the upper entry names and takes its lock. On to `other` if there is none,
    /// or if the VMA is out of the reverse map.
    MapLock {
        /// Whose 2 MiB.
        region: u8,
        /// The locks by table.
        locks: Vec<VarId>,
        /// For a walk of the reverse map: whether the VMA is out of it.
        unlinked: Option<VarId>,
    },
    /// `pte_unmap_unlock()`.
    MapUnlock,
    /// A look at an upper entry without a lock; on to `other` if it is none.
    Look(u8),
    /// `free_pte_range()`: clears the upper entry; the gather has the table to free, and records one page of it.
    Take {
        /// Whose 2 MiB.
        region: u8,
        /// The page recorded.
        page: u8,
    },
    /// `tlb_remove_table()`: on to `next` with the table on the gather's batch, to `other` if there was none and none can be
    /// allocated. Both can happen.
    Batch,
    /// `tlb_table_flush()`: the gather's tables are freed, once all who walk without locks are through (RCU).
    FreeGathered,
    /// `__tlb_remove_table_one()`: they are freed at once.
    FreeNow,
    /// `move_normal_pmd()`.
    Move {
        /// From whose 2 MiB.
        from: u8,
        /// To whose.
        to: u8,
    },
    /// `pmdp_collapse_flush()`: takes the table out of the tree and keeps it aside.
    Detach {
        /// Whose 2 MiB.
        region: u8,
        /// Only a table without entries: `collapse_file()` has unmapped what it held.
        only_empty: bool,
    },
    /// `pud_clear()`: the table that is mapped, and shared, leaves this address space.
    Unhook(u8),
    /// It is no user of that table any more.
    Unshare {
        /// User CPUs run this address space.
        of_users: bool,
    },
    /// Maps the table kept aside and takes its lock; on to `other` if there is none.
    MapAside,
    /// The content of the page is in the huge one: the entry goes.
    Collapse(u8),
    /// The table kept aside is freed.
    FreeAside {
        /// Not before all who walk without locks are through (RCU).
        waits: bool,
    },
    /// `pmdp_invalidate()`: a huge entry is read, and is none to the hardware but keeps all else.
    Invalidate(u8),
    /// `tlb_remove_table_sync_one()`: waits for all who walk without locks.
    Sync,
    /// GUP-fast: interrupts go off, the upper entry is read; on to `other` if it is none.
    WalkStart(u8),
    /// GUP-fast takes a reference of the page; on to `other` if it has none any more.
    TryGet,
    /// GUP-fast looks again: on to `other` if the entry or the upper one changed meanwhile. Interrupts go on.
    Recheck {
        /// Whose entry.
        page: u8,
    },
}

impl TableStep {
    /// It goes on at one of two places.
    pub const fn has_two_ends(&self) -> bool {
        matches!(
            self,
            Self::MapLock { .. }
                | Self::Look(_)
                | Self::Batch
                | Self::MapAside
                | Self::Detach { .. }
                | Self::WalkStart(_)
                | Self::TryGet
                | Self::Recheck { .. }
        )
    }

    /// It looks at the entry that its thread has read.
    pub const fn reads_pte(&self) -> bool {
        matches!(self, Self::TryGet | Self::Recheck { .. })
    }

    /// The locks that it takes.
    pub fn locks(&self) -> &[VarId] {
        if let Self::MapLock { locks, .. } = self { locks } else { &[] }
    }
}

/// Where the variables of page tables lie; all empty if tables stay as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables<const W: usize> {
    /// The upper entries.
    pmd: Vec<Field>,
    freed: Vec<Field>,
    reused: Vec<Field>,
    ptl: Vec<Field>,
    shared: Vec<Field>,
    /// Of each virtual page, whose 2 MiB it is in.
    region: Vec<u8>,
    /// By virtual page and table: the virtual page whose variable holds the entry when that table stands there.
    cells: Vec<Vec<Option<u8>>>,
    /// What a CPU can cache: an upper entry, and the table that it named.
    upper: Vec<(u8, u8)>,
    /// By CPU, in the order of `upper`.
    psc: Vec<Vec<Field>>,
    /// By table: what CPUs have cached of the way to it.
    psc_mask: Vec<[u64; W]>,
}

impl<const W: usize> Tables<W> {
    /// Tables stay where they are.
    #[inline]
    pub fn are_fixed(&self) -> bool {
        self.pmd.is_empty()
    }
}

/// The upper entries that CPUs can cache, each with the table that it names.
fn upper_entries(world: &World) -> Vec<(u8, u8)> {
    let tables = 0..world.tables.len() as u8;
    let of_users = |table: &u8| world.tables[usize::from(*table)] == 0;
    let at_home =
        tables.clone().filter(|t| of_users(t) && world.table_at_start[usize::from(*t)] == Some(*t)).map(|t| (t, t));
    let mut found: Vec<(u8, u8)> = at_home.collect();
    for thread in &world.threads {
        found.extend(tables.clone().filter_map(|from| world.moves_whole(thread, from).map(|to| (to, from))));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The variables of page tables that the hardware and the invariants look at.
pub(super) fn declare(world: &World, vars: &mut Vars) {
    if !world.whole_tables {
        return;
    }
    for table in 0..world.tables.len() as u8 {
        for var in [Var::Pmd(table), Var::TableFreed(table)] {
            vars.read(var);
        }
        if world.threads.iter().any(|thread| thread.is_walker) {
            vars.read(Var::TableReused(table));
        }
    }
    for cpu in 0..world.users {
        for number in 0..upper_entries(world).len() as u8 {
            vars.read(Var::Psc(cpu, number));
        }
    }
    for thread in 0..world.threads.len() as u8 {
        vars.read(Var::Thread(thread, Local::Walk));
    }
}

/// How many bits a variable of this kind takes; None: it is another's.
pub(super) fn width(var: Var, world: &World) -> Option<u32> {
    let nr_tables = world.tables.len() as u64;
    match var {
        Var::Pmd(_) | Var::Thread(_, Local::Walk | Local::Aside) => Some(super::vars::bits_for(nr_tables)),
        Var::Thread(_, Local::Tables) => Some(nr_tables as u32),
        _ => None,
    }
}

impl Blueprint {
    /// Where everything about page tables lies.
    pub(super) fn tables<const W: usize>(&self) -> Tables<W> {
        let world = &self.world;
        if !world.whole_tables {
            return Tables::default();
        }
        let tables = 0..world.tables.len() as u8;
        let places = |var: fn(u8) -> Var| tables.clone().map(|table| self.place_of(var(table))).collect();
        let upper = upper_entries(world);
        let psc: Vec<Vec<Field>> = (0..world.users)
            .map(|cpu| (0..upper.len() as u8).map(|number| self.place_of(Var::Psc(cpu, number))).collect())
            .collect();
        let mask_of = |table: u8| {
            let mut mask = [0; W];
            for fields in &psc {
                for ((_, to), field) in upper.iter().zip(fields) {
                    if *to == table {
                        field.set(&mut mask, 1);
                    }
                }
            }
            mask
        };
        let cell = |page: u8, table: u8| {
            let region = world.pages[usize::from(page)].table;
            if region == table {
                return Some(page);
            }
            let moves_here = |thread| world.moves_whole(thread, table) == Some(region);
            let index = world.pages_of_table(region).iter().position(|p| *p == page)?;
            let is_shared = world.table_at_start[usize::from(region)] == Some(table);
            (is_shared || world.threads.iter().any(moves_here)).then(|| world.pages_of_table(table)[index])
        };
        Tables {
            pmd: places(Var::Pmd),
            freed: places(Var::TableFreed),
            reused: places(Var::TableReused),
            ptl: places(Var::Ptl),
            shared: places(Var::Shared),
            region: world.pages.iter().map(|page| page.table).collect(),
            cells: (0..world.pages.len() as u8)
                .map(|page| tables.clone().map(|table| cell(page, table)).collect())
                .collect(),
            psc_mask: tables.clone().map(mask_of).collect(),
            upper,
            psc,
        }
    }
}

impl<const W: usize> KernelModel<W> {
    /// The tables that stand at the start.
    pub(super) fn start_tables(&self, state: &mut [u64; W]) {
        let world = &self.blueprint.world;
        for (region, field) in self.tables.pmd.iter().enumerate() {
            let Some(table) = world.table_at_start[region] else { continue };
            field.set(state, u64::from(table) + 1);
            self.tables.shared[usize::from(table)].set(state, u64::from(world.shared_tables));
        }
    }
}
