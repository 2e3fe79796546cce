//! All tables of all address spaces in one arena: blocks of 512 entries side by side, and what Linux keeps in the
//! table's `struct page` beside them.
//!
//! Invariants: the count of a table's non-none entries is exact; a table reached from a root is allocated, lies one
//! level below its parent and knows the address its range begins at. A table that was detached is reached from no root
//! but stays allocated until [`PageTables::free_table`]; a freed table keeps its content until it is handed out again,
//! so that a walk through a stale pointer finds what real memory would hold.

use std::ops::Range;

use super::entry::Pte;
use crate::addr::{Levels, PAGE_SHIFT, PTRS_PER_TABLE, PageSize, VaRange, VirtAddr};
use crate::error::{Error, Result};

/// The level number of PTE tables; each level above adds 9 bits of address.
pub const PTE_LEVEL: u8 = 0;
/// The level number of PMD tables.
pub const PMD_LEVEL: u8 = 1;
/// The level number of PUD tables.
pub const PUD_LEVEL: u8 = 2;
/// The level number of P4D tables with five levels, of the PGD with four.
pub const P4D_LEVEL: u8 = 3;
/// The level number of the PGD with five levels.
pub const PGD_LEVEL: u8 = 4;

/// The number of a table in its arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct TableId(pub u32);

/// log2 of the bytes that one entry of a table at `level` maps.
#[inline]
pub const fn entry_shift(level: u8) -> u32 {
    PAGE_SHIFT + 9 * level as u32
}

/// The index of the entry for `va` in a table at `level`.
#[inline]
pub const fn table_index(va: VirtAddr, level: u8) -> usize {
    (va.0 >> entry_shift(level)) as usize & (PTRS_PER_TABLE - 1)
}

/// One page of entries, aligned as the hardware wants it, which also keeps it off shared cache lines.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([Pte; PTRS_PER_TABLE]);

/// What belongs to a table but not to its page.
#[derive(Clone, Copy)]
struct Meta {
    base: VirtAddr,
    defer_gen: u64,
    nr_used: u16,
    level: u8,
    allocated: bool,
}

/// The page tables of many address spaces. See the module text for the invariants.
#[derive(Clone)]
pub struct PageTables {
    levels: Levels,
    blocks: Vec<Block>,
    meta: Vec<Meta>,
    free: Vec<TableId>,
}

impl PageTables {
    /// An arena without tables, for CPUs that walk `levels` levels.
    pub const fn new(levels: Levels) -> Self {
        Self { levels, blocks: Vec::new(), meta: Vec::new(), free: Vec::new() }
    }

    /// How many levels the CPUs walk.
    #[inline]
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// A new empty top table (`pgd_alloc`): the root of an address space.
    pub fn alloc_root(&mut self) -> TableId {
        self.alloc_table(self.levels.top(), VirtAddr(0))
    }

    /// A new empty table at `level` for the range that holds `va`, reached from nowhere yet.
    pub(super) fn alloc_table(&mut self, level: u8, va: VirtAddr) -> TableId {
        let base = va.align_down(entry_shift(level) + 9);
        let meta = Meta { base, defer_gen: 0, nr_used: 0, level, allocated: true };
        if let Some(id) = self.free.pop() {
            self.blocks[id.0 as usize].0.fill(Pte::NONE);
            self.meta[id.0 as usize] = meta;
            return id;
        }
        let id = TableId(self.blocks.len() as u32);
        self.blocks.push(Block([Pte::NONE; PTRS_PER_TABLE]));
        self.meta.push(meta);
        id
    }

    /// Gives a table back; the next allocation takes it (last in, first out). It must be detached already, and its
    /// content stays readable till then. Freeing it twice is a bug, and panics.
    pub fn free_table(&mut self, id: TableId) {
        let meta = &mut self.meta[id.0 as usize];
        assert!(meta.allocated, "table {} freed twice", id.0);
        meta.allocated = false;
        self.free.push(id);
    }

    /// Frees `root` and all tables reached from it.
    pub fn free_tree(&mut self, root: TableId) {
        if self.level(root) > PTE_LEVEL {
            for index in 0..PTRS_PER_TABLE {
                let entry = self.get(root, index);
                if entry.is_table() {
                    self.free_tree(entry.table_id());
                }
            }
        }
        self.free_table(root);
    }

    /// Tables allocated in the whole arena, detached ones included.
    #[inline]
    pub fn nr_tables(&self) -> usize {
        self.blocks.len() - self.free.len()
    }

