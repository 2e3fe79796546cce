"""A kernel: its constants, and which scheme serves which operation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.scheme import OPERATIONS, Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The plain structure's name and version (`docs/steps.md` section 1).
FORMAT, VERSION = "tlbcore-kernel", 1

Constant: TypeAlias = int | bool | str
ResolvedKernel: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Kernel:
    """What `replay`, `compare` and `validate` run.

    >>> from tlbcore import kernels, schemes
    >>> mine = kernels.get("linux-6.18").derive("mine", munmap=schemes.MmuGather(delay_rmap=False))
    >>> mine.schemes["munmap"].delay_rmap
    False
    """

    name: str
    title: str
    source: str
    constants: Mapping[str, Constant]
    schemes: Mapping[str, Scheme]
    switches: Mapping[str, str] = field(default_factory=dict)

    def derive(self, name: str, *, constants: Mapping[str, Constant] | None = None, **schemes: Scheme) -> Kernel:
        """This kernel under another name, with some constants changed and some operations served by other schemes.

        Raises:
            InputError: An operation or a constant that no kernel has.

        """
        for operation in schemes:
            if operation not in OPERATIONS:
                expected = f"{', '.join(OPERATIONS)}{nearest(operation, OPERATIONS)}"
                raise InputError(f"kernel {name}: found operation {operation}, expected one of {expected}")
        for constant in constants or {}:
            if constant not in self.constants:
                expected = f"{', '.join(self.constants)}{nearest(constant, self.constants)}"
                raise InputError(f"kernel {name}: found constant {constant}, expected one of {expected}")
        return replace(
            self,
            name=name,
            title=f"{self.title}, changed",
            constants={**self.constants, **(constants or {})},
            schemes={**self.schemes, **schemes},
        )

    def resolve(self) -> ResolvedKernel:
        """The plain structure that the Rust core compiles and the reference interprets.

        Raises:
            InputError: An operation without a scheme.

        """
        missing = [operation for operation in OPERATIONS if operation not in self.schemes]
        if missing:
            raise InputError(f"kernel {self.name}: no scheme for {', '.join(missing)}")
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "switches": dict(self.switches),
            "constants": dict(self.constants),
            "schemes": {operation: type(self.schemes[operation]).__name__ for operation in OPERATIONS},
            "programs": {
                operation: [step.resolve() for step in self.schemes[operation].program(operation)]
                for operation in OPERATIONS
            },
        }

    def to_json(self) -> str:
        """The plain structure as JSON text."""
        return json.dumps(self.resolve())


@dataclass(frozen=True)
class Switch:
    """Something of a kernel that can be chosen: its values, the first of which is the default."""

    name: str
    help: str
    values: tuple[str, ...] = ("on", "off")

    @property
    def default(self) -> str:
        """The value when nothing is said."""
        return self.values[0]


@dataclass(frozen=True)
class KernelFamily:
    """A kernel with its switches."""

    name: str
    title: str
    build: Callable[[Mapping[str, str]], Kernel]
    switches: tuple[Switch, ...] = ()

    def make(self, chosen: Mapping[str, str] | None = None) -> Kernel:
        """The kernel with these switches set, the others at their defaults.

        Raises:
            InputError: An unknown switch or value; the message lists those that there are.

        """
        known = {switch.name: switch for switch in self.switches}
        for name, value in (chosen or {}).items():
            if name not in known:
                expected = f"{', '.join(known) or 'none'}{nearest(name, known)}"
                raise InputError(f"kernel {self.name}: found switch {name}, expected one of {expected}")
            if value not in known[name].values:
                values = ", ".join(known[name].values)
                raise InputError(f"kernel {self.name}: switch {name} is {value}, expected one of {values}")
        return self.build({name: switch.default for name, switch in known.items()} | dict(chosen or {}))
