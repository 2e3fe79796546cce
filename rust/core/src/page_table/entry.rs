//! One page-table entry in one 64-bit word, packed as x86-64 packs it.
//!
//! | form | P (bit 0) | G (bit 8) | bits 3..4 | bits 12..51 |
//! |---|---|---|---|---|
//! | none | 0 | 0 | 0 (the whole word is 0) | 0 |
//! | present | 1 | any | PWT, PCD | pfn |
//! | protnone | 0 | 1 (it is `_PAGE_PROTNONE`) | PWT, PCD | pfn |
//! | swap | 0 | 0 | 1 | slot |
//! | migration | 0 | 0 | 2 | pfn |
//!
//! The present bits stand where arch/x86/include/asm/pgtable_types.h has them, the software bits too (special 9,
//! uffd-wp 10, soft-dirty 11). A swap entry carries soft-dirty and uffd-wp, a migration entry also write, young and
//! dirty, each at the bit a present entry has it. (Linux moves some of them because the CPU's PSE and
//! PROT_NONE bits are in its way; here one mask test answers for each form.)
//!
//! An entry of an upper level that points to a table is present without PSE and has the table's number in place of the
//! frame's; see [`Pte::is_table`], which is meaningful above the lowest level only.

use std::fmt;

use super::arena::TableId;
use super::prot::Prot;
use crate::addr::Pfn;

/// The bits of an entry by their kernel names (arch/x86/include/asm/pgtable_types.h).
pub mod bits {
    /// `_PAGE_PRESENT`: the CPU may use the entry.
    pub const PRESENT: u64 = 1 << 0;
    /// `_PAGE_RW`: writes are allowed.
    pub const RW: u64 = 1 << 1;
    /// `_PAGE_USER`: user mode may use it.
    pub const USER: u64 = 1 << 2;
    /// `_PAGE_PWT`: write-through.
    pub const PWT: u64 = 1 << 3;
    /// `_PAGE_PCD`: not cached.
    pub const PCD: u64 = 1 << 4;
    /// `_PAGE_ACCESSED`: set by the CPU at a walk.
    pub const ACCESSED: u64 = 1 << 5;
    /// `_PAGE_DIRTY`: set by the CPU at a write.
    pub const DIRTY: u64 = 1 << 6;
    /// `_PAGE_PSE`: a huge page (levels above the lowest).
    pub const PSE: u64 = 1 << 7;
    /// `_PAGE_GLOBAL` of a present entry.
    pub const GLOBAL: u64 = 1 << 8;
    /// `_PAGE_PROTNONE` of an entry without [`PRESENT`]: the same bit as [`GLOBAL`].
    pub const PROTNONE: u64 = GLOBAL;
    /// `_PAGE_SPECIAL`: no `struct page` behind it (the zero page).
    pub const SPECIAL: u64 = 1 << 9;
    /// `_PAGE_UFFD_WP`: write-protected for userfaultfd.
    pub const UFFD_WP: u64 = 1 << 10;
    /// `_PAGE_SOFT_DIRTY`: written since the last clear_refs.
    pub const SOFT_DIRTY: u64 = 1 << 11;
    /// `_PAGE_NX`: no execution.
    pub const NX: u64 = 1 << 63;
    /// The frame number, or a swap slot, or a table's number.
    pub const PFN_MASK: u64 = ((1 << 52) - 1) & !((1 << PFN_SHIFT) - 1);
    /// Where the frame number begins.
    pub const PFN_SHIFT: u32 = 12;
    /// Tells a swap entry among entries with neither [`PRESENT`] nor [`PROTNONE`].
    pub(super) const SWAP: u64 = 1 << 3;
    /// Tells a migration entry, likewise.
    pub(super) const MIGRATION: u64 = 2 << 3;
    /// The field that holds [`SWAP`] or [`MIGRATION`].
    pub(super) const KIND_MASK: u64 = 3 << 3;
    /// What `pte_modify` takes over from the old entry (`_HPAGE_CHG_MASK`).
    pub const CHG_MASK: u64 = PFN_MASK | PWT | PCD | ACCESSED | DIRTY | PSE | SPECIAL | UFFD_WP | SOFT_DIRTY;
}

