"""Results: every one has a plain structure that is JSON, a table, one line, and something for a notebook."""

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

import tlbcore
from given_data import RECORDINGS, ROOT
from tlbcore import InputError, Result, plot, races
from tlbcore.cli.main import main
from tlbcore.compare import Comparison
from tlbcore.report.html import html_table

GCC, MICRO = RECORDINGS[1], RECORDINGS[3]
LITMUS = ROOT / "litmus" / "dirty-pte" / "3-last-mapping.litmus"
FINDS: dict[str, Any] = {"operations": ["madvise_dontneed", "page_mkclean"], "users": 1, "pages": 1, "faults": 0}


def all_results() -> dict[str, Result]:
    return {
        "replay": tlbcore.replay(MICRO, "linux-6.18"),
        "compare": tlbcore.compare(MICRO, ["linux-5.10", "linux-6.18"]),
        "validate": tlbcore.validate(MICRO),
        "validate_folder": tlbcore.validate_folder([MICRO]),
        "check": tlbcore.check("linux-5.10", ["munmap", "page_mkclean"]),
        "safe": tlbcore.check("linux-6.18", ["munmap", "page_mkclean"]),
        "hunt": tlbcore.hunt("linux-5.10", **FINDS),
        "check_litmus": tlbcore.check_litmus(LITMUS),
        "mutate": tlbcore.mutate("per-table", operations=["mremap"], steps=["flush_tlb_range"]),
        "sweep": tlbcore.sweep([MICRO], ["linux-6.18"]),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return all_results()


class Cells(HTMLParser):
    """Counts the tags of a page and keeps the text of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102 - HTMLParser has it
        assert {name for name, _ in attrs} <= {"style"}, "nothing that runs or is fetched"
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:  # noqa: D102 - HTMLParser has it
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:  # noqa: D102 - HTMLParser has it
        self.texts.append(data)


def test_each_is_a_result_and_says_so(results: dict[str, Result]) -> None:
    for name, result in results.items():
        assert isinstance(result, Result), name
        line = repr(result)
        assert line == f"<{type(result).__name__} {result.headline()}>"
        assert "\n" not in line
        assert len(line) < 300


def test_to_dict_is_json(results: dict[str, Result]) -> None:
    for result in results.values():
        plain = result.to_dict()
        again = json.loads(json.dumps(plain))
        assert again.keys() == plain.keys()


def test_rows_have_the_same_keys_and_flat_values(results: dict[str, Result]) -> None:
    for name, result in results.items():
        rows = result.to_rows()
        assert rows or name == "safe"
        for row in rows:
            assert row.keys() == rows[0].keys(), name
            assert all(value is None or isinstance(value, str | int | float) for value in row.values()), name


def test_arrow_has_the_rows(results: dict[str, Result]) -> None:
    pytest.importorskip("pyarrow")
    for result in results.values():
        assert result.to_arrow().to_pylist() == result.to_rows()
    comparison = results["compare"]
    assert isinstance(comparison, Comparison)
    by_operation = comparison.to_arrow(by="operation")
    assert by_operation.column("kernel").unique().to_pylist() == ["linux-5.10", "linux-6.18"]
    flushes = sum(by_operation.column("nr_flush_requests").to_pylist())
    assert flushes == sum(replayed.counters["nr_flush_requests"] for replayed in comparison.replays)


def test_a_notebook_gets_a_table(results: dict[str, Result]) -> None:
    for name, result in results.items():
        cells = Cells()
        cells.feed(result._repr_html_())
        assert cells.open == []
        assert result.headline().split(" (")[0] in "".join(cells.texts), name
        if name not in {"safe", "check", "check_litmus"}:
            assert cells.rows == len(result.table()[1]) + 1


def test_a_notebook_shows_a_counterexample_in_columns() -> None:
    verdict = tlbcore.check("linux-5.10", ["munmap", "page_mkclean"])
    cells = Cells()
    cells.feed(verdict._repr_html_())
    assert [text for text in cells.texts if text.startswith("CPU")] == [
        "CPU0 (munmap)",
        "CPU1 (page_mkclean)",
        "CPU2 (user 0)",
    ]
    assert cells.rows == 1 + len(verdict.counterexample) + len(verdict.violated)


@pytest.mark.parametrize("what", ["kernel", "machine", "race"])
def test_a_notebook_gets_a_table_of_what_is_no_result(what: str) -> None:
    kernel, machine, race = tlbcore.kernels.get("consolidated"), tlbcore.machines.get("zen4_genoa"), races.get("R04")
    parts = len(kernel.switches) + len(kernel.constants) + len(kernel.schemes)
    cases: dict[str, tuple[Any, int, set[str]]] = {
        "kernel": (kernel, parts, {"switches.pending", "table", "programs.munmap", "Consolidated"}),
        "machine": (machine, len(machine.values), {"l1_4k", "72x72", "verified-dump"}),
        "race": (race, len(race.interleaving), {race.interleaving[0], "4"}),
    }
    shown, rows, words = cases[what]
    cells = Cells()
    cells.feed(shown._repr_html_())
    assert cells.open == []
    assert cells.rows == rows + 1
    assert words <= set(cells.texts)


def test_what_a_page_shows_is_escaped() -> None:
    shown = html_table("a & b", ["<script>"], [["1 < 2"]])
    assert "<script>" not in shown
    assert "a &amp; b" in shown


def test_without_an_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = tlbcore.compare(MICRO, ["linux-6.18"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'tlbcore\[arrow\]'"):
        comparison.to_arrow()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'tlbcore\[plot\]'"):
        plot.plot_comparison(comparison)


def test_plots_draw_what_was_counted() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    comparison = tlbcore.compare(GCC, ["linux-5.10", "linux-6.18"])
    wanted = [replayed.counters["nr_ipis"] for replayed in comparison.replays]
    bars: dict[float, float] = {}
    drawn: Any = plot.plot_comparison(comparison, "nr_ipis")
    for bar in drawn.patches:
        bars[bar.get_y()] = bars.get(bar.get_y(), 0) + bar.get_width()
    assert [bars[y] for y in sorted(bars)] == wanted
    drawn = plot.plot_timeline(comparison.replays)
    assert [int(step.get_data().values.sum()) for step in drawn.patches] == [
        replayed.counters["nr_flush_requests"] for replayed in comparison.replays
    ]
    swept = tlbcore.sweep([GCC], ["linux-5.10", "linux-6.18"])
    drawn = plot.plot_sweep(swept, "nr_ipis")
    ratios = [bar.get_width() for bar in drawn.patches]
    assert ratios == [1.0, wanted[1] / wanted[0]]
    with pytest.raises(InputError, match="counter: found 'nr_ipi', expected one of "):
        plot.plot_comparison(comparison, "nr_ipi")
    matplotlib.pyplot.close("all")


def test_names_and_paths_are_as_good_as_objects() -> None:
    by_name = tlbcore.compare(str(MICRO), ["linux-6.18"], "zen4_genoa")
    by_object = tlbcore.compare(
        tlbcore.load(MICRO), [tlbcore.kernels.get("linux-6.18")], tlbcore.machines.get("zen4_genoa")
    )
    assert by_name.to_dict() == by_object.to_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tlbcore.check("linux-6.18", ["munmpa"]), "did you mean munmap?"),
        (lambda: tlbcore.check("linux-6.18", "munmap"), "found the text 'munmap', expected a list"),
        (lambda: tlbcore.check("linux-6.18", ["munmap"], invariants=["I44"]), "did you mean I4?"),
        (lambda: tlbcore.compare(MICRO, "linux-6.18"), "found the text 'linux-6.18', expected a list"),
        (lambda: tlbcore.compare(MICRO, ["linux-6.81"]), "did you mean linux-6.1"),
        (lambda: tlbcore.compare(MICRO, ["linux-6.18"], "skylke"), "did you mean skylake_sp?"),
        (lambda: tlbcore.compare(MICRO, ["linux-6.18"]).to_rows(by="thread"), "expected kernel or operation"),
        (lambda: tlbcore.hunt("linux-6.18", kinds=["fil"]), "did you mean file?"),
        (lambda: races.get("R99"), "race: found R99, expected one of "),
    ],
)
def test_a_slip_gets_the_nearest_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        call()
    assert message in str(raised.value)


def test_a_verdict_is_still_a_plain_value() -> None:
    first, second = (tlbcore.check("linux-6.18", ["munmap"]) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)


def test_races_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "r9", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [race["id"] for race in plain] == ["R09a", "R09b"]
    for race in plain:
        assert race["as_documented"]
        assert race["found"]["violated"] == [race["invariant"]]
        assert race["mended"]["safe"]
    assert main(["races", "R29", "--json"]) == 0
    (uncovered,) = json.loads(capsys.readouterr().out)
    assert (uncovered["covered"], uncovered["reason"]) == (False, races.UNCOVERED["R29"].reason)
