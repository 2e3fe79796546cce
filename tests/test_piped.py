"""Standard input as a file of any kind: `-` is /dev/stdin, a file behind it or a pipe, and all give the same."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from given_data import LAB, RECORDINGS, ROOT, load
from test_strace import THREADS

MICRO = RECORDINGS[3]
CAT = """
import sys
with open(sys.argv[1], "rb") as file:
    sys.stdout.buffer.write(file.read())
"""


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tlbcore", *map(str, words)]


def by_pipe(path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command whose standard input is a pipe out of which the file comes."""
    with subprocess.Popen([sys.executable, "-c", CAT, str(path)], stdout=subprocess.PIPE) as cat:
        return subprocess.run(command(*words), stdin=cat.stdout, capture_output=True, text=True, check=False)


def by_file(path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command whose standard input is the file."""
    with path.open("rb") as file:
        return subprocess.run(command(*words), stdin=file, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind that is read."""
    folder = tmp_path_factory.mktemp("inputs")
    addresses = np.arange(4000, dtype=np.uint64) * 4096
    found = {name: folder / name for name in ("m.tlbr", "m.strace", "a.raw", "a.npy", "a.lackey", "sweep.toml")}
    load(MICRO).save(found["m.tlbr"])
    found["m.strace"].write_text(THREADS, encoding="utf-8")
    addresses.tofile(found["a.raw"])
    np.save(found["a.npy"], addresses)
    found["a.lackey"].write_text("".join(f" L {address:x},8\n" for address in addresses.tolist()), encoding="utf-8")
    found["sweep.toml"].write_text(f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n', encoding="utf-8")
    return found | {"m.perf.txt.zst": MICRO, "lab.jsonl.gz": LAB[0]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.perf.txt.zst", ["import"]),
        ("m.perf.txt.zst", ["compare", "--kernel", "linux-6.18"]),
        ("m.tlbr", ["compare", "--kernel", "linux-6.18"]),
        ("m.strace", ["import"]),
        ("lab.jsonl.gz", ["validate"]),
        ("a.raw", ["tlb"]),
        ("a.npy", ["tlb"]),
        ("a.lackey", ["tlb"]),
        ("sweep.toml", ["sweep"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_pipe_and_a_file_and_a_name_give_the_same(name: str, words: list[str], inputs: dict[str, Path]) -> None:
    path = inputs[name]

    def told(done: subprocess.CompletedProcess[str], known_as: str) -> str:
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.replace(known_as, "R")

    expected = told(by_file(path, *words, path), path.name if words[0] != "tlb" else str(path))
    for given in ("-", "/dev/stdin"):
        for done in (by_pipe(path, *words, given), by_file(path, *words, given)):
            assert told(done, "stdin" if words[0] != "tlb" else "/dev/stdin") == expected


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"hello world\n", "/dev/stdin: line 1: found `hello world`, expected a recording (.tlbr), "),
        (b"", "/dev/stdin: line 1: found an empty file, "),
        (b"TLBCREC\0and then nothing", "/dev/stdin: "),
        (b"PERFILE2" + bytes(100), "/dev/stdin: found what `perf record` writes, in a pipe, expected its file, or"),
    ],
)
def test_errors_name_standard_input(content: bytes, line: str, tmp_path: Path) -> None:
    path = tmp_path / "F"
    path.write_bytes(content)
    done = by_pipe(path, "import", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tlbcore: error: {line}")
    assert "/tmp/" not in done.stderr  # noqa: S108 - a name that must not be told
    assert done.stderr.count("\n") == 1


def test_the_reports_of_standard_input_are_called_so(inputs: dict[str, Path], tmp_path: Path) -> None:
    with inputs["m.tlbr"].open("rb") as file:
        done = subprocess.run(
            command("report", "-", "--machine", "default", "--kernel", "linux-6.18"),
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert done.stdout.endswith("written to stdin.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["stdin.html"]


def test_names_in_a_sweep_from_standard_input_are_seen_from_here(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.toml"
    path.write_text('recordings = ["data/recordings/micro*"]\nkernels = ["linux-6.18"]\n', encoding="utf-8")
    with path.open("rb") as file:
        done = subprocess.run(command("sweep", "-"), stdin=file, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "micro.perf.txt.zst  default" in done.stdout


def test_on_a_terminal_nobody_types_a_recording() -> None:
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(command("compare", "-"), stdin=follower, capture_output=True, text=True, check=False)
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 2
    assert re.match(
        r"tlbcore: error: argument R: found a terminal on standard input, expected a file or a", done.stderr
    )
