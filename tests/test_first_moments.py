"""Ctrl-C in the first moments of a command, while its modules are imported: no traceback, and the status of a later Ctrl-C.

What Python does before the first line of ours is Python's own, so that the moments are counted from the entry point on.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from given_data import ROOT
from tlbcore.cli.main import COMMANDS, INTERRUPTED

MICRO = ROOT / "data" / "recordings" / "micro.perf.txt.zst"

#: A command line that gets Ctrl-C at its N-th import, the first of which is that of the module `signal`, or at that of a module.
AT_AN_IMPORT = """
import os, signal, sys
from tlbcore.__main__ import main

when, nth = sys.argv.pop(1), 0

def hook(event, args):
    global nth
    if event == "import":
        nth += 1
        if when in (str(nth), args[0]):
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
sys.exit(main())
"""

#: A command line that says when it begins to import its modules.
TELLS = """
import os, sys
from tlbcore.__main__ import main

def hook(event, args):
    if event == "import" and args[0] == "tlbcore.cli.main":
        os.write(1, b"now")

sys.addaudithook(hook)
sys.exit(main())
"""


def test_little_is_imported_before_ctrl_c_is_seen_to() -> None:
    script = "import sys, tlbcore.__main__; print(*sorted(n for n in sys.modules if n.split('.')[0] == 'tlbcore'))"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert imported.stdout.split() == ["tlbcore", "tlbcore.__main__", "tlbcore._core"]
    script = (
        "import sys, tlbcore; sys.exit(any(n in sys.modules for n in ('typing', 'dataclasses', 'numpy', 'pathlib')))"
    )
    assert subprocess.run([sys.executable, "-S", "-c", script], env=without_site(), check=False).returncode == 0


def without_site() -> dict[str, str]:
    """What a site may import of its own is not counted; the package must be found all the same."""
    import tlbcore  # noqa: PLC0415

    return {**os.environ, "PYTHONPATH": str(Path(tlbcore.__file__).parent.parent)}


@pytest.mark.parametrize("nth", [2, 3, 5, 10, 20, 40, 80, 120, 160, 200, 240])
@pytest.mark.parametrize(
    "command", [["compare", str(MICRO)], ["check", "linux-6.18", "--op", "munmap"]], ids=lambda c: c[0]
)
def test_at_an_import(command: list[str], nth: int) -> None:
    """The command imports numpy, which comes late."""
    done = subprocess.run(
        [sys.executable, "-c", AT_AN_IMPORT, str(nth), *command], capture_output=True, text=True, check=False
    )
    if nth > 80 and done.returncode == 0:  # another Python has fewer imports
        return
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")


def test_where_an_import_makes_another_error_of_it() -> None:
    """What numpy imports from C becomes an `ImportError` of many lines, which is not ours to understand."""
    command = [sys.executable, "-c", AT_AN_IMPORT, "datetime", "compare", str(MICRO)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2])
def test_after_a_while(delay: float, tmp_path: Path) -> None:
    """It waits for its input in the end, so that the signal comes before it is done."""
    command = [sys.executable, "-c", TELLS, "import", "-", "-o", str(tmp_path / "x.tlbr")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"now"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read() if process.stderr is not None else b""
        assert (process.wait(30), err) == (INTERRUPTED, b"")
    assert list(tmp_path.iterdir()) == []


def test_ignored_ctrl_c_stays_so() -> None:
    """A script's shell starts what is in the background so."""
    script = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{AT_AN_IMPORT}"
    done = subprocess.run(
        [sys.executable, "-c", script, "20", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tlbcore ")


@pytest.mark.parametrize("command", [["compare", str(MICRO)], ["import", str(MICRO), "-o", "OUT"]], ids=lambda c: c[0])
def test_what_is_imported_beforehand_is_needed(command: list[str], tmp_path: Path) -> None:
    """`Command.needs` brings forward what would be imported anyway."""
    words = [str(tmp_path / "x.tlbr") if word == "OUT" else word for word in command]
    module = COMMANDS[command[0]].module
    script = f"""
import argparse, importlib, sys
module, parser = importlib.import_module({module!r}), argparse.ArgumentParser()
module.add_arguments(parser)
module.run(parser.parse_args({words[1:]!r}))
sys.exit(not all(name in sys.modules for name in {COMMANDS[command[0]].needs!r}))
"""
    assert COMMANDS[command[0]].needs
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0