    /// Tables reached from `root`, itself included.
    pub fn nr_tables_under(&self, root: TableId) -> usize {
        if self.level(root) == PTE_LEVEL {
            return 1;
        }
        let children = self.table(root).iter().filter(|entry| entry.is_table());
        1 + children.map(|entry| self.nr_tables_under(entry.table_id())).sum::<usize>()
    }

    /// Whether `id` is a table of this arena that has not been freed.
    #[inline]
    pub fn is_allocated(&self, id: TableId) -> bool {
        self.meta.get(id.0 as usize).is_some_and(|meta| meta.allocated)
    }

    /// Whether the arena ever had a table `id`: a stale pointer may name a freed one, garbage may name none.
    #[inline]
    pub(super) fn has_block(&self, id: TableId) -> bool {
        (id.0 as usize) < self.blocks.len()
    }

    /// The 512 entries of a table.
    #[inline]
    pub fn table(&self, id: TableId) -> &[Pte; PTRS_PER_TABLE] {
        &self.blocks[id.0 as usize].0
    }

    /// The level of a table: 0 is a PTE table.
    #[inline]
    pub fn level(&self, id: TableId) -> u8 {
        self.meta[id.0 as usize].level
    }

    /// The first address that the table's first entry maps.
    #[inline]
    pub fn base(&self, id: TableId) -> VirtAddr {
        self.meta[id.0 as usize].base
    }

    /// The addresses that the table maps.
    #[inline]
    pub fn range(&self, id: TableId) -> VaRange {
        let meta = &self.meta[id.0 as usize];
        VaRange::new(meta.base, VirtAddr(meta.base.0 + (1 << (entry_shift(meta.level) + 9))))
    }

    /// The table's entries that are not none.
    #[inline]
    pub fn nr_used(&self, id: TableId) -> usize {
        usize::from(self.meta[id.0 as usize].nr_used)
    }

    /// The generation word of the table: free for the caller's bookkeeping of deferred flushes, 0 at allocation.
    #[inline]
    pub fn defer_gen(&self, id: TableId) -> u64 {
        self.meta[id.0 as usize].defer_gen
    }

    /// Sets the generation word of the table.
    #[inline]
    pub fn set_defer_gen(&mut self, id: TableId, defer_gen: u64) {
        self.meta[id.0 as usize].defer_gen = defer_gen;
    }

    pub(super) fn set_base(&mut self, id: TableId, base: VirtAddr) {
        self.meta[id.0 as usize].base = base;
    }

    /// The entry `index` of a table.
    #[inline]
    pub fn get(&self, id: TableId, index: usize) -> Pte {
        self.blocks[id.0 as usize].0[index]
    }

    /// Writes the entry `index` of a table.
    #[inline]
    pub fn set(&mut self, id: TableId, index: usize, pte: Pte) {
        let slot = &mut self.blocks[id.0 as usize].0[index];
        let nr_used = &mut self.meta[id.0 as usize].nr_used;
        *nr_used = *nr_used + u16::from(!pte.is_none()) - u16::from(!slot.is_none());
        *slot = pte;
    }

    /// Lets `sweep` rewrite the entries `indexes` of a table; it tells how many were not none before and are not after.
    #[inline]
    pub(super) fn sweep<T>(
        &mut self,
        id: TableId,
        indexes: Range<usize>,
        sweep: impl FnOnce(&mut [Pte]) -> T,
        used: impl Fn(&T) -> (u64, u64),
    ) -> T {
        let swept = sweep(&mut self.blocks[id.0 as usize].0[indexes]);
        let (before, after) = used(&swept);
        let nr_used = &mut self.meta[id.0 as usize].nr_used;
        *nr_used = *nr_used + after as u16 - before as u16;
        swept
    }

    /// Rewrites the entries `indexes` of a table in order: `change(index, entry)` gives the new entry.
    #[inline]
    pub fn update(&mut self, id: TableId, indexes: Range<usize>, mut change: impl FnMut(usize, Pte) -> Pte) {
        let (mut was_used, mut used) = (0u16, 0u16);
        let first = indexes.start;
        for (offset, slot) in self.blocks[id.0 as usize].0[indexes].iter_mut().enumerate() {
            let new = change(first + offset, *slot);
            was_used += u16::from(!slot.is_none());
            used += u16::from(!new.is_none());
            *slot = new;
        }
        let nr_used = &mut self.meta[id.0 as usize].nr_used;
        *nr_used = *nr_used + used - was_used;
    }

