"""Differences that a recording by perf cannot decide: classes with a criterion on the recorded events alone.

They still count as missed and extra. What is left without them is a second figure: the score over what the recording
decides. A class never asks what the model does inside, only what was recorded, when, and how both lists differ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from tlbcore.lazy import LazyModule
from tlbcore.validate.case import Case
from tlbcore.validate.timeline import ASKED, FULL, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
else:
    np = LazyModule("numpy")

_OBEYED, _LOCAL, _SENT = 1, (2, 3), 4
#: Of the IPIs of a recording, nearly all arrived within the time that this percentile took.
_LATEST: Final = 95
COUNTS: Final = ("matched", "missed", "extra")


class Evidence:
    """What the recorded flushes of a whole recording show of times."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        flush = timeline.flush
        self.time = flush["time_ns"].astype(np.int64)
        self.sent = np.flatnonzero((flush["reason"] == _SENT) & (flush["op_event"] >= 0))

    def _since_sent(self, reasons: Sequence[int], percentile: float) -> int:
        """How long after the sending of a request its records of these kinds come, in ns; 0 without any.

        Of requests that were obeyed: without an IPI a request takes next to no time.
        """
        flush = self.timeline.flush
        obeyed = set(flush["request"][flush["reason"] == _OBEYED].tolist())
        sent = {int(flush["request"][row]): int(self.time[row]) for row in self.sent}
        sent = {request: when for request, when in sent.items() if request in obeyed}
        rows = np.flatnonzero(np.isin(flush["reason"], reasons))
        found = [int(self.time[row]) - sent[request] for row in rows if (request := int(flush["request"][row])) in sent]
        return int(np.percentile(found, percentile)) if found else 0

    @cached_property
    def executed_ns(self) -> int:
        """The median time from sending a request to executing it on its own CPU, of those that were obeyed."""
        return self._since_sent(_LOCAL, 50)

    @cached_property
    def obeyed_ns(self) -> int:
        """The time from sending within which nearly all IPIs were obeyed."""
        return self._since_sent((_OBEYED,), _LATEST)

    def sent_before(self, case: Case, when: int) -> int | None:
        """The latest "remote IPI send" of the case's process before this time."""
        rows = self.sent[(self.timeline.flush_pid[self.sent] == case.pid) & (self.time[self.sent] < when)]
        return int(rows[-1]) if len(rows) else None


