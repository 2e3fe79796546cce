//! In what the flush engines of kernel versions differ, as the constants of a kernel give it.

use serde::{Deserialize, Serialize};

use super::engine::TLB_FLUSH_ALL;
use crate::addr::VirtAddr;
use crate::error::{Error, Result};
use crate::tlb::NR_PCIDS;

/// When a CPU's bit in `mm_cpumask` is cleared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MmCpumaskRule {
    /// When the CPU switches to another mm (before Linux 6.14).
    Eager,
    /// By a flush that finds another mm loaded there (since 6.14).
    Lazy,
}

/// Which CPUs of the mask are spared when no page table was freed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShouldFlushTlb {
    /// Lazy ones (`tlb_is_not_lazy`).
    IsLazy,
    /// Lazy ones, and those with another mm loaded unless the flush trims the mask (`should_flush_tlb`).
    LoadedMm,
}

/// What the lazy-MMU mode of the architecture does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LazyMmu {
    /// Nothing: native x86.
    None,
    /// It collects one invalidation per changed entry, and range flushes do nothing (sparc64, powerpc hash).
    PerPte,
    /// It collects hypercalls that change entries; flushes are as on native x86 (Xen PV).
    Multicall,
}

/// The constants of a kernel that the flush engine looks at. JSON has every field; unknown ones are refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRules {
    /// Most strides that are invalidated one by one; above it the flush becomes a full one.
    pub tlb_single_page_flush_ceiling: u64,
    /// PCID slots of a CPU (`TLB_NR_DYN_ASIDS`); without PCID there is one whatever stands here.
    pub tlb_nr_dyn_asids: u16,
    /// When bits of `mm_cpumask` are cleared.
    pub mm_cpumask_rule: MmCpumaskRule,
    /// Who is spared when no page table was freed.
    pub should_flush_tlb: ShouldFlushTlb,
    /// With the lazy mask rule: nanoseconds in which at most one flush of an mm trims its mask. `None`: never.
    pub trim_cpumask_interval_ns: Option<u64>,
    /// `flush_tlb_func` returns at once if its request's generation was reached before (since 6.0).
    pub flush_skips_old_gen: bool,
    /// What `flush_tlb_range()` passes as `freed_tables`.
    pub flush_tlb_range_freed_tables: bool,
    /// The requesting CPU flushes its own TLB first and tells the others then (before 5.13).
    pub local_flush_first: bool,
    /// The lazy-MMU mode.
    pub lazy_mmu: LazyMmu,
}

impl FlushRules {
    /// Linux 5.10.
    pub const LINUX_5_10: Self = Self {
        tlb_single_page_flush_ceiling: 33,
        tlb_nr_dyn_asids: 6,
        mm_cpumask_rule: MmCpumaskRule::Eager,
        should_flush_tlb: ShouldFlushTlb::IsLazy,
        trim_cpumask_interval_ns: None,
        flush_skips_old_gen: false,
        flush_tlb_range_freed_tables: false,
        local_flush_first: true,
        lazy_mmu: LazyMmu::None,
    };

    /// Linux 6.1.
    pub const LINUX_6_1: Self = Self {
        flush_skips_old_gen: true,
        flush_tlb_range_freed_tables: true,
        local_flush_first: false,
        ..Self::LINUX_5_10
    };

    /// Linux 6.18.
    pub const LINUX_6_18: Self = Self {
        mm_cpumask_rule: MmCpumaskRule::Lazy,
        should_flush_tlb: ShouldFlushTlb::LoadedMm,
        trim_cpumask_interval_ns: Some(1_000_000_000),
        ..Self::LINUX_6_1
    };

    /// The range that a flush of `start..end` covers: all of the address space if it has more strides than the ceiling
    /// (`get_flush_tlb_info`).
    #[inline]
    pub fn widen(&self, start: VirtAddr, end: VirtAddr, stride_shift: u32) -> (VirtAddr, VirtAddr) {
        debug_assert!(start <= end, "a flush from {start} to {end}");
        if end == TLB_FLUSH_ALL || (end.0 - start.0) >> stride_shift > self.tlb_single_page_flush_ceiling {
            (VirtAddr(0), TLB_FLUSH_ALL)
        } else {
            (start, end)
        }
    }

