//! How large the TLB arrays of a CPU are, as a machine description gives it (a JSON object).
//!
//! Numbers are entries and ways, never bytes. `entries` 0 means that the array does not exist; fully associative is
//! `ways == entries`. The number of sets need not be a power of two: the set of a page is its number, in units of its
//! own page size, modulo `entries / ways`.

use serde::{Deserialize, Serialize};

use super::array::Replacement;
use crate::addr::PageSize;
use crate::error::{Error, Result};

/// The most entries that one array may have; real ones stay below a tenth of it.
const MAX_ENTRIES: u32 = 1 << 16;

/// The size of one array.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayGeometry {
    /// Entries in all; 0 = the array is absent.
    pub entries: u32,
    /// Entries of one set.
    pub ways: u32,
}

impl ArrayGeometry {
    /// An array that does not exist.
    pub const ABSENT: Self = Self { entries: 0, ways: 0 };

    /// An array of `entries` in sets of `ways`.
    pub const fn new(entries: u32, ways: u32) -> Self {
        Self { entries, ways }
    }

    /// A fully associative array: one set.
    pub const fn fully_associative(entries: u32) -> Self {
        Self { entries, ways: entries }
    }

    /// Sets of a valid geometry; 0 if absent.
    pub const fn nr_sets(self) -> u32 {
        if self.entries == 0 { 0 } else { self.entries / self.ways }
    }

    fn problems(self, name: &str, replacement: Replacement, found: &mut Vec<String>) {
        let Self { entries, ways } = self;
        if entries > MAX_ENTRIES {
            found.push(format!("{name}.entries: found {entries}, expected at most {MAX_ENTRIES}"));
        }
        if entries == 0 {
            if ways != 0 {
                found.push(format!("{name}.ways: found {ways} with 0 entries, expected 0 for an absent array"));
            }
        } else if ways == 0 || entries % ways != 0 {
            found.push(format!("{name}.ways: found {ways}, expected a divisor of the {entries} entries"));
        } else if replacement == Replacement::TreePlru && !(ways.is_power_of_two() && ways <= 64) {
            found.push(format!("{name}.ways: found {ways}, expected a power of two up to 64 for tree_plru"));
        }
    }
}

/// The second level, shared by page sizes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StlbGeometry {
    /// Entries in all; 0 = there is no second level.
    pub entries: u32,
    /// Entries of one set.
    pub ways: u32,
    /// Whether 4 KiB pages are held.
    #[serde(default = "yes")]
    pub holds_4k: bool,
    /// Whether 2 MiB pages are held.
    #[serde(default = "yes")]
    pub holds_2m: bool,
    /// Whether 1 GiB pages are held (most CPUs have an array of their own for them, `stlb_1g`, or none).
    #[serde(default)]
    pub holds_1g: bool,
}

const fn yes() -> bool {
    true
}

impl StlbGeometry {
    /// The usual kind: it holds 4 KiB and 2 MiB pages.
    pub const fn new(entries: u32, ways: u32) -> Self {
        Self { entries, ways, holds_4k: true, holds_2m: true, holds_1g: false }
    }

    /// Entries and ways.
    pub const fn array(self) -> ArrayGeometry {
        ArrayGeometry { entries: self.entries, ways: self.ways }
    }

    /// Whether pages of `size` are held.
    pub const fn holds(self, size: PageSize) -> bool {
        self.entries > 0
            && match size {
                PageSize::Size4K => self.holds_4k,
                PageSize::Size2M => self.holds_2m,
                PageSize::Size1G => self.holds_1g,
            }
    }
}

/// Which paging-structure entries an invalidation of one page drops, besides the translations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PscScope {
    /// All of the PCID: INVLPG as the Intel manual (volume 3, invalidation of TLBs and paging-structure caches) has it,
    /// and AMD without TCE.
    #[default]
    All,
    /// Those on the way to the page: AMD with EFER.TCE, the translation cache extension.
    Covering,
    /// None: a leaf-only invalidation, as arm64 `TLBI VALE1IS`.
    None,
}

/// The arrays of one logical CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlbGeometry {
    /// First level (data) for 4 KiB pages.
    pub l1_4k: ArrayGeometry,
    /// First level for 2 MiB pages.
    pub l1_2m: ArrayGeometry,
    /// First level for 1 GiB pages.
    pub l1_1g: ArrayGeometry,
    /// Second level.
    pub stlb: StlbGeometry,
    /// Second level for 1 GiB pages alone.
    #[serde(default)]
    pub stlb_1g: ArrayGeometry,
    /// Paging-structure cache of PMD entries, which point to PTE tables; each maps 2 MiB.
    #[serde(default)]
    pub pde_cache: ArrayGeometry,
    /// Paging-structure cache of PUD entries, which point to PMD tables; each maps 1 GiB.
    #[serde(default)]
    pub pdpte_cache: ArrayGeometry,
    /// Paging-structure cache of entries that point to PUD tables; each maps 512 GiB.
    #[serde(default)]
    pub pml4e_cache: ArrayGeometry,
    /// Paging-structure cache of entries that point to P4D tables (five levels only); each maps 256 TiB.
    #[serde(default)]
    pub pml5e_cache: ArrayGeometry,
    /// Replacement in both levels; paging-structure caches are always LRU.
    #[serde(default)]
    pub replacement: Replacement,
    /// What an invalidation of one page drops from the paging-structure caches.
    #[serde(default)]
    pub invlpg_drops_psc: PscScope,
}

