"""Counterexamples for people: each form tells every step, the states change as the steps say, and the page steps."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import tlbcore
from chromium import Chromium, find_chromium
from tlbcore import InputError, Verdict
from tlbcore.check import INVARIANTS
from tlbcore.cli.main import main
from tlbcore.races import RACES
from tlbcore.report.trace import FORMATS, trace_text
from tlbcore.report.trace.state import GROUPS, changes, states

DIRTY = ("check", "linux-5.10", "--op", "munmap", "--op", "page_mkclean")


@cache
def dirty() -> Verdict:
    return tlbcore.check("linux-5.10", ["munmap", "page_mkclean"])


def test_the_text_of_a_commit_message_fits() -> None:
    text = trace_text(dirty(), "text")
    assert max(map(len, text.splitlines()[2:])) <= 75
    assert "user store p0 through" in text


def test_states_change_as_the_steps_say() -> None:
    found = states(dirty())
    said = [changes(before, after) for before, after in pairwise(found)]
    steps = [event.text for event in dirty().counterexample]
    assert said[steps.index("pte_offset_map_lock()")] == ["page-table lock 0: CPU0 (munmap)"]
    assert said[steps.index("[TLB fill p0 W]")] == ["TLB of CPU2: empty \u2192 p0: frame 0, W"]
    assert "PTE of p0: P(0,WD) \u2192 none" in said[steps.index("ptep_get_and_clear(p0)")]
    assert "frame 0: PG_dirty: yes" in said[steps.index("folio_mark_dirty(p0)")]
    assert "frame 0: PG_dirty: no" in said[steps.index("folio_test_clear_dirty(p0)")]
    assert said[-1] == ["frame 0: data newer than storage: yes"]


def test_masks_and_locks_of_other_races_are_in_words() -> None:
    """Every variable of the shortest counterexample of every race is known by a name, not by that of the model."""
    seen = set()
    for race in RACES.values():
        verdict = race.find()
        for state in states(verdict):
            for entry in state:
                seen.add(entry.group)
                assert entry.group in GROUPS
                assert not re.search(r"\b(Thread|Ptl|Pending|FlushPending|Mapcount)\(", entry.name), entry
    assert seen == set(GROUPS)


@pytest.mark.parametrize("form", FORMATS)
def test_each_form_tells_each_step(form: str) -> None:
    text = trace_text(dirty(), form)
    plain = re.sub(r"\s+", "", re.sub(r"<[^>]*>|&lt;|[\\`]", "", text))
    for event in dirty().counterexample:
        assert re.sub(r"\s+", "", event.text) in plain
    assert re.sub(r"\s+", "", INVARIANTS["I4"]) in plain


def test_markdown_has_as_many_cells_in_each_row() -> None:
    rows = [line for line in trace_text(dirty(), "markdown").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 11 + 1
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_the_drawing_is_well_formed() -> None:
    root = ET.fromstring(trace_text(dirty(), "svg"))  # noqa: S314  # our own
    boxes = root.findall("{http://www.w3.org/2000/svg}rect")
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert len(boxes) == 1 + 11 + 1
    for box in boxes[1:]:
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    assert sum(box.attrib.get("class") == "hardware" for box in boxes) == 2


def test_a_safe_kernel_has_none() -> None:
    with pytest.raises(InputError, match="found no counterexample"):
        trace_text(tlbcore.check("linux-6.18", ["munmap", "page_mkclean"]), "svg")
    with pytest.raises(InputError, match="found the format 'pdf', expected one of text, markdown, svg, html"):
        trace_text(dirty(), "pdf")


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, begin in (("a.md", "**linux-5.10"), ("a.svg", "<svg"), ("a.html", "<!doctype"), ("a.txt", "linux-5.10")):
        assert main([*DIRTY, "-o", str(tmp_path / name)]) == 1
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begin)
        assert capsys.readouterr().out.splitlines()[-1] == f"written to {tmp_path / name}"
    assert main([*DIRTY, "--format", "markdown"]) == 1
    assert capsys.readouterr().out == (tmp_path / "a.md").read_text(encoding="utf-8")
    assert main([*DIRTY, "-o", str(tmp_path / "a.pdf")]) == 2
    assert "found a name that ends in .pdf" in capsys.readouterr().err
    assert main(["check", "linux-5.10", "--pairs", "--format", "svg"]) == 2
    assert "found --pairs and --format" in capsys.readouterr().err


BROWSER = find_chromium()
with_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    assert BROWSER is not None
    with Chromium(BROWSER) as found:
        yield found


@with_browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_in_a_browser_one_steps_forward_and_back(browser: Chromium, tmp_path: Path, width: int, scheme: str) -> None:
    path = tmp_path / "trace.html"
    path.write_text(trace_text(dirty(), "html"), encoding="utf-8")
    browser.look(width=width, scheme=scheme)
    browser.open(path)
    assert browser.requested == [path.resolve().as_uri()]
    assert browser.complaints == []
    assert browser.run("document.documentElement.scrollWidth") <= width

    def shown() -> tuple[int, str]:
        step, says = browser.run(
            "[+document.getElementById('state').dataset.step, document.getElementById('state').innerText]"
        )
        return int(step), str(says)

    assert shown()[0] == 0
    for _ in range(5):
        browser.run("document.querySelector('[data-step=next]').click()")
    step, says = shown()
    assert step == 5
    assert "ptep_get_and_clear(p0)" in says
    assert "none (was P(0,WD))" in says
    assert browser.run("document.querySelector('tr.now').dataset.row") == "5"
    browser.run("document.querySelector('[data-step=back]').click()")
    assert shown()[0] == 4
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}))")
    assert shown()[0] == 11
    assert browser.run("document.querySelector('[data-step=next]').disabled")
    browser.run("document.querySelector('tr[data-row=\"3\"]').click()")
    assert "p0: frame 0, W" in shown()[1]
