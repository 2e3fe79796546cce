"""Drives two machines with the same operations and tells where they first differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from differential.operations import Generator, Operation, random_machine
from tlbcore import _core
from tlbcore.reference import ReferenceMachine

if TYPE_CHECKING:
    from random import Random

#: The whole state is compared once in this many operations, and at the end.
STATE_EVERY = 10


class Subject(Protocol):
    """What is compared with the reference: the compiled machine, or another reference with a planted error."""

    def apply(self, op: Operation) -> dict[str, Any]:
        """Run an operation; ValueError if it makes no sense, any other exception if the machine is broken."""

    def state(self) -> Any:
        """All there is."""

    def take_log(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The requests and the tracepoints since the last call."""

    def counters(self) -> dict[str, int]:
        """What was counted so far."""


#: Makes a subject from a machine configuration and a resolved kernel.
MakeSubject = Callable[[Mapping[str, Any], Mapping[str, Any]], Subject]
#: The same for what stands on the other side.
MakeReference = Callable[[Mapping[str, Any], Mapping[str, Any]], ReferenceMachine]


class CoreMachine:
    """`tlbcore._core.Machine`, which speaks JSON text. Its state is checked for consistency when it is asked for."""

    def __init__(self, config: Mapping[str, Any], kernel: Mapping[str, Any]) -> None:
        """Build the compiled machine."""
        self.machine = _core.Machine(json.dumps(config), json.dumps(kernel))

    def apply(self, op: Operation) -> dict[str, Any]:
        """Run an operation."""
        result: dict[str, Any] = json.loads(self.machine.apply(json.dumps(op)))
        return result

    def state(self) -> Any:
        """All there is."""
        self.machine.check_consistency()
        return json.loads(self.machine.state())

    def take_log(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The requests and the tracepoints since the last call."""
        log = json.loads(self.machine.flushes()), json.loads(self.machine.tlb_events())
        self.machine.clear_log()
        return log

    def counters(self) -> dict[str, int]:
        """What was counted so far."""
        counters: dict[str, int] = json.loads(self.machine.counters())
        return counters


class ReferenceSubject(ReferenceMachine):
    """The reference in the subject's place."""

    def take_log(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The requests and the tracepoints since the last call."""
        seen = getattr(self, "_seen", (0, 0))
        flushes, events = self.flushes(), self.tlb_events()
        self._seen = len(flushes), len(events)
        return flushes[seen[0] :], events[seen[1] :]


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


def first_difference(path: str, reference: Any, subject: Any) -> tuple[str, object, object] | None:
    """The JSON path and both values of the first difference, depth first; true is not 1."""
    if json.dumps(reference, sort_keys=True) == json.dumps(subject, sort_keys=True):
        return None
    return _search(path, reference, subject)


def _search(path: str, reference: Any, subject: Any) -> tuple[str, object, object] | None:
    if isinstance(reference, dict) and isinstance(subject, dict):
        for key in sorted(reference.keys() | subject.keys(), key=str):
            if key not in reference or key not in subject:
                return f"{path}.{key}", reference.get(key, "(absent)"), subject.get(key, "(absent)")
            found = _search(f"{path}.{key}", reference[key], subject[key])
            if found:
                return found
        return None
    if isinstance(reference, list) and isinstance(subject, list):
        for number, (left, right) in enumerate(zip(reference, subject, strict=False)):
            found = _search(f"{path}[{number}]", left, right)
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

    def __init__(
        self,
        config: Mapping[str, Any],
        kernel: Mapping[str, Any],
        make: MakeSubject,
        make_reference: MakeReference = ReferenceMachine,
    ) -> None:
        """Build both."""
        self.reference = make_reference(config, kernel)
        self.subject = make(config, kernel)
        self.nr_applied = self.nr_flushes = self.nr_events = 0

    def step(self, op: Operation, *, whole_state: bool) -> Difference | None:
        """Apply an operation to both and compare what came of it."""
        index = self.nr_applied
        self.nr_applied += 1
        try:
            found = self._compare(op, whole_state=whole_state)
        except BaseException as error:
            if type(error).__name__ not in MACHINE_ERRORS:
                raise
            found = "state", "(consistent)", f"{type(error).__name__}: {error}"
        return Difference(index, op, *found) if found else None

    def _compare(self, op: Operation, *, whole_state: bool) -> tuple[str, object, object] | None:
        ours, theirs = _apply(self.reference, op), _apply(self.subject, op)
        if "broken" in ours or "broken" in theirs:
            # A kernel whose programs cannot run is an error even if both machines say so.
            return "result", ours, theirs
        flushes, events = self.reference.flushes(), self.reference.tlb_events()
        new_flushes, new_events = self.subject.take_log()
        found = first_difference("result", ours, theirs)
        found = found or first_difference("flushes", flushes[self.nr_flushes :], new_flushes)
        found = found or first_difference("tlb_events", events[self.nr_events :], new_events)
        if not found and whole_state:
            found = first_difference("state", self.reference.state(), self.subject.state())
            found = found or first_difference("counters", self.reference.counters(), self.subject.counters())
        self.nr_flushes, self.nr_events = len(flushes), len(events)
        return found


#: What a machine raises when it finds itself in a state that cannot be, by name: a panic has no importable type.
MACHINE_ERRORS = ("ModelError", "ProgramError", "InputError", "PanicException")


def _apply(machine: ReferenceMachine | Subject, op: Operation) -> dict[str, Any]:
    try:
        return machine.apply(op)
    except ValueError:
        return {"error": "usage"}
    except BaseException as error:
        if type(error).__name__ not in MACHINE_ERRORS:
            raise
        return {"broken": f"{type(error).__name__}: {error}"}


def replay(
    config: Mapping[str, Any],
    kernel: Mapping[str, Any],
    operations: Sequence[Operation],
    make: MakeSubject,
    make_reference: MakeReference = ReferenceMachine,
) -> Difference | None:
    """Run a given sequence on new machines, with the whole state compared after each operation."""
    pair = Pair(config, kernel, make, make_reference)
    for op in operations:
        found = pair.step(op, whole_state=True)
        if found:
            return found
    return None


@dataclass(frozen=True)
class Run:
    """What a random run came to."""

    operations: list[Operation]
    config: dict[str, Any]
    difference: Difference | None


def random_run(
    rng: Random,
    kernel: Mapping[str, Any],
    nr_operations: int,
    make: MakeSubject = CoreMachine,
    make_reference: MakeReference = ReferenceMachine,
) -> Run:
    """Choose operations for the state that the reference is in, until the machines differ."""
    config = random_machine(rng)
    pair = Pair(config, kernel, make, make_reference)
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


def shrink(
    run: Run,
    kernel: Mapping[str, Any],
    make: MakeSubject = CoreMachine,
    make_reference: MakeReference = ReferenceMachine,
) -> Run:
    """Leave out operations as long as some difference remains; compares the state after each one."""

    def differs(operations: list[Operation]) -> Difference | None:
        return replay(run.config, kernel, operations, make, make_reference)

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
