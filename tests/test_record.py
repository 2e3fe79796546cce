"""Recording: what is missing is told, what is kept is the command's, what is lost is known.

By a `perf` of the test's own that prints recorded text, and by the system's where there is one that works.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlbcore import InputError, machines, recordings
from tlbcore.cli.main import main
from tlbcore.profile.flushes import recorded
from tlbcore.record import Host, LacksError, PerfError, lacks, record
from tlbcore.record.events import HELPFUL, NEEDED, TRUTH, perf_events
from tlbcore.record.keep import Kept, kept_lines
from tlbcore.record.needs import Lack
from tlbcore.validate import validate

FAKE_PERF = """#!{python}
import os, subprocess, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("perf version 6.1"); sys.exit({version_status})
if arguments[0] == "record":
    open("{log}", "w").write("\\n".join(arguments))
    if {fails!r}:
        print("Error:\\nPermission error mapping pages.", file=sys.stderr); sys.exit(255)
    open(arguments[arguments.index("-o") + 1], "w").close()
    command = arguments[arguments.index("--") + 1:]
    sys.exit(subprocess.run(command, close_fds=False).returncode)
number = open("{pid}").read().strip() if os.path.exists("{pid}") else "10"
print("Processed 9 events and lost 1 chunks!" if {lost} else "", file=sys.stderr)
sys.stdout.write(open("{text}").read().replace("PID", number))
"""

TEXT = """\
           other 900/900 [001] 1.000000001: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)
               m PID/PID [000] 1.000000002: sched:sched_process_exec: filename=/home/x/bin/m pid=PID old_pid=PID
               m PID/PID [000] 1.000000003: raw_syscalls:sys_enter: NR 56 (3d0f00, 0, 0, 0, 0, 0)
               m PID/PID [000] 1.000000004: sched:sched_process_fork: comm=m pid=PID child_comm=m child_pid=902
               m PID/PID [000] 1.000000005: raw_syscalls:sys_exit: NR 56 = 902
               m PID/PID [000] 1.000000006: tlb:tlb_flush: pages:-1 reason:flush on task switch (0)
               m PID/902 [001] 1.000000007: exceptions:page_fault_user: address=0x7000 ip=0x1 error_code=0x6
           other 900/900 [001] 1.000000008: exceptions:page_fault_user: address=0x7000 ip=0x1 error_code=0x6
               m PID/PID [000] 1.000000009: raw_syscalls:sys_enter: NR 11 (7000, 1000, 0, 0, 0, 0)
               m PID/PID [000] 1.000000010: tlb:tlb_flush: pages:1 reason:remote IPI send (4)
           other 900/900 [001] 1.000000011: tlb:tlb_flush: pages:1 reason:remote shootdown (1)
               m PID/PID [000] 1.000000012: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)
               m PID/PID [000] 1.000000013: raw_syscalls:sys_exit: NR 11 = 0
           other 900/900 [001] 1.000000014: tlb:tlb_flush: pages:1 reason:remote shootdown (1)
               m PID/902 [001] 1.000000015: sched:sched_process_exit: comm=m pid=902 prio=120 group_dead=false
               m PID/902 [001] 1.000000016: sched:sched_switch: prev_comm=m prev_pid=902 prev_prio=120 prev_state=X ==> \
