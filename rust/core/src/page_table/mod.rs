//! x86-64 page tables of many address spaces: entries, the arena of tables, table-wise operations, the order in which
//! Linux frees tables, and the hardware's walk.
//!
//! What it is: memory that looks like page tables, read and written as Linux and the CPU do. An address space is the
//! [`TableId`] of its top table. Invariants are those of the [arena](PageTables).
//!
//! What it does not do: it knows no VMAs, pages' reference counts, swap maps, locks or TLBs. Nothing here flushes.

mod arena;
mod cursor;
mod entry;
mod free;
mod prot;
mod range;
mod reshape;
mod sweep;
mod walk;

pub use arena::{P4D_LEVEL, PGD_LEVEL, PMD_LEVEL, PTE_LEVEL, PUD_LEVEL, PageTables, TableId, entry_shift, table_index};
pub use cursor::{TableCursor, TableVisit};
pub use entry::{Pte, bits};
pub use free::{Freed, FreedKind};
pub use prot::Prot;
pub use range::RangeSummary;
pub use walk::{Walk, WalkEnd, WalkStep};
