"""The documentation shows what happens: every command and program in it runs, and prints what the page says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shown_output import PAGES, ROOT, Example, can_record, examples, workplace
from tlbcore import races
from tlbcore.schemes import SCHEMES

CHECKED = (*PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md", "BENCHMARKING.md", "data/README.md")


def hold(page: str, folder: Path, *, recorded: bool) -> None:
    """Run what a page shows, in its order, and hold what comes out against it."""
    for example in examples(page):
        if example.is_recorded is recorded:
            output = example.run(folder)
            assert example.matches(output), (
                f"{page}:{example.line}: `python tools/shown_output.py` writes what is printed now:\n{output}"
            )


def test_what_was_recorded_is_one_recording() -> None:
    """Numbers of what is recorded are not compared with what comes out; they have to agree with each other."""
    page = (ROOT / "docs" / "first-recording.md").read_text(encoding="utf-8")

    def numbers(pattern: str) -> list[int]:
        found = re.search(pattern, page)
        assert found, pattern
        return [int(group.replace(" ", "")) for group in found.groups()]

    matched, missed = numbers(r"matched (\d+), missed (\d+)")
    flushes, interruptions = numbers(r"w\.tlbr: ([\d ]+) flushes \(recorded\),\n([\d ]+) interruptions")
    (records,) = numbers(r"([\d ]+) flush records")
    assert flushes == matched + missed
    assert flushes + interruptions <= records


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)])
def test_what_a_page_shows_is_what_comes_out(page: str, tmp_path: Path) -> None:
    if any(re.search("arrow|parquet", example.source) for example in examples(page)):
        pytest.importorskip("pyarrow")
    hold(page, workplace(tmp_path), recorded=False)


@pytest.mark.skipif(not can_record(), reason="no perf that may record here (`tlbcore record --check`)")
@pytest.mark.parametrize("page", [page for page in PAGES if any(example.is_recorded for example in examples(page))])
def test_what_a_page_records_is_what_is_recorded(page: str, tmp_path: Path) -> None:
    hold(page, workplace(tmp_path), recorded=True)


def test_the_readme_shows_the_demo_and_the_example() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(DEMO_\w+) := (.*)$", makefile, re.MULTILINE))
    recording, kernels = variables["DEMO_RECORDING"], variables["DEMO_KERNELS"].split()
    shown = [example.source for example in examples("README.md")]
    assert f"tlbcore compare {recording} {' '.join(f'--kernel {kernel}' for kernel in kernels)}" in shown
    assert f"tlbcore validate {recording} --kernel linux-6.18" in shown
    assert (ROOT / "examples" / "flush_per_table.py").read_text(encoding="utf-8") in shown


@pytest.mark.parametrize("page", CHECKED)
def test_every_path_on_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    named = re.findall(r"`((?:python|rust|docs|tests|tools|data|examples|benches)/[\w./-]*)`", text)
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_code_that_is_not_run_stands_in_an_example_that_is(page: str) -> None:
    programs = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))]
    for code in re.findall(r"^```py\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        assert any(code in program for program in programs), code


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/schemes/")])
def test_a_scheme_page_has_its_parts_and_names_races_that_there_are(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Provenance",
        "Batching rule",
        "What it cannot do",
        "Steps",
        "Invariant",
        "Costs",
        "Known races",
    ]
    covered, _, uncovered = text.partition("## Known races")[2].partition("Not covered:")
    races_named = re.compile(r"\b(?:[RM]\d+[a-c]?)\b")
    assert set(races_named.findall(uncovered)) <= set(races.UNCOVERED)
    assert set(races_named.findall(covered)) <= {*races.RACES, *races.UNCOVERED}


def test_each_scheme_has_a_page() -> None:
    titles = {(ROOT / page).read_text(encoding="utf-8").splitlines()[0] for page in PAGES if "/schemes/" in page}
    assert titles == {f"# {name}" for name in SCHEMES}


def example(shown: str) -> Example:
    return Example("page.md", 1, "tlbcore", is_program=False, shown=tuple(shown.splitlines()), span=None)


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nb\nc\n", False),
        ("a\n...", "a\nb\nc\n", True),
        ("a\n...\nc", "a\nc\n", True),
        ("a\n...\nc", "a\nb\nd\n", False),
        ("a ... c", "a bb c\n", True),
        ("a ... c", "a bb d\n", False),
    ],
)
def test_a_shown_output_is_told_from_another(shown: str, output: str, expected: bool) -> None:  # noqa: FBT001
    assert example(shown).matches(output) is expected


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        ("w: 1 events, 0.5 s", "w: 15 618 events, 12.25 s\n", True),
        ("a      1 ratio\n-----  -", "a  12 345 ratio\n-------  ----\n", True),
        ("w: 1 events", "w: no events\n", False),
        ("a  1\nb  2", "a  1\n", False),
    ],
)
def test_of_what_is_recorded_the_numbers_may_differ(shown: str, output: str, expected: bool) -> None:  # noqa: FBT001
    assert replace(example(shown), is_recorded=True).matches(output) is expected


def test_what_is_written_into_a_page_matches() -> None:
    output = "head 1\nx\nmiddle 7\ny\nlast 3\n"
    stale = example("head 0\n...\nmiddle 6\n...\nlast 0")
    assert not stale.matches(output)
    assert stale.refreshed(output) == ["head 1", "...", "middle 7", "...", "last 3"]
    assert example("old").refreshed(output) == output.splitlines()


def test_another_program_is_refused() -> None:
    with pytest.raises(ValueError, match="found the command rm, expected tlbcore or python"):
        Example("page.md", 1, "rm x", is_program=False, shown=(), span=None).run(ROOT)
