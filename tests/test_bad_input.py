"""Bad input: one line on standard error that says where, what was found and what was expected; exit 2; nothing left."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from given_data import LAB, RECORDINGS, SCENARIOS, load
from tlbcore.cli.main import main

MICRO, APACHE = RECORDINGS[3], RECORDINGS[0]
EXPECTED = "expected a recording (.tlbr), perf script text, lab records (.jsonl) or a scenario (.scn)"


def refused(argv: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line, without its beginning, of a command that must fail."""
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tlbcore: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("tlbcore: error: ").rstrip("\n")


@pytest.fixture
def tlbr(tmp_path: Path) -> Path:
    """A recording in our own format."""
    path = tmp_path / "whole.tlbr"
    load(LAB[0]).save(path)
    return path


@pytest.mark.parametrize("command", ["validate", "compare", "import"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"line 1: found an empty file, {EXPECTED}"),
        (b"\n \n", f"line 1: found only comments and blank lines, {EXPECTED}"),
        (b"hello world\n", f"line 1: found `hello world`, {EXPECTED}"),
        (b"\n# a comment\n\nhello world\nand more\n", f"line 4: found `hello world`, {EXPECTED}"),
        (b"\n# a comment\n", f"line 1: found only comments and blank lines, {EXPECTED}"),
        (bytes(range(256)) * 8, EXPECTED),
        (b"\x28\xb5\x2f\xfd", "F: "),
        (b"\x1f\x8b\x08", "F: "),
        (MICRO.read_bytes()[:20_000], "F: "),
        (LAB[0].read_bytes()[:1000], "F: "),
        (gzip.compress(b"nothing that is known\n"), "found `nothing that is known`"),
        (b'{"no": "record"}\n', "F: line 1: found "),
    ],
    ids=[
        "empty",
        "blank",
        "words",
        "later",
        "comments",
        "bytes",
        "zst-head",
        "gz-head",
        "zst-cut",
        "gz-cut",
        "gz-words",
        "json",
    ],
)
def test_what_is_no_recording(
    command: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "F"
    path.write_bytes(content)
    line = refused([command, path], capsys).replace(str(path), "F")
    assert line.startswith("F: ")
    assert message in line


@pytest.mark.parametrize("command", ["validate", "compare", "import"])
def test_what_cannot_be_read(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.tlbr"
    assert refused([command, missing], capsys) == f"{missing}: No such file or directory"
    if command != "validate":  # takes folders
        assert refused([command, tmp_path], capsys) == f"{tmp_path}: Is a directory"


@pytest.mark.parametrize("part", [0.0001, 0.01, 0.2, 0.5, 0.9, 0.9999])
def test_a_truncated_recording(part: float, tlbr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tlbr.read_bytes()
    tlbr.write_bytes(whole[: max(int(len(whole) * part), 1)])
    assert refused(["validate", tlbr], capsys).startswith(f"{tlbr}: ")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, ord("X"), "line 1: found `XLBCREC"),
        (8, 9, "byte 8: found version 9, expected version 2"),
        (30, None, "byte 16: found checksum 0x"),
        (-1, None, "found checksum 0x"),
    ],
    ids=["magic", "version", "head", "column"],
)
def test_a_damaged_recording(
    at: int, value: int | None, message: str, tlbr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(tlbr.read_bytes())
    content[at] = content[at] ^ 1 if value is None else value
    tlbr.write_bytes(content)
    line = refused(["validate", tlbr], capsys)
    assert line.startswith(f"{tlbr}: ")
    assert message in line


def test_a_broken_line_of_perf_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "m     1/1     [000]     1.000000000:     raw_syscalls:sys_exit: NR 11 = 0\n"
    path = tmp_path / "perf.txt"
    path.write_text(good * 4 + good.replace("= 0", "= zero") + good, encoding="utf-8")
    line = refused(["import", path], capsys)
    assert line.startswith(f"{path}: line 5: found `m ")
    assert line.endswith("expected `NR n = result`")


@pytest.mark.parametrize("cpu", [8192, 70_000])
def test_a_cpu_that_cannot_be_names_its_line(cpu: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "m     1/1     [8191]     1.000000000:     raw_syscalls:sys_exit: NR 11 = 0\n"
    path = tmp_path / "perf.txt"
    path.write_text(good + good.replace("8191", str(cpu)), encoding="utf-8")
    line = refused(["import", path], capsys)
    assert line.startswith(f"{path}: line 2: found `m ")
    assert line.endswith("expected a CPU below 8192")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["check", "linux-6.18", "--op", "munmap", "-o", "x.pdf"],
            "x.pdf: found a name that ends in .pdf, expected .md",
        ),
        (["check", "linux-6.18", "--op", "munmap", "-o", "no/x.svg"], "no: No such file or directory"),
        (["report", LAB[0], "-o", "no/x.html"], "no: No such file or directory"),
        (["import", LAB[0], "-o", "."], ".: Is a directory"),
        (["validate", LAB[0], "--operations", "no/x.csv"], "no: No such file or directory"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_where_nothing_can_be_written_nothing_is_begun(
    words: list[str | Path],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlbcore.recordings.load", None)  # would not be called
    assert refused(words, capsys).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "linux-6.18", "--users", "x"], "argument --users: found 'x', expected a whole number"),
        (["record", "--seconds", "y"], "argument --seconds: found 'y', expected a number"),
    ],
)
def test_a_word_for_a_number(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err.startswith(f"tlbcore: error: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--op", "munmap", "--users", "99"], "users: found 99, expected 0 to 8"),
        (["--op", "munmap", "--pages", "9"], "pages: found 9, expected 1 to 8"),
        (["--op", "munmap", "--pages", "0"], "pages: found 0, expected 1 to 8"),
        (["--op", "munmap", "--faults", "-1"], "faults: found -1, expected 0 or more"),
        (["--pairs", "--users", "99"], "users: found 99, expected at most 8"),
    ],
)
def test_sizes_that_no_scenario_has(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["check", "linux-6.18", *words], capsys).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["check", "linux-6.18", "--op", "munmap", "--states", "-1"],
            "states: found -1, expected a whole number from 0",
        ),
        (
            ["check", "linux-6.18", "--op", "munmap", "--states", "9" * 30],
            f"states: found {'9' * 30}, expected a whole",
        ),
        (["check", "linux-6.18", "--op", "munmap", "--memory", "9" * 30], "memory: found "),
        (["check", "linux-6.18", "--op", "munmap", "--depth", "-1"], "depth: found -1, expected a whole number from 0"),
        (
            ["check", "linux-6.18", "--op", "munmap", "--threads", "0"],
            "threads: found 0, expected a whole number from 1",
        ),
        (
            ["check", "linux-6.18", "--op", "munmap", "--seconds", "nan"],
            "seconds: found nan, expected seconds, 0 or more",
        ),
        (
            ["check", "linux-6.18", "--op", "munmap", "--seconds", "-1"],
            "seconds: found -1.0, expected seconds, 0 or more",
        ),
        (["check", "linux-6.18", "--pairs", "--seconds", "nan"], "seconds: found nan, expected seconds, 0 or more"),
        (["check", "linux-6.18", "--pairs", "--workers", "-3"], "workers: found -3, expected a whole number from 1"),
        (["check", "--audit", "--programs", "0"], "programs: found 0, expected a whole number from 1"),
        (["check", "--mutate", "MmuGather", "--jobs", "0"], "--jobs: found 0, expected a whole number from 1"),
        (
            ["check", "--mutate", "MmuGather", "--op", "munmpa"],
            "scheme MmuGather: found operation munmpa, expected one of",
        ),
        (
            ["compare", LAB[0], "--kernel", "linux-6.18,linux-5.10"],
            "found kernel 'linux-6.18,linux-5.10', expected one: --",
        ),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, list) else "",
)
def test_numbers_and_names_that_cannot_be(
    words: list[str | Path], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(words, capsys).startswith(message)


def test_a_part_of_a_name_gets_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["kernels", "show", "6.18"], capsys).endswith(", did you mean linux-6.18?")
    assert refused(["machines", "show", "zen2_"], capsys).endswith(", did you mean zen2_rome?")
    assert refused(["machines", "show", "zoo"], capsys).endswith("virtuoso_default")
    many = refused(["machines", "show", "zen"], capsys)
    assert many.endswith(", did you mean zen2_rome or zen3_milan or zen4_genoa or zen5_turin or zen5_granite_ridge?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--versoin"], "unrecognized arguments: --versoin, did you mean --version?"),
        (["-x"], "unrecognized arguments: -x (see"),
        (
            ["kernels", "linux-6.18"],
            "argument show: found 'linux-6.18', expected show: tlbcore kernels show linux-6.18",
        ),
        (["kernels", "shw"], "argument show: found 'shw', expected one of show, did you mean show?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_slips_before_anything_runs(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"tlbcore: error: {message}")


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["compare", "/proc/self/mem"], capsys) == "/proc/self/mem: Input/output error"


