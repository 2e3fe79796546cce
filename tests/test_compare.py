"""Comparison: every kernel runs on every given file; each switch changes what it is about; the table is for people."""

import contextlib
import functools
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from given_data import LAB, RECORDINGS, SCENARIOS, load, machine, short
from tlbcore import InputError, kernels
from tlbcore.cli.main import main
from tlbcore.compare import METRICS, compare
from tlbcore.replay import replay

GIVEN = [*RECORDINGS, *LAB]


@functools.cache
def counters(path: Path, kernel: str) -> dict[str, int]:
    return replay(load(path), kernel, machine()).counters


@pytest.mark.parametrize("path", [*GIVEN, *SCENARIOS], ids=lambda path: f"{path.parent.name}-{short(path)}")
def test_every_kernel_runs_on_every_given_file(path: Path) -> None:
    comparison = compare(load(path), list(kernels.FAMILIES), machine())
    assert [replayed.kernel.name for replayed in comparison.replays] == list(kernels.FAMILIES)
    for replayed in comparison.replays:
        sums = replayed.counters
        assert replayed.result.nr_events == load(path).nr_events
        assert sums["nr_flush_requests"] == sums["nr_flush_full"] + sums["nr_flush_ranged"]
        for counter in ("nr_flush_requests", "nr_flush_remote", "nr_ipis", "nr_told_lazy", "nr_told_gone"):
            assert sums[counter] == sum(row[counter] for row in replayed.by_operation.values()), counter
        assert sums["nr_flush_remote"] <= sums["nr_flush_requests"]
        assert sums["nr_told_nothing_cached"] <= sums["nr_ipis"]


#: For each switch the given files in which it changes what is counted; those that change nothing say why.
CHANGES = {
    "mprotect_gather": ["java_g1", "c4_mprotect_alone"],
    "skip_unless_demoted": ["c4_mprotect_alone"],
    "clear_refs_gather": ["c4_clearrefs_spin1sleep1"],
    "light_gather": ["java_g1", "c4_mprotect_alone"],
    "pending": ["c4_mix_par_11"],
    "reclaim_cpumask": ["m4_random_memcg_302"],
}
CHANGES_NOTHING = {
    "dirty_helpers_gather": "wp_shared_mapping_range is an operation of graphics drivers, which no recording has",
}


def alone(switch: str) -> tuple[str, str]:
    """A switch off and on with all others as they are, on the smallest kernel in which it can act."""
    on = {s.name: s.default for s in kernels.FAMILIES["consolidated"].switches}[switch]
    needs = ",mprotect_gather=on" if switch in ("skip_unless_demoted", "light_gather") else ""
    return f"consolidated:none{needs}", f"consolidated:none{needs},{switch}={on}"


@pytest.mark.parametrize("switch", CHANGES)
def test_a_switch_alone_changes_what_is_counted(switch: str) -> None:
    off, on = alone(switch)
    for name in CHANGES[switch]:
        path = next(path for path in GIVEN if short(path) == name)
        assert counters(path, off) != counters(path, on), name
        assert counters(path, "consolidated") != counters(path, f"consolidated:{switch}=off"), name


@pytest.mark.parametrize("switch", CHANGES_NOTHING)
def test_a_switch_that_a_replay_cannot_see_changes_nothing(switch: str) -> None:
    off, on = alone(switch)
    for path in GIVEN:
        assert counters(path, off) == counters(path, on), short(path)


def test_a_light_gather_is_counted_instead_of_one_with_a_page_list() -> None:
    path = next(path for path in LAB if short(path) == "c4_mprotect_alone")
    light, heavy = counters(path, "consolidated"), counters(path, "consolidated:light_gather=off")
    assert heavy["nr_light_gathers"] == 0 < light["nr_light_gathers"]
    assert light["nr_gathers"] + light["nr_light_gathers"] == heavy["nr_gathers"]


def test_ratios_are_to_the_first_kernel() -> None:
    comparison = compare(load(RECORDINGS[0]), ["linux-6.18", "linux-5.10"], machine())
    first, second = (replayed.counters for replayed in comparison.replays)
    for counter, _ in METRICS:
        expected = second[counter] / first[counter] if first[counter] else None
        assert comparison.ratio(counter, 1) == expected
        assert comparison.ratio(counter, 0) == (1.0 if first[counter] else None)
    assert comparison.to_dict()["kernels"][1]["ratios"]["nr_ipis"] == comparison.ratio("nr_ipis", 1)


def test_no_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="kernels: found none, expected at least one"):
        compare(load(LAB[0]), [], machine())


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(LAB[0]), "--kernel", "linux-6.1", "--kernel", "consolidated", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [kernel["kernel"] for kernel in printed["kernels"]] == ["linux-6.1", "consolidated"]
    assert printed["kernels"][1]["counters"] == counters(LAB[0], "consolidated")
    assert printed["recording"] == LAB[0].name


def test_the_table_is_plain_and_names_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(RECORDINGS[0])]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    values = counters(RECORDINGS[0], "linux-5.10")
    for counter, label in METRICS:
        if values[counter]:
            row = next(line for line in text.splitlines() if line.startswith(f"{label}  "))
            assert row.removeprefix(label).strip().startswith(f"{values[counter]:,}".replace(",", " "))


def test_on_a_terminal_the_table_has_emphasis() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "tlbcore", "compare", str(LAB[0])], stdout=theirs) as process:
        os.close(theirs)
        text = io.BytesIO()
        with contextlib.suppress(OSError):  # what a terminal gives when its other side is closed
            while chunk := os.read(ours, 65536):
                text.write(chunk)
        os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[1m" in text.getvalue()
