"""Groups what model and kernel disagree about by its likely cause, each with one worked example."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tlbcore.validate.causes import Case, Rule, rule_of
from tlbcore.validate.example import Example, example_of
from tlbcore.validate.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tlbcore.validate.scores import Validation


@dataclass(frozen=True)
class Cause:
    """A likely cause, and how much of the disagreement it makes."""

    rule: Rule
    #: Operations whose flushes differ for it.
    nr_operations: int
    #: Flushes that are on one side only: missed + extra.
    nr_flushes: int
    #: Its part of all differing flushes, from 0 to 1.
    share: float
    #: Differing flushes by kind of operation, most first.
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
            "nr_flushes": self.nr_flushes,
            "share": self.share,
            "by_operation": dict(self.by_operation),
            "example": self.example.to_dict(),
        }


def explain(validation: Validation) -> list[Cause]:
    """The causes of all disagreements, the largest (by flushes) first.

    The example of a cause is the first operation of those that differ in the way that is most frequent in it.
    """
    recording = validation.replay.recording
    if not validation.differing:
        return []
    timeline = Timeline(recording)
    noted: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row, name in sorted(validation.replay.result.noted):
        noted[int(timeline.pid[row])].append((row, name))
    cases: dict[Rule, list[Case]] = defaultdict(list)
    for operation in validation.differing:
        case = Case(timeline, operation, noted)
        cases[rule_of(case)].append(case)
    flushes = validation.replay.result.flushes()
    nr_all = sum(case.nr_flushes for found in cases.values() for case in found)
    causes = [
        Cause(
            rule=rule,
            nr_operations=len(found),
            nr_flushes=(nr_flushes := sum(case.nr_flushes for case in found)),
            share=nr_flushes / nr_all,
            by_operation=_by_operation((case.kind, case.nr_flushes) for case in found),
            example=example_of(_typical(found), str(recording.meta["file"]), flushes),
        )
        for rule, found in cases.items()
    ]
    return _sorted(causes)


def merge(several: Iterable[Iterable[Cause]]) -> list[Cause]:
    """The causes of several recordings as those of all; an example comes from where the cause is largest."""
    groups: dict[str, list[Cause]] = defaultdict(list)
    for causes in several:
        for cause in causes:
            groups[cause.rule.name].append(cause)
    nr_all = sum(cause.nr_flushes for found in groups.values() for cause in found)
    merged = []
    for found in groups.values():
        nr_flushes = sum(cause.nr_flushes for cause in found)
        by_operation = _by_operation(pair for cause in found for pair in cause.by_operation.items())
        merged.append(
            replace(
                max(found, key=lambda cause: cause.nr_flushes),
                nr_operations=sum(cause.nr_operations for cause in found),
                nr_flushes=nr_flushes,
                share=nr_flushes / nr_all,
                by_operation=by_operation,
            ),
        )
    return _sorted(merged)


def _sorted(causes: list[Cause]) -> list[Cause]:
    return sorted(causes, key=lambda cause: (-cause.nr_flushes, cause.rule.name))


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
    return case.kind, tuple(case.missed), tuple(case.extra)
