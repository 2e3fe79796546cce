//! One cached translation, and how it is packed into the two `u64` of an array slot.
//!
//! The tag is everything a look-up compares (valid, global, page size, PCID, page number), so that one comparison of
//! 64 bits decides. The data word is the frame and the rights. An empty slot has tag 0.

use crate::addr::{PAGE_SHIFT, PageSize, Pfn, VirtAddr, Vpn};

/// How many process-context identifiers there are: PCIDs have 12 bits (CR3 bits 0 to 11).
pub const NR_PCIDS: u16 = 1 << 12;

const NUMBER_MASK: u64 = (1 << PCID_SHIFT) - 1;
const PCID_SHIFT: u32 = 48;
const SIZE_SHIFT: u32 = 60;
const GLOBAL: u64 = 1 << 62;
const VALID: u64 = 1 << 63;

const WRITE: u64 = 1 << 0;
const USER: u64 = 1 << 1;
const DIRTY: u64 = 1 << 2;
const NX: u64 = 1 << 3;
const PFN_SHIFT: u32 = 4;

/// What a look-up compares with the tags of a set: the tag of an entry of this PCID, or of a global entry.
///
/// Both name the same page, so both select the same set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The tag of an entry that belongs to the PCID alone.
    pub private: u64,
    /// The tag of an entry that every PCID may use.
    pub global: u64,
}

impl Key {
    /// The key of the page of `size` that holds `va`, seen from `pcid` (below [`NR_PCIDS`]).
    #[inline]
    pub fn new(pcid: u16, va: VirtAddr, size: PageSize) -> Self {
        let page = VALID | (size as u64) << SIZE_SHIFT | page_number(va, size.shift());
        Self { private: page | pcid_bits(pcid), global: page | GLOBAL }
    }

    /// The key of a paging-structure entry that maps `1 << shift` bytes around `va`; these are never global.
    #[inline]
    pub(super) fn of_table(pcid: u16, va: VirtAddr, shift: u32) -> Self {
        let tag = VALID | pcid_bits(pcid) | page_number(va, shift);
        Self { private: tag, global: tag }
    }

    /// The tag under which an entry is stored.
    #[inline]
    pub const fn tag(self, global: bool) -> u64 {
        if global { self.global } else { self.private }
    }
}

#[inline]
fn page_number(va: VirtAddr, shift: u32) -> u64 {
    debug_assert!(va.0 < 1 << 57, "address {va} has more than 57 bits");
    va.0 >> shift & NUMBER_MASK
}

#[inline]
fn pcid_bits(pcid: u16) -> u64 {
    debug_assert!(pcid < NR_PCIDS, "PCID {pcid} has more than 12 bits");
    u64::from(pcid) << PCID_SHIFT
}

/// The page number in a tag, in units of its own page size; it selects the set.
#[inline]
pub(super) const fn tag_number(tag: u64) -> u64 {
    tag & NUMBER_MASK
}

/// The page size in a tag as an index (0 in paging-structure tags).
#[inline]
pub(super) const fn tag_size_index(tag: u64) -> usize {
    (tag >> SIZE_SHIFT & 3) as usize
}

/// The page size in a tag.
#[inline]
pub(super) const fn tag_size(tag: u64) -> PageSize {
    PageSize::ALL[tag_size_index(tag)]
}

/// The PCID in a tag; `None` for a global entry, which belongs to none.
#[inline]
pub(super) const fn tag_pcid(tag: u64) -> Option<u16> {
    if tag & GLOBAL != 0 { None } else { Some((tag >> PCID_SHIFT) as u16 & (NR_PCIDS - 1)) }
}

/// Whether both tags name the same page of the same size, whatever their PCID.
#[inline]
pub(super) const fn same_page(tag: u64, other: u64) -> bool {
    const PAGE: u64 = VALID | 3 << SIZE_SHIFT | NUMBER_MASK;
    tag & PAGE == other & PAGE
}

/// The data word with its dirty bit set, and the write bit that a dirty translation must have.
#[inline]
pub(super) const fn make_dirty(data: u64) -> u64 {
    data | DIRTY | WRITE
}

