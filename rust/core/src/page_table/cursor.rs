//! A walk over the tables of an address range that holds no borrow, so that its user may change the tables between two
//! stops (and even the entry the next stop depends on: each stop starts from the root again).

use super::arena::{P4D_LEVEL, PMD_LEVEL, PTE_LEVEL, PageTables, TableId, entry_shift, table_index};
use crate::addr::{PTRS_PER_TABLE, VaRange, VirtAddr};

/// A place in an address space and where to stop. To visit a place again, set `addr` back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableCursor {
    /// The root of the address space.
    pub root: TableId,
    /// The first address not visited yet.
    pub addr: VirtAddr,
    /// The address after the last to visit.
    pub end: VirtAddr,
}

/// A stop of a [`TableCursor`]. Each `range` is the part of the cursor's range that lies there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableVisit {
    /// A PTE table, whatever its entries are.
    PteTable {
        /// The table.
        id: TableId,
        /// Its addresses within the cursor's range.
        range: VaRange,
    },
    /// A PMD entry that is neither none nor a table: a 2 MiB page in any form.
    HugePmd {
        /// Its addresses within the cursor's range.
        range: VaRange,
        /// The PMD table.
        table: TableId,
        /// The entry's index in it.
        index: usize,
    },
    /// A PUD entry that is neither none nor a table: a 1 GiB page in any form.
    HugePud {
        /// Its addresses within the cursor's range.
        range: VaRange,
        /// The PUD table.
        table: TableId,
        /// The entry's index in it.
        index: usize,
    },
}

impl TableVisit {
    /// The addresses of the stop within the cursor's range.
    #[inline]
    pub const fn range(&self) -> VaRange {
        match *self {
            Self::PteTable { range, .. } | Self::HugePmd { range, .. } | Self::HugePud { range, .. } => range,
        }
    }
}

impl TableCursor {
    /// A cursor at the start of `range`.
    #[inline]
    pub const fn new(root: TableId, range: VaRange) -> Self {
        Self { root, addr: range.start, end: range.end }
    }

    /// The next stop, by address; absent subtrees are passed over at the highest level that lacks them.
    #[inline]
    pub fn next(&mut self, tables: &PageTables) -> Option<TableVisit> {
        'from_root: while self.addr < self.end {
            let mut id = self.root;
            let mut level = tables.levels().top();
            while level > PTE_LEVEL {
                let index = table_index(self.addr, level);
                let entry = tables.get(id, index);
                if entry.is_none() {
                    self.skip_none(tables, id, level, index);
                    continue 'from_root;
                }
                if !entry.is_table() {
                    debug_assert!(level < P4D_LEVEL, "a page of more than 1 GiB");
                    let range = self.take(level);
                    return Some(if level == PMD_LEVEL {
                        TableVisit::HugePmd { range, table: id, index }
                    } else {
                        TableVisit::HugePud { range, table: id, index }
                    });
                }
                id = entry.table_id();
                level -= 1;
            }
            return Some(TableVisit::PteTable { id, range: self.take(PMD_LEVEL) });
        }
        None
    }

    /// Passes the none entries of table `id` from `index` on, to the next entry of another kind or the table's end.
    fn skip_none(&mut self, tables: &PageTables, id: TableId, level: u8, index: usize) {
        let shift = entry_shift(level);
        let rest = &tables.table(id)[index..];
        let nr_none = rest.iter().position(|entry| !entry.is_none()).unwrap_or(PTRS_PER_TABLE - index);
        self.addr = VirtAddr(self.addr.align_down(shift).0 + ((nr_none as u64) << shift)).min(self.end);
    }

    /// The rest of the current entry of a table at `level`, which counts as visited.
    #[inline]
    fn take(&mut self, level: u8) -> VaRange {
        let shift = entry_shift(level);
        let next = VirtAddr(self.addr.align_down(shift).0 + (1 << shift)).min(self.end);
        let range = VaRange::new(self.addr, next);
        self.addr = next;
        range
    }
}
