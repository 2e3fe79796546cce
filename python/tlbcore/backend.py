"""The two machines behind one interface of plain dictionaries.

``core`` is the compiled machine, ``reference`` the one in plain Python. Both take the operations of `docs/machine.md`
section 4 and raise the exceptions of :mod:`tlbcore.errors`; nothing here knows what an operation means.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from tlbcore import _core
from tlbcore.errors import InputError, ProgramError
from tlbcore.lookup import nearest
from tlbcore.reference import ModelError, ReferenceMachine, StepError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BACKENDS", "Backend", "Json", "open_backend"]

Json: TypeAlias = dict[str, Any]
"""An object of JSON, its values as `docs/machine.md` has them."""

BACKENDS: Final = ("core", "reference")
"""The machines that there are."""


class Backend(Protocol):
    """A machine with the kernel that it runs."""

    def apply(self, operation: Mapping[str, object]) -> Json:
        """Do one operation; return its ``value`` or ``errno``.

        Raises:
            InputError: The operation cannot be asked for.
            ProgramError: A program of steps cannot run.

        """

    def nr_ops(self) -> int:
        """Operations done so far: the index that the log gives to the next one."""

    def state(self) -> Json:
        """Everything that the machine holds."""

    def flushes(self) -> list[Json]:
        """Every flush request so far."""

    def tlb_events(self) -> list[Json]:
        """Every TLB flush of a CPU so far, as the tracepoint tlb:tlb_flush tells it."""

    def counters(self) -> dict[str, int]:
        """What was counted so far."""


class _Core:
    """The compiled machine, which speaks JSON text."""

    def __init__(self, config: Json, kernel: Mapping[str, object]) -> None:
        self._machine = _core.Machine(json.dumps(config), json.dumps(kernel))

    def apply(self, operation: Mapping[str, object]) -> Json:
        return _object(self._machine.apply(json.dumps(operation)))

    def nr_ops(self) -> int:
        return self._machine.nr_ops

    def state(self) -> Json:
        return _object(self._machine.state())

    def flushes(self) -> list[Json]:
        return _list(self._machine.flushes())

    def tlb_events(self) -> list[Json]:
        return _list(self._machine.tlb_events())

    def counters(self) -> dict[str, int]:
        return _object(self._machine.counters())


class _Reference:
    """The machine in plain Python."""

    def __init__(self, config: Json, kernel: Mapping[str, object]) -> None:
        # What a kernel can be is checked in one place, so that both machines refuse it in the same words.
        _core.validate_kernel(json.dumps(kernel))
        try:
            self._machine = ReferenceMachine(config, kernel)
        except StepError as error:
            raise ProgramError(str(error)) from error
        except UsageError as error:
            raise InputError(str(error)) from error

    def apply(self, operation: Mapping[str, object]) -> Json:
        try:
            return self._machine.apply(operation)
        except StepError as error:
            raise ProgramError(str(error)) from error
        except UsageError as error:
            raise InputError(str(error)) from error
        except ModelError as error:
            raise ProgramError(str(error)) from error

    def nr_ops(self) -> int:
        return self._machine.op_index + 1

    def state(self) -> Json:
        return self._machine.state()

    def flushes(self) -> list[Json]:
        return self._machine.flushes()

    def tlb_events(self) -> list[Json]:
        return self._machine.tlb_events()

    def counters(self) -> dict[str, int]:
        return self._machine.counters()


def open_backend(name: str, config: Json, kernel: Mapping[str, object]) -> Backend:
    """Make a machine.

    Args:
        name: One of ``BACKENDS``.
        config: The machine configuration.
        kernel: The resolved kernel.

    Raises:
        InputError: No such machine, or a configuration or kernel that cannot be.
        ProgramError: A program of the kernel that cannot run.

    """
    if name not in BACKENDS:
        raise InputError(f"backend: found {name!r}, expected one of {', '.join(BACKENDS)}{nearest(name, BACKENDS)}")
    return _Core(config, kernel) if name == "core" else _Reference(config, kernel)


def _object(text: str) -> Json:
    found: Json = json.loads(text)
    return found


def _list(text: str) -> list[Json]:
    found: list[Json] = json.loads(text)
    return found
