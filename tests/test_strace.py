"""Recordings from the text of strace: its forms, what is assumed, one-line errors, and strace itself where it is installed."""

import shutil
import sys
from pathlib import Path

import pytest

from tlbcore import InputError, machines, recordings
from tlbcore.record import lacks, record
from tlbcore.replay import replay
from tlbcore.strace.arguments import flags_of, numbers

THREADS = """\
100 1000.000001 execve("/usr/bin/m", ["m", "secret"], 0x7ffc /* 3 vars */) = 0 <0.000300>
100 1000.001000 mmap(NULL, 16384, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000 <0.000010>
100 1000.002000 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, stack=0x7f00}, 88 <unfinished ...>
101 1000.002100 mprotect(0x7f0000000000, 4096, PROT_READ <unfinished ...>
100 1000.002200 <... clone3 resumed> => {parent_tid=[101]}) = 101 <0.000200>
101 1000.002300 <... mprotect resumed>) = 0 <0.000200>
101 1000.003000 --- SIGCHLD {si_signo=SIGCHLD} ---
101 1000.004000 munmap(0x7f0000000000, 16384) = 0 <0.000020>
101 1000.005000 exit(0) = ?
101 1000.005100 +++ exited with 0 +++
100 1000.006000 write(1, "x", 1) = 1 <0.000001>
100 1000.007000 madvise(0x7f0000000000, 4096, MADV_DONTNEED) = -1 ENOMEM (Cannot allocate memory) <0.000003>
100 1000.008000 exit_group(0) = ?
100 1000.009000 +++ exited with 0 +++
"""


def load(folder: Path, text: str, name: str = "m.strace") -> recordings.Recording:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return recordings.load(path)


def kinds(recording: recordings.Recording) -> list[str]:
    names = {int(number): name for number, name in recording.event_kinds()}
    return [names[int(number)] for number in recording.column("kind")]


def test_calls_threads_and_ends_become_events(tmp_path: Path) -> None:
    recording = load(tmp_path, THREADS)
    assert recording.meta["source"] == "strace"
    assert recording.tasks == [(100, 100, "m"), (101, 100, "m")]
    found = kinds(recording)
    assert [kind for kind in found if kind != "fault"] == [
        *("exec", "mmap", "fork", "mprotect", "munmap", "exit_call", "exit", "madvise", "exit_group", "exit"),
    ]
    assert found.count("fault") == 4
    protect = found.index("mprotect")
    assert int(recording.column("end_ns")[protect] - recording.column("time_ns")[protect]) == 200_001
    assert recording.column("a2")[protect] == 1
    assert recording.column("ret")[found.index("madvise")] == -12
    assert recording.column("flags")[found.index("fork")] & 16, "a thread"
    assert set(recording.column("cpu").tolist()) == {0, 1}


def test_what_is_assumed_is_counted(tmp_path: Path) -> None:
    big = THREADS.replace("16384, PROT", "8388608, PROT")
    counts = load(tmp_path, big).meta["counts"]
    assert counts["pages_taken_as_touched"] == 512
    assert counts["pages_taken_as_not_touched"] == 2048 - 512
    assert counts["signals_and_messages_passed_over"] == 1
    assert counts["other_calls_passed_over"] == 1
    assert "secret" not in repr(load(tmp_path, THREADS).names)


def test_the_model_flushes_for_it(tmp_path: Path) -> None:
    replayed = replay(load(tmp_path, THREADS), "linux-6.18", machines.get("default").config())
    assert replayed.by_operation["mprotect"]["nr_flush_requests"] == 1
    assert replayed.by_operation["munmap"]["nr_flush_pages"] == 4
    assert replayed.by_operation["munmap"]["nr_ipis"] == 1


def test_raw_arguments_and_other_heads_are_the_same(tmp_path: Path) -> None:
    raw = """\
[pid   100] mmap(0, 0x4000, 0x3, 0x22, 0xffffffff, 0) = 0x7f0000000000
[pid   100] munmap(0x7f0000000000, 0x4000) = 0
"""
    named = """\
100 12:00:00.000001 mmap(NULL, 16384, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
100 12:00:00.000002 munmap(0x7f0000000000, 16384) = 0
"""
    both = [load(tmp_path, text) for text in (raw, named)]
    for column in ("kind", "a0", "a1", "a2", "a3", "ret"):
        assert both[0].column(column).tolist() == both[1].column(column).tolist()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("100 1000.1 munmap(0x7f00, SOMETHING) = 0", "not 'SOMETHING'"),
        (
            "100 1000.1 what is this",
            "line 2: found `100 1000.1 what is this`, expected `[PID] [TIME] call(arguments) = result`",
        ),
    ],
)
def test_what_is_not_understood_is_one_line(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, f"100 1000.0 brk(NULL) = 0x1000\n{line}\n")
    assert str(error.value).startswith("m.strace: line 2: found `")
    assert found in str(error.value)
    assert "\n" not in str(error.value)


def test_arguments() -> None:
    assert numbers("mmap", "NULL, 8192, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_DENYWRITE, 3</lib/x.so>, 0x1000")[:6] == [
        *(0, 8192, 5, 0x802, 3, 0x1000),
    ]
    assert numbers("mremap", "0x7f00, 4096, 8192, MREMAP_MAYMOVE") == [0x7F00, 4096, 8192, 1, 0, 0]
    assert numbers("madvise", "0x7f00, 4096, 0x4 /* MADV_DONTNEED */")[2] == 4
    assert flags_of("0x1200011, 0, 0, 0x7f, 0") == 0x1200011
    assert flags_of("child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD") == 0x4100


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace is installed")
def test_for_real_a_command_is_recorded_by_strace(tmp_path: Path) -> None:
    program = "import mmap; m = mmap.mmap(-1, 65536); m[0] = 1; m.close(); raise SystemExit(3)"
    done = record(tmp_path / "p.tlbr", command=[sys.executable, "-c", program], source="strace")
    assert (done.source, done.status, done.nr_flushes) == ("strace", 3, 0)
    assert any("flushes are unknown" in warning for warning in done.warnings)
    recording = recordings.load(tmp_path / "p.tlbr")
    assert recording.meta["source"] == "strace"
    unmaps = [a1 for kind, a1 in zip(kinds(recording), recording.column("a1"), strict=True) if kind == "munmap"]
    assert 65536 in unmaps


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace is installed")
def test_without_perf_strace_steps_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strace, shell = shutil.which("strace"), shutil.which("true")
    assert strace is not None
    assert shell is not None
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "strace").symlink_to(strace)
    (tmp_path / "tools" / "true").symlink_to(shell)
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    said: list[str] = []
    done = record(tmp_path / "t.tlbr", command=["true"], say=said.append)
    assert done.source == "strace"
    assert said[-1] == "recording with strace instead"
    assert {str(lack) for lack in lacks() if lack.stops} <= set(said)