next_comm=swapper/1 next_pid=0 next_prio=120
             new 902/902 [001] 1.000000017: exceptions:page_fault_user: address=0x8000 ip=0x1 error_code=0x6
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine that has all that is needed."""
    for name in (*NEEDED, *HELPFUL, TRUTH):
        (tmp_path / "tracing" / "events" / name.replace(":", "/")).mkdir(parents=True)
    (tmp_path / "paranoid").write_text("2\n", encoding="ascii")
    (tmp_path / "status").write_text("CapEff:\t0000000000000000\n", encoding="ascii")
    return Host(
        tracefs=(tmp_path / "tracing",),
        paranoid=tmp_path / "paranoid",
        status=tmp_path / "status",
        uid=0,
        machine="x86_64",
        release="6.0-test",
    )


def fake_perf(  # noqa: PLR0913  # what it does
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    text: str = TEXT,
    fails: bool = False,
    lost: int = 0,
    version_status: int = 0,
) -> Path:
    """Put a `perf` in front of the path; the file that gets its arguments."""
    tools = folder / "tools"
    tools.mkdir()
    (folder / "text").write_text(text, encoding="utf-8")
    script = FAKE_PERF.format(
        python=sys.executable,
        log=folder / "log",
        pid=folder / "number",
        text=folder / "text",
        fails=fails,
        lost=lost,
        version_status=version_status,
    )
    (tools / "perf").write_text(script, encoding="utf-8")
    (tools / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return folder / "log"


def test_the_events_and_the_filter_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recordings.md").read_text(encoding="utf-8")
    arguments = perf_events((*NEEDED, *HELPFUL, TRUTH))
    for name in arguments[1::2]:
        assert name in page or name.startswith("id == ")
    (numbers,) = {argument for argument in arguments if argument.startswith("id == ")}
    shown = page.partition("for nr in ")[2].partition("\n")[0].split()
    assert [part.removeprefix("id == ") for part in numbers.split(" || ")] == shown


def test_nothing_is_missing_where_all_is_there(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_perf(tmp_path, monkeypatch)
    assert lacks(host) == []


def test_each_lack_says_what_to_do(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    user = Host(host.tracefs, host.paranoid, host.status, 1000, "riscv64", "6.0-test")
    for name in (TRUTH, HELPFUL[0], "sched:sched_switch"):
        (tmp_path / "tracing" / "events" / name.replace(":", "/")).rmdir()
    said = [str(lack) for lack in lacks(user)]
    assert [line.partition(":")[0] for line in said[:3]] == ["machine riscv64", "perf", "event sched"]
    assert any(line.startswith("perf: install it (Debian: linux-perf") for line in said)
    assert any("perf_event_paranoid is 2: run as root, or `sudo sysctl" in line for line in said)
    assert [line for line in said if "flushes will not be recorded" in line] == said[-2:-1]
    assert [lack.stops for lack in lacks(user)][-2:] == [False, False]


def test_a_user_with_the_capability_or_an_open_system_may(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_perf(tmp_path, monkeypatch)
    user = Host(host.tracefs, host.paranoid, host.status, 1000, "x86_64", "6.0-test")
    assert [lack.what for lack in lacks(user)] == ["perf_event_paranoid is 2"]
    host.status.write_text(f"CapEff:\t{1 << 38:016x}\n", encoding="ascii")
    assert lacks(user) == []
    host.status.write_text("CapEff:\t0000000000000000\n", encoding="ascii")
    host.paranoid.write_text("-1\n", encoding="ascii")
    assert lacks(user) == []


def test_no_tracefs_and_a_perf_of_another_kernel(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_perf(tmp_path, monkeypatch, version_status=2)
    nowhere = Host((tmp_path / "none",), host.paranoid, host.status, 0, "x86_64", "6.0-test")
    assert [lack.what for lack in lacks(nowhere)] == [f"perf ({tmp_path}/tools/perf)", "tracefs"]
    with pytest.raises(LacksError, match="not mounted; `mount -t tracefs nodev"):
        record(tmp_path / "x.tlbr", seconds=1, host=nowhere)


def kept(text: str, root: int | None) -> tuple[str, Kept]:
    counts = Kept()
    return "".join(kept_lines(text.splitlines(keepends=True), root, counts)), counts


def test_of_a_command_its_tasks_and_whom_they_interrupt_are_kept() -> None:
    text, counts = kept(TEXT.replace("PID", "901"), 901)
    times = [int(line.partition("1.0000000")[2][:2]) for line in text.splitlines()]
    # Not: others' flushes and faults, task switches, who was interrupted by others, a later task of the same number.
    assert times == [2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 15, 16]
    assert (counts.nr_kept, counts.nr_of_others) == (12, 4)
    assert "filename=m pid" in text
    everybody, counts = kept(TEXT.replace("PID", "901"), None)
    assert (len(everybody.splitlines()), counts.nr_of_others) == (16, 0)


def test_callers_go_with_their_event_and_lose_their_folders() -> None:
    chain = "\tffffffff821ef81a do_syscall_64 ([kernel.kallsyms])\n\t   1200 work (/home/x/bin/m)\n\n"
    lines = TEXT.replace("PID", "901").splitlines(keepends=True)
    # What stands at the end of events without a chain, without and with the kernel's symbols as a file.
    places = (" ffffffff821facd8 __schedule ([kernel.kallsyms])\n", " ffffffff821facd8 __schedule (/boot/vmlinux-6)\n")
    with_chains = "".join(
        f"{line}{chain}" if "sys_enter" in line or "page_fault" in line else line.rstrip("\n") + places[number % 2]
        for number, line in enumerate(lines)
    )
    text, counts = kept(with_chains, 901)
    assert (counts.nr_kept, counts.nr_of_others) == (12, 4)
    assert (
        text.replace("\tffffffff821ef81a do_syscall_64 ([kernel.kallsyms])\n\t   1200 work (m)\n", "")
        == (kept("".join(lines), 901)[0])
    )
    assert text.count("work (m)") == 3


def test_callers_are_asked_for_and_become_call_sites(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = "\t   1200 munmap (/lib/libc.so.6)\n\t 0 [unknown] ([unknown])\n\t   1300 work (/home/x/m)\n\n"
    text = "".join(line + (chain if "NR 11 (" in line else "") for line in TEXT.splitlines(keepends=True))
    log = fake_perf(tmp_path, monkeypatch, text=text)
    script = f"echo $$ > {tmp_path}/number"
    record(tmp_path / "m.tlbr", command=["sh", "-c", script], host=host, callers="fp")
    arguments = log.read_text(encoding="utf-8").splitlines()
    assert "raw_syscalls:sys_enter/call-graph=fp/" in arguments
    assert TRUTH in arguments
    found = recorded(recordings.load(tmp_path / "m.tlbr"))
    assert found is not None
    assert found.sites == ["munmap (libc.so.6) < work (m)"]
    record(tmp_path / "m.txt", command=["sh", "-c", script], host=host, callers="fp")
    assert "/" not in (tmp_path / "m.txt").read_text(encoding="utf-8").partition("munmap")[2].partition("work")[0]


def test_lost_events_come_after_the_first_line_and_are_counted() -> None:
    loss = "             m 1/1 [000] 1.000000000: PERF_RECORD_LOST lost 41\n"
    text, counts = kept(loss + loss + TEXT.replace("PID", "901"), 901)
    assert counts.nr_lost == 82
    assert "PERF_RECORD_LOST" not in text.splitlines()[0]
    assert text.count("PERF_RECORD_LOST") == 2


def test_a_command_is_recorded(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loss = "               m 1/1 [000] 1.000000018: PERF_RECORD_LOST lost 41\n"
    log = fake_perf(tmp_path, monkeypatch, text=TEXT + loss, lost=1)
    script = f"echo $$ > {tmp_path}/number; echo hello; exit 3"
    done = record(tmp_path / "m.tlbr", command=["sh", "-c", script], host=host)
    assert capfd.readouterr().out == "hello\n"
    assert (done.source, done.status, done.nr_lost_events, done.nr_of_others) == ("perf", 3, 41, 4)
    assert done.warnings == ("Processed 9 events and lost 1 chunks!",)
    assert repr(done) == f"<Recorded {tmp_path}/m.tlbr: 6 events, 3 flush records by perf>"
    assert done.to_rows()[0]["nr_lost_events"] == done.to_dict()["nr_lost_events"] == 41
    assert "<table" in done._repr_html_()
    arguments = log.read_text(encoding="utf-8").splitlines()
    assert arguments[:4] == ["record", "-a", "-m", "8192"]
    assert arguments[arguments.index("--") + 1] == "/bin/sh"
    recording = recordings.load(tmp_path / "m.tlbr")
    assert recording.meta["nr_lost_events"] == 41
    assert recording.meta["kernel"] == os.uname().release
    assert recording.meta["file"] == "m.tlbr"
    assert sorted(path.name for path in tmp_path.iterdir() if "record" in path.name) == []


def test_the_system_is_recorded_for_a_time_and_without_what_the_kernel_lacks(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fake_perf(tmp_path, monkeypatch)
    (tmp_path / "tracing" / "events" / TRUTH.replace(":", "/")).rmdir()
    said: list[str] = []
    done = record(tmp_path / "s.txt", seconds=0.1, host=host, say=said.append)
    arguments = log.read_text(encoding="utf-8").splitlines()
    assert arguments[-2:] == ["sleep", "0.1"]
    assert TRUTH not in arguments
    assert said == [str(lack) for lack in lacks(host)] == list(done.warnings)
    assert done.status is None
    assert (tmp_path / "s.txt").read_text(encoding="utf-8").startswith("# os release : ")


def test_what_perf_complains_of_is_one_line_and_nothing_is_left(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_perf(tmp_path, monkeypatch, fails=True)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PerfError, match=r"^perf record: Permission error mapping pages\.$"):
        record(tmp_path / "x.tlbr", command=["true"], host=host)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "log"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": []}, "found no command after --"),
        ({"command": ["true"], "seconds": 1.0}, "a command and a number of seconds"),
        ({"seconds": 0.0}, "found 0.0, expected more than 0"),
        ({"source": "strace", "seconds": 1.0}, "cannot record the whole system"),
        ({"source": "ftrace"}, "expected one of auto, perf, strace"),
        ({"command": ["true"], "callers": "gp"}, "callers: found 'gp', expected one of fp, dwarf, lbr"),
        ({"command": ["true"], "callers": "fp", "source": "strace"}, "found callers to record, expected none"),
        ({"command": ["no-such-program"]}, "no-such-program: found no such program"),
    ],
)
def test_what_cannot_be_is_told_at_once(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        record(tmp_path / "x.tlbr", **options)  # type: ignore[arg-type]  # wrong on purpose


def test_where_perf_cannot_be_had_strace_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meanwhile = "meanwhile `tlbcore record -- CMD` takes strace, which knows neither faults nor flushes\n"
    for has_strace, more in ((True, meanwhile), (False, "")):
        monkeypatch.setattr("tlbcore.cli.record.lacks", lambda: [Lack("perf", "not installed", stops=True)])
        monkeypatch.setattr("tlbcore.cli.record.has_strace", lambda found=has_strace: found)
        assert main(["record", "--check"]) == 1
        assert capsys.readouterr().out == f"{Lack('perf', 'not installed', stops=True)}\n{more}"


def test_the_command_line_needs_the_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "true"]) == 2
    assert "found 'true', expected -- before the command" in capsys.readouterr().err


#: A `perf` that says where it is, and stays there: recording until Ctrl-C, or printing for ever.
PATIENT_PERF = """#!{python}
import signal, sys
from pathlib import Path
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("perf version 6.1"); sys.exit()
if arguments[0] == "record":
    Path(arguments[arguments.index("-o") + 1]).touch()
    signal.signal(signal.SIGINT, lambda *_: sys.exit())
    Path("{sign}").touch()
    signal.pause()
