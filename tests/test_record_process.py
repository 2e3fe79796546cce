"""Around a recording: the command has what is the user's, and however it ends, nothing runs on and nothing is lost."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlbcore import InputError, recordings
from tlbcore.cli.main import main
from tlbcore.cli.record import how_ended
from tlbcore.record import Host, lacks, record
from tlbcore.record.events import HELPFUL, NEEDED, TRUTH
from tlbcore.record.perf import is_whole
from tlbcore.record.process import ends_with_us

#: Data to which `perf` has written the end.
WHOLE = b"PERFILE2" + bytes(40) + b"\x08" + bytes(55)

#: A `perf` that says something and sets what perf sets for its command; without a command it records until it is ended. Printing
#: what was recorded it stays as long as a file is there.
PERF = """#!{python}
import os, signal, subprocess, sys, time
from pathlib import Path
folder, arguments, WHOLE = Path("{folder}"), sys.argv[1:], {whole!r}
if arguments == ["--version"]:
    print("perf version 6.1"); sys.exit()
if arguments[0] == "record":
    (folder / "locale").write_text(os.environ["LC_ALL"])
    print("[ perf record: Woken up 1 times ]", file=sys.stderr, flush=True)
    data = Path(arguments[arguments.index("-o") + 1])
    data.write_bytes(b"PERFILE2" + bytes(96) if "--" not in arguments else WHOLE)
    os.environ["PATH"] = "/usr/lib/perf-core:" + os.environ["PATH"]
    os.environ["PERF_BUILDID_DIR"] = "/root/.debug"
    if "--" in arguments:
        command = arguments[arguments.index("--") + 1:]
        status = subprocess.run(command, close_fds=False).returncode
        if status < 0:
            os.kill(os.getpid(), -status)
        sys.exit(status)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (data.write_bytes(WHOLE), sys.exit()))
    (folder / "perf-pid").write_text(str(os.getpid()))
    (folder / "recording").touch()
    signal.pause()
if "--header-only" in arguments:
    print("# hostname : h\\n# os release : 6.18.1\\n# nrcpus online : 3"); sys.exit()
(folder / "reading").touch()
while (folder / "stay").exists():
    time.sleep(0.01)
for time_ns in range(1, 4):
    print(f"m 10/10 [000] 1.00000000{{time_ns}}: exceptions:page_fault_user: address=0x7000 ip=0x1 error_code=0x6")
