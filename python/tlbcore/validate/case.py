"""One operation about which model and kernel disagree, and what can be asked about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tlbcore.lazy import LazyModule
from tlbcore.validate.timeline import ASKED, FAULT_AROUND, PAGE, WRONG_CPU, Timeline, merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from tlbcore.validate.timeline import Rows
else:
    np = LazyModule("numpy")


#: Beyond any address of a program, and not near the end of what an array holds.
_FAR = 1 << 61


class Noted:
    """Events of a process at which the replay noted something, by row, with the bytes that each is about."""

    def __init__(self, timeline: Timeline, rows: Sequence[tuple[int, str]]) -> None:
        """Take (row, what was noted), sorted."""
        unknown = (_FAR, -_FAR)  # meets nothing
        ranges = [timeline.range_of(row) or unknown for row, _ in rows]
        self.names = [name for _, name in rows]
        self.rows = np.array([row for row, _ in rows], dtype=np.int64)
        self.starts, self.ends = np.clip(np.array(ranges, dtype=object), -_FAR, _FAR).astype(np.int64).T

    def near(self, rows: Rows, ranges: Sequence[tuple[int, int]], around: int) -> set[str]:
        """What was noted in these events, or before the last of them so near to these bytes."""
        upto = int(np.searchsorted(self.rows, rows[-1], side="right"))
        starts, ends = self.starts[:upto], self.ends[:upto]
        found = np.isin(self.rows[:upto], np.asarray(rows))
        for start, end in ranges:
            found |= (starts - around < min(end, _FAR)) & (min(start, _FAR) < ends + around)
        return {self.names[at] for at in np.flatnonzero(found)}


@dataclass(frozen=True)
class Case:
    """One operation whose flushes differ, with what can be asked about it."""

    timeline: Timeline
    operation: Mapping[str, Any]
    #: Events at which the replay noted something, by process.
    noted: Mapping[int, Noted]
    #: In a recording of the lab: the entry that differs in some column (`LabDifference` as a plain structure).
    entry: Mapping[str, Any] | None = None

    @property
    def row(self) -> int:
        """The row of its event."""
        return int(self.operation["row"])

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.operation["kind"])

    @property
    def predicted(self) -> Counter[tuple[int, bool]]:
        """The model's flushes: strides (-1 full) and whether others were told."""
        return Counter((flush["pages"], flush["told"]) for flush in self.operation["predicted"])

    @property
    def recorded(self) -> Counter[tuple[int, bool]]:
        """The kernel's."""
        return Counter((flush["pages"], flush["told"]) for flush in self.operation["recorded"])

    @cached_property
    def missed(self) -> list[tuple[int, bool]]:
        """What only the kernel did, sorted."""
        return sorted((self.recorded - self.predicted).elements())

    @cached_property
    def extra(self) -> list[tuple[int, bool]]:
        """What only the model did, sorted."""
        return sorted((self.predicted - self.recorded).elements())

    @property
    def nr_flushes(self) -> int:
        """How many flushes differ."""
        return len(self.missed) + len(self.extra)

    @property
    def weight(self) -> int:
        """How much it counts in a share: its differing flushes; 1 for an entry that differs in other columns only."""
        return self.nr_flushes or 1

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self.timeline.pid[self.row])

    @cached_property
    def rows(self) -> Rows:
        """The events that are part of it: in a scenario all of the step, of the end of a task its call and its exit."""
        time, task = self.timeline, self.timeline.task[self.row]
        kind = time.kind_name(self.row)
        last = {"step_begin": "step_end", "exit_call": "exit", "exit_group": "exit"}.get(kind)
        if last is None:
            return np.array([self.row])
        later = np.arange(self.row, len(time.task))
        own: Rows = later[time.task[self.row :] == task]
        ends = own[time.is_kind(last)[own]]
        return np.compress(own <= ends[0], own) if len(ends) else own

    @cached_property
    def flush_records(self) -> Rows:
        """The rows of the flush records that were attributed to it."""
        return np.flatnonzero(np.isin(self.timeline.flush["op_event"], self.rows))

    @cached_property
    def span(self) -> tuple[int, int]:
        """When it ran, in ns: to its return, or if it has none to the last flush recorded of it."""
        time = self.timeline
        end = int(max(time.end[self.rows].max(), time.time[self.rows].max()))
        if len(self.flush_records):
            end = max(end, int(time.flush["time_ns"][self.flush_records].max()))
        return int(time.time[self.row]), end

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """The bytes that it is about, as far as it tells."""
        found = (self.timeline.range_of(int(row)) for row in self.rows)
        return merged(one for one in found if one is not None)

    def during(self, rows: Rows | None) -> Rows:
        """Those of these events, all of its process, that other threads were in while it ran."""
        if rows is None:
            return np.array([], dtype=np.intp)
        time, (begin, end) = self.timeline, self.span
        meets = (time.time[rows] <= end) & (time.end[rows] >= begin) & (time.task[rows] != time.task[self.row])
        return np.compress(meets, rows)

    @cached_property
    def overlapping(self) -> Rows:
        """Operations of other threads of its process that ran at the same time and take entries or rights away."""
        return self.during(self.timeline.takes_away.get(self.pid))

    @cached_property
    def met(self) -> list[int]:
        """Operations and faults of other threads at the same time that touch its range."""
        rows = [*self.overlapping, *self.during(self.timeline.faults.get(self.pid))]
        return sorted(int(row) for row in rows if self._touches(self.timeline.range_of(int(row))))

    def _touches(self, other: tuple[int, int] | None) -> bool:
        """Whether a range reaches into its own; one that is not known does not."""
        return other is not None and any(other[0] < end and start < other[1] for start, end in self.ranges)

    @cached_property
    def flushes_of_others(self) -> int:
        """How many requests other threads of its process made while it ran (recorded)."""
        flush, (begin, end) = self.timeline.flush, self.span
        inside = np.flatnonzero((flush["time_ns"] >= begin) & (flush["time_ns"] <= end) & (flush["op_event"] >= 0))
        causes = flush["op_event"][inside].astype(np.int64)
        time = self.timeline
        others = (time.pid[causes] == self.pid) & (time.task[causes] != time.task[self.row])
        return len(np.unique(flush["request"][inside[others]]))

    @cached_property
    def switched(self) -> Rows:
        """Switches to or from threads of its process while it ran."""
        time, (begin, end) = self.timeline, self.span
        rows = time.switches
        inside = np.compress((time.time[rows] > begin) & (time.time[rows] <= end), rows)
        return np.compress((time.pid[inside] == self.pid) | (time.pid_in[inside] == self.pid), inside)

    @cached_property
    def wrong_cpu(self) -> int | None:
        """The record of a CPU that a flush of the process found elsewhere, since the operation that flushed before."""
        time, (begin, end) = self.timeline, self.span
        flush = time.flush
        own = np.flatnonzero(time.flush_pid == self.pid)
        when, reason = flush["time_ns"][own].astype(np.int64), flush["reason"][own]
        before = np.compress((when < begin) & np.isin(reason, ASKED), own)
        since = int(time.time[int(flush["op_event"][before[-1]])]) if len(before) else 0
        found = np.compress((when >= since) & (when <= end) & (reason == WRONG_CPU), own)
        return int(found[-1]) if len(found) else None

    @cached_property
    def notes(self) -> set[str]:
        """What the replay noted about its range, in this event or before it."""
        noted = self.noted.get(self.pid)
        return noted.near(self.rows, self.ranges, FAULT_AROUND * PAGE) if noted is not None else set()

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the lab in which it differs."""
        return frozenset(self.entry["columns"] if self.entry else ())

    @property
    def sizes_agree(self) -> bool:
        """Whether all that differs is who was told."""
        return sorted(pages for pages, _ in self.missed) == sorted(pages for pages, _ in self.extra)
