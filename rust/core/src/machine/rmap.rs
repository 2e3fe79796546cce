//! The reverse map of one page: which entries of which mm map it.
//!
//! Order is that of insertion, and removal keeps the order of the rest, so that walks of the reverse map are the same on
//! every run. Nearly all pages are mapped once, which costs no allocation.

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::flush::MmId;

/// One mapping of a page: the entry at `addr` of `mm` (the start of the PMD for a huge entry).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The address space.
    pub mm: MmId,
    /// The address that the entry maps.
    pub addr: VirtAddr,
}

/// All mappings of a page.
#[derive(Clone, Debug, Default)]
pub enum Rmap {
    /// Not mapped.
    #[default]
    Empty,
    /// Mapped once: no allocation.
    One(Mapping),
    /// Mapped more than once, or once after that.
    Many(Vec<Mapping>),
}

impl Rmap {
    /// The mappings in order of insertion.
    #[inline]
    pub fn as_slice(&self) -> &[Mapping] {
        match self {
            Self::Empty => &[],
            Self::One(mapping) => std::slice::from_ref(mapping),
            Self::Many(list) => list,
        }
    }

    /// How many there are (`mapcount`).
    #[inline]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the page is not mapped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Adds a mapping at the end.
    #[inline]
    pub fn add(&mut self, mapping: Mapping) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(mapping),
            Self::One(first) => Self::Many(vec![first, mapping]),
            Self::Many(mut list) => {
                list.push(mapping);
                Self::Many(list)
            }
        };
    }

    /// Removes a mapping and tells whether it was there.
    #[inline]
    pub fn remove(&mut self, mapping: Mapping) -> bool {
        match self {
            Self::One(only) if *only == mapping => {
                *self = Self::Empty;
                true
            }
            Self::Many(list) => {
                let Some(place) = list.iter().position(|found| *found == mapping) else {
                    return false;
                };
                list.remove(place);
                if list.is_empty() {
                    *self = Self::Empty;
                }
                true
            }
            _ => false,
        }
    }

    /// Replaces a mapping by `nr` of 4 KiB each from the same address on, in its place; tells whether it was there.
    pub fn split(&mut self, mapping: Mapping, nr: u32) -> bool {
        let mut list = self.as_slice().to_vec();
        let Some(place) = list.iter().position(|found| *found == mapping) else {
            return false;
        };
        let parts =
            (0..u64::from(nr)).map(|n| Mapping { mm: mapping.mm, addr: VirtAddr(mapping.addr.0 + n * PAGE_SIZE) });
        list.splice(place..=place, parts);
        *self = Self::Many(list);
        true
    }

    /// Gives a mapping another address, in its place in the order; tells whether it was there.
    pub fn rename(&mut self, old: Mapping, new: Mapping) -> bool {
        let slot = match self {
            Self::One(only) if *only == old => Some(only),
            Self::Many(list) => list.iter_mut().find(|found| **found == old),
            _ => None,
        };
        slot.map(|slot| *slot = new).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(n: u64) -> Mapping {
        Mapping { mm: MmId(1), addr: VirtAddr(n << 12) }
    }

    proptest! {
        /// The same as a plain list, whatever is added, removed and renamed.
        #[test]
        fn like_a_list(ops in prop::collection::vec((0_u8..3, 0_u64..6, 6_u64..9), 0..60)) {
            let mut rmap = Rmap::default();
            let mut list: Vec<Mapping> = Vec::new();
            for (kind, a, b) in ops {
                let (a, b) = (mapping(a), mapping(b));
                let place = list.iter().position(|m| *m == a);
                match kind {
                    0 => { rmap.add(a); list.push(a); }
                    1 => {
                        prop_assert_eq!(rmap.remove(a), place.is_some());
                        if let Some(place) = place { list.remove(place); }
                    }
                    _ => {
                        prop_assert_eq!(rmap.rename(a, b), place.is_some());
                        if let Some(place) = place { list[place] = b; }
                    }
                }
                prop_assert_eq!(rmap.as_slice(), &list[..]);
            }
        }
    }
}