/// A translation as a TLB holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "these are the bits of a page-table entry, each independent")]
pub struct TlbEntry {
    /// The page's first 4 KiB virtual page: aligned to the page's own size.
    pub vpn: Vpn,
    /// The page's first 4 KiB frame (below 2^60; x86-64 has 40 bits of them).
    pub pfn: Pfn,
    /// The page's size.
    pub size: PageSize,
    /// Stores are allowed (the AND of R/W over the walk).
    pub write: bool,
    /// User-mode accesses are allowed (the AND of U/S over the walk).
    pub user: bool,
    /// The dirty bit was set when the entry was filled or since: a store needs no access to the PTE.
    pub dirty: bool,
    /// Instruction fetches are refused (the OR of XD over the walk).
    pub nx: bool,
    /// Usable under every PCID, and kept by a CR3 write (CR4.PGE).
    pub global: bool,
}

impl TlbEntry {
    /// A user data page (writable, not yet dirty, no execution, not global) of `size` that holds `vpn`.
    pub fn user_data(vpn: Vpn, pfn: Pfn, size: PageSize) -> Self {
        let vpn = Vpn(vpn.0 & !(size.base_pages() - 1));
        Self { vpn, pfn, size, write: true, user: true, dirty: false, nx: true, global: false }
    }

    /// The first byte of the page.
    pub const fn start(&self) -> VirtAddr {
        self.vpn.addr()
    }

    /// The byte after the page's last.
    pub const fn end(&self) -> VirtAddr {
        VirtAddr(self.vpn.addr().0 + self.size.bytes())
    }

    /// The data word.
    pub(super) fn pack(&self) -> u64 {
        debug_assert!(self.pfn.0 < 1 << (64 - PFN_SHIFT), "frame {:#x} has more than 60 bits", self.pfn.0);
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        self.pfn.0 << PFN_SHIFT
            | flag(self.write, WRITE)
            | flag(self.user, USER)
            | flag(self.dirty, DIRTY)
            | flag(self.nx, NX)
    }

    /// The entry that a slot holds.
    #[inline]
    pub(super) const fn unpack(tag: u64, data: u64) -> Self {
        let size = tag_size(tag);
        Self {
            vpn: Vpn(tag_number(tag) << (size.shift() - PAGE_SHIFT)),
            pfn: Pfn(data >> PFN_SHIFT),
            size,
            write: data & WRITE != 0,
            user: data & USER != 0,
            dirty: data & DIRTY != 0,
            nx: data & NX != 0,
            global: tag & GLOBAL != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_loses_nothing(page in 0..1_u64 << 45, pfn in 0..1_u64 << 60, size in 0..3_usize, bits in 0..32_u32,
                                 pcid in 0..NR_PCIDS) {
            let size = PageSize::ALL[size];
            let entry = TlbEntry {
                write: bits & 1 != 0, dirty: bits & 2 != 0, user: bits & 4 != 0, nx: bits & 8 != 0,
                global: bits & 16 != 0, ..TlbEntry::user_data(Vpn(page), Pfn(pfn), size)
            };
            let tag = Key::new(pcid, entry.start(), size).tag(entry.global);
            prop_assert_eq!(TlbEntry::unpack(tag, entry.pack()), entry);
            prop_assert_eq!(tag_pcid(tag), (!entry.global).then_some(pcid));
            prop_assert!(tag != 0);
        }
    }

    #[test]
    fn keys_of_neighbouring_pages_sizes_and_pcids_differ() {
        let va = VirtAddr(0x7f00_0020_0000);
        let key = Key::new(5, va, PageSize::Size4K);
        assert_eq!(key, Key::new(5, VirtAddr(va.0 + 4095), PageSize::Size4K));
        assert_ne!(key, Key::new(5, VirtAddr(va.0 + 4096), PageSize::Size4K));
        assert_ne!(key.private, Key::new(6, va, PageSize::Size4K).private);
        assert_eq!(key.global, Key::new(6, va, PageSize::Size4K).global);
        assert_ne!(key.global, Key::new(5, va, PageSize::Size2M).global);
    }
}
