//! The TLBs of all CPUs: look-ups, fills and the dirty bit. Invalidations, paging-structure caches and inspection have
//! files of their own beside this one.
//!
//! The two levels are mostly inclusive: a fill goes to both, a second-level hit refills the first level, but what the
//! second level evicts stays in the first, and a first-level hit is no use of the second-level copy.

use super::array::{Replacement, SetArray};
use super::entry::{Key, TlbEntry, make_dirty, same_page};
use super::geometry::{ArrayGeometry, TlbGeometry};
use super::holdings::Holdings;
use crate::addr::{PageSize, VirtAddr};
use crate::error::{Error, Result};

/// The most memory that the arrays of all CPUs may reserve: beyond that a geometry is a mistake.
const MAX_BYTES: u64 = 16 << 30;

/// Where a look-up found its translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HitLevel {
    /// In the first level.
    L1,
    /// In the second level (and it was copied into the first).
    Stlb,
}

/// What one CPU's look-ups came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TlbCounters {
    /// Look-ups that the first level answered.
    pub nr_l1_hits: u64,
    /// Look-ups that the second level answered.
    pub nr_stlb_hits: u64,
    /// Look-ups that need a page walk.
    pub nr_misses: u64,
    /// Walks that a paging-structure cache shortened, by [`super::PscLevel`] (deepest first).
    pub nr_psc_hits: [u64; 4],
    /// Walks that started at the top.
    pub nr_psc_misses: u64,
}

/// The TLBs and paging-structure caches of all CPUs.
#[derive(Clone, Debug)]
pub struct Tlbs {
    pub(super) geometry: TlbGeometry,
    pub(super) nr_cpus: usize,
    /// First level, by page size.
    pub(super) l1: [SetArray; 3],
    /// Second level: the shared array, and the one for 1 GiB pages alone.
    pub(super) stlb: [SetArray; 2],
    /// Which second-level array holds a page size.
    pub(super) stlb_of_size: [Option<usize>; 3],
    /// Paging-structure caches, deepest first.
    pub(super) psc: [SetArray; 4],
    /// By CPU.
    pub(super) holdings: Vec<Holdings>,
    /// By CPU.
    pub(super) counters: Vec<TlbCounters>,
}

impl Tlbs {
    /// Empty TLBs of `geometry` for CPUs `0..nr_cpus`.
    ///
    /// # Errors
    /// One line if the geometry is invalid or all CPUs together would need more than 16 GiB.
    pub fn new(geometry: &TlbGeometry, nr_cpus: usize) -> Result<Self> {
        geometry.check()?;
        let nr_bytes = u128::from(geometry.slots_per_cpu()) * 16 * nr_cpus as u128;
        if nr_bytes > u128::from(MAX_BYTES) {
            return Err(Error::Value(format!(
                "TLB geometry: found {nr_bytes} bytes of entries for {nr_cpus} CPUs, expected at most {MAX_BYTES}"
            )));
        }
        let array = |array: ArrayGeometry| SetArray::new(array, geometry.replacement, nr_cpus);
        let lru = |array: ArrayGeometry| SetArray::new(array, Replacement::Lru, nr_cpus);
        Ok(Self {
            geometry: *geometry,
            nr_cpus,
            l1: PageSize::ALL.map(|size| array(geometry.l1(size))),
            stlb: [array(geometry.stlb.array()), array(geometry.stlb_1g)],
            stlb_of_size: PageSize::ALL.map(|size| {
                let alone = size == PageSize::Size1G && geometry.stlb_1g.entries > 0;
                if geometry.stlb.holds(size) { Some(0) } else { alone.then_some(1) }
            }),
            psc: [geometry.pde_cache, geometry.pdpte_cache, geometry.pml4e_cache, geometry.pml5e_cache].map(lru),
            holdings: vec![Holdings::default(); nr_cpus],
            counters: vec![TlbCounters::default(); nr_cpus],
        })
    }

    /// How many CPUs there are.
    pub const fn nr_cpus(&self) -> usize {
        self.nr_cpus
    }

    /// The arrays' sizes.
    pub const fn geometry(&self) -> &TlbGeometry {
        &self.geometry
    }

    /// What the look-ups of `cpu` came to so far.
    pub fn counters(&self, cpu: usize) -> TlbCounters {
        self.counters[cpu]
    }