impl Default for TlbGeometry {
    /// A common x86-64 server core: 64 + 32 + 4 entries in the first level, 1536 in 12 ways in the second. Sizes of the
    /// paging-structure caches are not documented by the vendor; these are of the order that has been measured.
    fn default() -> Self {
        Self {
            l1_4k: ArrayGeometry::new(64, 4),
            l1_2m: ArrayGeometry::new(32, 4),
            l1_1g: ArrayGeometry::fully_associative(4),
            stlb: StlbGeometry::new(1536, 12),
            stlb_1g: ArrayGeometry::new(16, 4),
            pde_cache: ArrayGeometry::fully_associative(32),
            pdpte_cache: ArrayGeometry::fully_associative(4),
            pml4e_cache: ArrayGeometry::fully_associative(2),
            pml5e_cache: ArrayGeometry::ABSENT,
            replacement: Replacement::Lru,
            invlpg_drops_psc: PscScope::All,
        }
    }
}

impl TlbGeometry {
    /// The first-level array for pages of `size`.
    pub const fn l1(&self, size: PageSize) -> ArrayGeometry {
        match size {
            PageSize::Size4K => self.l1_4k,
            PageSize::Size2M => self.l1_2m,
            PageSize::Size1G => self.l1_1g,
        }
    }

    /// Slots of one CPU in all arrays, paging-structure caches included. Each takes 16 bytes.
    pub fn slots_per_cpu(&self) -> u64 {
        self.arrays().iter().map(|(_, array)| u64::from(array.entries)).sum()
    }

    fn arrays(&self) -> [(&'static str, ArrayGeometry); 9] {
        [
            ("l1_4k", self.l1_4k),
            ("l1_2m", self.l1_2m),
            ("l1_1g", self.l1_1g),
            ("stlb", self.stlb.array()),
            ("stlb_1g", self.stlb_1g),
            ("pde_cache", self.pde_cache),
            ("pdpte_cache", self.pdpte_cache),
            ("pml4e_cache", self.pml4e_cache),
            ("pml5e_cache", self.pml5e_cache),
        ]
    }

    /// What is wrong, one line per problem; nothing if the geometry is valid.
    pub fn validate(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, array) in self.arrays() {
            let replacement = if name.ends_with("_cache") { Replacement::Lru } else { self.replacement };
            array.problems(name, replacement, &mut found);
        }
        if self.stlb.entries > 0 && !PageSize::ALL.into_iter().any(|size| self.stlb.holds(size)) {
            found.push("stlb: found no page size that it holds, expected one or more of holds_4k, 2m, 1g".to_owned());
        }
        if self.stlb.holds_1g && self.stlb_1g.entries > 0 {
            found.push("stlb_1g.entries: found an array although stlb.holds_1g, expected one of the two".to_owned());
        }
        found
    }

    /// Refuses an invalid geometry.
    ///
    /// # Errors
    /// One line with all problems of [`Self::validate`].
    pub fn check(&self) -> Result<()> {
        let problems = self.validate();
        if problems.is_empty() { Ok(()) } else { Err(Error::Value(format!("TLB geometry: {}", problems.join("; ")))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trip_and_unknown_fields() {
        let geometry = TlbGeometry { replacement: Replacement::Random { seed: 7 }, ..TlbGeometry::default() };
        let text = serde_json::to_string(&geometry).unwrap();
        assert!(text.contains(r#""replacement":{"random":{"seed":7}},"invlpg_drops_psc":"all""#), "{text}");
        assert_eq!(serde_json::from_str::<TlbGeometry>(&text).unwrap(), geometry);

        let short = r#"{"l1_4k": {"entries": 64, "ways": 4}, "l1_2m": {"entries": 0, "ways": 0},
                        "l1_1g": {"entries": 0, "ways": 0}, "stlb": {"entries": 512, "ways": 8, "holds_2m": false}}"#;
        let geometry: TlbGeometry = serde_json::from_str(short).unwrap();
        assert!(geometry.stlb.holds(PageSize::Size4K) && !geometry.stlb.holds(PageSize::Size2M));
        assert_eq!(geometry.slots_per_cpu(), 576);
        let error = serde_json::from_str::<TlbGeometry>(&short.replace("holds_2m", "hold_2m")).unwrap_err();
        assert!(error.to_string().contains("unknown field `hold_2m`"), "{error}");
    }

    #[test]
    fn each_problem_has_its_line() {
        assert_eq!(TlbGeometry::default().validate(), [""; 0]);
        let bad = TlbGeometry {
            l1_4k: ArrayGeometry::new(64, 5),
            l1_1g: ArrayGeometry::new(0, 4),
            stlb: StlbGeometry { holds_1g: true, ..StlbGeometry::new(1536, 12) },
            pde_cache: ArrayGeometry::new(1 << 17, 1),
            replacement: Replacement::TreePlru,
            ..TlbGeometry::default()
        };
        assert_eq!(
            bad.validate(),
            [
                "l1_4k.ways: found 5, expected a divisor of the 64 entries",
                "l1_1g.ways: found 4 with 0 entries, expected 0 for an absent array",
                "stlb.ways: found 12, expected a power of two up to 64 for tree_plru",
                "pde_cache.entries: found 131072, expected at most 65536",
                "stlb_1g.entries: found an array although stlb.holds_1g, expected one of the two",
            ]
        );
        assert!(bad.check().unwrap_err().to_string().starts_with("TLB geometry: l1_4k.ways"));
    }
}
