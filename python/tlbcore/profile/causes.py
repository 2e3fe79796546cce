"""Who caused the flushes, and who was interrupted by whom: sums by thread, operation and place in the program."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore.profile.flushes import task_name

if TYPE_CHECKING:
    from tlbcore.profile.flushes import Flushes

__all__ = ["Cause", "Interrupted", "OperationSums", "by_operation", "causes", "interrupted"]


@dataclass(frozen=True)
class Cause:
    """A thread, an operation of it and, where recorded, the place in the program."""

    thread: str
    operation: str
    #: Empty if it is not recorded.
    site: str
    nr_flushes: int
    #: Of these: full ones.
    nr_full: int
    #: CPUs that were interrupted.
    nr_told: int

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return asdict(self)


@dataclass(frozen=True)
class Interrupted:
    """How often one thread's flushes interrupted what ran elsewhere."""

    by: str
    victim: str
    operation: str
    nr_told: int
    #: Of these: the CPU ran another address space and had nothing to flush.
    nr_wrong_cpu: int

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return asdict(self)


@dataclass(frozen=True)
class OperationSums:
    """The flushes of one kind of operation."""

    operation: str
    nr_flushes: int
    nr_full: int
    nr_remote: int
    nr_told: int
    nr_wrong_cpu: int

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return asdict(self)


def causes(flushes: Flushes) -> list[Cause]:
    """The causes, those that interrupted most first, then those that flushed most."""
    told = np.bincount(flushes.interruptions.flush, minlength=len(flushes))
    sums: dict[tuple[int, int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    columns = zip(flushes.task, flushes.operation, flushes.sites, flushes.pages, told, strict=True)
    for task, operation, site, pages, nr_told in columns:
        found = sums[int(task), int(operation), site]
        found[0] += 1
        found[1] += int(pages < 0)
        found[2] += int(nr_told)
    listed = [
        Cause(task_name(flushes.recording, task), flushes.operations[operation], site, *numbers)
        for (task, operation, site), numbers in sums.items()
    ]
    return sorted(listed, key=lambda c: (-c.nr_told, -c.nr_flushes, c.thread, c.operation, c.site))


def interrupted(flushes: Flushes) -> list[Interrupted]:
    """Who was interrupted by whom for what, most first."""
    told = flushes.interruptions
    by = flushes.task[told.flush] if len(told) else told.flush
    operations = flushes.operation[told.flush] if len(told) else told.flush
    total: Counter[tuple[int, int, int]] = Counter()
    wrong: Counter[tuple[int, int, int]] = Counter()
    for sender, victim, operation, elsewhere in zip(by, told.task, operations, told.wrong_cpu, strict=True):
        key = int(sender), int(victim), int(operation)
        total[key] += 1
        wrong[key] += int(elsewhere)
    name = flushes.recording
    listed = [
        Interrupted(task_name(name, key[0]), task_name(name, key[1]), flushes.operations[key[2]], count, wrong[key])
        for key, count in total.items()
    ]
    return sorted(listed, key=lambda i: (-i.nr_told, i.by, i.victim, i.operation))


def by_operation(flushes: Flushes) -> list[OperationSums]:
    """Sums by kind of operation, most flushes first."""
    told = flushes.interruptions
    size = len(flushes.operations)

    def count(which: Any) -> list[int]:  # noqa: ANN401  # a numpy mask or index
        return [int(n) for n in np.bincount(flushes.operation[which], minlength=size)]

    columns = (
        count(np.arange(len(flushes))),
        count(flushes.pages < 0),
        count(flushes.told),
        count(told.flush),
        count(told.flush[told.wrong_cpu]),
    )
    return [OperationSums(name, *(column[at] for column in columns)) for at, name in enumerate(flushes.operations)]
