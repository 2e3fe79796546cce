"""Ctrl-C at the worst moment: when all is written but nothing in place, or half of a file is read. Nothing stays behind.

The moment is made, not waited for: a command sends itself the signal where it would put a file in its place; a pipe gives half
of a text and no more until the signal was sent.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from given_data import ROOT
from tlbcore import recordings

MICRO = ROOT / "data" / "recordings" / "micro.perf.txt.zst"
INTERRUPTED = 130

#: Runs a command line that gets Ctrl-C where a finished file would be put in its place.
AT_THE_END = """
import os, signal, sys
from pathlib import Path
from tlbcore.cli.main import main

def interrupted(self, target):
    assert self.stat().st_size > 0, "nothing was written yet"
    print("written", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal did not come")

Path.replace = interrupted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["report", str(MICRO), "--machine", "default", "--kernel", "linux-6.18", "-o", "OUT.html"],
        ["export", str(MICRO), "--format", "perfetto", "-o", "OUT.trace"],
        ["export", str(MICRO), "--format", "csv", "--table", "flushes", "-o", "OUT.csv"],
        ["export", str(MICRO), "--format", "parquet", "--table", "events", "-o", "OUT.parquet"],
        ["validate", str(MICRO), "--operations", "OUT.csv"],
        ["check", "linux-5.10", "--op", "munmap", "--op", "page_mkclean", "-o", "OUT.svg"],
        ["sweep", "SWEEP", "-o", "OUT.arrow"],
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_before_a_file_is_in_place(command: list[str], tmp_path: Path) -> None:
    if command[-1].endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow")
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n', encoding="utf-8")
    before = tmp_path / command[-1]
    before.write_text("before", encoding="utf-8")
    words = [str(before) if word == command[-1] else str(sweep) if word == "SWEEP" else word for word in command]
    done = subprocess.run([sys.executable, "-c", AT_THE_END, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")
    assert done.stdout.endswith("written\n")
    assert before.read_text(encoding="utf-8") == "before"
    assert sorted(tmp_path.iterdir()) == sorted([sweep, before])


@pytest.fixture
def half_read(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """An import of a pipe that gives lines and then nothing, and the pipe's other end."""
    pipe = tmp_path / "x.perf.txt"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "tlbcore", "import", str(pipe), "-o", str(tmp_path / "x.tlbr")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        end = os.open(pipe, os.O_WRONLY)  # waits until the other end is opened
        yield process, end
        process.kill()


LINE = b"               m  10/10    [000] 1.%09d: raw_syscalls:sys_enter: NR 11 (7000, 1000, 0, 0, 0, 0)\n"


def wait_until_read(end: int) -> None:
    """Until the reader has taken all: then it waits for more."""
    import fcntl  # noqa: PLC0415
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    while struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, b"\0\0\0\0"))[0]:
        time.sleep(0.01)


def test_in_the_middle_of_an_import(tmp_path: Path, half_read: tuple[subprocess.Popen[bytes], int]) -> None:
    process, end = half_read
    os.write(end, b"".join(LINE % at for at in range(500)))
    wait_until_read(end)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    os.close(end)
    assert (process.returncode, out, err) == (INTERRUPTED, b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.perf.txt"]


def test_the_same_import_without_ctrl_c(tmp_path: Path, half_read: tuple[subprocess.Popen[bytes], int]) -> None:
    """The twin: what is read from a pipe becomes a recording when the pipe ends."""
    process, end = half_read
    os.write(end, b"".join(LINE % at for at in range(500)))
    wait_until_read(end)
    os.close(end)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert b"500 events" in out
    assert recordings.load(tmp_path / "x.tlbr").nr_events == 500


def test_progress_of_a_text_is_told_in_bytes() -> None:
    told: list[tuple[int, int]] = []
    recordings.load(MICRO, progress=lambda done, of: told.append((done, of)))
    assert told[0] == (0, MICRO.stat().st_size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == MICRO.stat().st_size


def test_what_a_caller_raises_ends_an_import() -> None:
    def tell(_done: int, _of: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        recordings.load(MICRO, progress=tell)
