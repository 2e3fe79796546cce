"""What counterexamples call their variables: a name for each that the model has, in the kernel's words, in all races."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from tlbcore import Verdict
from tlbcore.races import RACES
from tlbcore.report.trace import trace_text
from tlbcore.report.trace.names import BY_ACTIVE_MM, HIDDEN, HIDDEN_LOCALS, LOCALS, VARIABLES, Label
from tlbcore.report.trace.state import Entry, states

MODEL = Path(__file__).parents[1] / "rust/core/src/explore/model/vars.rs"
RAW = re.compile(r"[A-Z][a-z]+[A-Z]")
#: Values that are put together in one line, so that its name needs no number.
TOGETHER = ("CPUs", "way")


@cache
def found(race: str) -> Verdict:
    return RACES[race].find()


def said(race: str) -> set[Entry]:
    return {entry for state in states(found(race)) for entry in state}


def kinds_of(name: str) -> dict[str, bool]:
    """The kinds of variable in an enumeration of the model, and whether they are numbered."""
    inside = re.search(rf"pub enum {name} \{{\n(.*?)\n\}}", MODEL.read_text(encoding="utf-8"), re.DOTALL)
    assert inside
    return {kind: bool(numbers) for kind, numbers in re.findall(r"^    (\w+)(\(.*\))?,$", inside[1], re.MULTILINE)}


@pytest.mark.parametrize(("enum", "labels", "hidden"), [("Var", VARIABLES, HIDDEN), ("Local", LOCALS, HIDDEN_LOCALS)])
def test_each_kind_of_variable_has_a_name_or_is_hidden(
    enum: str, labels: dict[str, Label], hidden: tuple[str, ...]
) -> None:
    kinds = kinds_of(enum)
    assert len(kinds) > 30
    assert sorted({*kinds} - {"Thread"}) == sorted([*labels, *hidden])
    for kind, label in labels.items():
        assert kinds[kind] == ("{" in label.text or label.value in TOGETHER), kind


class Made:
    """A counterexample of one state, munmap beside eleven user CPUs."""

    cpus = ("munmap", *(f"user {cpu}" for cpu in range(11)))
    counterexample = ()

    def __init__(self, *variables: str) -> None:
        self.snapshots = [{"ptes": [], "tlbs": [], "variables": [(variable, 1) for variable in variables]}]


@pytest.mark.parametrize("variable", ["BrandNew(0)", "Thread(0, BrandNew)"])
def test_a_kind_without_a_name_is_an_error(variable: str) -> None:
    with pytest.raises(KeyError, match="BrandNew"):
        states(Made(variable))  # type: ignore[arg-type]


def test_cpus_of_a_mask_are_one_line_in_order() -> None:
    (state,) = states(Made("InMask(9)", "InMask(8)", "InMask(0)"))  # type: ignore[arg-type]
    assert Entry("masks and pending flushes", "mm_cpumask", "CPU1, CPU9, CPU10") in state


def test_no_name_of_the_model_is_shown() -> None:
    for label in (*VARIABLES.values(), *LOCALS.values(), *BY_ACTIVE_MM.values()):
        assert not RAW.search(label.text)


@pytest.mark.parametrize("race", RACES)
def test_no_name_of_the_model_is_shown_in_a_race(race: str) -> None:
    rows = [row for row in trace_text(found(race), "markdown").splitlines() if row.startswith("|")]
    changed = [re.split(r"(?<!\\)\|", row)[-2] for row in rows]
    html = trace_text(found(race), "html")
    data = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert data
    panels = [f"{name}: {value}" for state in json.loads(data[1])["states"] for _, name, value in state]
    cells = re.findall(r'<td class="changes">(.*?)</td>', html)
    assert panels
    assert len(cells) == len(found(race).counterexample)
    assert [text for text in (*changed, *panels, *cells) if RAW.search(text)] == []


def test_cpus_are_those_of_the_columns() -> None:
    """The user CPU of both races is CPU1 or CPU2: kernel threads come before it."""
    switch = said("R24")
    assert Entry("masks and pending flushes", "mm_cpumask", "CPU1") in switch
    assert Entry("CPUs", "CPU1 (user 0) cpu_tlbstate.loaded_mm", "LOADED_MM_SWITCHING") in switch
    assert Entry("CPUs", "CPU1 (user 0) CR3", "other mm") in switch
    batch = said("M5")
    assert Entry("masks and pending flushes", "CPU1 (shrink_folio_list) tlb_ubc.arch.cpumask", "CPU2") in batch
    assert Entry("masks and pending flushes", "tlb_flush_batched_cpumask", "CPU2") in batch
    assert Entry("CPUs", "CPU1 (user 0) active_mm", "mm") in said("R33")


def test_page_tables_and_generations_are_in_words() -> None:
    tables = said("M11")
    assert Entry("page table", "page table 0: freed or waiting for RCU", "yes") in tables
    assert Entry("page table", "PMD entry 1", "page table 1") in tables
    assert Entry("TLBs", "CPU1 (user 0) paging-structure cache", "table of p0") in tables
    assert Entry("page table", "page table 0: its page used again", "yes") in said("R17")
    name = "generation that covers the last right taken from the PTE of p0"
    assert {Entry("masks and pending flushes", name, value) for value in ("none yet", "2")} <= said("M1")
