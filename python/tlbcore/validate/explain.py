"""Groups what model and kernel disagree about by its likely cause, each with one worked example."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tlbcore.validate.case import Case, Noted
from tlbcore.validate.example import Example, example_of
from tlbcore.validate.rules import Rule, rule_of
from tlbcore.validate.timeline import Timeline
from tlbcore.validate.undecided import KINDS, Evidence, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tlbcore.validate.scores import Validation


#: The classes of what a recording by perf cannot decide, as rules.
_BY_KIND: Final = {kind.name: Rule(kind.name, kind.title, "recording", kind.how, lambda _: True) for kind in KINDS}


def _rule(case: Case, evidence: Evidence | None) -> Rule:
    """The rule for a case; where it names nothing outside the model, the class of what cannot be decided, if there is one."""
    rule = rule_of(case)
    if evidence and rule.lies_in in {"unknown", "model"} and (kind := kind_of(case, evidence)):
        return _BY_KIND[kind.name]
    return rule


@dataclass(frozen=True)
class Cause:
    """A likely cause, and how much of the disagreement it makes."""

    rule: Rule
    #: Operations that differ for it.
    nr_operations: int
    #: Of these: entries of the lab that are not exact in every column.
    nr_entries: int
    #: Flushes that are on one side only: missed + extra.
    nr_flushes: int
    #: Its part of all that differs, from 0 to 1: of the flushes, an entry that differs in other columns only being one.
    share: float
    #: What the share is of.
    weight: int
    #: Operations by kind, most first.
    by_operation: Mapping[str, int]
    example: Example

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {
            "name": self.rule.name,
            "title": self.rule.title,
            "lies_in": self.rule.lies_in,
            "how": self.rule.how,
            "nr_operations": self.nr_operations,
            "nr_entries": self.nr_entries,
            "nr_flushes": self.nr_flushes,
            "share": self.share,
            "weight": self.weight,
            "by_operation": dict(self.by_operation),
            "example": self.example.to_dict(),
        }


def explain(validation: Validation, *, progress: Callable[[int, int], object] | None = None) -> list[Cause]:
    """The causes of all disagreements, the largest first.

    In a recording of the lab, entries that differ in another column than their flushes are explained too.

    The example of a cause is the first operation of those that differ in the way that is most frequent in it.

    Args:
        validation: From `tlbcore.validate.validate`.
        progress: Called now and then with the differing operations that have a cause, and all of them.
    """
    recording = validation.replay.recording
    entries = {int(entry["event"]): entry for entry in validation.plain.get("lab", {}).get("differences", ())}
    operations = [*validation.differing, *_only_in_columns(validation, entries)]
    if not operations:
        return []
    tell = progress or (lambda _done, _of: None)
    tell(0, len(operations))
    timeline = Timeline(recording)
    by_process: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row, name in sorted(validation.replay.result.noted):
        by_process[int(timeline.pid[row])].append((row, name))
    noted = {pid: Noted(timeline, rows) for pid, rows in by_process.items()}
    evidence = Evidence(timeline) if validation.lab is None else None
    cases: dict[Rule, list[Case]] = defaultdict(list)
    for done, operation in enumerate(operations):
        tell(done, len(operations))
        case = Case(timeline, operation, noted, entries.get(int(operation["row"])))
        cases[_rule(case, evidence)].append(case)
    flushes = validation.replay.result.flushes()
    nr_all = sum(case.weight for found in cases.values() for case in found)
    causes = [
        Cause(
            rule=rule,
            nr_operations=len(found),
            nr_entries=sum(case.entry is not None for case in found),
            nr_flushes=sum(case.nr_flushes for case in found),
            weight=(weight := sum(case.weight for case in found)),
            share=weight / nr_all,
            by_operation=_by_operation((case.kind, 1) for case in found),
            example=example_of(_typical(found), str(recording.meta["file"]), flushes),
        )
        for rule, found in cases.items()
    ]
    return _sorted(causes)


def _only_in_columns(validation: Validation, entries: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of the lab whose flushes agree, as operations without flushes of their own."""
    known = {int(operation["row"]) for operation in validation.differing}
    return [
        {"row": row, "kind": _entry_kind(str(entry["text"])), "predicted": (), "recorded": ()}
        for row, entry in entries.items()
        if row not in known
    ]


def _entry_kind(text: str) -> str:
    """What an entry is about: its first word; the end of an address space is an exit."""
    return "exit" if text == "(exit_mmap)" else text.split(maxsplit=1)[0]


def merge(several: Iterable[Iterable[Cause]]) -> list[Cause]:
    """The causes of several recordings as those of all; an example comes from where the cause is largest."""
    groups: dict[str, list[Cause]] = defaultdict(list)
    for causes in several:
        for cause in causes:
            groups[cause.rule.name].append(cause)
    nr_all = sum(cause.weight for found in groups.values() for cause in found)
    merged = []
    for found in groups.values():
        weight = sum(cause.weight for cause in found)
        by_operation = _by_operation(pair for cause in found for pair in cause.by_operation.items())
        merged.append(
            replace(
                max(found, key=lambda cause: cause.weight),
                nr_operations=sum(cause.nr_operations for cause in found),
                nr_entries=sum(cause.nr_entries for cause in found),
                nr_flushes=sum(cause.nr_flushes for cause in found),
                weight=weight,
                share=weight / nr_all,
                by_operation=by_operation,
            ),
        )
    return _sorted(merged)


def _sorted(causes: list[Cause]) -> list[Cause]:
    return sorted(causes, key=lambda cause: (-cause.weight, cause.rule.name))


def _by_operation(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for kind, count in counts:
        total[kind] += count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _typical(cases: list[Case]) -> Case:
    """The first of those that differ in the most frequent way."""
    ways = Counter(_way(case) for case in cases)
    most = max(ways.values())
    return next(case for case in cases if ways[_way(case)] == most)


def _way(case: Case) -> tuple[Any, ...]:
    return case.kind, tuple(case.missed), tuple(case.extra), case.columns
