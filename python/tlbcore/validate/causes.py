"""Why model and kernel may disagree about an operation: the rules that tell the likely cause.

A rule looks at nothing but the recording and the replay of it. The first of `RULES` that holds names the cause, so a
rule may rely on those before it having failed. A rule that only describes how the two differ is marked "unknown".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from tlbcore.validate.timeline import FAULT_AROUND, PAGE, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tlbcore.validate.timeline import Rows

#: Where a cause lies: what the recording does not tell, what hangs on times that a replay has otherwise, what the
#: model does otherwise, or nobody knows.
Place = Literal["recording", "timing", "model", "unknown"]

#: Notes of a replay that say: what was there was not known, and taken over from what the event shows.
_OLDER: Final = (
    "mapping made before the recording or by exec, taken over",
    "page that fault-around was thought to have mapped",
    "page mapped before it was seen",
    "mapping that was only guessed, dropped",
    "mapping whose rights must have been changed before",
    "write fault on an entry thought writable",
)


@dataclass(frozen=True)
class Case:
    """One operation whose flushes differ, with what can be asked about it."""

    timeline: Timeline
    operation: Mapping[str, Any]
    #: Rows of events at which the replay noted something, by process.
    noted: Mapping[int, Sequence[tuple[int, str]]]

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
    def range(self) -> tuple[int, int] | None:
        """The bytes that it is about, if it tells."""
        ranges = [found for row in self.rows if (found := self.timeline.range_of(int(row))) is not None]
        return (min(start for start, _ in ranges), max(end for _, end in ranges)) if ranges else None

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
        """Operations and faults of other threads at the same time that touch its range, or do not tell theirs."""
        rows = [*self.overlapping, *self.during(self.timeline.faults.get(self.pid))]
        return sorted(int(row) for row in rows if _meet(self.timeline.range_of(int(row)), self.range))

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
    def notes(self) -> set[str]:
        """What the replay noted about its range, in this event or before it."""
        found = set()
        for row, name in self.noted.get(self.pid, ()):
            if row > self.rows[-1]:
                break
            if row in self.rows or _near(self.timeline.range_of(row), self.range):
                found.add(name)
        return found

    @property
    def sizes_agree(self) -> bool:
        """Whether all that differs is who was told."""
        return sorted(pages for pages, _ in self.missed) == sorted(pages for pages, _ in self.extra)


def _meet(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two ranges share a byte; one that is not known may."""
    return one is None or other is None or (one[0] < other[1] and other[0] < one[1])


def _near(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether a range reaches into what is taken over around another; one that is not known does not."""
    around = FAULT_AROUND * PAGE
    return one is not None and other is not None and _meet((one[0] - around, one[1] + around), other)


@dataclass(frozen=True)
class Rule:
    """A cause, and how it is told."""

    name: str
    title: str
    lies_in: Place
    how: str
    holds: Callable[[Case], bool]


def _told(case: Case) -> int:
    """How many more of the differing flushes told others in the model than in the kernel."""
    return sum(told for _, told in case.extra) - sum(told for _, told in case.missed)


def _pages(flushes: Sequence[tuple[int, bool]]) -> list[int]:
    return [pages for pages, _ in flushes]


def _is_full(flushes: Sequence[tuple[int, bool]]) -> bool:
    return any(pages == -1 for pages, _ in flushes)


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "exec_exit",
        "Set-up of a new program, or the end of one",
        "model",
        "the operation is an exec or an exit",
        lambda case: case.kind in {"exec", "exit"},
    ),
    Rule(
        "ranges_not_recorded",
        "Calls whose ranges were not recorded",
        "recording",
        "the operation is a process_madvise: its ranges lie in memory",
        lambda case: case.kind == "process_madvise",
    ),
    Rule(
        "switch_meanwhile",
        "mm_cpumask: a thread was switched while the operation ran",
        "timing",
        "sizes agree, only who was told differs, and a switch to or from the process lies between begin and flush",
        lambda case: case.sizes_agree and len(case.switched) > 0,
    ),
    Rule(
        "mask_kept",
        "mm_cpumask: the model keeps a CPU that the kernel took out",
        "timing",
        "sizes agree, and the model tells others where the kernel does not",
        lambda case: case.sizes_agree and _told(case) >= 0,
    ),
    Rule(
        "mask_lost",
        "mm_cpumask: the model took out a CPU that the kernel keeps",
        "timing",
        "sizes agree, and the kernel tells others where the model does not",
        lambda case: case.sizes_agree,
    ),
    Rule(
        "overlap_full",
        "Overlap: everything flushed, as another operation was open",
        "timing",
        "only the kernel flushes in full, while another thread's operation or flush ran: gathers nest, or a CPU is"
        " behind by more than one generation",
        lambda case: (
            _is_full(case.missed)
            and not _is_full(case.extra)
            and (len(case.overlapping) > 0 or case.flushes_of_others > 0)
        ),
    ),
    Rule(
        "overlap_race",
        "Overlap: another thread was at the same pages",
        "timing",
        "a call or fault of another thread of the process that touches the range ran at the same time",
        lambda case: len(case.met) > 0,
    ),
    Rule(
        "older",
        "Pages older than the recording, or never recorded",
        "recording",
        "the replay had to take over or drop mappings or pages in this range, from the evidence of a fault or call",
        lambda case: not case.notes.isdisjoint(_OLDER),
    ),
    Rule(
        "fault_kind",
        "A fault of another kind: copied or reused, spurious or real",
        "model",
        "the operation is a fault, and only one side flushes",
        lambda case: case.kind == "fault" and not (case.predicted and case.recorded),
    ),
    Rule(
        "walk_split",
        "The same pages in more or fewer flushes",
        "model",
        "all flushes are ranged, their sum is the same, their number is not",
        lambda case: not _is_full([*case.missed, *case.extra]) and sum(_pages(case.missed)) == sum(_pages(case.extra)),
    ),
    Rule(
        "range_differs",
        "Not explained: as many ranged flushes, of other sizes",
        "unknown",
        "both sides flush ranges, equally often, and of different lengths",
        lambda case: not _is_full([*case.missed, *case.extra]) and len(case.missed) == len(case.extra),
    ),
    Rule(
        "full_for_range",
        "Not explained: full on one side, a range on the other",
        "unknown",
        "one side flushes in full where the other flushes a range, and nothing of the process overlapped",
        lambda case: bool(case.missed and case.extra) and _is_full(case.missed) != _is_full(case.extra),
    ),
    Rule(
        "kernel_only",
        "Not explained: only the kernel flushes",
        "unknown",
        "only the kernel has flushes beyond the common ones",
        lambda case: not case.extra,
    ),
    Rule(
        "model_only",
        "Not explained: only the model flushes",
        "unknown",
        "only the model has flushes beyond the common ones",
        lambda case: not case.missed,
    ),
    Rule("unknown", "Not explained: anything else", "unknown", "no other rule holds", lambda _: True),
)
"""All rules; the first that holds is taken."""


def rule_of(case: Case) -> Rule:
    """The first rule that holds."""
    return next(rule for rule in RULES if rule.holds(case))