use bits::{
    ACCESSED, CHG_MASK, DIRTY, GLOBAL, KIND_MASK, MIGRATION, NX, PFN_MASK, PFN_SHIFT, PRESENT, PROTNONE, PSE, RW,
    SOFT_DIRTY, SPECIAL, SWAP, UFFD_WP, USER,
};

/// A page-table entry of any level. Values, not places: methods return the changed entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pte(pub u64);

impl Pte {
    /// The empty entry (`__pte(0)`).
    pub const NONE: Self = Self(0);

    /// The entry that maps `pfn` with the rights of `prot` (`pfn_pte`; with `Prot::NONE` a protnone entry).
    #[inline]
    pub const fn new(pfn: Pfn, prot: Prot) -> Self {
        Self(pfn_bits(pfn.0) | prot.0)
    }

    /// The entry of a page that went to swap slot `slot` (below 2^40), without flags.
    #[inline]
    pub const fn swap(slot: u64) -> Self {
        Self(pfn_bits(slot) | SWAP)
    }

    /// The entry of a page under migration from frame `pfn`: readable, without flags. Add them with [`Self::mk_write`],
    /// [`Self::mk_young`], [`Self::mk_dirty`], [`Self::mk_soft_dirty`] and [`Self::mk_uffd_wp`].
    #[inline]
    pub const fn migration(pfn: Pfn) -> Self {
        Self(pfn_bits(pfn.0) | MIGRATION)
    }

    /// The migration entry that stands for this present one: its write, young, dirty, soft-dirty and uffd-wp stay
    /// (mm/rmap.c:try_to_migrate_one).
    #[inline]
    pub const fn to_migration(self) -> Self {
        Self(self.0 & (PFN_MASK | RW | ACCESSED | DIRTY | SOFT_DIRTY | UFFD_WP) | MIGRATION)
    }

    /// The swap entry that stands for this present one: its soft-dirty and uffd-wp stay (mm/rmap.c:try_to_unmap_one).
    #[inline]
    pub const fn to_swap(self, slot: u64) -> Self {
        Self(self.0 & (SOFT_DIRTY | UFFD_WP) | pfn_bits(slot) | SWAP)
    }

    /// The upper-level entry that points to `table` (`_PAGE_TABLE`).
    #[inline]
    pub const fn table(table: TableId) -> Self {
        Self(pfn_bits(table.0 as u64) | PRESENT | RW | USER | ACCESSED)
    }

    /// Whether it is empty.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it maps a page for Linux (`pte_present`): hardware-present or protnone.
    #[inline]
    pub const fn is_present(self) -> bool {
        self.0 & (PRESENT | PROTNONE) != 0
    }

    /// Whether the CPU may use it.
    #[inline]
    pub const fn is_hw_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it maps a page that the CPU may not touch (`pte_protnone`).
    #[inline]
    pub const fn is_protnone(self) -> bool {
        self.0 & (PRESENT | PROTNONE) == PROTNONE
    }

    /// Whether its page is in swap.
    #[inline]
    pub const fn is_swap(self) -> bool {
        self.0 & (PRESENT | PROTNONE | KIND_MASK) == SWAP
    }

    /// Whether its page is under migration.
    #[inline]
    pub const fn is_migration(self) -> bool {
        self.0 & (PRESENT | PROTNONE | KIND_MASK) == MIGRATION
    }

    /// Whether this entry of an upper level points to a table (neither none nor a huge page in any form).
    #[inline]
    pub const fn is_table(self) -> bool {
        self.0 & (PRESENT | PSE) == PRESENT
    }

    /// The table that [`Self::table`] made it point to.
    #[inline]
    pub const fn table_id(self) -> TableId {
        TableId(((self.0 & PFN_MASK) >> PFN_SHIFT) as u32)
    }

