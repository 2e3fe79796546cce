"""A machine: CPUs, the sizes of their TLBs, and what things cost; each number with its source and how sure it is.

Only data: the machine of the core (`rust/core/src/machine`) gets `config()`, the cost model (`tlbcore.costs`) gets
`costs_ns`. What a machine has and the model has not is in `not_modelled`, in words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from tlbcore.errors import InputError
from tlbcore.given import whole_number
from tlbcore.report.html import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARRAYS", "CONFIDENCES", "COSTS", "NR_CPUS_MAX", "Machine", "Value"]

Geometry: TypeAlias = "dict[str, object]"

NR_CPUS_MAX: Final = 8192
"""The most CPUs of a machine, as Linux has it (NR_CPUS)."""

ARRAYS: Final = (
    "l1_4k",
    "l1_2m",
    "l1_1g",
    "stlb",
    "stlb_1g",
    "pde_cache",
    "pdpte_cache",
    "pml4e_cache",
    "pml5e_cache",
)
"""The arrays of a CPU, as `rust/core/src/tlb/geometry.rs` names them."""

COSTS: Final[dict[str, str]] = {
    "invlpg_ns": "one INVLPG",
    "full_flush_ns": "a flush of one PCID (INVPCID)",
    "ipi_send_ns": "sending an IPI, for each CPU told",
    "ipi_oneway_ns": "from sending an IPI to its arrival, within a socket",
    "interrupt_ns": "entry and exit of the interrupt on a CPU told",
    "walk_ns": "a page walk that finds its tables in the caches",
}
"""The costs of a machine, in nanoseconds, and what each is."""

CONFIDENCES: Final[dict[str, str]] = {
    "verified-dump": "read in a dump of a real CPU",
    "verified-thread": "read in the source named",
    "derived": "computed from verified values",
    "unverified": "the source named is said to have it, which was not checked",
    "assumed": "nobody says so: a value is needed, and this is of the right order",
    "given": "given by the user",
}
"""How sure a value is."""


@dataclass(frozen=True)
class Value:
    """A number (or word) of a machine, with where it comes from."""

    name: str
    value: str
    confidence: str
    source: str


@dataclass(frozen=True, repr=False)
class Machine:
    """A machine that replay, compare and the cost model can use.

    >>> from tlbcore import machines
    >>> machines.get("skylake_sp")
    <Machine skylake_sp: Skylake-X/SP, x86_64>
    >>> machines.get("skylake_sp:nr_cpus=64").config()["nr_cpus"]
    64
    """

    name: str
    title: str
    source: str
    tlb: Mapping[str, object]
    costs_ns: Mapping[str, float]
    nr_cpus: int = 8
    levels: int = 4
    pcid: bool = True
    invlpg_keeps_psc: bool = False
    tlb_enabled: bool = True
    #: Transparent huge pages; none: what the kernel's constant says.
    thp: str | None = None
    #: Where each number comes from, and how sure it is; a name is a key of this class, of `tlb` or of `costs_ns`.
    values: tuple[Value, ...] = ()
    #: What the machine has and the model has not.
    not_modelled: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what no machine can be."""
        if not 1 <= self.nr_cpus <= NR_CPUS_MAX:
            raise InputError(f"machine {self.name}: nr_cpus: found {self.nr_cpus}, expected 1 to {NR_CPUS_MAX}")
        if self.levels not in (4, 5):
            raise InputError(f"machine {self.name}: levels: found {self.levels}, expected 4 or 5")
        for name, cost in self.costs_ns.items():
            if not 0 <= cost < float("inf"):
                raise InputError(f"machine {self.name}: {name}: found {cost}, expected nanoseconds, 0 or more")

    def __repr__(self) -> str:
        """One line."""
        return f"<Machine {self.name}: {self.title}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: each value, how sure it is, and where it comes from."""
        rows = [[value.name, value.value, value.confidence, value.source] for value in self.values]
        return html_table(f"{self.name}: {self.title}", ["name", "value", "confidence", "source"], rows)

    def config(self) -> dict[str, object]:
        """The plain structure (`MachineConfig` of docs/machine.md) that the core and the reference read."""
        plain: dict[str, object] = {
            "nr_cpus": self.nr_cpus,
            "levels": self.levels,
            "pcid": self.pcid,
            "invlpg_keeps_psc": self.invlpg_keeps_psc,
            "tlb_enabled": self.tlb_enabled,
            "tlb": dict(self.tlb),
            "costs": dict(self.costs_ns),
        }
        return plain if self.thp is None else plain | {"thp": self.thp}

    def to_json(self) -> str:
        """`config()` as JSON text."""
        return json.dumps(self.config())

    def with_cpus(self, nr_cpus: int) -> Machine:
        """The same machine with another number of CPUs, such as that of a recording."""
        whole_number(f"machine {self.name}: nr_cpus", nr_cpus, least=1, most=NR_CPUS_MAX)
        return self.changed(Value("nr_cpus", str(nr_cpus), "given", "number of CPUs asked for"), nr_cpus=nr_cpus)

    def changed(self, value: Value, **fields: object) -> Machine:
        """The machine with some fields replaced; `value` says why, in place of what it said of that name before."""
        values = [old for old in self.values if old.name != value.name]
        return replace(self, values=(*values, value), **fields)  # type: ignore[arg-type]  # any field of this class

    def assumed(self) -> tuple[str, ...]:
        """The names of the values that nobody vouches for."""
        return tuple(value.name for value in self.values if value.confidence == "assumed")
