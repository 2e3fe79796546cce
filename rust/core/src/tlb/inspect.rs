//! What a CPU holds, for checks, comparisons and reports; nothing here changes recency or counters.

use super::entry::{Key, TlbEntry, tag_number, tag_pcid, tag_size};
use super::percpu::Tlbs;
use super::psc::PscLevel;
use crate::addr::{PageSize, VaRange, VirtAddr};

/// One cached translation with all its copies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CachedEntry {
    /// The PCID that owns it; 0 for a global one, which has no owner.
    pub pcid: u16,
    /// The translation.
    pub entry: TlbEntry,
    /// Whether the first level holds a copy.
    pub in_l1: bool,
    /// Whether the second level holds a copy.
    pub in_stlb: bool,
}

/// One paging-structure entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CachedTable {
    /// The PCID that owns it.
    pub pcid: u16,
    /// The cache it is in.
    pub level: PscLevel,
    /// The first address of the `1 << level.shift()` bytes that it maps.
    pub start: VirtAddr,
    /// The table that it points to.
    pub table_id: u32,
}

impl Tlbs {
    /// Translations in the arrays of `cpu`; one in both levels counts twice.
    pub fn nr_entries(&self, cpu: usize) -> u32 {
        self.holdings[cpu].nr_tlb()
    }

    /// Entries in the paging-structure caches of `cpu`.
    pub fn nr_psc_entries(&self, cpu: usize) -> u32 {
        self.holdings[cpu].nr_psc_all()
    }

    /// Whether `cpu` holds a translation, of any size, of some byte of `range` that `pcid` can use. If not, a flush of
    /// the range was useless there (but for freed page tables: see [`Self::contains_tables_in`]).
    pub fn contains_in_range(&self, cpu: usize, pcid: u16, range: VaRange) -> bool {
        let nr_usable = self.holdings[cpu].nr_usable(pcid);
        if range.is_empty() || nr_usable == 0 {
            return false;
        }
        let nr_pages = ((range.end.0 - 1) >> PageSize::Size4K.shift()) - range.start.vpn().0 + 1;
        if nr_pages > u64::from(nr_usable) {
            return self.l1.iter().chain(&self.stlb).any(|array| {
                array.any(cpu, |tag| {
                    tag_pcid(tag).is_none_or(|owner| owner == pcid)
                        && overlaps(range, tag_number(tag), tag_size(tag).shift())
                })
            });
        }
        PageSize::ALL.into_iter().any(|size| {
            let arrays = [Some(&self.l1[size as usize]), self.stlb_of_size[size as usize].map(|stlb| &self.stlb[stlb])];
            let pages = range.start.0 >> size.shift()..=(range.end.0 - 1) >> size.shift();
            arrays.into_iter().flatten().any(|array| {
                pages
                    .clone()
                    .any(|page| array.peek(cpu, Key::new(pcid, VirtAddr(page << size.shift()), size)).is_some())
            })
        })
    }

    /// Whether `cpu` holds a paging-structure entry of `pcid` that maps some byte of `range`.
    pub fn contains_tables_in(&self, cpu: usize, pcid: u16, range: VaRange) -> bool {
        !range.is_empty()
            && self.holdings[cpu].nr_psc(pcid) > 0
            && PscLevel::ALL.into_iter().any(|level| {
                self.psc[level as usize]
                    .iter(cpu)
                    .any(|(tag, _)| tag_pcid(tag) == Some(pcid) && overlaps(range, tag_number(tag), level.shift()))
            })
    }

    /// The translations that `cpu` holds, each once: global ones first, then by PCID; within that by address and size.
    pub fn entries(&self, cpu: usize) -> Vec<CachedEntry> {
        let cached = |in_l1| {
            move |(tag, data)| CachedEntry {
                pcid: tag_pcid(tag).unwrap_or(0),
                entry: TlbEntry::unpack(tag, data),
                in_l1,
                in_stlb: !in_l1,
            }
        };
        let mut entries: Vec<CachedEntry> =
            self.l1.iter().flat_map(|array| array.iter(cpu)).map(cached(true)).collect();
        entries.extend(self.stlb.iter().flat_map(|array| array.iter(cpu)).map(cached(false)));
        entries.sort_by_key(|cached| (!cached.entry.global, cached.pcid, cached.entry.vpn, cached.entry.size));
        entries.dedup_by(|copy, kept| {
            let same = kept.pcid == copy.pcid && kept.entry == copy.entry;
            kept.in_l1 |= same && copy.in_l1;
            kept.in_stlb |= same && copy.in_stlb;
            same
        });
        entries
    }

    /// The paging-structure entries that `cpu` holds, by PCID, level and address.
    pub fn psc_entries(&self, cpu: usize) -> Vec<CachedTable> {
        let mut tables: Vec<CachedTable> = PscLevel::ALL
            .into_iter()
            .flat_map(|level| {
                self.psc[level as usize].iter(cpu).map(move |(tag, data)| CachedTable {
                    pcid: tag_pcid(tag).unwrap_or(0),
                    level,
                    start: VirtAddr(tag_number(tag) << level.shift()),
                    table_id: data as u32,
                })
            })
            .collect();
        tables.sort_unstable();
        tables
    }
}

/// Whether region `number` of `1 << shift` bytes shares a byte with `range`.
const fn overlaps(range: VaRange, number: u64, shift: u32) -> bool {
    let start = number << shift;
    start < range.end.0 && range.start.0 < start + (1 << shift)
}
