"""Litmus files: the corpus is answered as it expects; the text round-trips; bad text is one line with its place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import litmus_index
import tlbcore
from tlbcore import InputError, races
from tlbcore.cli.main import main
from tlbcore.finding import repeat
from tlbcore.litmus import FLAGS, KINDS, MAPPED, RESULTS, Call, Litmus, Page, SchemeCall, parse
from tlbcore.litmus_check import check_litmus, files, kernel_of, load, scenario_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tlbcore.races import Race

CORPUS = Path(__file__).parents[1] / "litmus"
FILES = files([CORPUS])

TEXT = """tlbcore example

(*
 * Is it safe?
 *)

kernel linux-6.18
scheme munmap = MmuGather(delay_rmap=false)
constant tlb_single_page_flush_ceiling = 33
engine gen_zero_is_old

{
  p0: file, dirty, table 0, vma 0;
  p1: file, none, table 1, vma 0, frame 0;
  spare frames 1;
  whole tables;
}

 P0                    | P1                   | P2     | P3   ;
 mremap(p0..p1, write) | page_mkclean(p0..p0) | faults | user ;

exists (I4 \\/ I10)
Result: Sometimes
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_corpus_is_answered_as_it_expects(path: Path) -> None:
    answer = check_litmus(path)
    assert answer.as_expected, f"{answer.observed}: {answer.verdict}"
    assert answer.litmus.text() == path.read_text(encoding="utf-8")
    assert answer.litmus.name == path.stem
    assert answer.litmus.question


