"""What a machine is made of: the configuration of the hardware and the constants of the kernel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tlbcore.reference.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SHIFT = 12
PMD_SHIFT = 21
PUD_SHIFT = 30
PAGE_SIZE = 1 << PAGE_SHIFT
PMD_SIZE = 1 << PMD_SHIFT
PUD_SIZE = 1 << PUD_SHIFT
PTRS_PER_TABLE = 512
#: `TLB_FLUSH_ALL`, and the arithmetic of `unsigned long`.
ALL = (1 << 64) - 1

START_BRK = 0x555555800000
MMAP_BASE = 0x7FFFF7FFF000
MMAP_MIN = PAGE_SIZE

INIT_MM = 0


@dataclass(frozen=True)
class Constants:
    """The constants of a resolved kernel (machine.md, section 1)."""

    tlb_single_page_flush_ceiling: int
    tlb_nr_dyn_asids: int
    gather_bundle: int
    gather_batch: int
    gather_batch_count: int
    gather_batches_folios: bool
    mm_cpumask_rule: str
    should_flush_tlb: str
    trim_cpumask_interval_ns: int
    flush_skips_old_gen: bool
    flush_tlb_range_freed_tables: bool
    local_flush_first: bool
    batched_pending: str
    pending_tracking: str
    lazy_mmu: str
    lazy_mmu_batch: int
    fault_around_pages: int
    swap_cluster_max: int
    cow_reuse: str
    read_fault_keeps_dirty: bool
    lru_add_batch: int
    unmapping_drains_lru: bool
    swap_in_mkwrite: str
    mprotect_unaccounts: bool
    split_maps_zero_pages: bool
    anon_vma_merges_either_way: bool
    pmd_move: bool
    pud_move: bool
    thp: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], thp: str | None) -> Constants:
        """Check the names; the machine's own `thp` wins over the kernel's."""
        names = {field.name for field in fields(cls)}
        merged = {**values, **({} if thp is None else {"thp": thp})}
        for name in merged.keys() - names:
            msg = f"kernel constants: found {name}, expected only known names"
            raise UsageError(msg)
        for name in names - merged.keys():
            msg = f"kernel constants: {name} is missing"
            raise UsageError(msg)
        return cls(**merged)


@dataclass(frozen=True)
class ArrayGeometry:
    """One set-associative array; 0 entries = absent."""

    entries: int = 0
    ways: int = 0

    @property
    def nr_sets(self) -> int:
        """Sets of the array."""
        return self.entries // self.ways if self.entries else 0


_DEFAULT_TLB: dict[str, Any] = {
    "l1_4k": {"entries": 64, "ways": 4},
    "l1_2m": {"entries": 32, "ways": 4},
    "l1_1g": {"entries": 4, "ways": 4},
    "stlb": {"entries": 1536, "ways": 12},
    "stlb_1g": {"entries": 16, "ways": 4},
    "pde_cache": {"entries": 32, "ways": 32},
    "pdpte_cache": {"entries": 4, "ways": 4},
    "pml4e_cache": {"entries": 2, "ways": 2},
}


@dataclass(frozen=True)
class Geometry:
    """The TLB arrays of a CPU; 1 GiB pages do not occur here, so their arrays are read and left alone."""

    l1_4k: ArrayGeometry
    l1_2m: ArrayGeometry
    stlb: ArrayGeometry
    stlb_holds: dict[int, bool]
    psc: tuple[ArrayGeometry, ...]
    invlpg_drops_psc: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None, *, invlpg_keeps_psc: bool) -> Geometry:
        """Read the keys of a TLB geometry; only exact LRU is modelled here."""
        given = _DEFAULT_TLB if values is None else values
        if given.get("replacement", "lru") != "lru":
            msg = f"tlb.replacement: found {given['replacement']}, expected lru (the reference has no other)"
            raise UsageError(msg)

        def array(name: str) -> ArrayGeometry:
            found = given.get(name, {})
            return ArrayGeometry(found.get("entries", 0), found.get("ways", 0))

        stlb = given["stlb"]
        return cls(
            l1_4k=array("l1_4k"),
            l1_2m=array("l1_2m"),
            stlb=array("stlb"),
            stlb_holds={PAGE_SHIFT: stlb.get("holds_4k", True), PMD_SHIFT: stlb.get("holds_2m", True)},
            psc=tuple(array(name) for name in ("pde_cache", "pdpte_cache", "pml4e_cache", "pml5e_cache")),
            invlpg_drops_psc="covering" if invlpg_keeps_psc else given.get("invlpg_drops_psc", "all"),
        )


@dataclass(frozen=True)
class Config:
    """The hardware (`MachineConfig`)."""

    nr_cpus: int
    levels: int
    pcid: bool
    tlb_enabled: bool
    swap: bool
    geometry: Geometry
    thp: str | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """Check names and bounds."""
        known = {"nr_cpus", "levels", "pcid", "invlpg_keeps_psc", "tlb_enabled", "swap", "tlb", "thp", "costs"}
        for name in values.keys() - known:
            msg = f"machine: found {name}, expected one of {', '.join(sorted(known))}"
            raise UsageError(msg)
        nr_cpus, levels = values.get("nr_cpus", 1), values.get("levels", 4)
        if not 1 <= nr_cpus <= 8192:
            msg = f"machine: nr_cpus is {nr_cpus}, expected 1 to 8192"
            raise UsageError(msg)
        if levels not in (4, 5):
            msg = f"machine: levels is {levels}, expected 4 or 5"
            raise UsageError(msg)
        geometry = Geometry.from_json(values.get("tlb"), invlpg_keeps_psc=values.get("invlpg_keeps_psc", False))
        return cls(
            nr_cpus=nr_cpus,
            levels=levels,
            pcid=values.get("pcid", False),
            tlb_enabled=values.get("tlb_enabled", True),
            swap=values.get("swap", True),
            geometry=geometry,
            thp=values.get("thp"),
        )

    @property
    def user_end(self) -> int:
        """`TASK_SIZE_MAX`: the end of user space."""
        return (1 << (47 if self.levels == 4 else 56)) - PAGE_SIZE


def page_align(value: int) -> int:
    """`PAGE_ALIGN`: up to a whole page."""
    return (value + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)
