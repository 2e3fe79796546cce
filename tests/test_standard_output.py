"""Standard output as a place for what is written: `-`, with nothing else in it; closed, full, or in another encoding."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from given_data import RECORDINGS
from tlbcore.cli.main import main

MICRO = RECORDINGS[3]


def done(*words: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """What a command writes."""
    command = [sys.executable, "-m", "tlbcore", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload,no-any-return]  # what a test needs


@pytest.mark.parametrize(
    ("words", "begin", "end"),
    [
        (["export", "--format", "csv", "--table", "flushes"], b"flush,time_ns,cpu,", b",recorded\n"),
        (["report", "--machine", "default", "--kernel", "linux-6.18"], b"<!doctype html>", b"</html>\n"),
        (["validate", "--operations"], b"event,time_ns,tid,kind,", b"\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_what_is_written_there_is_all_that_is_there(words: list[str], begin: bytes, end: bytes, name: str) -> None:
    options = [name] if words[-1] == "--operations" else ["-o", name]
    found = done(words[0], MICRO, *words[1:], *options)
    assert found.returncode == 0
    assert found.stdout.startswith(begin)
    assert found.stdout.endswith(end)
    assert b"1 012" not in found.stdout
    assert found.stderr == b"" if words[0] == "export" else b"micro" in found.stderr


def test_a_file_behind_it_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("before\n", encoding="utf-8")
    with path.open("ab") as file:
        command = [sys.executable, "-m", "tlbcore", "export", str(MICRO), "--format", "csv", "--table", "flushes"]
        assert subprocess.run([*command, "-o", "-"], stdout=file, check=False).returncode == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["before", lines[1]]
    assert len(lines) == 1 + 1 + 1012


def test_a_counterexample_goes_there(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "linux-5.10", "--op", "munmap", "--op", "page_mkclean", "--format", "svg"]
    assert main([*words, "-o", "-"]) == 1
    assert capsys.readouterr().out.startswith("<svg")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["export", MICRO, "--format", "csv", "-o", "-"], "export: found several tables for standard output, expected"),
        (["report", MICRO, "-o", "-", "--json"], "--json: found that another output goes to standard output too"),
        (["validate", MICRO, "--operations", "-", "--json"], "--json: found that another output goes"),
        (["import", MICRO, "-o", "-"], "argument -o/--output: found -, expected the name of a file"),
        (["sweep", "x.toml", "-o", "-"], "argument -o: found -, expected the name of a file"),
        (["record", "-o", "-"], "argument -o/--output: found -, expected the name of a file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_go_there(words: list[str | Path], line: str, tmp_path: Path) -> None:
    found = done(*words, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.decode().startswith(f"tlbcore: error: {line}")
    assert list(tmp_path.iterdir()) == [], "no file is called -"


def test_it_may_be_closed() -> None:
    command = 'exec "$0" -m tlbcore machines >&-'
    found = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, check=False)  # noqa: S607
    assert (found.returncode, found.stderr) == (0, b"")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Every form is written, and messages have the bytes, or what stands for them."""
    name = b"\xff\xfeb.zst"
    (tmp_path / name.decode("utf-8", "surrogateescape")).symlink_to(MICRO)
    environment = {"PYTHONIOENCODING": "utf-8:strict", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}

    def run(*words: bytes | str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "tlbcore", *words]
        return subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=environment)

    for form in ("csv", "parquet", "arrow"):
        if form != "csv":
            pytest.importorskip("pyarrow")
        found = run("export", name, "--format", form, "--table", "flushes")
        assert (found.returncode, found.stderr) == (0, b"")
        assert found.stdout.startswith(b"\xff\xfeb-flushes." + form.encode() + b": ")
    found = run("compare", b"\xffnone")
    assert found.stderr.decode() == "tlbcore: error: \ufffdnone: No such file or directory\n"
    found = run("import", name, "--json")
    assert json.loads(found.stdout)["file"] == "\ufffd\ufffdb.zst"


def test_an_encoding_without_a_character_is_no_error() -> None:
    words = ("check", "linux-5.10", "--op", "munmap", "--op", "page_mkclean")
    found = done(*words, env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)})
    assert found.returncode == 1
    assert found.stdout.isascii()