    /// Whether writes are allowed (`pte_write`; of a migration entry: `is_writable_migration_entry`).
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & RW != 0
    }

    /// Whether user mode may use it (`pte_user`).
    #[inline]
    pub const fn user(self) -> bool {
        self.0 & USER != 0
    }

    /// Whether it was used (`pte_young`; of a migration entry: `is_migration_entry_young`).
    #[inline]
    pub const fn young(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// Whether it was written (`pte_dirty`; of a migration entry: `is_migration_entry_dirty`).
    #[inline]
    pub const fn dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// Whether it is global; never so for protnone, whose mark is the same bit (`pte_global`).
    #[inline]
    pub const fn global(self) -> bool {
        self.0 & (PRESENT | GLOBAL) == PRESENT | GLOBAL
    }

    /// Whether execution is refused.
    #[inline]
    pub const fn nx(self) -> bool {
        self.0 & NX != 0
    }

    /// Whether it was written since the last clear_refs (`pte_soft_dirty`, `pte_swp_soft_dirty`).
    #[inline]
    pub const fn soft_dirty(self) -> bool {
        self.0 & SOFT_DIRTY != 0
    }

    /// Whether it is write-protected for userfaultfd (`pte_uffd_wp`, `pte_swp_uffd_wp`).
    #[inline]
    pub const fn uffd_wp(self) -> bool {
        self.0 & UFFD_WP != 0
    }

    /// Whether no `struct page` stands behind it (`pte_special`).
    #[inline]
    pub const fn special(self) -> bool {
        self.0 & SPECIAL != 0
    }

    /// Whether it maps a huge page (`pte_huge`: PSE).
    #[inline]
    pub const fn huge(self) -> bool {
        self.0 & PSE != 0
    }

    /// The frame it maps (present, protnone, migration).
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 & PFN_MASK) >> PFN_SHIFT)
    }

    /// The swap slot (`swp_offset`), when it is a swap entry.
    #[inline]
    pub const fn swap_slot(self) -> Option<u64> {
        if self.is_swap() { Some((self.0 & PFN_MASK) >> PFN_SHIFT) } else { None }
    }

    /// The same entry for another frame (or slot).
    #[inline]
    pub const fn with_pfn(self, pfn: Pfn) -> Self {
        Self(self.0 & !PFN_MASK | pfn_bits(pfn.0))
    }

    /// With writes allowed (`pte_mkwrite_novma`).
    #[inline]
    pub const fn mk_write(self) -> Self {
        Self(self.0 | RW)
    }

    /// With writes refused (`pte_wrprotect`).
    #[inline]
    pub const fn wrprotect(self) -> Self {
        Self(self.0 & !RW)
    }

    /// Accessed (`pte_mkyoung`).
    #[inline]
    pub const fn mk_young(self) -> Self {
        Self(self.0 | ACCESSED)
    }

    /// Not accessed (`pte_mkold`).
    #[inline]
    pub const fn mk_old(self) -> Self {
        Self(self.0 & !ACCESSED)
    }

    /// With the dirty bit alone; [`Self::mk_soft_dirty`] adds what `pte_mkdirty` also sets.
    #[inline]
    pub const fn mk_dirty(self) -> Self {
        Self(self.0 | DIRTY)
    }

    /// Not dirty; soft-dirty stays (`pte_mkclean`).
    #[inline]
    pub const fn mk_clean(self) -> Self {
        Self(self.0 & !DIRTY)
    }

    /// Soft-dirty (`pte_mksoft_dirty`, `pte_swp_mksoft_dirty`).
    #[inline]
    pub const fn mk_soft_dirty(self) -> Self {
        Self(self.0 | SOFT_DIRTY)
    }

    /// Not soft-dirty (`pte_clear_soft_dirty`, `pte_swp_clear_soft_dirty`).
    #[inline]
    pub const fn clear_soft_dirty(self) -> Self {
        Self(self.0 & !SOFT_DIRTY)
    }

    /// Marked for userfaultfd; `pte_mkuffd_wp` takes the write bit too, which is [`Self::wrprotect`]'s work here.
    #[inline]
    pub const fn mk_uffd_wp(self) -> Self {
        Self(self.0 | UFFD_WP)
    }

    /// Not marked for userfaultfd (`pte_clear_uffd_wp`).
    #[inline]
    pub const fn clear_uffd_wp(self) -> Self {
        Self(self.0 & !UFFD_WP)
    }

    /// Special (`pte_mkspecial`).
    #[inline]
    pub const fn mk_special(self) -> Self {
        Self(self.0 | SPECIAL)
    }

    /// Huge (`pte_mkhuge`).
    #[inline]
    pub const fn mk_huge(self) -> Self {
        Self(self.0 | PSE)
    }

    /// Not huge (`pte_clrhuge`).
    #[inline]
    pub const fn clear_huge(self) -> Self {
        Self(self.0 & !PSE)
    }

    /// Refused to the CPU with all else kept, as a huge entry is between `pmdp_invalidate` and its successor. Linux
    /// tells that state by PSE alone; here it has the protnone form.
    #[inline]
    pub const fn mk_invalid(self) -> Self {
        Self(self.0 & !PRESENT | PROTNONE)
    }

    /// The same page with the rights of `newprot` (`pte_modify`, `pmd_modify`): pfn, A, D, soft-dirty, uffd-wp, special,
    /// PSE and the caching bits stay; P or protnone, write, user, global and NX come from `newprot`. For present forms.
    #[inline]
    pub const fn modify(self, newprot: Prot) -> Self {
        Self(self.0 & CHG_MASK | newprot.0 & !CHG_MASK)
    }
}

