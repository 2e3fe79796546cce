//! What names a translation: page size, PCID and page number in one word, so that one comparison decides.

use crate::addr::{PageSize, VirtAddr};

/// Bits of a page number: addresses have at most 57, of which 12 are in the page.
pub(super) const NUMBER_BITS: u32 = 48;
const PCID_BITS: u32 = 12;
const SIZE_SHIFT: u32 = NUMBER_BITS + PCID_BITS;
const VALID: u64 = 1 << 63;

/// The key of no page: an empty slot.
pub(super) const EMPTY: u64 = 0;

/// A key; its lower bits are the page number in units of the page's own size, which selects the set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(pub(super) u64);

impl Key {
    #[inline]
    pub(super) fn new(pcid: u16, va: VirtAddr, size: PageSize) -> Self {
        Self(context(pcid, size) | va.0 >> size.shift())
    }

    /// The key of anything that has a number for each PCID.
    #[inline]
    pub(super) const fn of(pcid: u16, number: u64) -> Self {
        Self(context(pcid, PageSize::Size4K) | number)
    }

    #[inline]
    pub(super) const fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }

    #[inline]
    pub(super) const fn size_index(self) -> usize {
        (self.0 >> SIZE_SHIFT & 3) as usize
    }

    #[inline]
    pub(super) const fn size(self) -> PageSize {
        PageSize::ALL[self.size_index()]
    }

    #[inline]
    pub(super) const fn pcid(self) -> u16 {
        (self.0 >> NUMBER_BITS) as u16 & ((1 << PCID_BITS) - 1)
    }

    /// The first byte of the page.
    #[inline]
    pub(super) const fn address(self) -> VirtAddr {
        VirtAddr(self.number() << self.size().shift())
    }
}

/// A key without its page number.
#[inline]
pub(super) const fn context(pcid: u16, size: PageSize) -> u64 {
    VALID | (size as u64) << SIZE_SHIFT | (pcid as u64) << NUMBER_BITS
}

/// All of a key but the page number.
#[inline]
pub(super) const fn context_of(key: u64) -> u64 {
    key >> NUMBER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_what_it_is_made_of() {
        for size in PageSize::ALL {
            for pcid in [0, 1, 4095] {
                for address in [0, 0x7fff_ffff_f000, (1 << 57) - 1] {
                    let key = Key::new(pcid, VirtAddr(address), size);
                    assert_eq!((key.pcid(), key.size()), (pcid, size));
                    assert_eq!(key.address(), VirtAddr(address).align_down(size.shift()));
                    assert_ne!(key.0, EMPTY);
                }
            }
        }
    }
}
