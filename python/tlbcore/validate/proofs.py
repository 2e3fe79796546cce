"""What is left of a validation, one by one: each difference with its cause and the records that show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore.lazy import LazyModule
from tlbcore.validate.case import Case
from tlbcore.validate.timeline import Timeline
from tlbcore.validate.undecided import Evidence, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np

    from tlbcore.validate.scores import Validation
else:
    np = LazyModule("numpy")

#: Columns of the lab that are lists, of which only what is not on both sides is shown.
_LISTS: Final = ("flush_list", "tlb_flush_list")
#: So many records of a cause are shown, the rest is counted.
_SHOWN: Final = 6


@dataclass(frozen=True)
class Shown:
    """A difference: where, in what, why, and by which records."""

    where: str
    differs: tuple[str, ...]
    #: The causes, or classes; empty if none explains all of it.
    causes: tuple[str, ...]
    #: Records in the order of their times, microseconds from the operation's begin (in the lab only their order counts).
    records: tuple[str, ...]


def proofs(validation: Validation) -> list[Shown]:
    """The entries of a recording of the lab that are not exact; of another, the operations whose flushes differ."""
    timeline = Timeline(validation.replay.recording)
    if validation.lab is not None:
        return [_entry(timeline, entry) for entry in validation.plain["lab"]["differences"]]
    evidence = Evidence(timeline)
    return [_operation(timeline, evidence, operation) for operation in validation.differing]


def _entry(timeline: Timeline, entry: Mapping[str, Any]) -> Shown:
    row = entry["event"]
    causes = tuple(reason["cause"] for reason in entry["reasons"])
    records = [
        line for reason in entry["reasons"] for line in _records(timeline, row, reason["events"], reason["flushes"])
    ] or list(_meanwhile(timeline, row))
    how = "at the same time as others" if entry["parallel"] else "alone"
    where = f"step {entry['step']}, `{entry['text']}` of {entry['actor']} on CPU {entry['cpu']}, {how}"
    if entry["iteration"]:
        where += f", repetition {entry['iteration']}"
    differs = tuple(_column(name, entry["model"][name], entry["recorded"][name]) for name in entry["columns"])
    return Shown(where, differs, causes, tuple(records))


def _operation(timeline: Timeline, evidence: Evidence, operation: Mapping[str, Any]) -> Shown:
    case = Case(timeline, operation, {})
    kind = kind_of(case, evidence)
    proof = None if kind is None else kind.proof(case, evidence)
    row = case.row
    events, flushes = ((), case.flush_records.tolist()) if proof is None else (proof.events, proof.flushes)
    where = f"event {row}, `{timeline.event_text(row)}` of {timeline.thread(int(timeline.task[row]))}"
    where += f" on CPU {int(timeline.cpu[row])}"
    differs = (f"kernel only: {_flushes(case.missed)}", f"model only: {_flushes(case.extra)}")
    return Shown(where, differs, () if kind is None else (kind.title,), tuple(_records(timeline, row, events, flushes)))


def _flushes(found: Iterable[tuple[int, bool]]) -> str:
    texts = [("full" if pages < 0 else str(pages)) + ("+" if told else "") for pages, told in found]
    return ", ".join(texts) or "none"


def _column(name: str, model: str, kernel: str) -> str:
    """A column that differs: both sides, of lists what only one has."""
    if name not in _LISTS:
        return f"{name}: kernel {kernel or 'none'}, model {model or 'none'}"
    ours, theirs = (Counter(part for part in side.split(";") if part) for side in (model, kernel))
    if ours == theirs:
        return f"{name}: in another order"
    return f"{name}: only kernel {_counted(theirs - ours)}, only model {_counted(ours - theirs)}"


def _counted(parts: Counter[str]) -> str:
    texts = [part if number == 1 else f"{number} x {part}" for part, number in sorted(parts.items())]
    more = [f"{len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return ", ".join([*texts[:_SHOWN], *more]) or "none"


def _records(
    timeline: Timeline, row: int, events: Iterable[int], flushes: Iterable[int], shown: int = _SHOWN
) -> Iterator[str]:
    """Records as lines, the first of them if there are many."""
    begin = int(timeline.time[row])
    flush = timeline.flush
    lines = [(int(timeline.time[event]), int(timeline.cpu[event]), _event(timeline, event)) for event in events]
    lines += [
        (int(flush["time_ns"][record]), int(flush["cpu"][record]), _flush(timeline, record)) for record in flushes
    ]
    lines.sort()
    for when, cpu, text in lines[:shown]:
        yield f"{(when - begin) / 1000:+.1f} us, CPU {cpu}: {text}"
    if len(lines) > shown:
        yield f"and {len(lines) - shown} more like these"


def _event(timeline: Timeline, row: int) -> str:
    text = timeline.event_text(row)
    if timeline.kind_name(row) != "switch":
        return f"{timeline.thread(int(timeline.task[row]))} {text}"
    state = chr(int(timeline.args[1][row])) + ("+" if timeline.args[2][row] else "")
    return f"{timeline.thread(int(timeline.task[row]))} ({state}) {text}"


def _flush(timeline: Timeline, record: int) -> str:
    task = int(timeline.flush["task"][record])
    return f"{timeline.thread(task)} {timeline.flush_text(record)}"


def _meanwhile(timeline: Timeline, row: int) -> Iterator[str]:
    """Without a cause: the first requests and faults of the entry's process while it ran."""
    case = Case(timeline, {"row": row, "kind": timeline.kind_name(row), "predicted": (), "recorded": ()}, {})
    begin, end = case.span
    when = timeline.flush["time_ns"].astype(np.int64)
    kinds = dict(timeline.recording.flush_kinds())
    wanted = [number for number, name in kinds.items() if name in {"mm_range", "batch_flush", "finish", "flush_mmu"}]
    inside = np.flatnonzero((when >= begin) & (when <= end) & np.isin(timeline.flush["kind"], wanted))
    yield from _records(timeline, row, (), inside.tolist())