"""

#: `tlbcore record` on a machine that has all that is needed.
CLI = """
import sys
from pathlib import Path
import tlbcore.cli.record as module
from tlbcore.cli.main import main
from tlbcore.record import Host
folder, real = Path(sys.argv[1]), module.record
host = Host((folder / "tracing",), folder / "paranoid", folder / "status", 0, "x86_64", "6.0-test")
module.record = lambda *args, **options: real(*args, host=host, **options)
sys.exit(main(["record", *sys.argv[2:]]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has all that is needed, and the stub; recordings go to `out`."""
    for name in (*NEEDED, *HELPFUL, TRUTH):
        (tmp_path / "tracing" / "events" / name.replace(":", "/")).mkdir(parents=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "perf").write_text(PERF.format(python=sys.executable, folder=tmp_path, whole=WHOLE), encoding="utf-8")
    (tools / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tmp_path / "out").mkdir()
    return tmp_path


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """`tlbcore record WORDS`."""
    return subprocess.Popen(
        [sys.executable, "-c", CLI, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(sign: Path) -> None:
    """Until a file is there; the test's own time limit ends it else."""
    while not sign.exists():
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_command_has_the_users_streams_and_what_it_says_is_not_perfs(folder: Path) -> None:
    said = "Processed 5 events and lost 2 chunks!"
    with start(
        folder, "-o", str(folder / "out/m.tlbr"), "--everybody", "--", "sh", "-c", f"cat; echo '{said}' >&2"
    ) as run:
        out, err = run.communicate("from the user\n", timeout=30)
    assert run.returncode == 0, err
    assert out.splitlines()[0] == "from the user"
    assert err == f"{said}\n"


@pytest.mark.parametrize("locale", [None, "de_DE.UTF-8"])
def test_the_command_has_the_users_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, locale: str | None
) -> None:
    monkeypatch.setenv("LANG", "it's")
    monkeypatch.delenv("PERF_BUILDID_DIR", raising=False)
    if locale is None:
        monkeypatch.delenv("LC_ALL", raising=False)
    else:
        monkeypatch.setenv("LC_ALL", locale)
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    command = [sys.executable, "-c", code, str(folder / "environment")]
    host = Host((folder / "tracing",), folder / "paranoid", folder / "status", 0, "x86_64", "6.0-test")
    record(folder / "out/m.tlbr", command=command, everybody=True, host=host)
    found = json.loads((folder / "environment").read_text(encoding="utf-8"))
    assert (folder / "locale").read_text(encoding="utf-8") == "C"
    of_shells = {"_", "PWD", "OLDPWD", "SHLVL", "LC_CTYPE"}
    assert {name: value for name, value in found.items() if name not in of_shells} == {
        name: value for name, value in os.environ.items() if name not in of_shells
    }


def test_a_closed_standard_error_is_no_reason_not_to_run(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tlbcore.record import Host, record; folder = Path(sys.argv[1]);"
        "host = Host((folder / 'tracing',), folder / 'p', folder / 's', 0, 'x86_64', '6.0-test'); os.close(2);"
        "done = record(folder / 'out/m.tlbr', command=['sh', '-c', 'exit 3'], everybody=True, host=host); print(done.status)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_perf_and_removes_the_folder(folder: Path, number: signal.Signals) -> None:
    with start(folder, "-o", str(folder / "out/s.tlbr")) as run:
        wait_for(folder / "recording")
        run.send_signal(number)
        _, err = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    assert not is_running(int((folder / "perf-pid").read_text(encoding="ascii")))
    assert [path.name for path in (folder / "out").iterdir()] == ["s.perf.data"]
    assert (folder / "out/s.perf.data").read_bytes() == WHOLE
    lines = err.splitlines()
    assert lines[0] == "tlbcore: recording the whole system until Ctrl-C"
    assert lines[-1] == f"tlbcore: ended by {number.name}, {folder}/out/s.tlbr was not written"


def test_a_signal_ends_the_command_under_strace(folder: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    script = f"echo $$ > {folder}/sh-pid; touch {folder}/running; while :; do sleep 0.1; done"
    with start(folder, "--source", "strace", "-o", str(folder / "out/s.tlbr"), "--", "sh", "-c", script) as run:
        wait_for(folder / "running")
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=30)
    assert run.returncode == 128 + signal.SIGTERM, err
    assert not is_running(int((folder / "sh-pid").read_text(encoding="ascii")))
    assert [path.name for path in (folder / "out").iterdir()] == ["s.strace"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_recorded_is_kept_when_reading_it_is_interrupted(folder: Path, number: signal.Signals) -> None:
    (folder / "stay").touch()
    (folder / "out/m.perf.data").write_text("an older one", encoding="utf-8")
    with start(folder, "-o", str(folder / "out/m.tlbr"), "--", "true") as run:
        wait_for(folder / "reading")
        run.send_signal(number)
        _, err = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    kept = folder / "out/m-2.perf.data"
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["m-2.perf.data", "m.perf.data"]
    assert kept.read_bytes() == WHOLE
    lines = [line.removeprefix("tlbcore: ") for line in err.splitlines()]
    assert lines[0] == f"{kept}: what was recorded is kept here; it is not a recording yet"
    assert lines[1] == f"next: tlbcore import {kept} -o {folder}/out/m.tlbr"
    (folder / "stay").unlink()
    assert main(lines[1].split()[2:]) == 0
    recording = recordings.load(folder / "out/m.tlbr")
    assert (recording.nr_events, recording.meta["kernel"], recording.meta["smp"]) == (3, "6.18.1", 3)


def test_a_full_disk_leaves_what_was_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recordings, "load", full)
    host = Host((folder / "tracing",), folder / "paranoid", folder / "status", 0, "x86_64", "6.0-test")
    said: list[str] = []
    with pytest.raises(OSError, match="No space left") as caught:
        record(folder / "out/m.txt", command=["true"], host=host, say=said.append)
    assert [path.name for path in (folder / "out").iterdir()] == ["m.perf.data"]
    assert caught.value.__notes__ == said
    assert said[1] == f"next: tlbcore import {folder}/out/m.perf.data -o {folder}/out/m.tlbr"


def test_only_data_with_an_end_are_kept(tmp_path: Path) -> None:
    data = tmp_path / "raw.perf"
    assert not is_whole(data)
    for content, whole in ((b"", False), (b"PERFILE2" + bytes(96), False), (b"PERFILE2" + bytes(40) + b"\x01", True)):
        data.write_bytes(content)
        assert is_whole(data) is whole


def test_data_that_cannot_be_read_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder / "perf.data"
    data.write_bytes(WHOLE[:48] + bytes(56))
    assert main(["import", str(data)]) == 2
    expected = "found data without an end, expected those of a perf that came to finish them"
    assert capsys.readouterr().err == f"tlbcore: error: {data}: {expected}\n"
    data.write_bytes(WHOLE)
    monkeypatch.setenv("PATH", str(folder / "out"))
    assert main(["import", str(data)]) == 2
    assert capsys.readouterr().err == "tlbcore: error: perf: found no such program, expected it: it reads its data\n"


def test_what_does_not_end_when_asked_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlbcore.record.process._PATIENCE_SECONDS", 0.2)
    script = f"trap '' TERM; touch {tmp_path}/running; while :; do sleep 0.05; done"

    def ended(process: "subprocess.Popen[bytes]") -> None:
        with process, ends_with_us(process):
            wait_for(tmp_path / "running")
            raise RuntimeError("ended")

    process = subprocess.Popen(["/bin/sh", "-c", script])
    with pytest.raises(RuntimeError, match="ended"):
        ended(process)
    assert process.returncode == -signal.SIGKILL


def test_with_json_the_commands_output_goes_to_standard_error(folder: Path) -> None:
    words = ["--json", "-o", str(folder / "out/m.tlbr"), "--everybody", "--", "echo", "hello"]
    with start(folder, *words) as run:
        out, err = run.communicate(timeout=30)
    assert json.loads(out)["status"] == 0
    assert err == "hello\n"


def test_a_signal_that_ended_the_command_has_its_name(folder: Path) -> None:
    words = ["-o", str(folder / "out/m.tlbr"), "--everybody", "--", "sh", "-c", "kill -9 $$"]
    with start(folder, *words) as run:
        _, err = run.communicate(timeout=30)
    assert err == "tlbcore: sh ended by SIGKILL\n"
    assert how_ended(2) == "with status 2"
    assert how_ended(-40) == "by signal 40"


@pytest.mark.parametrize("number", ["0", "-1", "3", "99999999", "524288"])
def test_a_size_of_buffers_that_cannot_be_is_one_line(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--buffer-pages", number, "--", "true"]) == 2
    expected = f"tlbcore: error: buffer pages: found {number}, expected a power of two from 1 to 262144\n"
    assert capsys.readouterr().err == expected


def test_a_text_as_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found the text 'ls -l', expected a list of words: \['ls', '-l'\]"):
        record(tmp_path / "x.tlbr", command="ls -l")


@pytest.mark.skipif(
    bool([lack for lack in lacks() if lack.stops]), reason="no perf that may record here (`tlbcore record --check`)"
)
def test_for_real_the_command_has_the_users_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("PERF_BUILDID_DIR", raising=False)
    script = 'echo "$PATH ${LC_ALL-none} ${PERF_BUILDID_DIR-none}"; echo lost 2 chunks >&2'
    done = record(tmp_path / "m.tlbr", command=["sh", "-c", script])
    assert capfd.readouterr() == (f"{os.environ['PATH']} none none\n", "lost 2 chunks\n")
    assert "lost 2 chunks" not in done.warnings
