"""The frame of the command line: exit statuses, one-line errors, lazy imports. Each command has tests of its own."""

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from tlbcore import InputError, ProgramError
from tlbcore.cli import NEGATIVE, OK, USAGE
from tlbcore.cli.main import BROKEN_PIPE, COMMANDS, INTERRUPTED, Command, main

FAKE = {
    "probe": Command("fake_probe", "Do what the test says"),
    "absent": Command("no_such_module_anywhere", "Fail if it is imported"),
}


Run = Callable[[argparse.Namespace], int]
Install = Callable[[Run], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Give the command `probe`, which takes one argument `word`, the given `run`."""

    def install(run: Run) -> None:
        module = ModuleType("fake_probe")
        vars(module)["add_arguments"] = lambda parser: parser.add_argument("word")
        vars(module)["run"] = run
        monkeypatch.setitem(sys.modules, "fake_probe", module)

    return install


@pytest.mark.parametrize("status", [OK, NEGATIVE, USAGE])
def test_status_of_the_command_is_the_exit_status(install: Install, status: int) -> None:
    install(lambda _: status)
    assert main(["probe", "x"], FAKE) == status


def test_arguments_arrive(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        sys.stdout.write(f"{args.word}\n")
        return OK

    install(run)
    assert main(["probe", "hello"], FAKE) == OK
    assert capsys.readouterr() == ("hello\n", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.tlbr: byte 40: found 1, expected 2"), "a.tlbr: byte 40: found 1, expected 2"),
        (ProgramError("two\n  lines"), "two lines"),
        (InputError(), "InputError"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a b"), "a b: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("no number"), "no number"),
    ],
    ids=["input", "newline", "empty", "file", "no-file", "no-number"],
)
def test_error_is_one_line(install: Install, capsys: pytest.CaptureFixture[str], error: Exception, line: str) -> None:
    def run(_: argparse.Namespace) -> int:
        raise error

    install(run)
    assert main(["probe", "x"], FAKE) == USAGE
    assert capsys.readouterr() == ("", f"tlbcore: error: {line}\n")


def test_interrupt(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    install(run)
    assert main(["probe", "x"], FAKE) == INTERRUPTED == 130
    assert capsys.readouterr() == ("", "")


def test_bug_keeps_its_traceback(install: Install) -> None:
    def run(_: argparse.Namespace) -> int:
        raise KeyError("a bug")

    install(run)
    with pytest.raises(KeyError, match="a bug"):
        main(["probe", "x"], FAKE)


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["probe"], ["probe", "a", "b"], ["prob", "x"]])
def test_usage_error(install: Install, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    install(lambda _: OK)
    with pytest.raises(SystemExit) as exit_:
        main(argv, FAKE)
    assert exit_.value.code == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tlbcore: error: ")
    assert captured.err.count("\n") == 1


def test_nothing_asked_for_is_answered_by_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error and with status 2: it is no result, and a script that asks for nothing has a mistake."""
    assert main([], FAKE) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tlbcore ")
    assert all(f"    {name}" in err for name in FAKE)
    with pytest.raises(SystemExit):
        main(["--help"], FAKE)
    assert capsys.readouterr().out == err


def test_help_lists_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"], FAKE)
    assert exit_.value.code == OK
    text = capsys.readouterr().out
    for name, command in FAKE.items():
        assert name in text
        assert command.summary in text


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == OK
    assert capsys.readouterr().out.startswith(f"usage: tlbcore {name}")


def test_start_is_light() -> None:
    script = "import sys, tlbcore.cli.main; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == OK


def test_reader_who_goes_away_is_no_error() -> None:
    script = """
import sys, types
from tlbcore.cli.main import Command, main
module = types.ModuleType("talker")
module.add_arguments = lambda parser: None
module.run = lambda args: print("x" * 10) or 0
sys.modules["talker"] = module
sys.exit(main(["talk"], {"talk": Command("talker", "Talk")}))
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run([sys.executable, "-c", script], stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, b"")
    assert BROKEN_PIPE == 141
