//! Invalidations as the hardware has them: one page (INVLPG), a run of them, a PCID (a CR3 write), everything.
//!
//! Each tells how many entries it dropped, so that a useless flush can be told from one that was needed. They act on
//! one CPU; who must be reached is the flush engine's business.
//!
//! INVLPG as in the Intel manual, volume 3, "Operations that Invalidate TLBs and Paging-Structure Caches": translations
//! of any size for the address, of the current PCID and global ones, and paging-structure entries of the current PCID
//! whatever their address ([`PscScope`] for others).

use super::entry::{Key, tag_number, tag_pcid, tag_size};
use super::geometry::PscScope;
use super::holdings::Holdings;
use super::percpu::Tlbs;
use super::psc::PscLevel;
use crate::addr::{PageSize, VirtAddr};

/// What an invalidation dropped. Entries are slots: a translation in both levels counts twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Dropped {
    /// Translations, in both levels.
    pub nr_tlb: u32,
    /// Paging-structure entries.
    pub nr_psc: u32,
}

impl Dropped {
    /// Entries of both kinds.
    pub const fn total(self) -> u32 {
        self.nr_tlb + self.nr_psc
    }

    /// Whether the CPU held nothing of what was to go.
    pub const fn is_nothing(self) -> bool {
        self.total() == 0
    }
}

/// The addresses `start, start + 2^shift, ...` below `end`.
#[derive(Clone, Copy)]
struct Strides {
    start: u64,
    end: u64,
    shift: u32,
}

impl Strides {
    fn count(self) -> u64 {
        let bytes = self.end.saturating_sub(self.start);
        (bytes >> self.shift) + u64::from(bytes & ((1 << self.shift) - 1) != 0)
    }

    /// Whether one of the addresses lies in the `1 << region_shift` bytes of region `number`.
    fn meet(self, number: u64, region_shift: u32) -> bool {
        let region_start = number << region_shift;
        let region_end = region_start + (1 << region_shift);
        let ahead = region_start.saturating_sub(self.start);
        let nr_skipped = (ahead >> self.shift) + u64::from(ahead & ((1 << self.shift) - 1) != 0);
        let first = u128::from(self.start) + (u128::from(nr_skipped) << self.shift);
        first < u128::from(self.end.min(region_end))
    }
}