    /// Looks up `va` as an access does: counts, moves the entry forward in recency, and copies a second-level hit into
    /// the first level. Rights are the caller's to compare.
    ///
    /// Each level is probed for 4 KiB, then 2 MiB, then 1 GiB pages, so the smallest page wins in the (forbidden) case
    /// that several sizes are cached for one address.
    #[inline]
    pub fn lookup(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> Option<(TlbEntry, HitLevel)> {
        for size in PageSize::ALL {
            if let Some((tag, data)) = self.l1[size as usize].hit(cpu, Key::new(pcid, va, size)) {
                self.counters[cpu].nr_l1_hits += 1;
                return Some((TlbEntry::unpack(tag, data), HitLevel::L1));
            }
        }
        self.lookup_stlb(cpu, pcid, va)
    }

    fn lookup_stlb(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> Option<(TlbEntry, HitLevel)> {
        for size in PageSize::ALL {
            let Some(stlb) = self.stlb_of_size[size as usize] else {
                continue;
            };
            let key = Key::new(pcid, va, size);
            if let Some((tag, data)) = self.stlb[stlb].hit(cpu, key) {
                self.counters[cpu].nr_stlb_hits += 1;
                let entry = TlbEntry::unpack(tag, data);
                fill(&mut self.l1[size as usize], &mut self.holdings[cpu], cpu, key, entry.global, data);
                return Some((entry, HitLevel::Stlb));
            }
        }
        self.counters[cpu].nr_misses += 1;
        None
    }

    /// What [`Self::lookup`] would find, without any trace of having looked.
    pub fn peek(&self, cpu: usize, pcid: u16, va: VirtAddr) -> Option<(TlbEntry, HitLevel)> {
        for size in PageSize::ALL {
            if let Some((tag, data)) = self.l1[size as usize].peek(cpu, Key::new(pcid, va, size)) {
                return Some((TlbEntry::unpack(tag, data), HitLevel::L1));
            }
        }
        for size in PageSize::ALL {
            let Some(stlb) = self.stlb_of_size[size as usize] else {
                continue;
            };
            if let Some((tag, data)) = self.stlb[stlb].peek(cpu, Key::new(pcid, va, size)) {
                return Some((TlbEntry::unpack(tag, data), HitLevel::Stlb));
            }
        }
        None
    }

    /// Caches `entry` for `pcid` in both levels, as the end of a page walk does.
    ///
    /// An entry of the same page and size that `pcid` could use (its own or a global one) is replaced; a global entry
    /// replaces those of every PCID. An entry of a size that no array holds is not cached.
    pub fn insert(&mut self, cpu: usize, pcid: u16, entry: TlbEntry) {
        self.insert_after(cpu, pcid, entry, false);
    }

    /// As [`Self::insert`], of an entry for an address of which [`Self::lookup`] has just found nothing.
    pub fn insert_missed(&mut self, cpu: usize, pcid: u16, entry: TlbEntry) {
        self.insert_after(cpu, pcid, entry, true);
    }

    #[inline]
    fn insert_after(&mut self, cpu: usize, pcid: u16, entry: TlbEntry, is_absent: bool) {
        debug_assert!(
            entry.vpn.0.is_multiple_of(entry.size.base_pages()),
            "{:?} is not aligned to its {:?}",
            entry.vpn,
            entry.size
        );
        let key = Key::new(pcid, entry.start(), entry.size);
        let data = entry.pack();
        let size = entry.size as usize;
        let holdings = &mut self.holdings[cpu];
        let l1 = &mut self.l1[size];
        let stlb = self.stlb_of_size[size].map(|stlb| &mut self.stlb[stlb]);
        for array in [Some(l1), stlb].into_iter().flatten() {
            if entry.global {
                array.remove_in_set(cpu, key, |tag| {
                    let private_copy = same_page(tag, key.private) && tag != key.private && tag != key.global;
                    if private_copy {
                        holdings.remove_tlb(tag);
                    }
                    private_copy
                });
            }
            if is_absent && !array.is_absent() {
                let displaced = array.insert_absent(cpu, key, entry.global, data);
                holdings.insert_tlb(key.tag(entry.global), displaced);
            } else {
                fill(array, holdings, cpu, key, entry.global, data);
            }
        }
    }

    /// Sets the dirty bit (and the write right, which a dirty translation has) in every copy of the translations of
    /// `va` that `pcid` uses on `cpu`. Tells whether there was one. Recency does not change.
    pub fn update_dirty(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> bool {
        let mut found = false;
        for size in PageSize::ALL {
            let key = Key::new(pcid, va, size);
            found |= self.l1[size as usize].update(cpu, key, make_dirty);
            if let Some(stlb) = self.stlb_of_size[size as usize] {
                found |= self.stlb[stlb].update(cpu, key, make_dirty);
            }
        }
        found
    }
}

/// Puts a translation into one array and keeps count of owners.
fn fill(array: &mut SetArray, holdings: &mut Holdings, cpu: usize, key: Key, global: bool, data: u64) {
    if !array.is_absent() {
        let displaced = array.insert(cpu, key, global, data);
        holdings.insert_tlb(key.tag(global), displaced);
    }
}
