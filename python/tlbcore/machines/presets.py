"""The machines that tlbcore knows, from `machines.csv`: one row for each value, with its source and confidence.

A value that the table lacks gets a default, labelled `assumed`: those of `ASSUMED`, of the order that Skylake servers
have. Costs in cycles become nanoseconds at `REFERENCE_GHZ`, since no table has the clock under load.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

from tlbcore.machines.machine import Machine, Value

__all__ = ["ASSUMED", "DEFAULT", "REFERENCE_GHZ", "preset", "preset_names"]

REFERENCE_GHZ: Final = 3.0
"""Cycles per nanosecond when a cost is known in cycles; assumed."""

DEFAULT: Final = "default"
"""The machine for recordings that do not say on what they were made: the TLBs of `DEFAULT_GEOMETRY`."""

DEFAULT_GEOMETRY: Final = "zen4_genoa"

ASSUMED: Final[dict[str, str]] = {
    "nr_cpus": "8",
    "levels": "4",
    "l1_2m": "0x0",
    "l1_1g": "0x0",
    "stlb_1g": "0x0",
    "pde_cache": "32x32",
    "pdpte_cache": "4x4",
    "pml4e_cache": "4x4",
    "pml5e_cache": "0x0",
    "invlpg_ns": "66.7",
    "full_flush_ns": "83.3",
    "ipi_send_ns": "100",
    "ipi_oneway_ns": "500",
    "interrupt_ns": "200",
    "walk_ns": "10",
}
"""What a machine has when the table does not say; arrays as entries x ways."""

NEHALEM_ARRAYS: Final = {"l1_4k": "64x4", "l1_2m": "32x4", "stlb": "512x4"}
"""For the one x86 machine of the table without sizes."""

LA57: Final = frozenset(
    {
        "icelake_sp",
        "sapphire_rapids",
        "emerald_rapids",
        "granite_rapids",
        "zen4_genoa",
        "zen5_turin",
        "zen5_granite_ridge",
    }
)
"""x86 machines with five levels of page tables, which Linux uses where the CPU has them (CONFIG_X86_5LEVEL)."""

_ARRAY_PARAMS: Final = {
    "l1_4k": ("l1d_4k_entries", "l1d_4k_ways"),
    "l1_2m": ("l1d_2m_entries", "l1d_2m_ways"),
    "l1_1g": ("l1d_1g_entries", "l1d_1g_ways"),
    "stlb": ("stlb_entries", "stlb_ways"),
    "stlb_1g": ("stlb_1g_entries", "stlb_1g_ways"),
    "pde_cache": ("pwc_pde_entries", "pwc_ways"),
    "pdpte_cache": ("pwc_pdpte_entries", "pwc_ways"),
    "pml4e_cache": ("pwc_pml4_entries", "pwc_ways"),
}
_COST_PARAMS: Final = {
    "invlpg_ns": ("invlpg_ns_assumed", "invlpg_cycles"),
    "full_flush_ns": ("", "invpcid_single_cycles"),
    "ipi_send_ns": ("ipi_send_per_target_ns", ""),
    "ipi_oneway_ns": ("ipi_oneway_same_socket_ns", ""),
    "interrupt_ns": ("", "irq_entry_exit_cycles_nopti"),
    "walk_ns": ("tlb_refill_ns_assumed", "walk_warm_cycles"),
}
"""For each cost the value in ns and the value in cycles that the table may have."""


@cache
def _table() -> dict[str, dict[str, Value]]:
    """The rows of the table by machine and name."""
    machines: dict[str, dict[str, Value]] = {}
    text = files("tlbcore.machines").joinpath("machines.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        value = Value(row["param"], row["value"], row["confidence"], row["source"])
        machines.setdefault(row["machine"], {})[value.name] = value
    return machines


def preset_names() -> tuple[str, ...]:
    """The names of the presets, `default` first, then in the table's order."""
    return (DEFAULT, *_table())


def preset(name: str) -> Machine:
    """The preset of that name; a `KeyError` if there is none."""
    if name == DEFAULT:
        return _Builder(DEFAULT_GEOMETRY, _table()[DEFAULT_GEOMETRY]).build(
            DEFAULT, f"for recordings that name no machine: as {DEFAULT_GEOMETRY}"
        )
    rows = _table()[name]
    return _Builder(name, rows).build(name, f"{rows['uarch'].value}, {rows['isa'].value}")


