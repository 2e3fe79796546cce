"""The flushes of a recording and whom they interrupted, as columns: those that were recorded, or else the model's.

A request is one row of `Flushes`; a CPU that was told is one row of `Interruptions`. What is not known is said so: a
row of an event that is -1, a task that is `TASK_UNKNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from tlbcore._core import Recording
    from tlbcore.replay import Replay

    Ints = npt.NDArray[np.int64]

__all__ = ["TASK_UNKNOWN", "WRONG_CPU", "Flushes", "Interruptions", "predicted", "recorded", "task_name"]

TASK_IDLE, TASK_KTHREAD, TASK_OTHER = 2**32 - 1, 2**32 - 2, 2**32 - 3
TASK_UNKNOWN: Final = 2**32 - 4
"""Index of the task that was interrupted where nothing says who ran there."""
_NOT_OF_RECORDING: Final = {
    TASK_IDLE: "idle",
    TASK_KTHREAD: "kernel threads",
    TASK_OTHER: "other programs",
    TASK_UNKNOWN: "unknown",
}

#: `enum tlb_flush_reason`, and kinds of flush records (`docs/recordings.md`).
REMOTE_SHOOTDOWN, LOCAL_SHOOTDOWN, LOCAL_MM_SHOOTDOWN, REMOTE_SEND_IPI, WRONG_CPU = 1, 2, 3, 4, 5
_TLB_FLUSH, _MM_RANGE, _MULTI, _FUNC, _BATCH = 1, 2, 3, 4, 5
_INTERRUPTED: Final = (REMOTE_SHOOTDOWN, WRONG_CPU)
_ASKING: Final = (LOCAL_SHOOTDOWN, LOCAL_MM_SHOOTDOWN, REMOTE_SEND_IPI)
_ALL: Final = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Interruptions:
    """CPUs that were told of a flush, one row each."""

    time_ns: Ints
    cpu: Ints
    #: Who ran there.
    task: Ints
    #: Row of the flush in `Flushes`.
    flush: Ints
    #: It ran something else and had nothing to flush (recorded ones only).
    wrong_cpu: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """How many."""
        return len(self.time_ns)


@dataclass(frozen=True)
class Flushes:
    """Flush requests, one row each, in the order of time."""

    #: `recorded` or `predicted`.
    source: str
    recording: Recording
    time_ns: Ints
    cpu: Ints
    #: Who asked.
    task: Ints
    #: Row of the event that caused it, -1 unknown.
    op_event: Ints
    #: Strides, -1 everything.
    pages: Ints
    #: Whether other CPUs were told.
    told: npt.NDArray[np.bool_]
    interruptions: Interruptions
    #: Records of interrupted CPUs whose sender is not known; they are in no sum.
    nr_unknown_sender: int = 0

    def __len__(self) -> int:
        """How many."""
        return len(self.time_ns)

    @cached_property
    def operations(self) -> list[str]:
        """The names of the operations that caused them, most flushes first."""
        numbers, counts = np.unique(self._operation_codes, return_counts=True)
        return [self._operation_names[int(numbers[at])] for at in np.lexsort((numbers, -counts))]

    @cached_property
    def operation(self) -> Ints:
        """For each flush the index of its operation in `operations`."""
        place = {name: at for at, name in enumerate(self.operations)}
        numbers = np.unique(self._operation_codes)
        table = np.array([place[self._operation_names[int(number)]] for number in numbers], dtype=np.int64)
        return table[np.searchsorted(numbers, self._operation_codes)] if len(numbers) else table

    @cached_property
    def _operation_names(self) -> dict[int, str]:
        kinds = {int(number): name for number, name in self.recording.event_kinds()}
        steps = {1000 + at: name.partition(" ")[0] for at, name in enumerate(self.recording.names)}
        return {**kinds, **steps, -1: "unknown"}

    @cached_property
    def _operation_codes(self) -> Ints:
        """A number for the name of each flush's operation: its kind, of a scenario's step the place of its text."""
        kinds = {name: number for number, name in self.recording.event_kinds()}
        rows = np.maximum(self.op_event, 0)
        if not self.recording.nr_events:
            return np.full(len(self), -1, dtype=np.int64)
        kind = self.recording.column("kind").astype(np.int64)[rows]
        step = self.recording.column("a2")[rows].astype(np.int64)
        first: dict[str, int] = {}
        words = [first.setdefault(name.partition(" ")[0], at) for at, name in enumerate(self.recording.names)]
        is_step = (kind == kinds["step_begin"]) & (step >= 0) & (step < len(words))
        if is_step.any():
            kind = np.where(is_step, 1000 + np.array(words, dtype=np.int64)[np.where(is_step, step, 0)], kind)
        # The ways to exit are one operation, as in the kernel, where both calls are do_exit(); a flush is of the call, or of the
        # end of the task that comes with it.
        kind = np.where(np.isin(kind, (kinds["exit_call"], kinds["exit_group"])), kinds["exit"], kind)
        return np.where(self.op_event >= 0, kind, -1)

    @cached_property
    def sites(self) -> list[str]:
        """Where in the program each flush was caused (`sites_of`)."""
        found: list[str] = sites_of(self.recording, self.op_event).tolist()
        return found


def sites_of(recording: Recording, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
    """Where in the program events were caused, as far as it is recorded: an array of texts, empty where it is not.

    Callers, innermost first; of a fault without them the instruction that faulted.

    Args:
        recording: The recording.
        rows: Of its events; below 0 for no event.
    """
    found = np.full(len(rows), "", dtype=object)
    known = np.flatnonzero(rows >= 0)
    if not len(known):
        return found
    at = rows[known].astype(np.int64)
    names = np.array([*recording.names, ""], dtype=object)
    callers = recording.column("site")[at].astype(np.int64)
    found[known] = names[np.minimum(callers, len(names) - 1)]
    is_fault = recording.column("kind")[at] == {name: n for n, name in recording.event_kinds()}["fault"]
    without = is_fault & (callers >= len(names) - 1)
    ips, symbols = recording.column("a2")[at[without]], recording.column("a3")[at[without]].astype(np.int64)
    texts = names[np.where((symbols >= 0) & (symbols < len(names)), symbols, len(names) - 1)]
    for place in np.flatnonzero((texts == "") & (ips != 0)).tolist():
        texts[place] = f"0x{int(ips[place]):x}"
    found[known[without]] = texts
    return found


def task_name(recording: Recording, task: int) -> str:
    """A task for people: its name and thread id."""
    if task < len(recording.tasks):
        tid, _, comm = recording.tasks[task]
        return f"{comm} {tid}"
    return _NOT_OF_RECORDING.get(task, "unknown")


def _ints(values: npt.NDArray[Any]) -> Ints:
    return np.ascontiguousarray(values, dtype=np.int64)


def recorded(recording: Recording) -> Flushes | None:
    """The flushes that the kernel did; none if the recording has none."""
    column = {name: recording.flush_column(name) for name in recording.flush_columns}
    kind, reason, request = column["kind"], column["reason"], _ints(column["request"])
    asks = np.isin(kind, (_MM_RANGE, _BATCH)) | ((kind == _TLB_FLUSH) & np.isin(reason, _ASKING))
    opened = (request >= 0) & asks[np.maximum(request, 0)]
    roots, of_root = np.unique(request[opened], return_inverse=True)
    if not len(roots):
        return None
    rows = np.flatnonzero(opened)
    kind, reason = kind[rows], reason[rows]
    acts = np.isin(kind, (_TLB_FLUSH, _FUNC))
    pages = _requested(column, roots)
    own = acts & np.isin(reason, (LOCAL_SHOOTDOWN, LOCAL_MM_SHOOTDOWN))
    pages[of_root[own]] = _ints(column["pages"])[rows[own]]
    told = np.zeros(len(roots), dtype=np.bool_)
    told[of_root[((kind == _TLB_FLUSH) & (reason == REMOTE_SEND_IPI)) | (kind == _MULTI)]] = True
    # A CPU that asks can be in the mask of an address space that it has left, as exec does: it interrupts nobody.
    is_told = acts & np.isin(reason, _INTERRUPTED) & (column["cpu"][rows] != column["cpu"][roots][of_root])
    there = rows[is_told]
    interruptions = Interruptions(
        time_ns=_ints(column["time_ns"])[there],
        cpu=_ints(column["cpu"])[there],
        task=_ints(column["task"])[there],
        flush=_ints(of_root[is_told]),
        wrong_cpu=reason[is_told] == WRONG_CPU,
    )
    return Flushes(
        source="recorded",
        recording=recording,
        time_ns=_ints(column["time_ns"])[roots],
        cpu=_ints(column["cpu"])[roots],
        task=_ints(column["task"])[roots],
        op_event=_ints(column["op_event"])[roots],
        pages=pages,
        told=told,
        interruptions=interruptions,
        nr_unknown_sender=_nr_unknown_sender(column, opened),
    )


def _nr_unknown_sender(column: dict[str, npt.NDArray[Any]], opened: npt.NDArray[np.bool_]) -> int:
    interrupted = np.isin(column["kind"], (_TLB_FLUSH, _FUNC)) & np.isin(column["reason"], _INTERRUPTED)
    return int((interrupted & ~opened).sum())


def _requested(column: dict[str, npt.NDArray[Any]], roots: Ints) -> Ints:
    """The strides that a request asks for, -1 everything; from its range where the record has no count."""
    pages, end = _ints(column["pages"])[roots], column["end"][roots]
    strides = (end - column["start"][roots]) >> column["stride_shift"][roots].astype(np.uint64)
    from_range = np.where(end == _ALL, -1, _ints(strides.astype(np.int64)))
    return np.where(pages < -1, from_range, pages)


def predicted(replay: Replay) -> Flushes:
    """The flushes that the model did, at the times of the events that caused them; of the CPUs told 0 to 63."""
    recording, columns = replay.recording, replay.result.flushes()
    rows = _ints(columns["op_event"])
    times = _ints(recording.column("time_ns"))[rows] if len(rows) else rows
    told = columns["told"]
    which, cpus = [], []
    for cpu in range(64):
        having = np.flatnonzero(told >> np.uint64(cpu) & np.uint64(1))
        which.append(having)
        cpus.append(np.full(len(having), cpu))
    flush, cpu_told = _ints(np.concatenate(which)), _ints(np.concatenate(cpus))
    order = np.lexsort((cpu_told, flush))
    flush, cpu_told = flush[order], cpu_told[order]
    interruptions = Interruptions(
        time_ns=times[flush],
        cpu=cpu_told,
        task=running(recording, cpu_told, times[flush]),
        flush=flush,
        wrong_cpu=np.zeros(len(flush), dtype=np.bool_),
    )
    return Flushes(
        source="predicted",
        recording=recording,
        time_ns=times,
        cpu=_ints(columns["cpu"]),
        task=_ints(columns["task"]),
        op_event=rows,
        pages=_ints(columns["pages"]),
        told=told != 0,
        interruptions=interruptions,
    )


def running(recording: Recording, cpus: Ints, times_ns: Ints) -> Ints:
    """Who ran on each of these CPUs at these times, by the last context switch there."""
    found = np.full(len(cpus), TASK_UNKNOWN, dtype=np.int64)
    switch = {name: number for number, name in recording.event_kinds()}["switch"]
    rows = np.flatnonzero(recording.column("kind") == switch)
    of_cpu = recording.column("cpu")[rows]
    for cpu in np.unique(cpus):
        own = rows[of_cpu == cpu]
        asked = np.flatnonzero(cpus == cpu)
        last = np.searchsorted(recording.column("time_ns")[own], times_ns[asked], side="right") - 1
        known = last >= 0
        found[asked[known]] = _ints(recording.column("a0")[own[last[known]]])
    return found
