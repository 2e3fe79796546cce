"""The machines: presets with the source of every number, and what a user makes of them.

>>> from tlbcore import machines
>>> machines.get("skylake_sp").tlb["stlb"]["entries"]
1536
>>> machines.get("skylake_sp:nr_cpus=64,stlb=2048x16,invlpg_ns=80").costs_ns["invlpg_ns"]
80.0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tlbcore.given import wrong_kind
from tlbcore.lookup import find
from tlbcore.machines.machine import CONFIDENCES, COSTS, NR_CPUS_MAX, Machine, Value
from tlbcore.machines.overrides import OVERRIDES, override
from tlbcore.machines.presets import DEFAULT, preset, preset_names

_EXPECTED: Final = 'a name such as "zen4_genoa", a Machine or its configuration'
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


def get(spec: str | Machine) -> Machine:
    """A machine by what a user writes: a preset, or ``PRESET:NAME=VALUE,...`` with some of `OVERRIDES`; one as it is.

    Raises:
        InputError: No such preset or override, or a value that cannot be.
    """
    if isinstance(spec, Machine):
        return spec
    if not isinstance(spec, str):
        raise wrong_kind("machine", spec, 'a name such as "zen4_genoa" or a Machine')
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
    if isinstance(machine, Mapping):
        return dict(machine)
    if not isinstance(machine, str | Machine):
        raise wrong_kind("machine", machine, _EXPECTED)
    return get(machine).config()
