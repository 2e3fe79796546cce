//! The constants of a kernel that the machine needs; `docs/machine.md` section 1 lists them with their meaning.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::names::named_enum;

named_enum! {
    /// When a CPU's bit leaves `mm_cpumask`.
    CpumaskRule {
        /// When the CPU switches away (before 6.14).
        Eager = "eager",
        /// By a flush that finds the mm gone (Linux kernel commit 209954cbc7d0, in v6.14).
        Lazy = "lazy",
    }
}

named_enum! {
    /// Which CPUs of the mask a flush without freed tables spares.
    ShouldFlushTlb {
        /// Lazy ones (`tlb_is_not_lazy`).
        IsLazy = "is_lazy",
        /// Lazy ones and those with another mm loaded (`should_flush_tlb`, 6.14).
        LoadedMm = "loaded_mm",
    }
}

named_enum! {
    /// How reclaim's outstanding flushes are remembered.
    BatchedPending {
        /// `bool tlb_flush_batched` (before 5.17).
        Flag = "flag",
        /// A pending and a flushed count (Linux kernel commit 5ee2fa2f0636, in v5.17).
        Counter = "counter",
        /// A mask of CPUs (patch 20 of the 2021 series).
        Cpumask = "cpumask",
    }
}

named_enum! {
    /// At which grain an operation knows that another has flushes outstanding.
    PendingTracking {
        /// The count `mm->tlb_flush_pending`.
        Mm = "mm",
        /// A generation per mm.
        MmGen = "mm_gen",
        /// A generation per VMA (patch 15).
        Vma = "vma",
        /// A generation per page table (patch 16).
        Table = "table",
    }
}

named_enum! {
    /// What the arch lazy-MMU mode batches.
    LazyMmu {
        /// Nothing (native x86).
        None = "none",
        /// Invalidations, one per PTE (sparc64, powerpc hash).
        PerPte = "per_pte",
        /// PTE updates as multicalls (Xen PV).
        Multicall = "multicall",
    }
}

named_enum! {
    /// When an anonymous page is written in place instead of copied.
    CowReuse {
        /// When it is mapped once, and nobody else has a reference.
        PageCount = "page_count",
        /// When it was not shared since it was made or written last, or as above, with the CPU's own batch of pages on their
        /// way to the LRU emptied first.
        Exclusive = "exclusive",
    }
}

named_enum! {
    /// When a page that comes back from swap and has no other user becomes writable (`do_swap_page`).
    SwapInMkwrite {
        /// Only if the fault was a write.
        WriteFault = "write_fault",
        /// Whenever the page is exclusive.
        Exclusive = "exclusive",
    }
}

named_enum! {
    /// Transparent huge pages for anonymous memory.
    Thp {
        /// Never.
        Never = "never",
        /// Where madvise asked for them.
        Madvise = "madvise",
        /// Wherever they fit.
        Always = "always",
    }
}

impl<'de> Deserialize<'de> for Thp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read(&value)
            .ok_or_else(|| serde::de::Error::custom(format!("found {value}, expected {}", Self::expected())))
    }
}

impl Serialize for Thp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A type that a constant can have.
trait Constant: Sized {
    /// What a value must be, for a message.
    fn expected() -> String;

    /// The value, if it is one.
    fn read(value: &Value) -> Option<Self>;
}

impl Constant for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),+) => {
        $(impl Constant for $type {
            fn expected() -> String {
                format!("a whole number from 0 to {}", Self::MAX)
            }

            fn read(value: &Value) -> Option<Self> {
                value.as_u64().and_then(|number| Self::try_from(number).ok())
            }
        })+
    };
}

whole_numbers!(u16, u32, u64);

macro_rules! choices {
    ($($type:ty),+) => {
        $(impl Constant for $type {
            fn expected() -> String {
                let names: Vec<_> = Self::ALL.iter().map(|choice| choice.name()).collect();
                format!("one of {}", names.join(", "))
            }

            fn read(value: &Value) -> Option<Self> {
                value.as_str().and_then(Self::parse)
            }
        })+
    };
}

choices!(CpumaskRule, ShouldFlushTlb, BatchedPending, PendingTracking, LazyMmu, CowReuse, SwapInMkwrite, Thp);

/// Declares [`Constants`]: the fields, their names, and how they are read.
macro_rules! constants {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// The constants of a kernel.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Constants {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Constants {
            /// The names, in the order of the fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Reads them from an object and checks what their types cannot say.
            ///
            /// # Errors
            /// One line that names the constant, what was found and what was expected.
            pub fn from_value(value: &Value) -> Result<Self, String> {
                let object = value.as_object().ok_or_else(|| {
                    if value.is_null() { "found no constants, expected an object".to_owned() }
                    else { format!("constants: found {value}, expected an object") }
                })?;
                if let Some(name) = object.keys().find(|name| !Self::NAMES.contains(&name.as_str())) {
                    return Err(format!("found constant {name}, expected one of {}", Self::NAMES.join(", ")));
                }
                let constants = Self { $($name: read(object.get(stringify!($name)), stringify!($name))?,)+ };
                constants.check()?;
                Ok(constants)
            }
        }
    };
}