    /// Whether the tracepoint fires for a CPU that finds nothing to do only when it compares generations: it does since the same
    /// commit that lets old requests return before that.
    #[inline]
    pub(super) fn traces_up_to_date(&self) -> bool {
        self.flush_skips_old_gen
    }

    /// Refuses rules with which the engine cannot run, on CPUs with or without PCIDs.
    ///
    /// # Errors
    /// If the number of PCID slots is out of bounds; if per-PTE invalidations meet PCIDs and the eager mask rule, since
    /// no generation would tell a CPU that left the mask what it missed.
    pub fn check(&self, pcid: bool) -> Result<()> {
        // Slot n has PCID n + 1, and PCIDs end at NR_PCIDS - 1.
        if !(1..NR_PCIDS).contains(&self.tlb_nr_dyn_asids) {
            return Err(Error::Value(format!(
                "tlb_nr_dyn_asids: found {}, expected 1 to {}",
                self.tlb_nr_dyn_asids,
                NR_PCIDS - 1
            )));
        }
        if pcid && self.lazy_mmu == LazyMmu::PerPte && self.mm_cpumask_rule == MmCpumaskRule::Eager {
            return Err(Error::Value(
                "mm_cpumask_rule: found eager with lazy_mmu per_pte and PCIDs, expected lazy (a CPU outside the mask \
                 would keep stale entries)"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_full(strides: u64, stride_shift: u32) -> bool {
        let start = VirtAddr(0x7000_0000_0000);
        let end = VirtAddr(start.0 + (strides << stride_shift));
        match FlushRules::LINUX_6_18.widen(start, end, stride_shift) {
            (VirtAddr(0), TLB_FLUSH_ALL) => true,
            kept => {
                assert_eq!(kept, (start, end));
                false
            }
        }
    }

    #[test]
    fn the_ceiling_counts_strides() {
        for stride_shift in [12, 21, 30] {
            assert!(!is_full(33, stride_shift));
            assert!(is_full(34, stride_shift));
        }
        // A range that is no multiple of the stride: its last, partial stride is not counted.
        let start = VirtAddr(0);
        let end = VirtAddr((34 << 21) - 4096);
        assert_eq!(FlushRules::LINUX_5_10.widen(start, end, 21), (start, end));
        assert_eq!(FlushRules::LINUX_5_10.widen(VirtAddr(4096), TLB_FLUSH_ALL, 12), (start, TLB_FLUSH_ALL));
    }

    #[test]
    fn json_has_every_field_and_no_other() {
        let text = serde_json::to_string(&FlushRules::LINUX_6_18).unwrap();
        assert_eq!(
            text,
            r#"{"tlb_single_page_flush_ceiling":33,"tlb_nr_dyn_asids":6,"mm_cpumask_rule":"lazy","should_flush_tlb":"loaded_mm","trim_cpumask_interval_ns":1000000000,"flush_skips_old_gen":true,"flush_tlb_range_freed_tables":true,"local_flush_first":false,"lazy_mmu":"none"}"#
        );
        assert_eq!(serde_json::from_str::<FlushRules>(&text).unwrap(), FlushRules::LINUX_6_18);
        let unknown = text.replace("\"lazy_mmu\"", "\"lazy_mmu_batch\":1,\"lazy_mmu\"");
        assert!(serde_json::from_str::<FlushRules>(&unknown).is_err());
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        let no_slots = FlushRules { tlb_nr_dyn_asids: 0, ..FlushRules::LINUX_6_18 };
        let error = no_slots.check(true).unwrap_err().to_string();
        assert_eq!(error, "tlb_nr_dyn_asids: found 0, expected 1 to 4095");
        let hash_mmu = FlushRules { lazy_mmu: LazyMmu::PerPte, ..FlushRules::LINUX_5_10 };
        assert!(hash_mmu.check(true).unwrap_err().to_string().starts_with("mm_cpumask_rule: found eager"));
        assert!(hash_mmu.check(false).is_ok());
    }
}