/// `number` in the place of the frame number. Numbers are below 2^40: frames of 52-bit physical addresses.
#[inline]
const fn pfn_bits(number: u64) -> u64 {
    (number << PFN_SHIFT) & PFN_MASK
}

/// Names of flags in the order in which the text has them, for each form.
const PRESENT_FLAGS: [(u64, &str); 12] = [
    (PRESENT, "P"),
    (PROTNONE, "PROTNONE"),
    (RW, "W"),
    (USER, "U"),
    (ACCESSED, "A"),
    (DIRTY, "D"),
    (GLOBAL, "G"),
    (NX, "NX"),
    (PSE, "PSE"),
    (SOFT_DIRTY, "SD"),
    (UFFD_WP, "UFFD"),
    (SPECIAL, "SPECIAL"),
];
const SWAP_FLAGS: [(u64, &str); 2] = [(SOFT_DIRTY, "SD"), (UFFD_WP, "UFFD")];
const MIGRATION_FLAGS: [(u64, &str); 5] =
    [(RW, "W"), (ACCESSED, "A"), (DIRTY, "D"), (SOFT_DIRTY, "SD"), (UFFD_WP, "UFFD")];

impl fmt::Display for Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            f.write_str("none")
        } else if self.is_present() {
            // PROTNONE and G are one bit with two meanings: show the one that holds.
            let hidden = if self.is_hw_present() { "PROTNONE" } else { "G" };
            for (bit, name) in PRESENT_FLAGS {
                if self.0 & bit != 0 && name != hidden {
                    write!(f, "{name} ")?;
                }
            }
            write!(f, "pfn={:#x}", self.pfn().0)
        } else if let Some(slot) = self.swap_slot() {
            write!(f, "swap slot={slot}")?;
            write_flags(f, self.0, &SWAP_FLAGS)
        } else if self.is_migration() {
            write!(f, "migration pfn={:#x}", self.pfn().0)?;
            write_flags(f, self.0, &MIGRATION_FLAGS)
        } else {
            write!(f, "bad {:#x}", self.0)
        }
    }
}

