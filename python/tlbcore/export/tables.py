"""A recording as three flat tables, for pandas, Polars, DuckDB and the like: events, flushes, operations.

- *events*: what programs asked of the kernel, one row each, as recorded, with names beside the numbers.
- *flushes*: the requests that the kernel made (or, where none are recorded, the model's), with how many CPUs each interrupted.
- *operations*: each event that can flush, with the flushes that were recorded for it and those that the model predicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tlbcore import machines, recordings
from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.profile.flushes import predicted, recorded, sites_of, task_name
from tlbcore.replay import replay

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt

    from tlbcore._core import Recording
    from tlbcore.profile.flushes import Flushes

    Table = Mapping[str, npt.NDArray[Any]]

__all__ = ["TABLES", "table"]

TABLES: Final = ("events", "flushes", "operations")
"""The tables there are."""

#: Kinds of events that are no operation: nobody asked for anything.
_NO_OPERATION: Final = ("switch", "migrate_task", "task_start")


def check_table(name: str) -> None:
    """Raise if there is no such table.

    Raises:
        InputError: The message has the nearest.

    """
    if name not in TABLES:
        raise InputError(
            f"export: found the table {name!r}, expected one of {', '.join(TABLES)}{nearest(name, TABLES)}"
        )


def table(recording: Recording | str | os.PathLike[str], name: str) -> Table:
    """A table: column -> array, all of one length. Texts are arrays of `object`.

    Args:
        recording: From `tlbcore.recordings.load`, or its file.
        name: One of `TABLES`.

    Raises:
        InputError: No such table.

    """
    check_table(name)
    recording = recordings.opened(recording)
    return {"events": _events, "flushes": _flushes, "operations": _operations}[name](recording)


def _named(recording: Recording, tasks: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Thread id, process id and name of tasks; -1 for those outside the recording."""
    known = recording.tasks
    at = np.minimum(tasks.astype(np.int64), len(known))
    tids = np.array([tid for tid, _, _ in known] + [-1], dtype=np.int64)
    pids = np.array([pid for _, pid, _ in known] + [-1], dtype=np.int64)
    comms = np.array([comm for _, _, comm in known] + [""], dtype=object)[at]
    for task in np.unique(tasks[at == len(known)]):
        comms[tasks == task] = task_name(recording, int(task))
    return {"tid": tids[at], "pid": pids[at], "comm": comms}


def _kinds(recording: Recording, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    names = {int(number): name for number, name in recording.event_kinds()}
    size = max(names, default=0) + 2
    lookup = np.full(size, "unknown", dtype=object)
    for number, name in names.items():
        lookup[number] = name
    return lookup[np.where(numbers < 0, size - 1, numbers)]


def _events(recording: Recording) -> Table:
    columns = {name: recording.column(name) for name in recording.event_columns}
    return {
        "event": np.arange(recording.nr_events, dtype=np.int64),
        "time_ns": columns.pop("time_ns"),
        "end_ns": columns.pop("end_ns"),
        "cpu": columns.pop("cpu"),
        "operation": _kinds(recording, columns.pop("kind").astype(np.int64)),
        **_named(recording, columns.pop("task")),
        **columns,
        # What the recording has there is the number of a text, which nobody finds in a table alone.
        "site": sites_of(recording, np.arange(recording.nr_events)),
    }


def _shown(recording: Recording) -> Flushes:
    found = recorded(recording)
    return _model(recording) if found is None else found


def _model(recording: Recording) -> Flushes:
    return predicted(replay(recording, recordings.kernel_of(recording), machines.get("default").config()))


def _flushes(recording: Recording) -> Table:
    found = _shown(recording)
    told = found.interruptions
    size = len(found)
    return {
        "flush": np.arange(size, dtype=np.int64),
        "time_ns": found.time_ns,
        "cpu": found.cpu,
        "operation": np.array(found.operations, dtype=object)[found.operation] if size else np.array([], dtype=object),
        **_named(recording, found.task),
        "event": found.op_event,
        "is_full": found.pages < 0,
        "pages": found.pages,
        "took_remote_way": found.told,
        "nr_interrupted": np.bincount(told.flush, minlength=size),
        "nr_wrong_cpu": np.bincount(told.flush[told.wrong_cpu], minlength=size),
        "site": np.array(found.sites, dtype=object),
        "source": np.full(size, found.source, dtype=object),
    }


def _operations(recording: Recording) -> Table:
    kinds = _kinds(recording, recording.column("kind").astype(np.int64))
    rows = np.flatnonzero(~np.isin(kinds, _NO_OPERATION))
    columns = {name: recording.column(name)[rows] for name in ("time_ns", "end_ns", "cpu", "a0", "a1", "ret")}
    counts: dict[str, npt.NDArray[Any]] = {}
    for source, found in (("recorded", recorded(recording)), ("predicted", _model(recording))):
        if found is None:
            continue
        of_flush = found.op_event
        known = of_flush >= 0
        size = recording.nr_events
        counts[f"nr_flushes_{source}"] = np.bincount(of_flush[known], minlength=size)[rows]
        of_told = of_flush[found.interruptions.flush]
        counts[f"nr_interrupted_{source}"] = np.bincount(of_told[of_told >= 0], minlength=size)[rows]
    return {
        "event": rows.astype(np.int64),
        "time_ns": columns["time_ns"],
        "duration_ns": columns["end_ns"].astype(np.int64) - columns["time_ns"].astype(np.int64),
        "cpu": columns["cpu"],
        "operation": kinds[rows],
        **_named(recording, recording.column("task")[rows]),
        "a0": columns["a0"],
        "a1": columns["a1"],
        "ret": columns["ret"],
        **counts,
    }
