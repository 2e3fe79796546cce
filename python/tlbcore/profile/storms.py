"""Storms: stretches of time in which a recording's CPUs are interrupted again and again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tlbcore.profile.flushes import task_name

if TYPE_CHECKING:
    from tlbcore.profile.flushes import Flushes

__all__ = ["PER_SECOND", "WINDOW_NS", "Storm", "storms"]

WINDOW_NS: Final = 10_000_000
"""Storms are found by what happens within so many ns."""

PER_SECOND: Final = 1000.0
"""Interruptions a second, over all CPUs, that make a storm unless told: about as many as timer ticks."""


@dataclass(frozen=True)
class Storm:
    """One storm."""

    begin_ns: int
    end_ns: int
    nr_told: int
    nr_cpus: int
    #: Who caused most of it, and with what.
    thread: str
    operation: str
    #: How many of the interruptions that thread caused with that operation.
    nr_by_thread: int

    @property
    def per_second(self) -> float:
        """Interruptions a second."""
        return self.nr_told / ((self.end_ns - self.begin_ns) / 1e9) if self.end_ns > self.begin_ns else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {**asdict(self), "per_second": self.per_second}


def storms(flushes: Flushes, *, per_second: float = PER_SECOND, window_ns: int = WINDOW_NS) -> list[Storm]:
    """The storms in the order of time.

    Args:
        flushes: The flushes with their interruptions.
        per_second: So many interruptions a second, over all CPUs, within every window make a storm.
        window_ns: How long a window is; windows that overlap are one storm.

    """
    told = flushes.interruptions
    order = np.argsort(told.time_ns, kind="stable")
    times = told.time_ns[order]
    count = max(2, round(per_second * window_ns / 1e9))
    if len(times) < count:
        return []
    # Each window begins with an interruption: those from `at` to `at + count - 1` are of a storm if they fit into one.
    begins = np.flatnonzero(times[count - 1 :] - times[: len(times) - count + 1] <= window_ns)
    if not len(begins):
        return []
    edges = np.flatnonzero(np.diff(begins) >= count) + 1
    firsts, lasts = np.concatenate(([0], edges)), np.concatenate((edges, [len(begins)])) - 1
    found = []
    for first, last in zip(firsts, lasts, strict=True):
        begin, end = int(begins[first]), int(begins[last]) + count
        rows = order[begin:end]
        by = told.flush[rows]
        pairs = Counter(zip(flushes.task[by].tolist(), flushes.operation[by].tolist(), strict=True))
        (task, operation), nr_by_thread = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        found.append(
            Storm(
                begin_ns=int(times[begin]),
                end_ns=int(times[end - 1]),
                nr_told=int(end - begin),
                nr_cpus=len(np.unique(told.cpu[rows])),
                thread=task_name(flushes.recording, task),
                operation=flushes.operations[operation],
                nr_by_thread=nr_by_thread,
            )
        )
    return found