impl fmt::Debug for Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes ` NAME` for each flag that `word` has.
fn write_flags(f: &mut fmt::Formatter<'_>, word: u64, flags: &[(u64, &str)]) -> fmt::Result {
    for (bit, name) in flags {
        if word & bit != 0 {
            write!(f, " {name}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW_PROT: Prot = Prot::SHARED;

    #[test]
    fn forms_are_told_apart() {
        let protnone = Pte::new(Pfn(0), Prot::NONE);
        let all = [Pte::NONE, Pte::new(Pfn(0), RW_PROT), protnone, Pte::swap(0), Pte::migration(Pfn(0))];
        for (i, pte) in all.into_iter().enumerate() {
            let forms = [pte.is_none(), pte.is_hw_present(), pte.is_protnone(), pte.is_swap(), pte.is_migration()];
            assert_eq!(forms.iter().filter(|&&form| form).count(), 1, "{pte}");
            assert!(forms[i], "{pte}");
            assert_eq!(pte.is_present(), i == 1 || i == 2, "{pte}");
        }
    }

    #[test]
    fn every_flag_leaves_the_form_alone() {
        let mk = |pte: Pte| pte.mk_write().mk_young().mk_dirty().mk_soft_dirty().mk_uffd_wp();
        assert!(mk(Pte::swap(7)).is_swap() && mk(Pte::migration(Pfn(7))).is_migration());
        assert_eq!(mk(Pte::swap(7)).swap_slot(), Some(7));
        let caching = Pte(Pte::new(Pfn(7), Prot::NONE).0 | bits::PWT | bits::PCD);
        assert!(caching.is_protnone() && !caching.is_swap() && !caching.is_migration() && !caching.global());
    }

    #[test]
    fn text_is_exact() {
        let pte = Pte::new(Pfn(0x123), RW_PROT);
        assert_eq!(pte.to_string(), "P W U A NX pfn=0x123");
        let full = pte.mk_dirty().mk_huge().mk_soft_dirty().mk_uffd_wp().mk_special();
        assert_eq!(Pte(full.0 | bits::GLOBAL).to_string(), "P W U A D G NX PSE SD UFFD SPECIAL pfn=0x123");
        assert_eq!(pte.modify(Prot::NONE).to_string(), "PROTNONE A pfn=0x123");
        assert_eq!(Pte::NONE.to_string(), "none");
        assert_eq!(full.to_swap(9).to_string(), "swap slot=9 SD UFFD");
        assert_eq!(full.to_migration().to_string(), "migration pfn=0x123 W A D SD UFFD");
        assert_eq!(format!("{:?}", Pte::migration(Pfn(0))), "migration pfn=0x0");
    }

    #[test]
    fn modify_keeps_what_pte_modify_keeps() {
        let old = Pte::new(Pfn(5), RW_PROT).mk_dirty().mk_soft_dirty().mk_special().mk_uffd_wp().mk_huge();
        let new = old.modify(Prot::READONLY_EXEC);
        assert_eq!(new.to_string(), "P U A D PSE SD UFFD SPECIAL pfn=0x5");
        assert_eq!(old.mk_old().modify(Prot::READONLY_EXEC), new.mk_old());
        assert_eq!(old.modify(Prot::NONE).modify(Prot::SHARED), old);
    }

    #[test]
    fn invalid_and_back() {
        let huge = Pte::new(Pfn(0x200), RW_PROT).mk_huge().mk_dirty();
        let invalid = huge.mk_invalid();
        assert_eq!(invalid.to_string(), "PROTNONE W U A D NX PSE pfn=0x200");
        assert!(invalid.is_present() && !invalid.is_hw_present() && !invalid.is_table());
    }

    #[test]
    fn table_entries_point_to_their_table() {
        let entry = Pte::table(TableId(77));
        assert!(entry.is_table() && entry.write() && entry.user() && entry.young() && !entry.dirty());
        assert_eq!(entry.table_id(), TableId(77));
        for other in [Pte::NONE, Pte::migration(Pfn(1)), Pte::new(Pfn(1), RW_PROT).mk_huge()] {
            assert!(!other.is_table(), "{other}");
        }
    }
}
