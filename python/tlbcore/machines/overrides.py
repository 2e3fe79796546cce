"""What a user may change about a machine by ``NAME=VALUE``, and how each value is read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.machines.machine import ARRAYS, COSTS, NR_CPUS_MAX, Value

if TYPE_CHECKING:
    from tlbcore.machines.machine import Machine

__all__ = ["OVERRIDES", "override"]

_CHOICES: Final[dict[str, dict[str, object]]] = {
    "levels": {"4": 4, "5": 5},
    "pcid": {"on": True, "off": False},
    "invlpg_keeps_psc": {"on": True, "off": False},
    "tlb_enabled": {"on": True, "off": False},
    "thp": {"never": "never", "madvise": "madvise", "always": "always"},
}
_GEOMETRY_CHOICES: Final[dict[str, dict[str, object]]] = {
    "replacement": {"lru": "lru", "tree_plru": "tree_plru", "fifo": "fifo"},
    "invlpg_drops_psc": {"all": "all", "covering": "covering", "none": "none"},
}

OVERRIDES: Final[dict[str, str]] = {
    "nr_cpus": f"1 to {NR_CPUS_MAX}",
    **{name: " or ".join(values) for name, values in (_CHOICES | _GEOMETRY_CHOICES).items()},
    **dict.fromkeys(ARRAYS, "ENTRIESxWAYS, such as 1536x12, or 0x0 for none"),
    **dict.fromkeys(COSTS, "nanoseconds"),
}
"""What can be changed, and to what."""


def override(machine: Machine, name: str, text: str) -> Machine:
    """The machine with the value `name` changed to what `text` says.

    Raises:
        InputError: Nothing of that name, or a value that cannot be.
    """
    if name not in OVERRIDES:
        if "ceiling" in name:
            raise InputError(f"machine {machine.name}: {name} is a constant of the kernel, not of the machine")
        expected = f"{', '.join(OVERRIDES)}{nearest(name, OVERRIDES)}"
        raise InputError(f"machine {machine.name}: found {name!r}, expected one of {expected}")
    try:
        fields = _fields(machine, name, text)
    except (KeyError, ValueError) as error:
        message = f"machine {machine.name}: {name}: found {text!r}, expected {OVERRIDES[name]}"
        raise InputError(message) from error
    return machine.changed(Value(name, text, "given", "given by the user"), **fields)


def _fields(machine: Machine, name: str, text: str) -> dict[str, object]:
    """The field of `Machine` that changes; a `KeyError` or `ValueError` if the text cannot be."""
    if name == "nr_cpus":
        return {name: int(text)}
    if name in _CHOICES:
        return {name: _CHOICES[name][text]}
    if name in COSTS:
        return {"costs_ns": {**machine.costs_ns, name: float(text)}}
    if name in _GEOMETRY_CHOICES:
        return {"tlb": {**machine.tlb, name: _GEOMETRY_CHOICES[name][text]}}
    entries, ways = (int(number) for number in text.split("x"))
    if entries < 0 or ways < 0 or (ways == 0) != (entries == 0) or (ways > 0 and entries % ways != 0):
        raise ValueError(text)
    array = machine.tlb.get(name)
    kept = array if isinstance(array, dict) else {}
    return {"tlb": {**machine.tlb, name: {**kept, "entries": entries, "ways": ways}}}
