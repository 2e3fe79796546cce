"""The machines: presets with the source of every number, and what a user makes of them.

>>> from tlbcore import machines
>>> machines.get("skylake_sp").tlb["stlb"]["entries"]
1536
>>> machines.get("skylake_sp:nr_cpus=64,stlb=2048x16,invlpg_ns=80").costs_ns["invlpg_ns"]
80.0
"""

from __future__ import annotations

from tlbcore.errors import InputError
from tlbcore.lookup import find, nearest
from tlbcore.machines.machine import ARRAYS, CONFIDENCES, COSTS, NR_CPUS_MAX, Machine, Value
from tlbcore.machines.presets import DEFAULT, preset, preset_names

__all__ = ["CONFIDENCES", "COSTS", "DEFAULT", "NR_CPUS_MAX", "OVERRIDES", "Machine", "Value", "get", "preset_names"]

_CHOICES = {
    "levels": {"4": 4, "5": 5},
    "pcid": {"on": True, "off": False},
    "invlpg_keeps_psc": {"on": True, "off": False},
    "tlb_enabled": {"on": True, "off": False},
    "thp": {"never": "never", "madvise": "madvise", "always": "always"},
    "replacement": {"lru": "lru", "tree_plru": "tree_plru", "fifo": "fifo"},
    "invlpg_drops_psc": {"all": "all", "covering": "covering", "none": "none"},
}

#: What can be said of a machine after its name, and how.
OVERRIDES: dict[str, str] = {
    "nr_cpus": f"1 to {NR_CPUS_MAX}",
    **{name: " or ".join(values) for name, values in _CHOICES.items()},
    **dict.fromkeys(ARRAYS, "ENTRIESxWAYS, such as 1536x12, 0x0 for none"),
    **dict.fromkeys(COSTS, "nanoseconds"),
}


def get(spec: str) -> Machine:
    """A machine by what a user writes: a preset, or ``PRESET:NAME=VALUE,...`` with some of `OVERRIDES`.

    Raises:
        InputError: No such preset or override, or a value that cannot be.
    """
    name, _, text = spec.partition(":")
    machine = preset(find("machine", name, preset_names()))
    for part in filter(None, text.split(",")):
        machine = _override(machine, *part.partition("=")[::2])
    return machine


def _override(machine: Machine, name: str, text: str) -> Machine:
    """The machine with one value changed."""
    if name not in OVERRIDES:
        if "ceiling" in name:
            raise InputError(f"machine {machine.name}: {name} is a constant of the kernel, not of the machine")
        expected = ", ".join(OVERRIDES)
        raise InputError(
            f"machine {machine.name}: found {name!r}, expected one of {expected}{nearest(name, OVERRIDES)}"
        )
    wrong = InputError(f"machine {machine.name}: {name}: found {text!r}, expected {OVERRIDES[name]}")
    value = Value(name, text, "given", "given by the user")
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise wrong
        chosen = _CHOICES[name][text]
        if name in ("replacement", "invlpg_drops_psc"):
            return machine.changed(value, tlb={**machine.tlb, name: chosen})
        return machine.changed(value, **{name: chosen})
    try:
        if name == "nr_cpus":
            return machine.changed(value, nr_cpus=int(text))
        if name in COSTS:
            return machine.changed(value, costs_ns={**machine.costs_ns, name: float(text)})
        entries, ways = (int(number) for number in text.split("x"))
    except InputError:
        raise
    except ValueError as error:
        raise wrong from error
    if entries < 0 or ways < 0 or (ways == 0) != (entries == 0) or (ways > 0 and entries % ways != 0):
        raise wrong
    array = machine.tlb.get(name)
    kept = array if isinstance(array, dict) else {}
    return machine.changed(value, tlb={**machine.tlb, name: {**kept, "entries": entries, "ways": ways}})
