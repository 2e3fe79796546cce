"""Drives two machines with the same operations and tells where they first differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from operations import Generator, Operation, random_machine

from tlbcore.reference import ReferenceMachine, UsageError

#: The whole state is compared once in this many operations, and at the end.
STATE_EVERY = 10


class Subject(Protocol):
    """What is compared with the reference: the compiled machine, or one under development."""

    def apply(self, op: Operation) -> dict[str, Any]:
        """Run an operation; ValueError if it makes no sense."""

    def state(self) -> Any:  # noqa: ANN401 - plain JSON
        """All there is."""

    def flushes(self) -> list[dict[str, Any]]:
        """The log of requests so far."""

    def tlb_events(self) -> list[dict[str, Any]]:
        """The log of tracepoints so far."""

    def counters(self) -> dict[str, int]:
        """What was counted so far."""


#: Makes a subject from a machine configuration and a resolved kernel.
MakeSubject = Callable[[Mapping[str, Any], Mapping[str, Any]], Subject]


class CoreMachine:
    """`tlbcore._core.Machine`, which speaks JSON text."""

    def __init__(self, config: Mapping[str, Any], kernel: Mapping[str, Any]) -> None:
        """Build the compiled machine."""
        from tlbcore import _core  # type: ignore[attr-defined]  # noqa: PLC0415 - only where it was built

        self.machine = _core.Machine(json.dumps(config), json.dumps(kernel))

    def apply(self, op: Operation) -> dict[str, Any]:
        """Run an operation."""
        return self._plain(self.machine.apply(json.dumps(op)))

    def state(self) -> Any:  # noqa: ANN401 - plain JSON
        """All there is."""
        return self._plain(self.machine.state())

    def flushes(self) -> Any:  # noqa: ANN401 - plain JSON
        """The log of requests so far."""
        return self._plain(self.machine.flushes())

    def tlb_events(self) -> Any:  # noqa: ANN401 - plain JSON
        """The log of tracepoints so far."""
        return self._plain(self.machine.tlb_events())

    def counters(self) -> Any:  # noqa: ANN401 - plain JSON
        """What was counted so far."""
        return self._plain(self.machine.counters())

    @staticmethod
    def _plain(value: Any) -> Any:  # noqa: ANN401 - plain JSON
        return json.loads(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Difference:
    """The first place where the machines differ."""

    index: int
    operation: Operation
    path: str
    reference: object
    subject: object

    def __str__(self) -> str:
        """Where, and what both say."""
        return (
            f"operation {self.index} {json.dumps(self.operation)}\n  at {self.path}\n"
            f"  reference: {_short(self.reference)}\n  subject:   {_short(self.subject)}"
        )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 600 else text[:600] + " ..."


def first_difference(path: str, reference: Any, subject: Any) -> tuple[str, object, object] | None:  # noqa: ANN401
    """The JSON path and both values of the first difference, depth first."""
    if isinstance(reference, dict) and isinstance(subject, dict):
        for key in sorted(reference.keys() | subject.keys(), key=str):
            if key not in reference or key not in subject:
                return f"{path}.{key}", reference.get(key, "(absent)"), subject.get(key, "(absent)")
            found = first_difference(f"{path}.{key}", reference[key], subject[key])
            if found:
                return found
        return None
    if isinstance(reference, list) and isinstance(subject, list):
        for number, (left, right) in enumerate(zip(reference, subject, strict=False)):
            found = first_difference(f"{path}[{number}]", left, right)
            if found:
                return found
        if len(reference) != len(subject):
            number = min(len(reference), len(subject))
            return (
                f"{path}[{number}]",
                reference[number] if number < len(reference) else "(absent)",
                subject[number] if number < len(subject) else "(absent)",
            )
        return None
    if reference == subject and isinstance(reference, bool) == isinstance(subject, bool):
        return None
    return path, reference, subject


class Pair:
    """A reference machine and a subject that do the same."""

    def __init__(self, config: Mapping[str, Any], kernel: Mapping[str, Any], make: MakeSubject) -> None:
        """Build both."""
        self.reference = ReferenceMachine(config, kernel)
        self.subject = make(config, kernel)
        self.nr_applied = self.nr_flushes = self.nr_events = 0

    def step(self, op: Operation, *, whole_state: bool) -> Difference | None:
        """Apply an operation to both and compare what came of it."""
        index = self.nr_applied
        self.nr_applied += 1
        ours, theirs = self.reference.flushes(), self.subject.flushes
        found = first_difference("result", self._apply(self.reference, op), self._apply(self.subject, op))
        if not found:
            found = first_difference("flushes", ours[self.nr_flushes :], theirs()[self.nr_flushes :])
        if not found:
            events = self.reference.tlb_events()[self.nr_events :]
            found = first_difference("tlb_events", events, self.subject.tlb_events()[self.nr_events :])
        if not found and whole_state:
            found = first_difference("state", self.reference.state(), self.subject.state())
        if not found and whole_state:
            found = first_difference("counters", self.reference.counters(), self.subject.counters())
        self.nr_flushes, self.nr_events = len(ours), len(self.reference.tlb_events())
        return Difference(index, op, *found) if found else None

    @staticmethod
    def _apply(machine: ReferenceMachine | Subject, op: Operation) -> dict[str, Any]:
        try:
            return machine.apply(op)
        except UsageError:
            return {"error": "usage"}
        except ValueError:
            return {"error": "usage"}


def replay(
    config: Mapping[str, Any], kernel: Mapping[str, Any], operations: Sequence[Operation], make: MakeSubject, every: int
) -> Difference | None:
    """Run a given sequence on new machines."""
    pair = Pair(config, kernel, make)
    for number, op in enumerate(operations):
        last = number + 1 == len(operations)
        found = pair.step(op, whole_state=last or (number + 1) % every == 0)
        if found:
            return found
    return None


@dataclass(frozen=True)
class Run:
    """What a random run came to."""

    operations: list[Operation]
    config: dict[str, Any]
    difference: Difference | None


def random_run(rng: Random, kernel: Mapping[str, Any], nr_operations: int, make: MakeSubject) -> Run:
    """Choose operations for the state that the reference is in, until the machines differ."""
    config = random_machine(rng)
    pair = Pair(config, kernel, make)
    generator = Generator(rng, pair.reference)
    done: list[Operation] = []
    for number in range(nr_operations):
        op = generator.next()
        done.append(op)
        last = number + 1 == nr_operations
        found = pair.step(op, whole_state=last or (number + 1) % STATE_EVERY == 0)
        if found:
            return Run(done, config, found)
    return Run(done, config, None)


def shrink(run: Run, kernel: Mapping[str, Any], make: MakeSubject) -> Run:
    """Leave out operations as long as some difference remains; compares the state after each one."""

    def differs(operations: list[Operation]) -> Difference | None:
        try:
            return replay(run.config, kernel, operations, make, 1)
        except Exception:  # noqa: BLE001 - a sequence that breaks a machine otherwise is no simpler example
            return None

    operations, difference = run.operations, differs(run.operations)
    if difference is None:
        return run
    operations = operations[: difference.index + 1]
    size = len(operations) // 2
    while size:
        at = 0
        while at < len(operations):
            shorter = operations[:at] + operations[at + size :]
            found = differs(shorter)
            if found:
                operations, difference = shorter[: found.index + 1], found
            else:
                at += size
        size //= 2
    return Run(operations, run.config, difference)


def report(run: Run, kernel_name: str) -> str:
    """A readable account of a difference, with what is needed to run it again."""
    lines = [f"kernel {kernel_name}, machine {json.dumps(run.config)}", "operations:"]
    lines += [f"  {number}: {json.dumps(op)}" for number, op in enumerate(run.operations)]
    return "\n".join([*lines, str(run.difference)])
