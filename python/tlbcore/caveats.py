"""What a recording itself says against the numbers that are made of it: events lost, processes older than it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlbcore.lazy import LazyModule
from tlbcore.report.table import counted

if TYPE_CHECKING:
    import numpy as np

    from tlbcore._core import Recording
else:
    np = LazyModule("numpy")

__all__ = ["caveats", "share_of_older"]

_LARGE_SHARE: Final = 0.1
"""Of calls and faults; recordings of a command from its start have none."""

_SWITCHES: Final = ("switch", "migrate_task", "process_fork", "exit", "task_start")
"""Kinds of events that are neither calls nor faults."""


def caveats(recording: Recording) -> list[str]:
    """Why numbers of this recording are too low or guessed, a line each; empty if nothing is known against them."""
    lines = []
    lost = int(recording.meta["nr_lost_events"])
    if lost:
        events = counted(lost, "event was", "events were", group=" ")
        lines.append(f"{events} lost while recording: all numbers are too low")
    share = share_of_older(recording)
    if share >= _LARGE_SHARE:
        lines.append(
            f"{share:.0%} of calls and faults are of processes older than the recording, whose mappings and pages are"
            " guessed: start the program under `tlbcore record -- CMD`"
        )
    return lines


def share_of_older(recording: Recording) -> float:
    """The share of calls and faults, 0 to 1, of processes whose mappings were made before the recording began.

    What a process has is known from its exec on, or if it was forked by one of which it is known. 0 for what `perf` did not
    record.
    """
    if recording.meta["source"] != "perf":
        return 0.0
    numbers = {name: number for number, name in recording.event_kinds()}
    kind, task, ret = (recording.column(name) for name in ("kind", "task", "ret"))
    tasks = recording.tasks
    pid_of_tid = {tid: pid for tid, pid, _ in tasks}
    # Rows from which on a process is known.
    known: dict[int, int] = {}
    for row in np.flatnonzero((kind == numbers["exec"]) | (kind == numbers["fork"])).tolist():
        if task[row] >= len(tasks) or ret[row] < 0:
            continue
        pid = tasks[task[row]][1]
        if kind[row] == numbers["exec"]:
            known.setdefault(pid, row)
        elif pid in known:
            # Row of the call; the child's events come after it.
            known.setdefault(pid_of_tid.get(int(ret[row]), int(ret[row])), row)
    counted = ~np.isin(kind, [numbers[name] for name in _SWITCHES]) & (task < len(tasks))
    begin = np.array([known.get(pid, len(kind)) for _, pid, _ in tasks], dtype=np.int64)
    rows = np.flatnonzero(counted)
    return float(np.mean(rows < begin[task[rows]])) if len(rows) else 0.0