@dataclass
class _Builder:
    """Takes values out of the rows of one machine and notes where each came from."""

    name: str
    rows: dict[str, Value]
    used: list[Value] = field(default_factory=list)

    def build(self, name: str, title: str) -> Machine:
        """The machine."""
        tlb = self._geometry()
        costs_ns = {cost: self._cost(cost) for cost in _COST_PARAMS}
        return Machine(
            name=name,
            title=title,
            source=self.rows.get("l1d_4k_entries", self.rows["uarch"]).source,
            nr_cpus=int(self._assume("nr_cpus")),
            levels=self._levels(),
            pcid=self._pcid(),
            tlb=tlb,
            costs_ns=costs_ns,
            values=tuple(self.used),
            not_modelled=tuple(self._not_modelled()),
        )

    @property
    def is_x86(self) -> bool:
        """Whether it is an x86 machine."""
        return self.rows["isa"].value == "x86_64"

    def _assume(self, name: str, value: str | None = None, why: str = "default of tlbcore") -> str:
        value = ASSUMED[name] if value is None else value
        self.used.append(Value(name, value, "assumed", why))
        return value

    def _array(self, name: str) -> dict[str, object]:
        entries_param, ways_param = _ARRAY_PARAMS.get(name, ("", ""))
        row = self.rows.get(entries_param)
        if row is None:
            text = self._missing_array(name)
            entries, ways = (int(part) for part in text.split("x"))
        else:
            entries = int(row.value)
            ways_row = self.rows.get(ways_param)
            ways = entries if ways_row is None else min(entries, int(ways_row.value))
            if ways_row is None and entries > 0:
                source = f"{row.source}; ways: assumed to be fully associative"
                self.used.append(Value(name, f"{entries}x{ways}", "assumed", source))
            else:
                self.used.append(Value(name, f"{entries}x{ways}", row.confidence, row.source))
        return {"entries": entries, "ways": ways}

    def _missing_array(self, name: str) -> str:
        if name in NEHALEM_ARRAYS and self.is_x86:
            return self._assume(name, NEHALEM_ARRAYS[name], "of the order of other x86 machines of its time")
        if name in ("l1_2m", "l1_1g") and self.rows["isa"].value == "arm64":
            row = self.rows["l1d_4k_entries"]
            return self._assume(name, f"{row.value}x{row.value}", "the first level holds all sizes: as large as l1_4k")
        return self._assume(name)

    def _geometry(self) -> dict[str, object]:
        tlb: dict[str, object] = {name: self._array(name) for name in ("l1_4k", "l1_2m", "l1_1g")}
        pages = self.rows.get("stlb_pages")
        stlb_1g = self._array("stlb_1g")
        stlb = self._array("stlb")
        stlb |= {"holds_4k": True, "holds_2m": True, "holds_1g": pages is not None and pages.value == "4K..1G"}
        if pages is None:
            self._assume("stlb_pages", "4K+2M")
        else:
            self.used.append(pages)
        tlb |= {"stlb": stlb, "stlb_1g": stlb_1g}
        tlb |= {name: self._array(name) for name in ("pde_cache", "pdpte_cache", "pml4e_cache", "pml5e_cache")}
        self._assume("replacement", "lru")
        return tlb | {"replacement": "lru", "invlpg_drops_psc": "all"}

    def _cost(self, name: str) -> float:
        in_ns, in_cycles = _COST_PARAMS[name]
        if in_ns in self.rows:
            row = self.rows[in_ns]
            cost = float(row.value)
        elif in_cycles in self.rows:
            row = self.rows[in_cycles]
            cost = float(row.value) / REFERENCE_GHZ
            how = f"{row.value} cycles at an assumed {REFERENCE_GHZ:g} GHz; {row.source}"
            row = Value(name, row.value, row.confidence, how)
        else:
            return float(self._assume(name, why="default of tlbcore, as skylake_sp"))
        cost = round(cost, 1)
        self.used.append(Value(name, f"{cost:g}", row.confidence, row.source))
        return cost

    def _levels(self) -> int:
        row = self.rows.get("pt_levels")
        if row is not None:
            self.used.append(Value("levels", row.value, row.confidence, row.source))
            return int(row.value)
        if self.name in LA57:
            self.used.append(Value("levels", "5", "unverified", "the CPU has LA57, which Linux uses where it is"))
            return 5
        return int(self._assume("levels"))

    def _pcid(self) -> bool:
        row = self.rows.get("asid_bits_hw")
        if row is None:
            self._assume("pcid", "off", "the table has no width of an address-space identifier")
            return False
        self.used.append(Value("pcid", "on", row.confidence, f"{row.value} bits; {row.source}"))
        return True

    def _not_modelled(self) -> list[str]:
        found = []
        broadcast = self.rows.get("broadcast_inval")
        if broadcast is not None and not broadcast.value.startswith(("none", "IPI")):
            found.append(f"invalidation without IPIs, {broadcast.value}: every flush of another CPU is an IPI here")
        if not self.is_x86:
            found.append("an architecture other than x86: page tables, flush rules and PCIDs are those of x86")
        if "base_page_kib" in self.rows:
            found.append(f"base pages of {self.rows['base_page_kib'].value} KiB: pages are 4 KiB here")
        if "halves" in self.rows.get("stlb_pages", Value("", "", "", "")).value:
            found.append("a second level in halves: 2 MiB pages may use all of it here")
        if self.name.startswith("zen") or self.rows["isa"].value == "arm64":
            found.append("a first level that page sizes share: each has an array of that size here")
        if "coalesced" in self.rows.get("stlb_pages", Value("", "", "", "")).value:
            found.append("entries that cover several adjacent pages")
        return [*found, "instruction TLBs: one TLB serves data and instructions"]