@dataclass(frozen=True)
class Proof:
    """What shows that a difference belongs to a class: rows of events and of flush records."""

    events: tuple[int, ...] = ()
    flushes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A class of differences."""

    name: str
    title: str
    #: The criterion, and why the events leave it open.
    how: str
    #: The records that show it, if the criterion holds.
    proof: Callable[[Case, Evidence], Proof | None]

    def holds(self, case: Case, evidence: Evidence) -> bool:
        """Whether the criterion holds."""
        return self.proof(case, evidence) is not None


def _flushed(case: Case) -> tuple[int, int] | None:
    """When and on which CPU the case's last recorded request was made.

    That is the time of its first record: of the sending, if others were told.
    """
    flush = case.timeline.flush
    rows = case.flush_records[np.isin(flush["reason"][case.flush_records], ASKED)]
    if not len(rows):
        return None
    first = rows[flush["request"][rows] == flush["request"][rows[-1]]][0]
    return int(flush["time_ns"][first]), int(flush["cpu"][first])


def _request_order(case: Case, evidence: Evidence) -> Proof | None:
    """Two requests of one address space at once, the first of which an IPI overtook before its own CPU executed it."""
    missed, extra = case.missed, case.extra
    if len(missed) != 1 or len(extra) != 1 or not (missed[0][1] and extra[0][1]):
        return None
    if (missed[0][0] == FULL) == (extra[0][0] == FULL):
        return None
    time, flush = case.timeline, case.timeline.flush
    own = evidence.sent[flush["op_event"][evidence.sent] == case.row]
    others = evidence.sent[(time.flush_pid[evidence.sent] == case.pid) & (flush["op_event"][evidence.sent] != case.row)]
    for one in own:
        beside = others[
            (flush["cpu"][others] != flush["cpu"][one])
            & (np.abs(evidence.time[others] - evidence.time[one]) < evidence.executed_ns)
        ]
        for other in beside:
            requests = sorted((int(one), int(other)), key=lambda row: int(evidence.time[row]))
            if _is_overtaken(flush, *requests):
                rows = np.isin(flush["request"], flush["request"][requests])
                return Proof(flushes=tuple(np.flatnonzero(rows).tolist()))
    return None


def _is_overtaken(flush: Mapping[str, Any], first: int, second: int) -> bool:
    """Whether the first of two overlapping requests was not executed by its own CPU, and the second in full if at all.

    A replay has the first executed by its CPU.
    """
    own, other = (
        flush["pages"][(flush["request"] == flush["request"][row]) & np.isin(flush["reason"], _LOCAL)].tolist()
        for row in (first, second)
    )
    return not own and other in ([], [FULL])


def _exec_arguments(case: Case, _evidence: Evidence) -> Proof | None:
    """One ranged flush of the new stack, of another number of pages."""
    if case.kind != "exec" or len(case.missed) != 1 or len(case.extra) != 1:
        return None
    (recorded, told), (predicted, others) = case.missed[0], case.extra[0]
    is_stack = recorded > 0 and predicted > 0 and told == others
    return Proof(flushes=tuple(case.flush_records.tolist())) if is_stack else None


def _preempted(case: Case, _evidence: Evidence) -> Proof | None:
    """The caller lost its CPU in the call while runnable, so that its flush came before or after that."""
    time, (begin, end) = case.timeline, case.span
    if not case.sizes_agree:
        return None
    rows = time.switches[(time.time[time.switches] > begin) & (time.time[time.switches] <= end)]
    own = rows[time.task[rows] == time.task[case.row]]
    lost = own[(time.args[2][own] == 1) | (time.args[1][own] == ord("R"))]
    return Proof(tuple(lost.tolist()), tuple(case.flush_records.tolist())) if len(lost) else None


def _cpu_unseen(case: Case, evidence: Evidence) -> Proof | None:
    """A CPU that was told last was then, or is since, with a task that is not recorded."""
    flushed = _flushed(case)
    if not case.sizes_agree or flushed is None:
        return None
    when, cpu = flushed
    told = evidence.sent_before(case, when)
    if told is None:
        return None
    time = case.timeline
    begin = int(evidence.time[told])
    for other in time.cpus_of(case.pid) - {cpu}:
        runs = time.runs_on(other)
        first = max(int(np.searchsorted(time.time[runs], begin, "right")) - 1, 0)
        last = int(np.searchsorted(time.time[runs], min(when, begin + evidence.obeyed_ns), "right"))
        foreign = runs[first:last][time.args[0][runs[first:last]] >= len(time.tasks)]
        if len(foreign):
            return Proof(tuple(foreign.tolist()), (told, *case.flush_records.tolist()))
    return None


def _ipi_arrival(case: Case, evidence: Evidence) -> Proof | None:
    """A CPU left the address space about when the IPI of an earlier or of this request was on its way."""
    flushed = _flushed(case)
    if not case.sizes_agree or flushed is None:
        return None
    when, cpu = flushed
    time = case.timeline
    told = evidence.sent_before(case, when)
    starts = [when] if told is None else [int(evidence.time[told]), when]
    for other in time.cpus_of(case.pid) - {cpu}:
        runs = time.runs_on(other)
        left = runs[(time.pid[runs] == case.pid) & (time.pid_in[runs] != case.pid)]
        # The mask was read a moment before its sending was recorded.
        for start in starts:
            when_left = time.time[left]
            about = left[(when_left > start - evidence.executed_ns) & (when_left < start + evidence.obeyed_ns)]
            if len(about):
                return Proof(tuple(about.tolist()), tuple(case.flush_records.tolist()))
    return None


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        "request_order",
        "Two CPUs ask at once: whose IPI comes first",
        "one request told others in full on one side and ranged on the other; another CPU sent one of the same process"
        " within the median time from sending to executing; and whoever sent first did not execute its own: the IPI"
        " of the other came before that, as only the outcome itself tells",
        _request_order,
    ),
    Kind(
        "exec_arguments",
        "execve: how many pages the arguments take",
        "an execve, of which only the one ranged flush of the stack that is moved differs: the size of arguments and"
        " environment is in no event",
        _exec_arguments,
    ),
    Kind(
        "preempted",
        "mm_cpumask: the caller was preempted in its call",
        "sizes agree, and the caller lost its CPU within the call while it could run: whether it had flushed before"
        " is in no event",
        _preempted,
    ),
    Kind(
        "cpu_unseen",
        "mm_cpumask: a CPU that was told ran what is not recorded",
        "sizes agree, and from the process's last IPI until that had arrived another CPU ran idle, a kernel thread or a"
        " foreign task, of which neither the switches among themselves nor the flush records are in the recording",
        _cpu_unseen,
    ),
    Kind(
        "ipi_arrival",
        "mm_cpumask: a CPU left while an IPI was on its way",
        "sizes agree, and another CPU left the process between the sending of its last or this request, less the median"
        f" time of executing, and the time within which {_LATEST} % of the IPIs were obeyed",
        _ipi_arrival,
    ),
)
"""The classes; the first that holds is taken."""


@dataclass(frozen=True)
class Undecided:
    """What of a recording belongs to the classes."""

    #: Flushes that differ, with targets, in the operations of each class.
    nr_flushes: Mapping[str, int] = field(default_factory=dict)
    #: Operations of each class.
    nr_operations: Mapping[str, int] = field(default_factory=dict)
    #: Matched, missed, extra of all operations that are in no class.
    decided: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The plain structure: the classes by name, and the counts and scores over what the recording decides."""
        classes = {
            name: {"nr_operations": self.nr_operations[name], "nr_flushes": count}
            for name, count in self.nr_flushes.items()
        }
        return {"nr_flushes": sum(self.nr_flushes.values()), "classes": classes, "decided": dict(self.decided)}


