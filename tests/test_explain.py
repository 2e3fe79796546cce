"""Causes: each rule names what was planted, everything that differs is explained once, examples show both sides."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from given_data import LAB, RECORDINGS, load, machine, short
from perf_text import (
    DONTNEED,
    EXIT_GROUP,
    FIRST,
    MADVISE,
    MUNMAP,
    PAGE,
    PROCESS_MADVISE,
    READ,
    SECOND,
    WRITE_PRESENT,
    PerfText,
)
from tlbcore import kernels, recordings
from tlbcore.validate import COLUMN_RULES, RULES, Cause, Validation, explain, merge, validate
from tlbcore.validate.case import Case
from tlbcore.validate.rules import rule_of
from tlbcore.validate.timeline import Timeline, cpulist, merged

A = 0x7F0000000000
B = A + 64 * PAGE
C = B + 8 * PAGE
"""All in one page table, which C keeps: no table is freed."""
FULL = -1


def two_pages() -> PerfText:
    """A recording that begins with something that agrees, then has two pages at A."""
    return PerfText().map(C, 1).map(B, 1).unmap(B, 1, (1, 3)).map(A, 2)


def with_second() -> PerfText:
    """The same while the second thread runs on CPU 1."""
    text = PerfText().map(B, 1).map(C, 2, touched=False).fault(SECOND, C)
    return text.unmap(B, 1, (1, 4), (1, 3)).map(A, 2)


def second_is_in(call: int, *args: int) -> Callable[[PerfText], PerfText]:
    """The first unmaps A, and everything is flushed, while the second is in a call."""

    def plant(text: PerfText) -> PerfText:
        return text.enter(SECOND, call, *args).unmap(A, 2, (FULL, 4), (FULL, 3)).leave(SECOND, call)

    return plant


def fault_in_between(text: PerfText) -> PerfText:
    text.enter(FIRST, MUNMAP, A, 2 * PAGE).fault(SECOND, A + PAGE, READ)
    return text.flush(FIRST, 3, 4).flush(FIRST, 3).leave(FIRST, MUNMAP)


def switched_in_between(text: PerfText) -> PerfText:
    return text.enter(FIRST, MUNMAP, A, 2 * PAGE).switch(1, SECOND, 0).flush(FIRST, 2).leave(FIRST, MUNMAP)


def wrong_cpu(text: PerfText) -> PerfText:
    text.enter(FIRST, MUNMAP, A, PAGE).flush(FIRST, 1, 4).flush(FIRST, 1).flush(SECOND, 0, 5).leave(FIRST, MUNMAP)
    return text.unmap(A + PAGE, 1, (1, 3))


def process_madvise(text: PerfText) -> PerfText:
    return text.enter(FIRST, PROCESS_MADVISE, 3, B, 1, DONTNEED).flush(FIRST, 2).leave(FIRST, PROCESS_MADVISE)


def zero_page_written(text: PerfText) -> PerfText:
    """A read maps the zero page, a write then copies it: the entry was there, so the model flushes it."""
    return (
        text.map(A + 8 * PAGE, 1, touched=False)
        .fault(FIRST, A + 8 * PAGE, READ)
        .fault(FIRST, A + 8 * PAGE, WRITE_PRESENT)
    )


PLANTED: dict[str, tuple[Callable[[], PerfText], Callable[[PerfText], PerfText]]] = {
    "exec_exit": (two_pages, lambda text: text.enter(FIRST, EXIT_GROUP, 0).flush(FIRST, 7).flush(FIRST, 7)),
    "ranges_not_recorded": (two_pages, process_madvise),
    "switch_meanwhile": (with_second, switched_in_between),
    "mask_wrong_cpu": (with_second, wrong_cpu),
    "mask_kept": (with_second, lambda text: text.unmap(A, 2, (2, 3))),
    "mask_lost": (two_pages, lambda text: text.unmap(A, 2, (2, 4), (2, 3))),
    "overlap_full": (with_second, second_is_in(MADVISE, C + PAGE, PAGE, DONTNEED)),
    "overlap_race": (with_second, fault_in_between),
    "older": (two_pages, lambda text: text.fault(FIRST, 0x55000000, WRITE_PRESENT)),
    "fault_kind": (two_pages, zero_page_written),
    "walk_split": (two_pages, lambda text: text.unmap(A, 2, (1, 3), (1, 3))),
    "range_differs": (two_pages, lambda text: text.unmap(A, 2, (3, 3))),
    "full_for_range": (two_pages, lambda text: text.unmap(A, 2, (FULL, 3))),
    "kernel_only": (
        two_pages,
        lambda text: text.enter(FIRST, MADVISE, A + PAGE, 0, DONTNEED).flush(FIRST, 1).leave(FIRST, MADVISE),
    ),
    "model_only": (two_pages, lambda text: text.unmap(A, 2)),
    "unknown": (two_pages, lambda text: text.unmap(A, 2, (3, 3), (4, 3))),
}


def explained(text: PerfText, folder: Path) -> tuple[Validation, list[Cause]]:
    validation = validate(recordings.load(text.write(folder / "perf.txt")), None, machine())
    return validation, explain(validation)


@pytest.mark.parametrize("begin", [two_pages, with_second])
def test_what_agrees_has_no_cause(begin: Callable[[], PerfText], tmp_path: Path) -> None:
    validation, causes = explained(begin(), tmp_path)
    assert validation.matched == 1
    assert causes == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_cause_is_named(name: str, tmp_path: Path) -> None:
    begin, plant = PLANTED[name]
    _, causes = explained(plant(begin()), tmp_path)
    assert [cause.rule.name for cause in causes] == [name]


def test_every_rule_for_flushes_is_planted() -> None:
    assert [rule.name for rule in RULES] == list(PLANTED)
    names = [rule.name for rule in dict.fromkeys((*RULES, *COLUMN_RULES))]
    assert len(set(names)) == len(names)


def test_another_call_that_takes_nothing_away_is_no_overlap(tmp_path: Path) -> None:
    willneed = 3
    _, causes = explained(second_is_in(MADVISE, C + PAGE, PAGE, willneed)(with_second()), tmp_path)
    assert [cause.rule.name for cause in causes] == ["full_for_range"]


def test_an_example_shows_both_sides_and_what_was_around(tmp_path: Path) -> None:
    _, causes = explained(second_is_in(MADVISE, C + PAGE, PAGE, DONTNEED)(with_second()), tmp_path)
    example = causes[0].example
    assert (example.thread, example.cpu, example.recording) == ("m/10", 0, "perf.txt")
    assert example.operation == f"munmap({A:#x}, 0x2000)"
    assert example.model == (f"CPU 0: 2 strides {A:#x}-{A + 2 * PAGE:#x}, mm_cpumask 0-1, told 1",)
    assert example.kernel == ("CPU 0: remote send IPI: full", "CPU 0: local mm shootdown: full")
    around = [(line.time_us, line.cpu, line.thread, line.role, line.text) for line in example.around]
    assert around[-5:] == [
        (-2.0, 0, "m/10", "same", f"fault({A + PAGE:#x}, write, absent)"),
        (-1.0, 1, "m/11", "other", f"madvise({C + PAGE:#x}, 0x1000, 0x4) for 5.0 us"),
        (0.0, 0, "m/10", "operation", f"munmap({A:#x}, 0x2000) for 3.0 us"),
        (1.0, 0, "m/10", "flush", "remote send IPI: full"),
        (2.0, 0, "m/10", "flush", "local mm shootdown: full"),
    ]
    assert causes[0].to_dict()["example"]["event"] == example.event


def test_what_a_recording_cannot_decide_is_a_cause_and_counted_as_in_its_class() -> None:
    gcc = next(path for path in RECORDINGS if path.name.startswith("gcc"))
    found = validate(load(gcc), None, machine())
    assert found.undecided is not None
    causes = {cause.rule.name: cause for cause in explain(found)}
    assert not any(cause.rule.lies_in == "unknown" for cause in causes.values())
    for name in ("request_order", "exec_arguments", "cpu_unseen"):
        assert causes[name].nr_flushes == found.undecided.nr_flushes[name] > 0, name
        assert causes[name].rule.lies_in == "recording"


@settings(max_examples=15)
@given(
    path=st.sampled_from([*LAB, *RECORDINGS]),
    kernel=st.sampled_from([None, *kernels.FAMILIES]),
    follow_masks=st.booleans(),
)
def test_all_that_differs_is_explained_once(path: Path, kernel: str | None, follow_masks: bool) -> None:  # noqa: FBT001 - drawn
    validation = validate(load(path), kernel, machine(), follow_masks=follow_masks)
    causes = explain(validation)
    assert sum(cause.nr_flushes for cause in causes) == validation.missed + validation.extra
    differing = {operation["row"] for operation in validation.differing}
    entries = validation.plain.get("lab", {}).get("differences", [])
    assert sum(cause.nr_operations for cause in causes) == len(differing | {entry["event"] for entry in entries})
    assert sum(cause.nr_entries for cause in causes) == len(entries)
    weights = [cause.weight for cause in causes]
    assert weights == sorted(weights, reverse=True)
    assert sum(cause.share for cause in causes) == pytest.approx(1 if causes else 0)
    for cause in causes:
        assert sum(cause.by_operation.values()) == cause.nr_operations
        assert cause.example.recording == path.name
    text = json.dumps([cause.to_dict() for cause in causes])
    assert json.dumps([cause.to_dict() for cause in explain(validation)]) == text


def test_causes_of_several_recordings_add_up() -> None:
    several = [explain(validate(load(path), None, machine())) for path in (RECORDINGS[0], RECORDINGS[1], LAB[0])]
    merged = merge(several)
    everything = [cause for causes in several for cause in causes]
    assert sum(cause.weight for cause in merged) == sum(cause.weight for cause in everything)
    assert sum(cause.share for cause in merged) == pytest.approx(1)
    names = [cause.rule.name for cause in merged]
    assert len(set(names)) == len(names)
    assert set(names) == {cause.rule.name for cause in everything}
    assert merge([]) == merge([[], []]) == []


def test_an_entry_of_the_lab_shows_its_columns() -> None:
    path = next(path for path in LAB if short(path) == "c4_nested_dontneed_600")
    validation = validate(load(path), None, machine())
    shown = [cause.example for cause in explain(validation) if cause.example.columns]
    assert shown
    by_event = {entry["event"]: entry for entry in validation.plain["lab"]["differences"]}
    for example in shown:
        entry = by_event[example.event]
        assert example.columns == {name: (entry["recorded"][name], entry["model"][name]) for name in entry["columns"]}
        assert all(kernel != model for kernel, model in example.columns.values())


@pytest.mark.parametrize(
    ("kind", "columns", "parallel", "name"),
    [
        ("exit", ["gathers"], False, "exec_exit"),
        ("munmap", ["flush_list"], True, "columns_parallel"),
        ("munmap", ["ran_cpus", "lazy_left_cpus"], False, "columns_who"),
        ("munmap", ["ran_cpus", "flush_list"], False, "columns_what"),
        ("touch", ["faults"], False, "columns_how"),
        ("touch", ["faults", "ran_cpus"], False, "columns_how"),
    ],
)
def test_an_entry_that_differs_in_columns_only(kind: str, columns: list[str], parallel: bool, name: str) -> None:  # noqa: FBT001 - a table
    operation = {"row": 0, "kind": kind, "predicted": (), "recorded": ()}
    case = Case(Timeline(load(LAB[0])), operation, {}, {"columns": columns, "parallel": parallel, "reasons": []})
    assert rule_of(case).name == name


@pytest.mark.parametrize("flushes", [(), ({"pages": 1, "told": True},)])
def test_an_entry_whose_records_show_a_cause_is_under_it(flushes: tuple[dict[str, object], ...]) -> None:
    reasons = [{"name": "lab_switch", "cause": "a CPU switched", "lies_in": "timing", "events": [1], "flushes": []}]
    operation = {"row": 0, "kind": "munmap", "predicted": (), "recorded": flushes}
    case = Case(Timeline(load(LAB[0])), operation, {}, {"columns": ["ran_cpus"], "parallel": False, "reasons": reasons})
    rule = rule_of(case)
    assert (rule.name, rule.title, rule.lies_in) == ("lab_switch", "Lab, shown by records: a CPU switched", "timing")
    assert rule.holds(case)


def test_causes_of_the_lab_are_those_of_its_entries() -> None:
    path = next(path for path in LAB if short(path) == "m4_memcg_spin2")
    validation = validate(load(path), None, machine())
    shown = Counter(entry["reasons"][0]["name"] for entry in validation.plain["lab"]["differences"] if entry["reasons"])
    assert shown
    assert shown == {cause.rule.name: cause.nr_operations for cause in explain(validation) if cause.rule.name in shown}


@given(st.frozensets(st.integers(0, 63)))
def test_a_cpulist_names_each_cpu(cpus: frozenset[int]) -> None:
    text = cpulist(sum(1 << cpu for cpu in cpus))
    if not cpus:
        assert text == "none"
        return
    found = [part.split("-") for part in text.split(",")]
    assert {cpu for part in found for cpu in range(int(part[0]), int(part[-1]) + 1)} == cpus


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8))))
def test_merged_ranges_hold_the_same_bytes(parts: list[tuple[int, int]]) -> None:
    ranges = [(start, start + length) for start, length in parts]
    found = merged(ranges)
    assert {byte for start, end in found for byte in range(start, end)} == {
        byte for start, end in ranges for byte in range(start, end)
    }
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found))
