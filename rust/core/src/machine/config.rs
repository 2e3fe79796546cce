//! What a machine is made of, as a driver gives it (a JSON object).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::addr::Levels;
use crate::error::{Error, Result};
use crate::flush::{FlushRules, LazyMmu, MmCpumaskRule, ShouldFlushTlb};
use crate::program::{self, Constants, CpumaskRule, Thp};
use crate::tlb::{PscScope, TlbGeometry};

/// The hardware of a machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the hardware")]
pub struct MachineConfig {
    /// CPUs, 1 to 8192.
    pub nr_cpus: u32,
    /// Levels of page tables: 4 or 5.
    pub levels: u8,
    /// Whether the CPUs have process-context identifiers.
    #[serde(default)]
    pub pcid: bool,
    /// INVLPG drops only the paging-structure entries on the way to its page (AMD's translation cache extension).
    #[serde(default)]
    pub invlpg_keeps_psc: bool,
    /// Whether the contents of TLBs and paging-structure caches are modelled; without, each access walks.
    #[serde(default = "yes")]
    pub tlb_enabled: bool,
    /// Whether there is a swap device.
    #[serde(default = "yes")]
    pub swap: bool,
    /// The arrays of each CPU.
    #[serde(default)]
    pub tlb: TlbGeometry,
    /// Transparent huge pages; overrides the kernel's constant.
    #[serde(default)]
    pub thp: Option<Thp>,
    /// What things cost in nanoseconds; not looked at by the machine itself.
    #[serde(default)]
    pub costs: BTreeMap<String, f64>,
}

const fn yes() -> bool {
    true
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            nr_cpus: 4,
            levels: 5,
            pcid: false,
            invlpg_keeps_psc: false,
            tlb_enabled: true,
            swap: true,
            tlb: TlbGeometry::default(),
            thp: None,
            costs: BTreeMap::new(),
        }
    }
}

impl MachineConfig {
    /// Reads a configuration from JSON text.
    ///
    /// # Errors
    /// If the text is not an object of this form; one line with the place.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Value(format!("machine: {error}")))
    }

    /// The levels as a type.
    ///
    /// # Errors
    /// If they are neither 4 nor 5.
    pub fn levels(&self) -> Result<Levels> {
        match self.levels {
            4 => Ok(Levels::Four),
            5 => Ok(Levels::Five),
            found => Err(Error::Value(format!("levels: found {found}, expected 4 or 5"))),
        }
    }

    /// The TLB arrays, with what the machine says of INVLPG; none when their contents are not modelled.
    pub fn geometry(&self) -> Option<TlbGeometry> {
        let mut geometry = self.tlb;
        if self.invlpg_keeps_psc {
            geometry.invlpg_drops_psc = PscScope::Covering;
        }
        self.tlb_enabled.then_some(geometry)
    }
}

/// The part of a kernel's constants that its flush engine looks at.
pub(super) fn flush_rules(constants: &Constants) -> FlushRules {
    FlushRules {
        tlb_single_page_flush_ceiling: constants.tlb_single_page_flush_ceiling,
        tlb_nr_dyn_asids: constants.tlb_nr_dyn_asids,
        mm_cpumask_rule: match constants.mm_cpumask_rule {
            CpumaskRule::Eager => MmCpumaskRule::Eager,
            CpumaskRule::Lazy => MmCpumaskRule::Lazy,
        },
        should_flush_tlb: match constants.should_flush_tlb {
            program::ShouldFlushTlb::IsLazy => ShouldFlushTlb::IsLazy,
            program::ShouldFlushTlb::LoadedMm => ShouldFlushTlb::LoadedMm,
        },
        trim_cpumask_interval_ns: match constants.mm_cpumask_rule {
            CpumaskRule::Eager => None,
            CpumaskRule::Lazy => Some(constants.trim_cpumask_interval_ns),
        },
        flush_skips_old_gen: constants.flush_skips_old_gen,
        flush_tlb_range_freed_tables: constants.flush_tlb_range_freed_tables,
        local_flush_first: constants.local_flush_first,
        lazy_mmu: match constants.lazy_mmu {
            program::LazyMmu::None => LazyMmu::None,
            program::LazyMmu::PerPte => LazyMmu::PerPte,
            program::LazyMmu::Multicall => LazyMmu::Multicall,
        },
    }
}