    /// The table at `level` for `va`; none when it, or one above it, is absent or a huge page stands in its place.
    #[inline]
    pub fn table_at(&self, root: TableId, va: VirtAddr, level: u8) -> Option<TableId> {
        let mut id = root;
        for above in (level + 1..=self.levels.top()).rev() {
            let entry = self.get(id, table_index(va, above));
            if !entry.is_table() {
                return None;
            }
            id = entry.table_id();
        }
        Some(id)
    }

    /// The table at `level` for `va`, with missing tables allocated on the way.
    ///
    /// # Errors
    /// When a huge page (in any form) stands in the way; tables made before it was met stay.
    pub fn alloc_table_at(&mut self, root: TableId, va: VirtAddr, level: u8) -> Result<TableId> {
        let mut id = root;
        for above in (level + 1..=self.levels.top()).rev() {
            let index = table_index(va, above);
            let entry = self.get(id, index);
            id = if entry.is_table() {
                entry.table_id()
            } else if entry.is_none() {
                let child = self.alloc_table(above - 1, va);
                self.set(id, index, Pte::table(child));
                child
            } else {
                return Err(Error::Value(format!(
                    "address {va}: found the huge page `{entry}` at level {above}, expected a table or none"
                )));
            };
        }
        Ok(id)
    }

    /// The PTE table for `va`; none when absent or when a huge page stands there.
    #[inline]
    pub fn pte_table(&self, root: TableId, va: VirtAddr) -> Option<TableId> {
        self.table_at(root, va, PTE_LEVEL)
    }

    /// The PTE table for `va`, with missing tables allocated (`pte_alloc`).
    ///
    /// # Errors
    /// When a huge page stands in the way.
    #[inline]
    pub fn alloc_pte_table(&mut self, root: TableId, va: VirtAddr) -> Result<TableId> {
        self.alloc_table_at(root, va, PTE_LEVEL)
    }

    /// The entry that says where the page of `va` is: in a PTE table of any form but none, or a huge one.
    #[inline]
    pub fn leaf(&self, root: TableId, va: VirtAddr) -> Option<(Pte, PageSize)> {
        let mut id = root;
        let mut level = self.levels.top();
        loop {
            let entry = self.get(id, table_index(va, level));
            if entry.is_none() {
                return None;
            }
            if level == PTE_LEVEL || !entry.is_table() {
                return Some((entry, leaf_size(level)));
            }
            id = entry.table_id();
            level -= 1;
        }
    }

    /// The PMD entry for `va`: none also when no PMD table is there.
    #[inline]
    pub fn pmd_entry(&self, root: TableId, va: VirtAddr) -> Pte {
        self.table_at(root, va, PMD_LEVEL).map_or(Pte::NONE, |pmd| self.get(pmd, table_index(va, PMD_LEVEL)))
    }

    /// Writes the PMD entry for `va` (`set_pmd_at`), with missing upper tables allocated.
    ///
    /// # Errors
    /// When a 1 GiB page stands in the way, or a PTE table stands there (which nobody would free; detach it first).
    pub fn set_pmd_entry(&mut self, root: TableId, va: VirtAddr, pte: Pte) -> Result<()> {
        self.set_upper_entry(root, va, PMD_LEVEL, pte)
    }

    /// Maps the page of `size` around `va` with `pte`; a present one gets its PSE bit. With 4 KiB: the PTE.
    ///
    /// # Errors
    /// When a larger page stands in the way, or a table stands in the place.
    pub fn set_huge(&mut self, root: TableId, va: VirtAddr, size: PageSize, pte: Pte) -> Result<()> {
        let pte = if pte.is_present() && size != PageSize::Size4K { pte.mk_huge() } else { pte };
        self.set_upper_entry(root, va, size as u8, pte)
    }

    fn set_upper_entry(&mut self, root: TableId, va: VirtAddr, level: u8, pte: Pte) -> Result<()> {
        let table = self.alloc_table_at(root, va, level)?;
        let index = table_index(va, level);
        if level > PTE_LEVEL && self.get(table, index).is_table() {
            return Err(Error::Value(format!("address {va}: found a table at level {level}, expected none or a page")));
        }
        self.set(table, index, pte);
        Ok(())
    }
}

/// The size of the page that an entry of a table at `level` maps. No CPU has pages above 1 GiB.
#[inline]
pub(super) const fn leaf_size(level: u8) -> PageSize {
    match level {
        PTE_LEVEL => PageSize::Size4K,
        PMD_LEVEL => PageSize::Size2M,
        _ => PageSize::Size1G,
    }
}