def explicit(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario with everything said that it leaves to its defaults."""
    pages = scenario["pages"]
    specs = [{"kind": scenario.get("kind", "file")}] * pages if isinstance(pages, int) else pages
    defaults = {"kind": "file", "mapped": "write", "table": 0, "vma": 0}
    threads = []
    for item in scenario["operations"]:
        thread = {"first": 0, "write": False, **({"operation": item} if isinstance(item, str) else item)}
        threads.append({"count": len(specs) - thread["first"], **thread})
    return {
        "users": scenario.get("users", 1),
        "pages": [{**defaults, **page} for page in specs],
        "threads": threads,
        "faults": scenario.get("faults", 0),
        "spare_frames": scenario.get("spare_frames"),
        "whole_tables": scenario.get("whole_tables", False),
        "shared_tables": scenario.get("shared_tables", False),
    }


@pytest.mark.parametrize("race", races.RACES.values(), ids=lambda race: race.id)
def test_corpus_and_races_agree(race: Race) -> None:
    for variant, kernel, engine in (
        ("buggy", race.buggy, {**race.engine, **race.buggy_engine}),
        ("fixed", race.fixed, race.engine),
    ):
        litmus = load(CORPUS / "races" / f"{race.id}-{variant}.litmus")
        scenario = scenario_of(litmus)
        assert explicit(scenario) == explicit(race.scenario)
        assert scenario["engine"] == engine
        ours, theirs = (json.loads(item.to_json()) for item in (kernel_of(litmus), kernel))
        assert {**ours, "name": ""} == {**theirs, "name": ""}
        assert litmus.result == ("Sometimes" if variant == "buggy" else "Never")
        assert race.invariant in litmus.exists
        assert race.title in litmus.question or variant == "fixed"


def test_every_race_of_the_corpus_is_in_the_catalogue() -> None:
    named = {path.stem.removesuffix("-buggy").removesuffix("-fixed") for path in (CORPUS / "races").iterdir()}
    assert named == set(races.RACES)


def test_the_index_is_complete() -> None:
    assert litmus_index.PAGE.read_text(encoding="utf-8") == litmus_index.page()


def test_everything_that_can_be_said_is_read() -> None:
    litmus = parse(TEXT)
    assert litmus.text() == TEXT
    assert litmus.question == "Is it safe?"
    assert litmus.schemes == (("munmap", SchemeCall("MmuGather", (("delay_rmap", False),))),)
    assert litmus.pages[1] == Page("file", "none", 1, 0, 0)
    assert litmus.threads[0] == Call("mremap", 0, 1, ("write",))
    assert (litmus.faults, litmus.users, litmus.spare_frames, litmus.whole_tables) == (1, 1, 1, True)
    assert litmus.exists == ("I4", "I10")


def test_a_file_that_ends_too_early_ends_at_its_last_line(tmp_path: Path) -> None:
    for text, line in (("", 1), ("tlbcore X\n", 1), ("tlbcore X\n\nkernel linux-6.18", 3)):
        (tmp_path / "f.litmus").write_text(text)
        with pytest.raises(InputError, match=rf"f\.litmus:{line}: found the end of the file, expected "):
            load(tmp_path / "f.litmus")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tlbcore example", "C example", "f:1: found C example, expected tlbcore NAME"),
        (" *)", "", "f:3: found a comment without end, expected"),
        ("kernel linux-6.18", "kernels linux-6.18", "f:7: found kernels linux-6.18, expected kernel NAME"),
        ("engine gen", "engines gen", "f:10: found engines gen_zero_is_old, expected scheme"),
        ("p1:", "p2:", "f:14: found p2, expected p1"),
        ("dirty", "soiled", "f:13: found soiled, expected file, anon"),
        ("p0: file, ", "p0: ", "f:13: found dirty, table 0, vma 0, expected file or anon"),
        ("table 1", "table 999", "f:14: found 999, expected table, a number"),
        ("spare frames 1", "TLB2: p0", "f:15: found TLB2: p0, expected no TLB entry"),
        ("| P3   ;", "| P4   ;", "f:19: found P0 | P1 | P2 | P4, expected P0 | P1 ... in order"),
        ("p0..p1, write", "p0..p2", "f:20: found P0: p0..p2, expected pages within p0..p1"),
        ("| faults | user", "| user | faults", "f:20: found P3: faults after user, expected operations, then"),
        ("| faults |", "| store p0 |", "f:20: found P2: store p0, expected user: a CPU that loads and stores"),
        ("| faults |", "| r0 = load p0 |", "f:20: found P2: r0 = load p0, expected user"),
        ("| faults | user", "| faults", "f:20: found 3 columns, expected 4"),
        (
            "| user ;",
            "| user ;\n fork(p0..p0) | | | ;",
            "f:21: found fork(p0..p0) | | | ;, expected one row",
        ),
        ("I4 \\/ I10", "I4 /\\ I10", "f:22: found exists (I4 /\\ I10), expected exists (I1 \\/ I2 ...)"),
        ("exists (I4", "exists (0:r0=1", "f:22: found exists (0:r0=1"),
        ("Sometimes", "Always", "f:23: found Result: Always, expected Result: Sometimes or Result: Never"),
        ("Result: Sometimes", "", "found the end of the file, expected Result: Sometimes"),
    ],
)
def test_bad_text_is_one_line_with_its_place(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as raised:
        parse(TEXT.replace(old, new, 1), "f")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("linux-6.18", "linux-7.77", "found kernel 'linux-7.77'"),
        ("MmuGather(", "MmuGatherer(", "found scheme 'MmuGatherer'"),
        ("delay_rmap=", "delay_map=", "did you mean delay_rmap"),
        ("delay_rmap=false", "delay_rmap=0", "found delay_rmap=0, expected a bool"),
        (
            "MmuGather(delay_rmap=false)",
            "LazyMmu(arch=vax)",
            "LazyMmu\\(arch=vax\\): lazy_mmu is 'vax', expected one of",
        ),
        ("scheme munmap", "scheme unmap", "found operation unmap"),
        ("ceiling = 33", "floor = 33", "found constant tlb_single_page_flush_floor"),
        ("gen_zero", "zero_gen", "found 'zero_gen_is_old', expected one of"),
        ("mremap(", "remap(", "found operation remap"),
        ("I10", "I99", "found invariant 'I99'"),
    ],
)
def test_what_cannot_run_is_one_line_with_its_file(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^f: .*{message}") as raised:
        check_litmus(parse(TEXT.replace(old, new, 1), "f"))
    assert "\n" not in str(raised.value)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in ("true", "false"))
VALUES = st.booleans() | st.integers(-(10**17), 10**17) | NAMES
SMALL = st.integers(0, 255)
LINES = st.text(st.characters(exclude_characters="\n\r*()", exclude_categories=["C", "Z"]), min_size=1)


@st.composite
def litmuses(draw: st.DrawFn) -> Litmus:
    """Any litmus file that can be written."""
    pages = draw(
        st.lists(
            st.builds(
                Page,
                st.sampled_from(KINDS),
                st.sampled_from(MAPPED),
                SMALL,
                SMALL,
                st.none() | SMALL,
                st.booleans(),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        )
    )
    ends = st.tuples(st.integers(0, len(pages) - 1), st.integers(0, len(pages) - 1)).map(sorted)
    flags = st.sets(st.sampled_from(FLAGS)).map(lambda chosen: tuple(flag for flag in FLAGS if flag in chosen))
    operations = NAMES.filter(lambda name: name not in ("load", "store", "exists"))
    operations = operations.filter(lambda name: not name.startswith(("exists", "Result", "forall", "loc", "filter")))
    calls = st.builds(lambda name, pair, chosen: Call(name, pair[0], pair[1], chosen), operations, ends, flags)
    options = st.dictionaries(NAMES, VALUES, max_size=2).map(lambda found: tuple(found.items()))
    schemes = st.dictionaries(NAMES, st.builds(SchemeCall, NAMES, options), max_size=2)
    return Litmus(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,8}", fullmatch=True)),
        question="\n".join(draw(st.lists(LINES, max_size=3))),
        kernel=draw(st.sampled_from(("linux-6.18", "consolidated:pending=vma,none", "my file.py:KERNEL"))),
        schemes=tuple(draw(schemes).items()),
        constants=tuple(draw(st.dictionaries(NAMES, VALUES, max_size=2)).items()),
        engine=tuple(draw(st.lists(NAMES, max_size=2, unique=True))),
        pages=tuple(pages),
        spare_frames=draw(st.none() | SMALL),
        whole_tables=draw(st.booleans()),
        shared_tables=draw(st.booleans()),
        threads=tuple(draw(st.lists(calls, min_size=1, max_size=3))),
        faults=draw(st.integers(0, 2)),
        users=draw(st.integers(0, 3)),
        exists=tuple(draw(st.lists(st.sampled_from(("I1", "I2", "I10")), min_size=1, unique=True))),
        result=draw(st.sampled_from(RESULTS)),
    )


@given(litmuses())
def test_what_is_printed_is_read_again(litmus: Litmus) -> None:
    assert parse(litmus.text()) == litmus


@given(st.text())
def test_no_text_does_anything_but_an_input_error(text: str) -> None:
    read_or_refused(text)


@given(st.data())
def test_no_damage_does_anything_but_an_input_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 12)))
    piece = data.draw(
        st.sampled_from(("", "\n", ";", "|", "}", "(*", "p0..p1", "Iٱ", "٣", "\x0b", "=", ",", "²")) | st.text()
    )
    read_or_refused(TEXT[:start] + piece + TEXT[end:])


def read_or_refused(text: str) -> None:
    """Either it is a litmus file, and what is printed of it is the same one, or an error tells a place."""
    try:
        litmus = parse(text, "f")
    except InputError as error:
        assert str(error).startswith("f:")  # noqa: PT017  # an error is one of two right answers
        assert "\n" not in str(error)  # noqa: PT017  # as above
    else:
        assert parse(litmus.text()) == litmus
        if ".py" not in litmus.kernel:  # which would be run
            with contextlib.suppress(InputError):
                check_litmus(litmus, states=100)


def test_a_file_that_cannot_be_read_loses_no_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.litmus"
    broken.write_text("tlbcore broken\n")
    fixed = str(CORPUS / "races" / "R04-fixed.litmus")
    asked = [str(tmp_path / "none.litmus"), fixed, str(broken), str(CORPUS / "races" / "R04-buggy.litmus")]
    assert main(["check", "--litmus", *asked]) == 2
    told = capsys.readouterr()
    assert told.out.count(" ok\n") == 2
    assert [line.partition(".litmus")[0].rpartition("/")[2] for line in told.err.splitlines()] == ["none", "broken"]
    assert main(["check", "--litmus", *asked, "--json"]) == 2
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 2
    assert told.err.count("\n") == 2


def test_a_table_of_several_says_how_far_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(CORPUS / "races" / f"R04-{which}.litmus") for which in ("buggy", "fixed")]
    assert main(["check", "--litmus", *asked]) == 0
    table, locks = capsys.readouterr().out.split("\n\n")
    assert "users x pages" in table.splitlines()[0]
    assert table.count("1 x 1") == 2
    assert locks.startswith("locks relied on: ")
    assert "ptl" in locks


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "--litmus", str(CORPUS / "dirty-pte")]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" ok\n") == len(list((CORPUS / "dirty-pte").iterdir()))
    wrong = tmp_path / "wrong.litmus"
    wrong.write_text((CORPUS / "races" / "R04-buggy.litmus").read_text().replace("Sometimes", "Never"))
    assert main(["check", "--litmus", str(wrong)]) == 1
    shown = capsys.readouterr().out
    assert "NOT AS EXPECTED" in shown
    assert "==> data newer" in shown
    assert main(["check", "--litmus", str(wrong), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["verdict"]["violated"] == ["I4"]
    assert main(["check", "--litmus", str(CORPUS / "races" / "R04-fixed.litmus"), "--states", "5"]) == 1
    assert "Undecided" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for arguments in (
        ["linux-6.18", "--litmus", str(wrong)],
        ["linux-6.18"],
        ["--litmus", str(tmp_path / "empty")],
        ["--litmus", str(tmp_path / "none.litmus")],
    ):
        assert main(["check", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    wrong.write_bytes(b"tlbcore \xff")
    with pytest.raises(InputError, match="no UTF-8 at 8"):
        tlbcore.check_litmus(wrong)


def test_a_race_that_is_not_covered_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "R29"]) == 0
    shown = capsys.readouterr().out
    assert "94a17f2dc90b" in shown
    assert "Not covered: neither INVLPGB nor ASIDs are modelled" in shown
    with pytest.raises(InputError, match="R29: not covered: "):
        races.get("R29")
    assert main(["races", "R09"]) == 0
    shown = capsys.readouterr().out
    assert "R09a: " in shown
    assert "R09b: " in shown
    assert "Found after 9 steps, 2 turns (4 as documented):" in shown


def test_every_documented_race_has_an_entry() -> None:
    documented = {f"R{number:02}" for number in (*range(1, 7), *range(8, 13), 13, 14, *range(16, 20))}
    documented |= {f"R{number}" for number in (21, 22, 23, 24, 26, 27, 28, 29, 30, 32, 33, 34, 35, 37, 38, 39)}
    documented |= {f"M{number}" for number in (1, 2, 3, 4, 5, 7, 8, 10, 11, 12)}
    assert {name.rstrip("abcd") for name in (*races.RACES, *races.UNCOVERED)} == documented
    assert not races.RACES.keys() & races.UNCOVERED.keys()
    assert all(race.reason and race.title for race in races.UNCOVERED.values())


def test_a_counterexample_takes_few_turns() -> None:
    for race in races.RACES.values():
        found = race.find()
        longer = {"R11": 1}.get(race.id, 0)  # its document does not name the store that is lost
        assert found.turns <= race.documented_steps + longer, race.id
        assert 0 < found.turns < len(found.path)


def test_a_finding_of_a_litmus_file_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    found = check_litmus(CORPUS / "races" / "R04-buggy.litmus").verdict
    again = repeat(found.finding)
    assert (again.violated, again.path, again.snapshots) == (found.violated, found.path, found.snapshots)
    assert main(["check", "--litmus", str(CORPUS / "races" / "R04-buggy.litmus")]) == 0
    assert f"\ntlbcore check --replay {found.finding}\n" in capsys.readouterr().out


def test_bounds_are_those_of_litmus_files_too(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = str(CORPUS / "races" / "R10-fixed.litmus")
    for bound, says in (("--memory", "memory"), ("--depth", "depth"), ("--states", "states"), ("--seconds", "time")):
        assert main(["check", "--litmus", fixed, bound, "0"]) == 1, bound
        out = capsys.readouterr().out
        assert "Undecided" in out
        assert f"stopped by the bound on {says}" in out
    # The proof that there is one comes before the trace: what stopped the search for that is told.
    assert main(["check", "--litmus", str(CORPUS / "races" / "R06-buggy.litmus"), "--states", "2600"]) == 0
    out = capsys.readouterr().out
    assert "the search for a trace stopped by the bound on states" in out
    assert "--replay" not in out


def test_what_stands_in_the_file_is_no_option_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(CORPUS / "races" / "R10-fixed.litmus")
    for option in (["--users", "3"], ["--whole-tables"], ["--audit"], ["--kind", "anon"], ["--workers", "1"]):
        assert main(["check", "--litmus", file, *option]) == 2
        assert f"{option[0]}: found it with --litmus, expected it in the file" in capsys.readouterr().err
    assert main(["check", "--litmus", file, "--without", "symmetry", "--without", "dead"]) == 0
