"""`tlbcore validate` for people: several recordings, causes, JSON, the width of a terminal."""

import json
from pathlib import Path
from typing import Any

import pytest

from given_data import LAB, RECORDINGS, SCENARIOS, load, machine
from tlbcore import InputError
from tlbcore.cli.main import main
from tlbcore.validate import explain, find_recordings, validate, validate_folder

MICRO = RECORDINGS[3]
FOUR = [RECORDINGS[5], MICRO, LAB[0], LAB[6]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four recordings, one in a folder below, and files that are none."""
    (tmp_path / "below").mkdir()
    for index, path in enumerate(FOUR):
        (tmp_path / ("below" if index == 3 else ".") / path.name).symlink_to(path)
    (tmp_path / "README.md").write_text("none\n", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("none\n", encoding="utf-8")
    (tmp_path / SCENARIOS[0].name).symlink_to(SCENARIOS[0])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, str]:
    assert main(["validate", *map(str, args)]) == status
    out, err = capsys.readouterr()
    return out, err


def counts(plain: dict[str, Any]) -> list[int]:
    without = plain["without_targets"]
    return [part[key] for part in (plain, without) for key in ("matched", "missed", "extra")] + [plain["nr_operations"]]


def test_a_folder_means_what_is_named_like_a_recording(folder: Path) -> None:
    expected = sorted([folder / path.name for path in FOUR[:3]] + [folder / "below" / FOUR[3].name])
    assert find_recordings([folder]) == expected
    assert find_recordings([MICRO, folder, folder]) == [MICRO, *expected]


def test_the_summary_adds_up(folder: Path) -> None:
    summary = validate_folder(folder, machine(), with_causes=True)
    assert summary.failures == ()
    alone = [validate(load(row.path), None, machine()) for row in summary.rows]
    for row, one in zip(summary.rows, alone, strict=True):
        assert counts(dict(row.plain)) == counts(one.to_dict())
        assert [cause.to_dict() for cause in row.causes or ()] == [cause.to_dict() for cause in explain(one)]
    sums = [sum(column) for column in zip(*(counts(one.to_dict()) for one in alone), strict=True)]
    assert counts(summary.total) == sums
    assert summary.total["score"] == sums[0] / sum(sums[:3])
    lab = [one.plain["lab"] for one in alone if "lab" in one.plain]
    assert len(lab) == 2
    assert summary.lab == {
        side: {key: sum(found[side][key] for found in lab) for key in ("nr_entries", "nr_exact")}
        for side in ("single", "parallel")
    }
    for name, count in summary.notes.items():
        assert count == sum(one.replay.notes.get(name, 0) for one in alone)


def test_a_table_has_a_row_for_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, folder)
    assert err == ""
    lines = out.splitlines()
    names = [line.split()[0] for line in lines[2:7]]
    assert names == [f"below/{FOUR[3].name}", *sorted(path.name for path in FOUR[:3]), "all"]
    rows = {line.split()[0]: line.split() for line in lines[2:7]}
    assert rows[MICRO.name][1] == "linux-6.18"
    assert rows[LAB[0].name][1] == "linux-6.1"
    assert "What the recording does not say" in out
    assert "Likely causes" not in out


def test_a_kernel_can_be_given_for_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, folder, "--kernel", "linux-5.10", "--json")
    assert {row["kernel"] for row in json.loads(out)["recordings"]} == {"linux-5.10"}
    assert {row["kernel_choice"] for row in json.loads(out)["recordings"]} == {"given"}


def test_what_cannot_be_read_does_not_stop_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.txt").write_text("hello\n", encoding="utf-8")
    (folder / "b.tlbr").write_bytes(b"")
    out, err = run(capsys, folder, folder / "missing.tlbr", SCENARIOS[0], status=2)
    lines = err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["tlbcore", "error", str(path)]
        for path in (folder / "a.txt", folder / "b.tlbr", folder / "missing.tlbr", SCENARIOS[0])
    ]
    assert lines[2].endswith("No such file or directory")
    assert lines[3].endswith("found no recorded flushes, expected a recording of a real kernel")
    assert len([line for line in out.splitlines() if "linux-6.1" in line]) == 4
    printed = json.loads(run(capsys, folder, "--json", status=2)[0])
    assert [failure["path"] for failure in printed["failures"]] == [str(folder / "a.txt"), str(folder / "b.tlbr")]
    assert len(printed["recordings"]) == 4


def test_only_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("hello\n", encoding="utf-8")
    out, err = run(capsys, tmp_path, status=2)
    assert out == ""
    assert err.count("\n") == 1


def test_a_kernel_that_does_not_exist_stops_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, folder, "--kernel", "linux-9.99", status=2)
    assert out == ""
    assert err.count("\n") == 1
    assert "linux-9.99" in err


def test_a_folder_without_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("none\n", encoding="utf-8")
    out, err = run(capsys, tmp_path, status=2)
    assert out == ""
    assert err.startswith(f"tlbcore: error: {tmp_path}: found no recording in the folder, expected files named *.tlbr")
    with pytest.raises(InputError, match="found no recording"):
        validate_folder(tmp_path, machine())


def test_operations_are_of_one_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, MICRO, LAB[0], "--operations", tmp_path / "out.csv", status=2)
    assert err == "tlbcore: error: --operations: found several recordings, expected one\n"
    assert list(tmp_path.iterdir()) == []


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    for path in (RECORDINGS[0], LAB[6]):
        printed = json.loads(run(capsys, path, "--json")[0])
        validation = validate(load(path), None, machine())
        assert printed["causes"] == json.loads(json.dumps([cause.to_dict() for cause in explain(validation)]))
        assert printed["without_targets"] == validation.plain["without_targets"]
        assert printed["notes"] == validation.replay.notes
        assert printed["by_operation"].keys() == validation.plain["by_operation"].keys()
        assert all("without_targets" in counts for counts in printed["by_operation"].values())
        assert printed["kernel_choice"] == validation.kernel_choice
        assert ("lab" in printed) is (path in LAB)


@pytest.mark.parametrize("path", [RECORDINGS[0], RECORDINGS[6], LAB[0], LAB[6], LAB[-5], "several"], ids=str)
@pytest.mark.parametrize("explained", [[], ["--explain"]], ids=["plain", "explain"])
def test_nothing_is_wider_than_a_terminal(
    path: Path | str, explained: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path if isinstance(path, Path) else folder)]
    out, _ = run(capsys, *paths, *explained)
    # The head line has the file's name, which may be of any length.
    assert [line for line in out.splitlines() if len(line) > 100 and " held against " not in line] == []
    assert out == run(capsys, *paths, *explained)[0]


def test_explain_shows_each_cause_with_its_example(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, RECORDINGS[0], "--explain")
    causes = explain(validate(load(RECORDINGS[0]), None, machine()))
    assert len(causes) > 2
    at = 0
    for index, cause in enumerate(causes, start=1):
        at = out.index(f"{index}. {cause.rule.title}", at)
        assert out.index(f"event {cause.example.event} of {RECORDINGS[0].name}", at) > at
    assert "The largest groups" not in out


def test_the_kernel_and_why_it_was_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Kernel: linux-6.18 (the recording does not name its kernel)" in run(capsys, MICRO)[0]
    assert "Kernel: linux-6.1 (nearest to the recorded 6.1)" in run(capsys, LAB[0])[0]
    assert "Kernel: linux-5.10 (given)" in run(capsys, LAB[0], "--kernel", "linux-5.10")[0]


def test_what_is_not_there_has_no_score(tmp_path: Path) -> None:
    found = validate_folder(tmp_path / "recordingz")
    assert found.headline() == "no recording validated, 1 could not be"
