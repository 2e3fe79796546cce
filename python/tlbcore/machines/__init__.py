"""The machines: presets with the source of every number, and what a user makes of them.

>>> from tlbcore import machines
>>> machines.get("skylake_sp").tlb["stlb"]["entries"]
1536
>>> machines.get("skylake_sp:nr_cpus=64,stlb=2048x16,invlpg_ns=80").costs_ns["invlpg_ns"]
80.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlbcore.lookup import find
from tlbcore.machines.machine import CONFIDENCES, COSTS, NR_CPUS_MAX, Machine, Value
from tlbcore.machines.overrides import OVERRIDES, override
from tlbcore.machines.presets import DEFAULT, preset, preset_names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONFIDENCES",
    "COSTS",
    "DEFAULT",
    "NR_CPUS_MAX",
    "OVERRIDES",
    "Machine",
    "Value",
    "config_of",
    "get",
    "preset_names",
]


def get(spec: str) -> Machine:
    """A machine by what a user writes: a preset, or ``PRESET:NAME=VALUE,...`` with some of `OVERRIDES`.

    Raises:
        InputError: No such preset or override, or a value that cannot be.
    """
    name, _, text = spec.partition(":")
    machine = preset(find("machine", name, preset_names()))
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        machine = override(machine, key, value)
    return machine


def config_of(machine: str | Machine | Mapping[str, Any]) -> dict[str, Any]:
    """The plain structure of a machine: by what a user writes, of a `Machine`, or as it is.

    Raises:
        InputError: As `get`.
    """
    found = get(machine) if isinstance(machine, str) else machine
    return found.config() if isinstance(found, Machine) else dict(found)