Path("{sign}-script").touch()
line = Path("{text}").read_text().replace("PID", "10")
while sys.stdout.write(line) and {prints_for_ever}:
    pass
"""

RECORD = """
import sys
from pathlib import Path
from tlbcore.record import Host, record
folder = Path(sys.argv[1])
host = Host((folder / "tracing",), folder / "paranoid", folder / "status", 0, "x86_64", "6.0-test")
print(record(folder / "out" / "s.tlbr", host=host))
"""


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("prints_for_ever", [False, True])
def test_ctrl_c_ends_the_recording_and_a_second_one_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prints_for_ever: bool,  # noqa: FBT001
) -> None:
    fake_perf(tmp_path, monkeypatch)
    out, sign = tmp_path / "out", tmp_path / "sign"
    out.mkdir()
    script = PATIENT_PERF.format(
        python=sys.executable, sign=sign, text=tmp_path / "text", prints_for_ever=prints_for_ever
    )
    (tmp_path / "tools" / "perf").write_text(script, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", RECORD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(sign)
        process.send_signal(signal.SIGINT)
        wait_for(tmp_path / "sign-script")
        if prints_for_ever:
            process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=30)
    if prints_for_ever:
        assert "KeyboardInterrupt" in error
        assert list(out.iterdir()) == []
    else:
        assert "events" in said, error
        assert [path.name for path in out.iterdir()] == ["s.tlbr"]


def wait_for(sign: Path) -> None:
    """Until a file is there; the test's own time limit ends it else."""
    while not sign.exists():
        time.sleep(0.01)


