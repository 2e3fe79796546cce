"""Validation: multisets add up, outputs agree, wrong kernels score lower."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from given_data import LAB, RECORDINGS, load, machine, short
from tlbcore import kernels
from tlbcore.cli.main import main
from tlbcore.recordings import kernel_of
from tlbcore.schemes import TlbFlushPending
from tlbcore.steps import (
    Block,
    for_each_pte,
    for_each_table,
    for_each_vma,
    mmap_unlock,
    mmap_write_lock,
    mprotect_fixup,
    prot_changed,
    pte_modify,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_get_and_clear,
    set_pte_at,
    when,
)
from tlbcore.validate import Validation, flush_text, validate

COUNTS = ("matched", "missed", "extra")


def validated(path: Path, kernel: str | kernels.Kernel | None = None, *, follow_masks: bool = True) -> Validation:
    recording = load(path)
    return validate(recording, kernel or kernel_of(recording), machine(), follow_masks=follow_masks)


def operations(validation: Validation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = validation.replay.result.operations(validation.replay.recording)
    return found


def multiset(flushes: list[dict[str, Any]]) -> Counter[tuple[int, bool]]:
    return Counter((flush["pages"], flush["told"]) for flush in flushes)


def common(predicted: Counter[Any], recorded: Counter[Any]) -> tuple[int, int, int]:
    return (predicted & recorded).total(), (recorded - predicted).total(), (predicted - recorded).total()


def score(counts: Mapping[str, Any]) -> float:
    everything = sum(counts[key] for key in COUNTS)
    return counts["matched"] / everything if everything else 1.0


@settings(max_examples=20)
@given(
    path=st.sampled_from([*LAB, *RECORDINGS]),
    kernel=st.sampled_from([*kernels.FAMILIES, "consolidated:none", "linux-6.18:lazy_mmu=sparc64"]),
    follow_masks=st.booleans(),
)
def test_everything_adds_up(path: Path, kernel: str, follow_masks: bool) -> None:  # noqa: FBT001 - drawn
    validation = validated(path, kernel, follow_masks=follow_masks)
    plain = validation.plain
    sums: dict[str, Counter[str]] = {}
    for operation in operations(validation):
        predicted, recorded = multiset(operation["predicted"]), multiset(operation["recorded"])
        assert tuple(operation[key] for key in COUNTS) == common(predicted, recorded)
        sizes = [Counter(pages for pages, _ in flushes.elements()) for flushes in (predicted, recorded)]
        assert tuple(operation["without_targets"][key] for key in COUNTS) == common(*sizes)
        kind = sums.setdefault(operation["kind"], Counter(dict.fromkeys((*COUNTS, "nr_operations"), 0)))
        kind.update({key: operation[key] for key in COUNTS})
        kind["nr_operations"] += 1
    by_operation = plain["by_operation"]
    assert {k: {key: row[key] for key in (*COUNTS, "nr_operations")} for k, row in by_operation.items()} == sums
    for key in (*COUNTS, "nr_operations"):
        assert plain[key] == sum(row[key] for row in by_operation.values())
    for counts in (plain, *by_operation.values()):
        for part in (counts, counts["without_targets"]):
            assert part["score"] == pytest.approx(score(part), abs=1e-12)
        assert counts["without_targets"]["matched"] >= counts["matched"]
    for key in COUNTS:
        parts = [row["without_targets"][key] for row in by_operation.values()]
        assert plain["without_targets"][key] == sum(parts)


class Forgetful(TlbFlushPending):
    """mprotect of 5.10 without its flush."""

    def mprotect(self) -> Block:
        """It changes entries and tells nobody."""
        counted = for_each_pte(ptep_get_and_clear(), pte_modify(), set_pte_at())
        table = for_each_table(pte_offset_map_lock(), counted, pte_unmap_unlock())
        return [mmap_write_lock(), for_each_vma(when(prot_changed, mprotect_fixup(), table)), mmap_unlock()]


@pytest.mark.parametrize("path", RECORDINGS, ids=short)
def test_a_kernel_with_a_low_ceiling_scores_lower(path: Path) -> None:
    wrong = kernels.get("linux-6.18").derive("wrong", constants={"tlb_single_page_flush_ceiling": 1})
    right, low = validated(path), validated(path, wrong)
    assert low.score < right.score


def test_planted_bugs_are_seen_where_they_act() -> None:
    """A ceiling of one page makes nearly every munmap of `micro` wrong and leaves faults alone."""
    path = next(path for path in RECORDINGS if short(path) == "micro")
    wrong = kernels.get("linux-6.18").derive("wrong", constants={"tlb_single_page_flush_ceiling": 1})
    right, low = validated(path), validated(path, wrong)
    assert low.score < right.score - 0.5
    assert low.plain["by_operation"]["munmap"]["matched"] < 10
    assert low.plain["by_operation"]["fault"] == right.plain["by_operation"]["fault"]
    largest = low.plain["disagreements"][0]
    assert (largest["kind"], largest["missed"], largest["extra"]) == (
        "munmap",
        [{"pages": 16, "told": True}],
        [{"pages": -1, "told": True}],
    )


def test_a_scheme_that_forgets_its_flush_misses_it() -> None:
    path = next(path for path in LAB if short(path) == "c4_mprotect_spin2sleep1")
    forgetful = kernels.get("linux-6.1").derive("forgetful", mprotect=Forgetful())
    right, wrong = validated(path).plain["by_operation"], validated(path, forgetful).plain["by_operation"]
    assert right["mprotect"]["matched"] > 10
    assert wrong["mprotect"]["matched"] == wrong["mprotect"]["extra"] == 0
    assert wrong["mprotect"]["missed"] == right["mprotect"]["matched"] + right["mprotect"]["missed"]
    assert wrong["munmap"]["missed"] == right["munmap"]["missed"]


#: A recording whose flushes another kernel would not do.
MPROTECT = next(path for path in LAB if short(path) == "c4_mprotect_spin2sleep1")


@pytest.mark.parametrize("path", [RECORDINGS[0], LAB[0], MPROTECT], ids=short)
def test_disagreements_are_the_largest_groups(path: Path) -> None:
    everything = validate(load(path), "linux-5.10", machine(), nr_disagreements=10**6).plain
    groups = everything["disagreements"]
    weights = [group["nr_operations"] * (len(group["missed"]) + len(group["extra"])) for group in groups]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == everything["missed"] + everything["extra"]
    assert sum(weights) > 0 or path != RECORDINGS[0]
    three = validate(load(path), "linux-5.10", machine(), nr_disagreements=3).plain["disagreements"]
    assert three == groups[:3]
    for group in groups:
        assert 0 <= group["example"]["event"] < load(path).nr_events


def test_two_runs_and_runs_side_by_side_are_equal() -> None:
    paths = [*RECORDINGS[:3], *LAB[:3]] * 2
    alone = [validated(path).to_dict() for path in paths]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda path: validated(path).to_dict(), paths)) == alone


@pytest.mark.parametrize("path", [RECORDINGS[3], LAB[0]], ids=short)
def test_json_and_csv_hold_what_the_replay_has(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "operations.csv"
    assert main(["validate", str(path), "--operations", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    validation = validated(path)
    assert {"matched", "missed", "extra", "score", "by_operation", "disagreements"} <= set(printed)
    assert {key: printed[key] for key in COUNTS} == {key: validation.plain[key] for key in COUNTS}
    assert printed["by_operation"] == validation.plain["by_operation"]
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    recording = load(path)
    times, tasks = recording.column("time_ns"), recording.column("task")
    expected = operations(validation)
    assert len(rows) == len(expected)
    for row, operation in zip(rows, expected, strict=True):
        event = operation["row"]
        assert row == {
            "event": str(event),
            "time_ns": str(times[event]),
            "tid": str(recording.tasks[tasks[event]][0]) if tasks[event] < len(recording.tasks) else "",
            "kind": operation["kind"],
            "predicted": " ".join(flush_text(flush) for flush in operation["predicted"]),
            "recorded": " ".join(flush_text(flush) for flush in operation["recorded"]),
            **{key: str(operation[key]) for key in COUNTS},
        }
    assert [file.name for file in tmp_path.iterdir()] == ["operations.csv"]


def test_the_text_names_score_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(RECORDINGS[0])]) == 0
    text = capsys.readouterr().out
    validation = validated(RECORDINGS[0])
    first = text.splitlines()[0]
    assert first.endswith(
        f"matched {validation.matched}, missed {validation.missed}, extra {validation.extra},"
        f" score = {validation.score:.4f}"
    )
    for note in validation.replay.notes:
        assert note in text
    assert "\x1b" not in text


def test_no_follow_uses_nothing_of_the_recorded_flushes(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(path for path in RECORDINGS if short(path) == "java_g1")
    note = "mm_cpumask found to be another, corrected"
    assert note in validated(path).replay.notes
    assert main(["validate", str(path), "--no-follow", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert note not in printed["notes"]
    assert printed["score"] == validated(path, follow_masks=False).score < validated(path).score