def test_a_missing_name_is_not_its_own_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link.tlbr").symlink_to(tmp_path / "nowhere")
    path = tmp_path / "link.tlbr"
    assert refused(["compare", path], capsys) == f"{path}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x = 1\ny = (", "line 2: found SyntaxError"),
        ("import tlbcore\n\ntlbcore.nothing", "line 3: found AttributeError"),
        (
            'from tlbcore import kernels\nkernels.get("linux-6.18").derive("x", constants={"gather_batc": 1})',
            "line 2: found",
        ),
    ],
)
def test_a_file_that_does_not_run_names_its_line(
    text: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    line = refused(["check", f"{path}:KERNEL", "--op", "munmap"], capsys)
    assert line.startswith(f"{path}: {place}")


def test_a_safe_verdict_says_that_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.svg"
    assert main(["check", "linux-6.18", "--op", "munmap", "-o", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"no counterexample: {path} is not written\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("linux-6.81", "did you mean linux-6.18?"),
        ("consolidated:light_gathr=on", "found switch light_gathr, "),
        ("consolidated:pending=on", "switch pending is on, expected one of table, vma, mm, off"),
        ("", "expected one of linux-5.10"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "compare"])
def test_a_kernel_that_does_not_exist(
    command: str, kernel: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused([command, LAB[0], "--kernel", kernel], capsys)


IMPOSSIBLE = '''
from tlbcore import kernels, steps
from tlbcore.scheme import Scheme

class Odd(Scheme):
    """Odd."""

    def munmap(self):
        """Odd."""
        return (steps.tlb_finish_mmu(),)

KERNEL = kernels.get("linux-6.18").derive("odd", munmap=Odd())
'''
FILES = {
    "none": ("x = 1\n", "found no kernel KERNEL, expected a Kernel, or a function that returns one"),
    "syntax": ("def broken(:\n", "mine.py"),
    "raises": ("1 / 0\n", "ZeroDivisionError"),
    "step": (
        IMPOSSIBLE,
        "munmap",
    ),
}


@pytest.mark.parametrize("command", ["validate", "compare"])
@pytest.mark.parametrize("name", FILES)
def test_a_kernel_of_one_s_own_that_cannot_be(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = FILES[name]
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    assert message in refused([command, LAB[0], "--kernel", tmp_path / "mine.py"], capsys)


@pytest.mark.parametrize("command", ["validate", "compare", "report"])
@pytest.mark.parametrize(("option", "name"), [("--kernel", "linux-6.81"), ("--machine", "zen4_genoo")])
def test_a_slip_is_told_before_a_large_file_is_read(
    command: str, option: str, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbcore.recordings.load", None)  # would not be called
    assert ", did you mean " in refused([command, LAB[0], option, name], capsys)


@pytest.mark.parametrize("command", ["validate", "compare"])
def test_a_machine_that_does_not_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean default?" in refused([command, LAB[0], "--machine", "defalt"], capsys)


def test_a_scenario_has_nothing_to_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "operations.csv"
    line = refused(["validate", SCENARIOS[0], "--operations", out], capsys)
    name = SCENARIOS[0].name
    assert line == f"{name}: found no recorded flushes, expected a recording of a real kernel"
    assert list(tmp_path.iterdir()) == []


def test_a_recording_without_flushes_has_nothing_to_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    perf, strace = tmp_path / "p.txt", tmp_path / "s.txt"
    perf.write_text("m     1/1     [000]     1.000000000:     raw_syscalls:sys_exit: NR 11 = 0\n", encoding="utf-8")
    strace.write_text('100 1000.000001 execve("/usr/bin/m", ["m"], 0x7ffc) = 0 <0.000300>\n', encoding="utf-8")
    found = "found no recorded flushes, expected"
    assert refused(["validate", perf], capsys).startswith(f"p.txt: {found} some: the event tlb:tlb_flush")
    assert refused(["validate", strace], capsys) == f"s.txt: {found} a recording by perf: strace sees no flushes"


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    commands: list[list[str | Path]] = [["validate", LAB[0], "--operations"], ["import", LAB[0], "-o"]]
    for argv in commands:
        assert str(tmp_path / "none") in refused([*argv, tmp_path / "none" / "out"], capsys)
        assert str(folder) in refused([*argv, folder], capsys)
    assert list(tmp_path.rglob("*")) == [folder], "nothing half-written"


def test_bad_input_does_not_touch_what_was_written_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, bad = tmp_path / "kept", tmp_path / "bad"
    kept.write_text("before", encoding="utf-8")
    bad.write_bytes(b"nonsense")
    refused(["import", bad, "-o", kept], capsys)
    refused(["validate", bad, "--operations", kept], capsys)
    assert kept.read_text(encoding="utf-8") == "before"
    assert sorted(tmp_path.iterdir()) == [bad, kept]


@pytest.mark.parametrize("argv", [["validate"], ["import"], ["compare", "--kernel", "nonsense"]], ids=lambda a: a[0])
def test_the_command_itself_exits_with_2(argv: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.zst"
    bad.write_bytes(MICRO.read_bytes()[:5000] if argv[0] != "compare" else LAB[0].read_bytes())
    command = [sys.executable, "-m", "tlbcore", argv[0], str(bad), *argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tlbcore: error: ")
    assert done.stderr.count("\n") == 1


def test_text_that_was_cut_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = gzip.decompress(LAB[0].read_bytes()).splitlines(keepends=True)
    lab = tmp_path / "cut.jsonl"
    lab.write_bytes(b"".join(records[:20]))
    assert refused(["validate", lab], capsys).endswith("expected a record of kind END: the records are cut")
    perf = tmp_path / "perf.txt"
    line = "m     1/1     [000]     1.000000000:     raw_syscalls:sys_exit: NR 11 = 1234\n"
    perf.write_text(line + line[:-3], encoding="utf-8")
    assert f"{perf}: line 2: found the end of the file, expected a newline" in refused(["import", perf], capsys)
