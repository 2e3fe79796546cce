"""Which steps of the language a machine has executed, and which a program has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlbcore.reference import ReferenceMachine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tlbcore.reference.control import Handler
    from tlbcore.reference.frame import Frame


def steps_of(program: object) -> Iterator[str]:
    """The name of each step of a plain program, in order, with repetitions."""
    if isinstance(program, list):
        for step in program:
            yield from steps_of(step)
    elif isinstance(program, dict):
        if "step" in program:
            yield program["step"]
        for part in ("body", "then", "else", "on_huge_pmd", "on_pmd"):
            yield from steps_of(program.get(part, []))


def conditions_of(program: object) -> Iterator[str]:
    """The name of each condition of a plain program, in order, with repetitions."""
    if isinstance(program, list):
        for step in program:
            yield from conditions_of(step)
    elif isinstance(program, dict):
        yield from _names_in(program.get("if", []))
        for part in ("body", "then", "else", "on_huge_pmd", "on_pmd"):
            yield from conditions_of(program.get(part, []))


def _names_in(condition: object) -> Iterator[str]:
    if isinstance(condition, str):
        yield condition
    elif isinstance(condition, dict):
        for part in condition.values():
            yield from _names_in(part)
    elif isinstance(condition, list):
        for part in condition:
            yield from _names_in(part)


class Watched:
    """Makes reference machines that note what they execute."""

    def __init__(self) -> None:
        """Begin with nothing executed."""
        self.executed: set[str] = set()

    def __call__(self, config: Mapping[str, Any], kernel: Mapping[str, Any]) -> ReferenceMachine:
        """A reference machine."""
        machine = ReferenceMachine(config, kernel)
        machine.handlers = {name: self._noting(name, handler) for name, handler in machine.handlers.items()}
        return machine

    def _noting(self, name: str, handler: Handler) -> Handler:
        def note(f: Frame, step: Mapping[str, Any]) -> None:
            self.executed.add(name)
            handler(f, step)

        return note
