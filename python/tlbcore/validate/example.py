"""A worked example of a disagreement: what the model thought, what the kernel did, and the events around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore.lazy import LazyModule
from tlbcore.validate.timeline import cpulist, pages_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from tlbcore.validate.case import Case
else:
    np = LazyModule("numpy")

_OWN_BEFORE: Final = 3
_OWN_AFTER: Final = 2
_OTHERS_BEFORE: Final = 4
_OTHERS_AFTER: Final = 2
_OTHERS_DURING: Final = 4
_FLUSHES: Final = 6
_FLUSHES_BEFORE: Final = 2
_FLUSHES_AFTER: Final = 1
_EVERYTHING: Final = 2**64 - 1


@dataclass(frozen=True)
class Line:
    """Something that happened around the operation."""

    #: Microseconds since the operation began; in recordings of the lab only the order means something.
    time_us: float
    cpu: int
    thread: str
    text: str
    #: `operation` (the one in question), `same` thread, `other` thread, or `flush` (a record of the flush code).
    role: str


@dataclass(frozen=True)
class Example:
    """One operation about which model and kernel disagree."""

    recording: str
    event: int
    time_ns: int
    cpu: int
    thread: str
    operation: str
    #: The model's flushes, each with its range, mm_cpumask before it, and the CPUs that it told.
    model: tuple[str, ...]
    #: What the kernel did, each as it was recorded.
    kernel: tuple[str, ...]
    around: tuple[Line, ...]
    #: In the lab, the columns that differ: name -> (kernel, model).
    columns: Mapping[str, tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return asdict(self)


def example_of(case: Case, file: str, flushes: Mapping[str, npt.NDArray[Any]]) -> Example:
    """The example that an operation makes; `flushes` are the model's (`tlbcore._core.Replay.flushes`)."""
    time, row = case.timeline, case.row
    kernel = [_record(case, int(record)) for record in case.flush_records if _is_own(case, int(record))]
    return Example(
        recording=file,
        event=row,
        time_ns=int(time.time[row]),
        cpu=int(time.cpu[row]),
        thread=time.thread(int(time.task[row])),
        operation=time.event_text(row),
        model=tuple(_predicted(case, flushes)),
        kernel=tuple(kernel),
        around=tuple(sorted(_around(case), key=lambda line: line.time_us)),
        columns=_columns(case),
    )


def _predicted(case: Case, flushes: Mapping[str, npt.NDArray[Any]]) -> Iterator[str]:
    for at in np.flatnonzero(np.isin(flushes["op_event"], case.rows)):
        size = pages_text(int(flushes["pages"][at]))
        if int(flushes["end"][at]) != _EVERYTHING and flushes["pages"][at] >= 0:
            size += f" {int(flushes['start'][at]):#x}-{int(flushes['end'][at]):#x}"
        if flushes["freed_tables"][at]:
            size += " freed_tables"
        mask, told = cpulist(int(flushes["mask"][at])), cpulist(int(flushes["told"][at]))
        yield f"CPU {int(flushes['cpu'][at])}: {size}, mm_cpumask {mask}, told {told}"


def _columns(case: Case) -> dict[str, tuple[str, str]]:
    if case.entry is None:
        return {}
    return {name: (case.entry["recorded"][name], case.entry["model"][name]) for name in case.entry["columns"]}


def _is_own(case: Case, record: int) -> bool:
    """Whether the record is of the thread itself, not of a CPU that was told."""
    return bool(case.timeline.flush["task"][record] == case.timeline.task[case.row])


def _record(case: Case, record: int) -> str:
    flush = case.timeline.flush
    return f"CPU {int(flush['cpu'][record])}: {case.timeline.flush_text(record)}"


def _around(case: Case) -> Iterator[Line]:
    """Events of the thread and of others of its process, switches of its threads, and recorded flushes among them."""
    time, row, (begin, end) = case.timeline, case.row, case.span
    of_process = np.flatnonzero((time.pid == case.pid) | (time.pid_in == case.pid))
    own = time.task[of_process] == time.task[row]
    own |= time.is_kind("switch")[of_process] & (time.args[0][of_process] == time.task[row])
    before, after = of_process < row, of_process > case.rows[-1]
    others, inside = ~own, (time.time[of_process] <= end)
    during = others & ~before & inside
    open_before = others & before & (time.end[of_process] >= begin)
    chosen = [
        *of_process[own & before][-_OWN_BEFORE:],
        *of_process[own & after][:_OWN_AFTER],
        *of_process[open_before][-_OTHERS_DURING:],
        *of_process[others & before][-_OTHERS_BEFORE:],
        *of_process[during][:_OTHERS_DURING],
        *of_process[others & ~before & ~inside][:_OTHERS_AFTER],
    ]
    # A step's own calls say more than the step.
    rows = sorted({int(found) for found in chosen} | {int(found) for found in case.rows[:_OWN_BEFORE]})
    for found in rows:
        role = "operation" if found == row else "same" if time.task[found] == time.task[row] else "other"
        yield _line(case, found, role)
    for record in _flushes_around(case):
        flush = time.flush
        moment = (int(flush["time_ns"][record]) - begin) / 1000
        thread = time.thread(int(flush["task"][record]))
        yield Line(moment, int(flush["cpu"][record]), thread, time.flush_text(record), "flush")


def _line(case: Case, row: int, role: str) -> Line:
    time = case.timeline
    text = time.event_text(row)
    length = int(time.end[row]) - int(time.time[row])
    if length > 0:
        text += f" for {length / 1000:.1f} us"
    moment = int(time.time[row]) - int(time.time[case.row])
    return Line(moment / 1000, int(time.cpu[row]), time.thread(int(time.task[row])), text, role)


def _flushes_around(case: Case) -> list[int]:
    """Records of the operation, those of its process just before and after, and a CPU that was found elsewhere."""
    flush = case.timeline.flush
    of_process = np.flatnonzero(case.timeline.flush_pid == case.pid)
    others = of_process[~np.isin(flush["op_event"][of_process], case.rows)]
    begin, end = case.span
    when = flush["time_ns"][others].astype(np.int64)
    chosen = [
        *case.flush_records[:_FLUSHES],
        *others[when < begin][-_FLUSHES_BEFORE:],
        *others[(when >= begin) & (when <= end)][:_FLUSHES],
        *others[when > end][:_FLUSHES_AFTER],
    ]
    return sorted({int(record) for record in [*chosen, case.wrong_cpu] if record is not None})
