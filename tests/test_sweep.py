"""Sweeps: every combination, the same for any executor, failures beside the rest, nothing half-written."""

import csv
import json
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import tlbcore
from given_data import LAB, RECORDINGS, ROOT
from tlbcore import InputError, ProgramError
from tlbcore.cli.main import main
from tlbcore.sweep import Sweep

MICRO, GCC = RECORDINGS[3], RECORDINGS[1]
KERNELS = ["linux-5.10", "linux-6.18"]
MACHINES = ["zen4_genoa", "skylake_sp:invlpg_ns=80"]


def swept(executor: Executor | None = None) -> Sweep:
    return tlbcore.sweep([MICRO, LAB[0]], KERNELS, MACHINES, executor=executor)


def test_every_combination_in_the_order_asked_for() -> None:
    found = swept()
    assert [(point.recording, point.machine, point.kernel) for point in found.points] == [
        (str(path), machine, kernel) for path in (MICRO, LAB[0]) for machine in MACHINES for kernel in KERNELS
    ]
    assert found.failures == ()


def test_a_point_is_what_compare_says() -> None:
    found = swept()
    for path in (MICRO, LAB[0]):
        for machine in MACHINES:
            comparison = tlbcore.compare(path, KERNELS, machine)
            points = [p for p in found.points if (p.recording, p.machine) == (str(path), machine)]
            for point, replayed in zip(points, comparison.replays, strict=True):
                assert point.counters == replayed.counters
                assert point.by_operation == replayed.by_operation
                cost = replayed.cost()
                assert cost is not None
                assert point.cost_ns["total_ns"] == cost.total_ns


def test_threads_and_processes_give_the_same() -> None:
    plain = swept().to_dict()
    with ThreadPoolExecutor(4) as threads:
        assert swept(threads).to_dict() == plain
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        assert swept(processes).to_dict() == plain


@pytest.mark.filterwarnings("default")  # those of the cluster are not ours
def test_dask_gives_the_same() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as client:
        assert swept(client.get_executor()).to_dict() == swept().to_dict()


def test_what_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tlbr"
    bad.write_bytes(b"nonsense")
    found = tlbcore.sweep([bad, tmp_path / "none.tlbr", MICRO], ["linux-6.18"])
    assert [point.recording for point in found.points] == [str(MICRO)]
    assert [failure.message.startswith(f"{failure.recording}: ") for failure in found.failures] == [True, True]


def test_a_kernel_that_cannot_run_is_refused_before_anything_runs() -> None:
    from tlbcore import kernels, steps  # noqa: PLC0415 - the step language is for this test only
    from tlbcore.schemes import MmuGather  # noqa: PLC0415

    class Odd(MmuGather):
        """Ends a gather that it never opened."""

        def munmap(self) -> list[steps.Step]:
            return [steps.tlb_finish_mmu()]

    with pytest.raises(ProgramError, match="odd:munmap"):
        tlbcore.sweep([MICRO], [kernels.get("linux-6.18").derive("odd", munmap=Odd())])


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_reads_a_file_and_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "mine.py").write_text(
        'from tlbcore import kernels\nKERNEL = kernels.get("linux-6.18").derive("mine")\n', encoding="utf-8"
    )
    path = sweep_file(
        tmp_path,
        'recordings = ["data/recordings/m*.zst"]\nkernels = ["linux-5.10", "mine.py"]\nmachines = ["default"]\n',
    )
    out = tmp_path / "out.csv"
    assert main(["sweep", str(path), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "micro.perf.txt.zst  default  mine" in text
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kernel"] for row in rows] == ["linux-5.10", "mine"]
    assert int(rows[1]["nr_flush_requests"]) == tlbcore.replay(MICRO, "linux-6.18").counters["nr_flush_requests"]
    assert main(["sweep", str(path), "--json", "--executor", "serial"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [point["kernel"] for point in plain["points"]] == ["linux-5.10", "mine"]


def test_a_table_as_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = sweep_file(tmp_path, f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n')
    out = tmp_path / "out.parquet"
    assert main(["sweep", str(path), "-o", str(out)]) == 0
    assert parquet.read_table(out).to_pylist() == tlbcore.sweep([MICRO], ["linux-6.18"]).to_rows()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("kernels = 3\n", [], "kernels: found 3, expected a list of texts"),
        ('kernels = ["linux-6.18"]\n', [], "found no recordings, expected a list of at least one"),
        ('recording = ["x"]\n', [], "did you mean recordings?"),
        ("= 3", [], "found no TOML"),
        ('recordings = ["*.none"]\nkernels = ["linux-6.18"]\n', [], "found no file for *.none"),
        (f'recordings = ["{MICRO}"]\nkernels = ["linux-6.81"]\n', [], "did you mean linux-6.1"),
        (f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n', ["--executor", "thread"], "did you mean threads?"),
        (f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n', ["--workers", "0"], "--workers: found 0"),
        (
            f'recordings = ["{MICRO}"]\nkernels = ["linux-6.18"]\n',
            ["-o", "out.txt"],
            "expected .parquet or .arrow or .csv",
        ),
    ],
)
def test_bad_input(
    text: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep_file(tmp_path, text)
    assert main(["sweep", str(path), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_recording_that_fails_makes_the_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(tmp_path, f'recordings = ["none.tlbr", "{MICRO}"]\nkernels = ["linux-6.18"]\n')
    assert main(["sweep", str(path)]) == 2
    out, err = capsys.readouterr()
    assert "micro.perf.txt.zst" in out
    assert err.count("tlbcore: error: ") == 1


def test_names_instead_of_lists_are_refused() -> None:
    with pytest.raises(InputError, match="recordings: found the text"):
        tlbcore.sweep(str(MICRO), ["linux-6.18"])
    with pytest.raises(InputError, match="kernels: found none"):
        tlbcore.sweep([MICRO], [])