def works() -> bool:
    """Whether the system's own perf can record here."""
    return not [lack for lack in lacks() if lack.stops]


with_perf = pytest.mark.skipif(not works(), reason="no perf that may record here (`tlbcore record --check`)")

WORK = """
import mmap, threading
stop = threading.Event()
thread = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]); thread.start()
for _ in range(200):
    area = mmap.mmap(-1, 65536); area[:] = bytes(65536); area.close()
stop.set(); thread.join()
"""


@with_perf
def test_for_real_a_command_gives_a_recording_that_the_model_agrees_with(tmp_path: Path) -> None:
    done = record(tmp_path / "w.tlbr", command=[sys.executable, "-c", WORK])
    assert (done.source, done.status) == ("perf", 0)
    recording = recordings.load(tmp_path / "w.tlbr")
    calls = recording.column("nr")
    assert int((calls == 11).sum()) >= 200
    assert {comm for _, _, comm in recording.tasks} & {"python", Path(sys.executable).name[:15]}
    if done.nr_lost_events == 0 and done.nr_flushes:
        assert validate(recording, None, machines.get("default").config()).score > 0.9


@with_perf
def test_for_real_ctrl_c_ends_the_recording_of_the_system(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tlbcore", "record", "-o", str(tmp_path / "s.tlbr")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob(".tlbcore-record-*/raw.perf")):
        time.sleep(0.01)
    for _ in range(50):  # `perf` has opened its file; what comes now it sees sooner or later
        subprocess.run(["true"], check=True)  # noqa: S607
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "events" in out
    assert recordings.load(tmp_path / "s.tlbr").nr_events > 0
