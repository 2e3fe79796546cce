"""What speaks against the numbers of a recording is said by all that make numbers of it."""

import json
from pathlib import Path

import pytest

from perf_text import FIRST, MUNMAP, PAGE, PID, PerfText
from tlbcore import compare, recordings, validate
from tlbcore.caveats import caveats, share_of_older
from tlbcore.cli.main import main

LOST = "194 291 events were lost while recording: all numbers are too low"
OLDER = "of calls and faults are of processes older than the recording, whose mappings and pages are guessed"


def work(text: PerfText) -> PerfText:
    """A fault and a call that flushes, four calls and faults in all."""
    text.fault(FIRST, 0x7000)
    text.enter(FIRST, MUNMAP, 0x7000, PAGE).flush(FIRST, 1).leave(FIRST, MUNMAP)
    return text.fault(FIRST, 0x9000).fault(FIRST, 0xB000)


def begun() -> PerfText:
    """The exec by which a command that is recorded begins."""
    return PerfText().add(FIRST, f"sched:sched_process_exec: filename=m pid={PID} old_pid={PID}")


def written(text: PerfText, path: Path, *, lost: int = 0) -> Path:
    """As a file, with so many lost events."""
    lines = list(text.lines)
    if lost:
        lines.append(f"m {PID}/{PID} [000] 2.000000000: PERF_RECORD_LOST lost {lost}")
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """A recording of a command with events lost."""
    return written(work(begun()), tmp_path / "m.txt", lost=194_291)


@pytest.mark.parametrize("command", ["compare", "validate", "import"])
def test_lost_events_are_told(command: str, lossy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(lossy)]) == 0
    assert f"Warning: {LOST}\n" in capsys.readouterr().out
    assert main([command, str(lossy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [LOST]


def test_an_export_and_a_folder_say_it_too(lossy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(lossy), "--format", "csv", "--table", "flushes", "-o", str(tmp_path / "x.csv")]
    assert main(words) == 0
    assert capsys.readouterr().err == f"tlbcore: {LOST}\n"
    assert main(["validate", str(tmp_path)]) == 0
    assert f"Warning: m.txt: {LOST}\n" in capsys.readouterr().out


def test_a_sweep_says_it_of_each_recording(lossy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = written(work(begun()), tmp_path / "whole.txt")
    asked = tmp_path / "sweep.toml"
    asked.write_text(f'recordings = ["{lossy}", "{whole}"]\nkernels = ["linux-5.10", "linux-6.18"]\n', encoding="utf-8")
    assert main(["sweep", str(asked)]) == 0
    out = capsys.readouterr().out
    assert out.count("Warning: ") == 1, "once, not for each kernel"
    assert f"Warning: m.txt: {LOST}\n" in out
    assert main(["sweep", str(asked), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["warnings"] == [f"{lossy}: {LOST}"]
    assert [point["warnings"] for point in found["points"]] == [[LOST], [LOST], [], []]


def test_a_report_says_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = written(work(PerfText()), tmp_path / "m.txt", lost=194_291), tmp_path / "m.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    out, html = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for line in (LOST, f"100% {OLDER}"):
        assert f"Warning: {line}" in out
        assert f"<strong>Warning: {line}" in html
    assert main(["report", str(path), "--json"]) == 0
    assert [line[:20] for line in json.loads(capsys.readouterr().out)["warnings"]] == [LOST[:20], f"100% {OLDER}"[:20]]
    whole = written(work(begun()), tmp_path / "whole.txt")
    assert main(["report", str(whole), "-o", str(page)]) == 0
    assert "Warning" not in capsys.readouterr().out + page.read_text(encoding="utf-8")


def test_nothing_is_said_of_a_whole_recording_of_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(work(begun()), tmp_path / "m.txt")
    assert caveats(recordings.load(path)) == compare(path).warnings == validate(path).warnings == []
    assert main(["compare", str(path)]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_one_event_is_one(tmp_path: Path) -> None:
    found = caveats(recordings.load(written(work(begun()), tmp_path / "m.txt", lost=1)))
    assert found == ["1 event was lost while recording: all numbers are too low"]


def test_processes_older_than_the_recording_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(work(PerfText()), tmp_path / "m.txt")
    for command in ("compare", "validate"):
        assert main([command, str(path)]) == 0
        assert f"Warning: 100% {OLDER}: start the program under `tlbcore record -- CMD`\n" in capsys.readouterr().out


def test_from_its_exec_on_a_process_is_known_and_so_are_its_children(tmp_path: Path) -> None:
    other = 20
    text = work(PerfText())
    text.add(FIRST, f"sched:sched_process_exec: filename=m pid={PID} old_pid={PID}")
    work(text)
    half = share_of_older(recordings.load(written(text, tmp_path / "half.txt")))
    # Before the exec four of eight calls and faults, and the exec counts as one.
    assert half == pytest.approx(4 / 9)
    child = begun().enter(FIRST, 57)
    child.add(FIRST, f"sched:sched_process_fork: comm=m pid={FIRST} child_comm=m child_pid={other}").leave(
        FIRST, 57, other
    )
    child.add(other, "exceptions:page_fault_user: address=0x7000 ip=0x1 error_code=0x6", pid=other, cpu=1)
    assert share_of_older(recordings.load(written(child, tmp_path / "child.txt"))) == 0
    # The child of a process that is not known is not known either.
    older = PerfText(child.lines[1:])
    assert share_of_older(recordings.load(written(older, tmp_path / "older.txt"))) == 1
