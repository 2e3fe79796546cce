"""Things of another kind than what is taken: one line with what was found, what is expected and what may be meant."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlbcore
from given_data import RECORDINGS, ROOT
from tlbcore import InputError, export, kernels, litmus_check, machines, plot, races, recordings, schemes, sweep_file
from tlbcore.calls import ADVICE
from tlbcore.cli.main import main
from tlbcore.profile import profile
from tlbcore.report.page import write_page
from tlbcore.report.table import counted
from tlbcore.simulator import Simulator
from tlbcore.units import PAGE

MICRO = RECORDINGS[3]
# Calls that no type checker would let pass.
CALLED: Any = tlbcore
EXPORT: Any = export
ONE = np.array([4096], np.uint64)
PLOT: Any = plot
KERNEL = kernels.get("linux-6.18")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CALLED.replay(MICRO, ["linux-6.18"]), "kernel: found a list, expected a name such as "),
        (lambda: CALLED.replay(MICRO, ["linux-6.18"]), ": tlbcore.compare takes several"),
        (lambda: CALLED.replay(MICRO, None), "kernel: found None, expected"),
        (lambda: CALLED.replay(MICRO, schemes.MmuGather()), "kernel: found a MmuGather, expected"),
        (lambda: CALLED.replay(MICRO, schemes.MmuGather), "kernel: found the class MmuGather, expected"),
        (lambda: CALLED.replay([MICRO], "linux-6.18"), "recording: found a list, expected a Recording or the name"),
        (lambda: CALLED.replay([MICRO], "linux-6.18"), "tlbcore.sweep and tlbcore.validate_folder take several"),
        (lambda: CALLED.replay(MICRO, "linux-6.18", ["default"]), "machine: found a list, expected a name such as "),
        (lambda: CALLED.replay(MICRO, "linux-6.18", 3), "machine: found 3, expected"),
        (lambda: CALLED.replay("linux-6.18", str(MICRO)), "found kernel "),
        (lambda: CALLED.compare(MICRO, KERNEL), "kernels: found a Kernel, expected a list of kernels"),
        (lambda: CALLED.compare(MICRO, [machines.get("default")]), "kernel: found a Machine, expected"),
        (lambda: CALLED.validate(MICRO, ["linux-6.18"]), "kernel: found a list, expected"),
        (lambda: CALLED.validate_folder(recordings.load(MICRO)), "recordings: found a Recording, expected a list"),
        (lambda: CALLED.load(None), "recording: found None, expected the name of a file"),
        (lambda: CALLED.check(["linux-6.18"], ["munmap"]), "kernel: found a list, expected"),
        (lambda: CALLED.check("linux-6.18", [1]), "operations: found 1, expected a name such as "),
        (lambda: CALLED.hunt(3), "kernel: found 3, expected"),
        (lambda: CALLED.mutate(None), "scheme: found None, expected"),
        (lambda: CALLED.sweep([recordings.load(MICRO)], ["linux-6.18"]), "its `save` writes one"),
        (lambda: profile(MICRO, kernels="linux-6.18"), "kernels: found the text 'linux-6.18', expected a list"),
        (lambda: profile(MICRO, machines="default"), "machines: found the text 'default', expected a list"),
        (lambda: write_page(CALLED.load(MICRO), "x.html"), "profile: found a Recording, expected a Profile: "),
        (lambda: write_page(CALLED.load(MICRO), "x.html"), "tlbcore.profile.profile(RECORDING) makes one"),
        (lambda: KERNEL.derive("x", munmap=CALLED.schemes.MmuGather), "munmap: found the class MmuGather, expected"),
        (lambda: KERNEL.derive("x", munmap=CALLED.kernel.FORMAT), "tlbcore.schemes.get finds one"),
        (lambda: Simulator(kernel=CALLED.schemes.MmuGather()), "kernel: found a MmuGather, expected"),
        (lambda: Simulator(thp="alwys"), "did you mean always?"),
        (
            lambda: CALLED.check("linux-6.18", ["munmap"], kind="fil"),
            "found 'fil', expected file or anon, did you mean f",
        ),
        (
            lambda: CALLED.check("linux-6.18", ["munmap"], users="2"),
            "scenario: found the text '2', expected a whole number",
        ),
        (lambda: CALLED.check("linux-6.18", ["munmap"], engine={"generation": True}), ", did you mean generations?"),
        (
            lambda: CALLED.check("linux-6.18", ["munmap"], engine=["lazy"]),
            "engine: found a list, expected a dictionary",
        ),
        (
            lambda: CALLED.check("linux-6.18", ["munmap"], pages=["file"]),
            "pages: found the text 'file', expected a number",
        ),
        (
            lambda: CALLED.check("linux-6.18", ["munmap"], invariants="I4"),
            "invariants: found the text 'I4', expected a list",
        ),
        (lambda: CALLED.check("linux-6.18", [{"operation": "munmap", "frist": 0}]), "found 'frist', expected one of"),
        (
            lambda: CALLED.hunt("linux-6.18", operations="munmap"),
            "operations: found the text 'munmap', expected a list",
        ),
        (lambda: CALLED.hunt("linux-6.18", kinds="file"), "kinds: found the text 'file', expected a list of kinds"),
        (
            lambda: CALLED.mutate("per-table", operations="mremap"),
            "operations: found the text 'mremap', expected a list",
        ),
        (lambda: CALLED.check_litmus(None), "litmus: found None, expected the name of a file"),
        (
            lambda: CALLED.sweep([MICRO], ["linux-6.18"], executor="threads"),
            "executor: found the text 'threads', expected",
        ),
        (
            lambda: CALLED.tlb.simulate("a.raw"),
            "addresses: found the text 'a.raw', expected an array, or a list of arrays: ",
        ),
        (lambda: CALLED.tlb.simulate(ONE, page_size="3M"), "found page size '3M', expected one of 4K, 2M, 1G"),
        (
            lambda: CALLED.tlb.simulate(ONE, page_ranges=[(0, 1)]),
            "page_ranges: found (0, 1), expected (start, end, size)",
        ),
        (lambda: CALLED.tlb.simulate(ONE, threads=-1), "threads: found -1, expected a whole number from 1"),
        (lambda: CALLED.tlb.simulate(ONE, events=3), "events: found 3, expected arrays of type tlbcore.tlb.EVENT"),
        (lambda: CALLED.tlb.open_trace(None), "trace: found None, expected the name of a file"),
        (lambda: EXPORT.export(MICRO, "csv", "x", tables="events"), "tables: found the text 'events', expected a list"),
        (lambda: EXPORT.export(MICRO, "csv", "x", tables=()), "tables: found none, expected at least one"),
        (lambda: CALLED.validate(MICRO, nr_disagreements=-1), "nr_disagreements: found -1, expected a whole number"),
        (lambda: CALLED.compare(MICRO, ["linux-6.18"]).ratio("nr_ipi", 0), "did you mean nr_ipis?"),
        (
            lambda: CALLED.compare(MICRO, ["linux-6.18"]).ratio("nr_ipis", 9),
            "index: found 9, expected a whole number from 0",
        ),
        (lambda: CALLED.machines.get("default").with_cpus("3"), "nr_cpus: found the text '3', expected a whole number"),
        (lambda: Simulator(backend="cor"), "did you mean core?"),
        (lambda: Simulator(CALLED.schemes.MmuGather()), "machine: found a MmuGather, expected"),
    ],
)
def test_another_kind_of_thing(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        call()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda made: PLOT.plot_timeline(made["recording"]), "tlbcore.compare(RECORDING, kernels) makes some"),
        (lambda made: PLOT.plot_timeline([made["comparison"]]), "replays: found a Comparison, expected replays"),
        (lambda _: PLOT.plot_timeline([]), "replays: found none, expected at least one"),
        (lambda made: PLOT.plot_timeline(made["replay"], 0), "nr_bins: found 0, expected 1 or more"),
        (lambda made: PLOT.plot_comparison(made["replay"]), "comparison: found a Replay, expected a Comparison"),
        (lambda made: PLOT.plot_sweep(made["comparison"]), "sweep: found a Comparison, expected a Sweep"),
    ],
)
def test_another_thing_to_plot(call: Callable[[dict[str, Any]], object], message: str) -> None:
    pytest.importorskip("matplotlib").use("agg")
    comparison = tlbcore.compare(MICRO, ["linux-6.18"])
    made = {"recording": recordings.load(MICRO), "comparison": comparison, "replay": comparison.replays[0]}
    with pytest.raises(InputError) as raised:
        call(made)
    assert message in str(raised.value)


def test_a_timeline_of_a_comparison_is_that_of_its_replays() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    comparison = tlbcore.compare(MICRO, ["linux-5.10", "linux-6.18"])
    drawn: Any = plot.plot_timeline(comparison)
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == ["linux-5.10", "linux-6.18"]
    matplotlib.pyplot.close("all")


def test_sizes_of_pages_are_found_whatever_their_case() -> None:
    assert CALLED.tlb.simulate(ONE, page_size="2m").nr_walks == 1


def test_objects_are_taken_as_they_are() -> None:
    assert kernels.get(KERNEL) is KERNEL
    assert machines.get(machine := machines.get("default")) is machine
    assert schemes.get(scheme := schemes.MmuGather()) is scheme


def test_a_race_by_its_number() -> None:
    assert races.get("4") is races.get("r04") is races.get("R04")


def test_a_scheme_by_its_name() -> None:
    for name, scheme in schemes.SCHEMES.items():
        assert type(schemes.get(name)) is scheme
    assert type(schemes.get("mmu-gather")) is schemes.MmuGather
    with pytest.raises(InputError, match="did you mean MmuGather"):
        schemes.get("MmuGathr")
    with pytest.raises(InputError, match="race: found 4, expected a short name such as R04"):
        CALLED.races.get(4)


@pytest.mark.parametrize(
    ("folder", "name", "near", "load"),
    [
        ("data/recordings", "mikro.perf.txt.zst", "micro.perf.txt.zst", recordings.load),
        ("data/recordings", "mikro.perf.txt.zst", "micro.perf.txt.zst", lambda path: export.to_arrow(path, "events")),
        ("litmus/dirty-pte", "3-last-maping.litmus", "3-last-mapping.litmus", tlbcore.check_litmus),
        ("litmus/dirty-pte", "3-last-maping.litmus", "3-last-mapping.litmus", litmus_check.load),
        ("examples", "flush_per_tabel.py", "flush_per_table.py", lambda path: kernels.get(str(path))),
    ],
)
def test_a_missing_file_gets_the_nearest_name(
    folder: str, name: str, near: str, load: Callable[[Path], object]
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load(ROOT / folder / name)
    assert raised.value.strerror == f"No such file or directory, did you mean {near}?"
    assert str(raised.value.filename) == str(ROOT / folder / name)


def test_the_file_of_a_sweep_and_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.toml"
    recording = str(MICRO).replace("micro", "mikro")
    path.write_text(f'recordings = ["{recording}"]\nkernels = ["linux-6.18"]\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"did you mean sweep\.toml"):
        sweep_file.load(tmp_path / "swep.toml")
    assert main(["sweep", str(path)]) == 2
    assert "did you mean micro.perf.txt.zst?" in capsys.readouterr().err
    assert main(["compare", recording]) == 2
    assert capsys.readouterr().err.count("did you mean micro.perf.txt.zst?") == 1


def driven(call: Callable[[Any, int], object]) -> object:
    process = Simulator().process()
    addr = process.mmap(8 * PAGE)
    process.touch(addr, 8, write=True)
    return call(process, addr)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, a: p.madvise(a, PAGE, "dontneedd"), "found the text 'dontneedd', expected one of dontneed, "),
        (lambda p, a: p.madvise(a, PAGE, "dontneedd"), ", did you mean dontneed?"),
        (lambda p, a: p.madvise(a, PAGE, "MADV_DONTNEED"), ", did you mean dontneed?"),
        (lambda p, a: p.madvise(a, PAGE, 4), "madvise: found 4, expected one of dontneed, "),
        (lambda p, a: p.munmap(a, -PAGE), "munmap: len: found -4096, expected a whole number from 0 to 2**64 - 1"),
        (lambda p, a: p.munmap(a, 4096.0), "munmap: len: found 4096.0, expected a whole number"),
        (lambda p, _: p.munmap(1 << 70, PAGE), "munmap: addr: found 1180591620717411303424, expected a whole number"),
        (lambda p, _: p.mmap("64k"), "mmap: len: found the text '64k', expected a whole number"),
        (
            lambda p, _: p.mmap(PAGE, file="x"),
            "mmap: file: found the text 'x', expected a file that Simulator.file made",
        ),
        (lambda p, a: p.mprotect(a, PAGE, None), "prot: found None, expected letters"),
        (lambda p, _: p.thread(cpu="1"), "cpu: found the text '1', expected a whole number"),
        (lambda p, a: p.touch(a, -1), "touch: nr_pages: found -1, expected a whole number"),
        (lambda p, _: p.sim.file(-1), "file: nr_pages: found -1, expected a whole number"),
        (lambda p, _: p.sim.advance_time(-1), "advance_time: ns: found -1, expected a whole number"),
    ],
)
def test_calls_of_the_simulator(call: Callable[[Any, int], object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        driven(call)
    assert message in str(raised.value)


def test_numbers_of_numpy_are_numbers() -> None:
    driven(lambda process, addr: process.munmap(np.uint64(addr), np.int64(PAGE)))


@pytest.mark.parametrize("backend", ["core", "reference"])
def test_all_advice_is_taken(backend: str) -> None:
    """The names that a slip is held against are those that both machines know."""
    process = Simulator(backend=backend).process()
    for advice in ADVICE:
        process.madvise(process.mmap(PAGE), PAGE, advice)


def test_one_is_one() -> None:
    assert counted(1, "point") == "1 point"
    assert counted(0, "flush") == "0 flushes"
    assert counted(12345, "entry", "entries", group=" ") == "12 345 entries"
    swept = tlbcore.sweep([MICRO], ["linux-6.18"])
    assert swept.headline() == "1 point: 1 recording, 1 kernel, 1 machine"
    assert tlbcore.validate_folder([MICRO]).headline().startswith("1 recording validated: ")


def test_modules_are_there_when_they_are_asked_for() -> None:
    names = ("export", "finding", "gather", "litmus", "plot", "profile", "program", "races", "record", "report", "tlb")
    script = (
        f"import sys, tlbcore; early = [name for name in {names} if f'tlbcore.{{name}}' in sys.modules];"
        f"found = [getattr(tlbcore, name).__name__ for name in {names}];"
        f"sys.exit(early != [] or found != [f'tlbcore.{{name}}' for name in {names}])"
    )
    pytest.importorskip("matplotlib")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    with pytest.raises(AttributeError, match="module 'tlbcore' has no attribute 'comprae'"):
        _ = CALLED.comprae
