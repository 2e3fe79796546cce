"""The regression gate: no score falls below its pin, and the page of scores says what comes out today."""

import json
import sys
from pathlib import Path

import pytest

import how_true
import pin_scores
from given_data import DATA, LAB, LAB_LATER, LAB_NEWER, RECORDINGS
from pin_scores import PINS, falls, read, text
from tlbcore.validate import validate_folder

pytestmark = pytest.mark.timeout(300)

SCORES = {"with_targets": [9, 10], "recorded_flushes": [9]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings as a folder of data."""
    for name, path in (("recordings", RECORDINGS[3]), ("lab", LAB[0])):
        (tmp_path / name).mkdir()
        (tmp_path / name / path.name).symlink_to(path)
    return tmp_path


def pin(monkeypatch: pytest.MonkeyPatch, folder: Path, *args: str) -> int:
    """Run the tool on a folder whose pins lie in it."""
    words = ["pin_scores.py", "--data", str(folder), "--pins", str(folder / "scores.json"), *args]
    monkeypatch.setattr(sys, "argv", words)
    return pin_scores.main()


def test_no_score_falls_below_its_pin() -> None:
    found, pinned = pin_scores.measure(), read()["recordings"]
    fallen = [f"{file}: {what}" for file, what in falls(pinned, found)]
    assert not fallen, "\n".join(["scores fell:", *fallen])
    assert found.keys() == pinned.keys(), "`python tools/pin_scores.py` pins new recordings"
    assert {DATA / file for file in pinned} == {*RECORDINGS, *LAB, *LAB_NEWER, *LAB_LATER}


def test_the_page_says_what_comes_out_today() -> None:
    shown = how_true.PAGE.read_text(encoding="utf-8")
    assert shown == how_true.page(), "`python tools/how_true.py` writes the page"


def test_the_page_of_differences_has_each_of_them_with_its_records() -> None:
    shown = how_true.DIFFERENCES.read_text(encoding="utf-8")
    assert shown == how_true.differences(), "`python tools/how_true.py` writes the page"
    lab = [row.plain["lab"] for row in validate_folder(DATA / "lab").rows + validate_folder(DATA / "lab-6.18").rows]
    single = [entry for plain in lab for entry in plain["differences"] if not entry["parallel"]]
    unexplained = [entry["text"] for entry in single if not entry["reasons"]]
    assert unexplained == [], "each of them has a cause"
    reasons = [reason for entry in single for reason in entry["reasons"]]
    assert all(reason["events"] or reason["flushes"] for reason in reasons)


def test_every_reason_for_a_lower_score_is_given() -> None:
    pins = read()
    assert PINS.read_text(encoding="utf-8") == text(pins)
    for reason in pins["lowered"]:
        assert reason.keys() == {"file", "what", "because"}
        assert len(reason["because"]) > 10


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (SCORES, []),
        ({**SCORES, "with_targets": [10, 10]}, []),
        ({**SCORES, "with_targets": [18, 20]}, []),
        ({**SCORES, "more": [1, 2]}, []),
        (
            {**SCORES, "with_targets": [89999, 100000]},
            ["with_targets fell from 9/10 = 0.9000 to 89999/100000 = 0.9000"],
        ),
        ({**SCORES, "with_targets": [9, 11]}, ["with_targets fell from 9/10 = 0.9000 to 9/11 = 0.8182"]),
        ({**SCORES, "recorded_flushes": [8]}, ["recorded_flushes fell from 9 to 8"]),
        ({"recorded_flushes": [9]}, ["with_targets fell from 9/10 = 0.9000 to nothing"]),
    ],
)
def test_a_fall_is_seen_and_named(now: dict[str, list[int]], what: list[str]) -> None:
    assert list(falls({"a": SCORES}, {"a": now, "new": SCORES})) == [("a", one) for one in what]


def test_a_recording_that_is_gone_is_a_fall() -> None:
    assert list(falls({"a": SCORES}, {})) == [("a", "is pinned and was not found")]


def test_pins_rise_by_themselves_and_fall_only_with_a_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = folder / "scores.json"
    assert pin(monkeypatch, folder) == 0
    first = read(pins)
    file = f"recordings/{RECORDINGS[3].name}"
    good, everything = first["recordings"][file]["with_targets"]

    lower = json.loads(pins.read_text(encoding="utf-8"))
    lower["recordings"][file]["with_targets"] = [good - 1, everything]
    pins.write_text(text(lower), encoding="utf-8")
    assert pin(monkeypatch, folder) == 0
    assert read(pins) == first

    higher = json.loads(pins.read_text(encoding="utf-8"))
    higher["recordings"][file]["with_targets"] = [good + 1, everything]
    pins.write_text(text(higher), encoding="utf-8")
    capsys.readouterr()
    assert pin(monkeypatch, folder) == 1
    assert capsys.readouterr().out.startswith(f"{file}: with_targets fell from {good + 1}/{everything}")
    assert read(pins) == higher
    assert pin(monkeypatch, folder, "--allow-lower", "lab/other", "--because", "no") == 1
    assert pin(monkeypatch, folder, "--allow-lower", file, "--because", "it was counted twice") == 0
    lowered = read(pins)
    assert lowered["recordings"] == first["recordings"]
    assert [(reason["file"], reason["because"]) for reason in lowered["lowered"]] == [(file, "it was counted twice")]


def test_a_reason_without_a_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--because", "x"], ["--allow-lower", "x"]):
        with pytest.raises(SystemExit):
            pin(monkeypatch, folder, *words)
    assert not (folder / "scores.json").exists()


def test_a_folder_that_cannot_be_read_is_not_pinned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lab" / "broken.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.jsonl: line 1"):
        pin(monkeypatch, folder)
    with pytest.raises(ValueError, match=r"broken\.jsonl: line 1"):
        how_true.page(folder)
