//! Which page size maps which addresses: one for all, or one with exceptions.
//!
//! Invariant: ranges are sorted, disjoint, not empty and aligned to their page size, so that the 2 MiB around an
//! address have one size and a page never has two.

use crate::addr::{PMD_SHIFT, PageSize};
use crate::error::{Error, Result};

const NR_CACHED: usize = 256;
/// Granules (2 MiB) have at most 43 bits: this is none.
const NO_GRANULE: u64 = u64::MAX;

/// The page size of every address, the same for a whole simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageMap {
    default: PageSize,
    ranges: Vec<(u64, u64, PageSize)>,
}

impl PageMap {
    /// Pages of one size everywhere.
    pub const fn uniform(default: PageSize) -> Self {
        Self { default, ranges: Vec::new() }
    }

    /// Pages of `default`, but those in `ranges` (start and end in bytes, end excluded, in any order).
    ///
    /// # Errors
    /// One line if a range is empty, overlaps another, or is not aligned to its page size (and to the default's, so
    /// that no page of the default reaches into it).
    pub fn new(default: PageSize, mut ranges: Vec<(u64, u64, PageSize)>) -> Result<Self> {
        ranges.sort_by_key(|range| range.0);
        for &(start, end, size) in &ranges {
            let align = size.bytes().max(default.bytes()).max(1 << PMD_SHIFT);
            if start >= end {
                return Err(Error::Value(format!(
                    "page range {start:#x}-{end:#x}: found no byte, expected one or more"
                )));
            }
            if !start.is_multiple_of(align) || !end.is_multiple_of(align) {
                return Err(Error::Value(format!(
                    "page range {start:#x}-{end:#x}: found a border that is not a multiple of {align:#x}, expected one"
                )));
            }
        }
        for pair in ranges.windows(2) {
            if pair[0].1 > pair[1].0 {
                let ((start, end, _), (other, ..)) = (pair[0], pair[1]);
                return Err(Error::Value(format!(
                    "page range {start:#x}-{end:#x}: found another that starts at {other:#x}, expected no overlap"
                )));
            }
        }
        // Neighbours of one size are one range.
        ranges.dedup_by(|next, last| {
            let is_one = last.1 == next.0 && last.2 == next.2;
            if is_one {
                last.1 = next.1;
            }
            is_one
        });
        Ok(Self { default, ranges })
    }

    /// The size outside of [`Self::ranges`].
    pub(super) const fn default(&self) -> PageSize {
        self.default
    }

    /// The ranges of other sizes, sorted: start and end in bytes, end excluded.
    pub(super) fn ranges(&self) -> &[(u64, u64, PageSize)] {
        &self.ranges
    }

    /// The one page size, if there is only one.
    pub fn only(&self) -> Option<PageSize> {
        self.ranges.iter().all(|range| range.2 == self.default).then_some(self.default)
    }

    /// The size of the page that maps `address`.
    pub fn size_of(&self, address: u64) -> PageSize {
        let after = self.ranges.partition_point(|range| range.0 <= address);
        match after.checked_sub(1).map(|at| self.ranges[at]) {
            Some((_, end, size)) if address < end => size,
            _ => self.default,
        }
    }
}

/// Remembers the page sizes of recently used 2 MiB granules, so that most look-ups are one comparison.
#[derive(Clone, Debug)]
pub(super) struct SizeCache {
    /// `granule << 2 | size`.
    slots: Box<[u64; NR_CACHED]>,
}

impl SizeCache {
    pub(super) fn new() -> Self {
        Self { slots: Box::new([NO_GRANULE; NR_CACHED]) }
    }

    /// The index of the page size of `address`.
    #[inline]
    pub(super) fn size_index(&mut self, map: &PageMap, address: u64) -> usize {
        let granule = address >> PMD_SHIFT;
        let slot = &mut self.slots[granule as usize % NR_CACHED];
        if *slot >> 2 != granule {
            *slot = granule << 2 | map.size_of(address) as u64;
        }
        (*slot & 3) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn sizes_by_range() {
        let ranges = vec![(8 * MIB, 10 * MIB, PageSize::Size2M), (2 * MIB, 6 * MIB, PageSize::Size2M)];
        let map = PageMap::new(PageSize::Size4K, ranges).unwrap();
        let mut cache = SizeCache::new();
        for (address, size) in [
            (0, PageSize::Size4K),
            (2 * MIB, PageSize::Size2M),
            (6 * MIB - 1, PageSize::Size2M),
            (6 * MIB, PageSize::Size4K),
            (9 * MIB, PageSize::Size2M),
            (10 * MIB, PageSize::Size4K),
            (u64::MAX, PageSize::Size4K),
        ] {
            assert_eq!(map.size_of(address), size, "{address:#x}");
            for _ in 0..2 {
                assert_eq!(cache.size_index(&map, address), size as usize, "{address:#x}");
            }
        }
        assert_eq!(map.only(), None);
        assert_eq!(PageMap::uniform(PageSize::Size1G).only(), Some(PageSize::Size1G));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let error = |ranges| PageMap::new(PageSize::Size4K, ranges).unwrap_err().to_string();
        let size = PageSize::Size2M;
        assert!(error(vec![(2 * MIB, 2 * MIB, size)]).contains("found no byte"));
        assert!(error(vec![(MIB, 4 * MIB, size)]).contains("not a multiple of 0x200000"));
        assert!(error(vec![(4 * MIB, 8 * MIB, size), (2 * MIB, 6 * MIB, size)]).contains("starts at 0x400000"));
    }
}