def kind_of(case: Case, evidence: Evidence) -> Kind | None:
    """The class of a difference, if it has one."""
    return next((kind for kind in KINDS if kind.holds(case, evidence)), None)


def undecided(timeline: Timeline, differing: Iterable[Mapping[str, Any]], plain: Mapping[str, Any]) -> Undecided:
    """Sorts the differing operations of a recording by perf into the classes; `plain` has its scores."""
    evidence = Evidence(timeline)
    flushes: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in differing:
        case = Case(timeline, operation, {})
        kind = kind_of(case, evidence)
        if kind is None:
            continue
        flushes[kind.name] += case.nr_flushes
        operations[kind.name] += 1
        sizes = (Counter(size for size, _ in side.elements()) for side in (case.recorded, case.predicted))
        recorded, predicted = sizes
        taken["with"].update(missed=len(case.missed), extra=len(case.extra))
        taken["without"].update(missed=(recorded - predicted).total(), extra=(predicted - recorded).total())
    decided = _left(plain, taken["with"])
    decided["without_targets"] = _left(plain["without_targets"], taken["without"])
    return Undecided(dict(flushes), dict(operations), decided)


def _left(counts: Mapping[str, Any], taken: Mapping[str, int]) -> dict[str, Any]:
    left: dict[str, Any] = {key: counts[key] - taken.get(key, 0) for key in COUNTS}
    everything = sum(left.values())
    return {**left, "score": left["matched"] / everything if everything else 1.0}