impl Tlbs {
    /// Drops the translations of `va` of any size that `pcid` can use, and of the paging-structure entries of `pcid`
    /// what the geometry says.
    pub fn invalidate_page(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> Dropped {
        self.invalidate_page_with(cpu, pcid, va, self.geometry.invlpg_drops_psc)
    }

    /// As [`Self::invalidate_page`], for CPUs whose instruction says itself what goes with the page.
    pub fn invalidate_page_with(&mut self, cpu: usize, pcid: u16, va: VirtAddr, psc: PscScope) -> Dropped {
        let strides = Strides { start: va.0, end: va.0 + 1, shift: 0 };
        Dropped { nr_tlb: self.drop_page(cpu, pcid, va), nr_psc: self.drop_psc(cpu, pcid, strides, psc) }
    }

    /// As [`Self::invalidate_page`] for each of `start, start + 2^stride_shift, ...` below `end`, but it never takes
    /// longer than a scan of what the CPU holds.
    ///
    /// With a stride above 4 KiB, small pages between the addresses stay, as they do in hardware.
    pub fn invalidate_range(
        &mut self,
        cpu: usize,
        pcid: u16,
        start: VirtAddr,
        end: VirtAddr,
        stride_shift: u32,
    ) -> Dropped {
        self.invalidate_range_with(cpu, pcid, start, end, stride_shift, self.geometry.invlpg_drops_psc)
    }

    /// As [`Self::invalidate_range`], for CPUs whose instruction says itself what goes with the pages.
    pub fn invalidate_range_with(
        &mut self,
        cpu: usize,
        pcid: u16,
        start: VirtAddr,
        end: VirtAddr,
        stride_shift: u32,
        psc: PscScope,
    ) -> Dropped {
        debug_assert!(stride_shift < 57, "a stride of 2^{stride_shift} bytes");
        let strides = Strides { start: start.0, end: end.0, shift: stride_shift };
        if strides.count() == 0 {
            return Dropped::default();
        }
        let nr_usable = self.holdings[cpu].nr_usable(pcid);
        let nr_tlb = if nr_usable == 0 {
            0
        } else if strides.count() > u64::from(nr_usable) {
            self.drop_strides(cpu, pcid, strides, nr_usable)
        } else {
            (0..strides.count()).map(|i| self.drop_page(cpu, pcid, VirtAddr(start.0 + (i << stride_shift)))).sum()
        };
        Dropped { nr_tlb, nr_psc: self.drop_psc(cpu, pcid, strides, psc) }
    }

    /// Drops all that belongs to `pcid` alone: a CR3 write without the no-flush bit, or INVPCID type 1.
    pub fn flush_pcid(&mut self, cpu: usize, pcid: u16) -> Dropped {
        let nr_private = self.holdings[cpu].nr_private(pcid);
        let nr_tlb = self.drop_tlb(cpu, nr_private, |tag| tag_pcid(tag) == Some(pcid));
        self.holdings[cpu].remove_usable(pcid, nr_tlb, 0);
        Dropped { nr_tlb, nr_psc: self.drop_psc_of(cpu, pcid) }
    }

    /// Drops all but global translations, of every PCID: INVPCID type 3.
    pub fn flush_all_nonglobal(&mut self, cpu: usize) -> Dropped {
        let nr_tlb = self.drop_tlb(cpu, self.holdings[cpu].nr_nonglobal(), |tag| tag_pcid(tag).is_some());
        let nr_psc = self.drop_psc_if(cpu, self.holdings[cpu].nr_psc_all(), |_, _| true);
        self.holdings[cpu].clear_nonglobal();
        Dropped { nr_tlb, nr_psc }
    }

    /// Drops everything: INVPCID type 2, or a change of CR4.PGE.
    pub fn flush_all(&mut self, cpu: usize) -> Dropped {
        let nr_tlb = self.drop_tlb(cpu, self.holdings[cpu].nr_tlb(), |_| true);
        let nr_psc = self.drop_psc_if(cpu, self.holdings[cpu].nr_psc_all(), |_, _| true);
        self.holdings[cpu] = Holdings::default();
        Dropped { nr_tlb, nr_psc }
    }

    fn drop_page(&mut self, cpu: usize, pcid: u16, va: VirtAddr) -> u32 {
        let mut nr_dropped = 0;
        for size in PageSize::ALL {
            let key = Key::new(pcid, va, size);
            let from_l1 = self.l1[size as usize].remove(cpu, key);
            let from_stlb = self.stlb_of_size[size as usize].and_then(|stlb| self.stlb[stlb].remove(cpu, key));
            for tag in from_l1.into_iter().chain(from_stlb) {
                self.holdings[cpu].remove_tlb(tag);
                nr_dropped += 1;
            }
        }
        nr_dropped
    }

    /// One scan instead of a probe per address.
    fn drop_strides(&mut self, cpu: usize, pcid: u16, strides: Strides, nr_usable: u32) -> u32 {
        let mut nr_global = 0;
        let nr_tlb = self.drop_tlb(cpu, nr_usable, |tag| {
            let owner = tag_pcid(tag);
            let drop = owner.is_none_or(|owner| owner == pcid) && strides.meet(tag_number(tag), tag_size(tag).shift());
            nr_global += u32::from(drop && owner.is_none());
            drop
        });
        self.holdings[cpu].remove_usable(pcid, nr_tlb - nr_global, nr_global);
        nr_tlb
    }

    /// Drops the translations that `drop` says yes to, `limit` at most; the caller keeps the holdings right.
    fn drop_tlb(&mut self, cpu: usize, limit: u32, mut drop: impl FnMut(u64) -> bool) -> u32 {
        let mut nr_dropped = 0;
        for array in self.l1.iter_mut().chain(&mut self.stlb) {
            nr_dropped += array.remove_if(cpu, limit - nr_dropped, &mut drop);
        }
        nr_dropped
    }

    fn drop_psc(&mut self, cpu: usize, pcid: u16, strides: Strides, scope: PscScope) -> u32 {
        match scope {
            PscScope::All => self.drop_psc_of(cpu, pcid),
            PscScope::Covering => {
                let limit = self.holdings[cpu].nr_psc(pcid);
                let nr_psc = self.drop_psc_if(cpu, limit, |level, tag| {
                    tag_pcid(tag) == Some(pcid) && strides.meet(tag_number(tag), level.shift())
                });
                self.holdings[cpu].remove_tables(pcid, nr_psc);
                nr_psc
            }
            PscScope::None => 0,
        }
    }

    fn drop_psc_of(&mut self, cpu: usize, pcid: u16) -> u32 {
        let limit = self.holdings[cpu].nr_psc(pcid);
        let nr_psc = self.drop_psc_if(cpu, limit, |_, tag| tag_pcid(tag) == Some(pcid));
        self.holdings[cpu].remove_tables(pcid, nr_psc);
        nr_psc
    }

    /// Drops the paging-structure entries that `drop` says yes to, `limit` at most; the caller keeps the holdings right.
    fn drop_psc_if(&mut self, cpu: usize, limit: u32, drop: impl Fn(PscLevel, u64) -> bool) -> u32 {
        let mut nr_dropped = 0;
        for level in PscLevel::ALL {
            nr_dropped += self.psc[level as usize].remove_if(cpu, limit - nr_dropped, |tag| drop(level, tag));
        }
        nr_dropped
    }
}
