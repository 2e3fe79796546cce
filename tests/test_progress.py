"""Progress: a line for people at a terminal, after a second; nothing elsewhere; Ctrl-C leaves nothing half-written."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore
from given_data import RECORDINGS
from tlbcore.export import TABLES, export
from tlbcore.profile import profile
from tlbcore.progress import Progress
from tlbcore.tlb import simulate
from tlbcore.validate import explain

STRESS = RECORDINGS[6]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:  # noqa: D102 - io.StringIO has it
        return True


def test_a_terminal_gets_a_line_that_is_wiped_away() -> None:
    stream = Terminal()
    with Progress("replaying", stream=stream, after_seconds=0, every_seconds=0) as progress:
        progress(1, 4)
        progress(4, 4, "gcc")
        assert "1 of 4" in stream.getvalue()
        assert stream.getvalue().count("\n") == 0
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_line_is_wiped_away_after_an_error_too() -> None:
    stream = Terminal()

    def work() -> None:
        with Progress("x", stream=stream, after_seconds=0) as progress:
            progress(1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert stream.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_is_written_elsewhere_or_within_a_second(stream: io.StringIO) -> None:
    with Progress("x", stream=stream, after_seconds=0 if not stream.isatty() else 60) as progress:
        progress(1, 2)
    assert stream.getvalue() == ""


def test_a_line_fits_into_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with Progress("x", stream=stream, after_seconds=0) as progress:
        progress(1, 2, "y" * 100)
    shown = stream.getvalue().split("\x1b[K")[0].lstrip("\r")
    assert len(shown) == 39


def test_replay_and_search_report() -> None:
    told: list[tuple[int, int]] = []
    replayed = tlbcore.replay(RECORDINGS[1], "linux-6.18", progress=lambda done, of: told.append((done, of)))
    assert told[0] == (0, replayed.result.nr_events)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] > replayed.result.nr_events - 5000


def test_explaining_reports_and_a_profile_passes_it_on() -> None:
    validation = tlbcore.validate(STRESS)
    told: list[tuple[int, int]] = []
    causes = explain(validation, progress=lambda done, of: told.append((done, of)))
    nr_operations = sum(cause.nr_operations for cause in causes)
    assert told == [(0, nr_operations), *((done, nr_operations) for done in range(nr_operations))]
    said: list[tuple[int, int, str]] = []
    profile(STRESS, kernels=["linux-6.18"], machines=["default"], progress=lambda *what: said.append(what))
    assert (3, 4, f"why {nr_operations // 2:,} of {nr_operations:,} differ") in said
    assert said[-1] == (4, 4, "")
    assert [done for done, _, _ in said] == sorted(done for done, _, _ in said)


def test_a_search_reports_and_an_error_of_its_caller_ends_it() -> None:
    """The search is one of hours: it ends because of the error, which comes out of it."""
    searched: list[tuple[int, int, int]] = []

    def tell(states: int, waiting: int, depth: int) -> None:
        searched.append((states, waiting, depth))
        raise KeyError("enough")

    operations = ["munmap", "mprotect", "shrink_folio_list", "migrate_pages", "page_mkclean"]
    with pytest.raises(KeyError, match="enough"):
        tlbcore.check("linux-6.18", operations, pages=3, users=2, faults=2, invariants=["I1"], progress=tell)
    ((states, waiting, depth),) = searched
    assert 0 < waiting <= states
    assert depth > 0


@pytest.mark.parametrize("form", ["perfetto", "csv"])
def test_an_export_reports(form: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    recording = tlbcore.load(RECORDINGS[3])
    export(recording, form, tmp_path / "out", progress=lambda *at: told.append(at))
    assert {what for _, _, what in told} == ({"events", "written"} if form == "perfetto" else set(TABLES))
    assert all(done <= of or of == 0 for done, of, _ in told)


def test_what_a_caller_raises_ends_an_address_trace() -> None:
    def tell() -> None:
        raise KeyError("enough")

    addresses = np.arange(0, 1 << 34, 4096, dtype=np.uint64)
    with pytest.raises(KeyError, match="enough"):
        simulate(addresses, "skylake_sp", progress=tell)


def test_what_a_caller_raises_ends_a_replay() -> None:
    def tell(_done: int, _of: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        tlbcore.replay(RECORDINGS[1], "linux-6.18", progress=tell)


#: A search that takes minutes.
LONG = ["migrate_pages", "migrate_pages", "shrink_folio_list"]


@pytest.mark.parametrize("raised", [KeyError("enough"), SystemExit(3)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["progress", "is_over"])
def test_what_a_caller_raises_ends_a_search(raised: BaseException, call: str) -> None:
    def tell(*_at: int) -> bool:
        raise raised

    options: dict[str, Any] = {call: tell}
    with pytest.raises(type(raised)) as found:
        tlbcore.check("linux-6.18", LONG, kind="anon", users=4, pages=4, seconds=60, **options)
    assert found.value is raised


def test_an_interrupt_of_a_caller_leaves_a_search_what_it_has() -> None:
    def tell(*_at: int) -> None:
        raise KeyboardInterrupt

    verdict = tlbcore.check("linux-6.18", LONG, kind="anon", users=4, pages=4, seconds=60, progress=tell)
    assert (verdict.safe, verdict.violated, verdict.stopped) == (False, (), "a request to stop")
    assert verdict.states > 0


def test_ctrl_c_gives_what_a_check_has() -> None:
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "tlbcore", "check", "linux-6.18", "--kind", "anon", "--users", "4", "--pages", "4"]
    for operation in LONG:
        command += ["--op", operation]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=secondary, start_new_session=True) as process:
        os.close(secondary)
        shown = b""
        while b" waiting, depth " not in shown:  # the progress line is there: it searches
            shown += os.read(primary, 4096)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        out = process.stdout.read().decode()
        assert process.wait(60) == 1
    os.close(primary)
    headline = out.splitlines()[0]
    assert re.match(
        r"linux-6.18: undecided, stopped by a request to stop after \d+ sizes, [\d,]+ states, ", headline
    ), out


def test_nothing_on_standard_error_of_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tlbcore", "compare", str(STRESS), "--kernel", "linux-6.18"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def ended(process: subprocess.Popen[bytes], terminal: int, seconds: float) -> int:
    """The exit status of a process whose terminal is read meanwhile: a full one would keep it from ending."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            with suppress(OSError):  # nobody has the other side open any more
                os.read(terminal, 4096)
    return process.wait(1)


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_ctrl_c_leaves_nothing_half_written(out: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    text = f'recordings = ["{STRESS}"]\nkernels = ["linux-5.10", "linux-6.1", "linux-6.18", "consolidated"]\n'
    path.write_text(text + f"machines = {[f'default:invlpg_ns={n}' for n in range(50)]}\n", encoding="utf-8")
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "tlbcore", "sweep", str(path), "-o", str(tmp_path / out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=secondary, start_new_session=True) as process:
        os.close(secondary)
        shown = b""
        while b"points [" not in shown:  # the progress line is there: it has begun
            shown += os.read(primary, 4096)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert ended(process, primary, 30) == 130
        assert time.monotonic() - begun < 20
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(primary)
    assert sorted(tmp_path.iterdir()) == [path]