constants! {
    /// A flush of more strides than this becomes a full one.
    tlb_single_page_flush_ceiling: u64,
    /// PCID slots per CPU.
    tlb_nr_dyn_asids: u16,
    /// Pages that a gather holds before it allocates.
    gather_bundle: u32,
    /// Pages per allocated batch of a gather.
    gather_batch: u32,
    /// Batches that a gather may allocate.
    gather_batch_count: u32,
    /// Pages of one huge page in a row take two places of a gather, and each of its batches keeps one free for that.
    gather_batches_folios: bool,
    /// When a CPU's bit leaves `mm_cpumask`.
    mm_cpumask_rule: CpumaskRule,
    /// Which CPUs a flush spares.
    should_flush_tlb: ShouldFlushTlb,
    /// At most one trimming flush per mm in this time (lazy rule).
    trim_cpumask_interval_ns: u64,
    /// `flush_tlb_func` returns at once when the request's generation was reached.
    flush_skips_old_gen: bool,
    /// What `flush_tlb_range()` passes as `freed_tables`.
    flush_tlb_range_freed_tables: bool,
    /// The local flush comes before the remote ones.
    local_flush_first: bool,
    /// How reclaim's outstanding flushes are remembered.
    batched_pending: BatchedPending,
    /// At which grain operations see each other's outstanding flushes.
    pending_tracking: PendingTracking,
    /// What the arch lazy-MMU mode batches.
    lazy_mmu: LazyMmu,
    /// Entries that a lazy-MMU batch holds.
    lazy_mmu_batch: u32,
    /// Window of `do_fault_around`, in pages.
    fault_around_pages: u32,
    /// Pages per reclaim list.
    swap_cluster_max: u32,
    /// When an anonymous page is written in place instead of copied.
    cow_reuse: CowReuse,
    /// A fault that maps a page to be read makes the entry dirty if it may be written and the page is dirty.
    read_fault_keeps_dirty: bool,
    /// New pages that a CPU puts on the LRU together (0: each at once).
    lru_add_batch: u32,
    /// Calls that unmap empty the CPU's batch of such pages, and so does a gather that frees pages.
    unmapping_drains_lru: bool,
    /// When a page that comes back from swap becomes writable, if it has no other user.
    swap_in_mkwrite: SwapInMkwrite,
    /// mprotect takes the account of anonymous memory without pages back that it makes unwritable.
    mprotect_unaccounts: bool,
    /// Splitting a huge page maps the zero page where a part of it was never written.
    split_maps_zero_pages: bool,
    /// An area without anonymous pages takes in a neighbour with some, not only the other way round.
    anon_vma_merges_either_way: bool,
    /// mremap may move whole PTE tables.
    pmd_move: bool,
    /// mremap may move whole PMD tables.
    pud_move: bool,
    /// Transparent huge pages.
    thp: Thp,
}

fn read<T: Constant>(value: Option<&Value>, name: &str) -> Result<T, String> {
    let value = value.ok_or_else(|| wrong(name, "nothing", &T::expected()))?;
    T::read(value).ok_or_else(|| wrong(name, value, &T::expected()))
}

fn wrong(name: &str, found: impl std::fmt::Display, expected: &str) -> String {
    format!("constant {name}: found {found}, expected {expected}")
}

impl Constants {
    fn check(&self) -> Result<(), String> {
        let at_least_one = [
            ("tlb_nr_dyn_asids", u64::from(self.tlb_nr_dyn_asids)),
            ("gather_bundle", u64::from(self.gather_bundle)),
            ("swap_cluster_max", u64::from(self.swap_cluster_max)),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(wrong(name, 0, "at least 1"));
        }
        if self.fault_around_pages > 512 || !self.fault_around_pages.is_power_of_two() {
            return Err(wrong("fault_around_pages", self.fault_around_pages, "a power of two up to 512"));
        }
        if self.tlb_nr_dyn_asids > 4094 {
            return Err(wrong("tlb_nr_dyn_asids", self.tlb_nr_dyn_asids, "at most 4094"));
        }
        if self.lazy_mmu != LazyMmu::None && self.lazy_mmu_batch == 0 {
            return Err(wrong("lazy_mmu_batch", 0, "at least 1 with a lazy_mmu"));
        }
        Ok(())
    }
}
