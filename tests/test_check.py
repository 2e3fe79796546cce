"""The explorer: races are found, mends proven; reductions change no verdict; bad input is one line."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

import tlbcore
from tlbcore import InputError, _core, kernels, races
from tlbcore.check import DEFAULT_INVARIANTS, INVARIANTS
from tlbcore.cli.main import main
from tlbcore.report.trace import trace_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.races import Race

#: Steps of the shortest counterexample of each race.
STEPS = {
    "R01": 28,
    "R02": 21,
    "R03": 14,
    "R04": 11,
    "R05": 22,
    "R05b": 20,
    "R06": 52,
    "R08": 27,
    "R09a": 9,
    "R09b": 16,
    "R10": 43,
    "R11": 34,
    "R12": 26,
    "R13": 28,
    "R14a": 28,
    "R14b": 6,
    "R16": 23,
    "R17": 5,
    "R18": 15,
    "R19": 24,
    "R21": 17,
    "R22": 8,
    "R23": 12,
    "R24": 10,
    "R26": 8,
    "R27": 21,
    "R28": 12,
    "R30": 12,
    "R32": 12,
    "R32c": 8,
    "R32d": 45,
    "R33": 6,
    "R34": 15,
    "R35": 7,
    "R37": 19,
    "R39b": 19,
    "R39c": 26,
    "R39d": 4,
    "M1": 21,
    "M2": 7,
    "M3": 5,
    "M4": 11,
    "M5": 59,
    "M7": 11,
    "M8": 28,
    "M10": 48,
    "M11": 15,
    "M12": 21,
}

#: Scenarios too large for an audit with so many user CPUs.
TOO_LARGE = (("R21", 2), ("M10", 2))

#: Every set of reductions that is worth its own audit.
REDUCTIONS = (
    ("saturate", "urgent", "symmetry", "dead"),
    ("saturate",),
    ("urgent",),
    ("symmetry",),
    ("dead",),
    ("urgent", "symmetry", "dead", "eager_stores"),
)


def audit(
    kernel: tlbcore.kernel.Kernel,
    scenario: Mapping[str, Any],
    reductions: tuple[str, ...],
    users: int,
    engine: Mapping[str, bool],
) -> tuple[int, int, int, int, bool]:
    """What the audit of a race's scenario says."""
    pages = scenario["pages"]
    specs = [{"kind": scenario.get("kind", "file")}] * pages if isinstance(pages, int) else pages
    threads = [{"operation": item} if isinstance(item, str) else item for item in scenario["operations"]]
    whole = scenario.get("whole_tables", False)
    given = {"users": users, "pages": specs, "threads": threads, "engine": dict(engine), "whole_tables": whole}
    given["shared_tables"] = scenario.get("shared_tables", False)
    text = json.dumps(given)
    invariants = [*DEFAULT_INVARIANTS, "I6", "I8", "I9", "I10", "I12"]
    options = {"invariants": invariants, "reductions": reductions, "states": 2_000_000}
    return _core.explore_audit(kernel.to_json(), text, json.dumps(options))


@pytest.mark.parametrize("race", races.RACES.values(), ids=lambda race: race.id)
def test_a_race_is_found_by_a_shortest_path_and_its_mend_is_proven(race: Race) -> None:
    found = race.find()
    assert found.violated == (race.invariant,)
    assert len(found.counterexample) == len(found.path) == STEPS[race.id]
    assert len(found.snapshots) == len(found.path) + 1
    assert max(map(len, found.diagram().splitlines())) <= 75
    assert max(map(len, trace_text(found, "text").splitlines())) <= 75
    proven = race.prove()
    proven.assert_safe()
    assert proven.engine == "saturating"


@pytest.mark.parametrize(
    "race", [race for race in races.RACES.values() if race.id not in ("R06", "R10", "R11", "M5")], ids=lambda r: r.id
)
@pytest.mark.parametrize("users", [1, 2])
def test_no_reduction_loses_or_invents_a_state(race: Race, users: int) -> None:
    if (race.id, users) in TOO_LARGE:
        pytest.skip("a million plain states and more")
    for kernel, engine in ((race.buggy, {**race.engine, **race.buggy_engine}), (race.fixed, race.engine)):
        for reductions in REDUCTIONS:
            _, _, undominated, unreachable, agree = audit(kernel, race.scenario, reductions, users, engine)
            assert (undominated, unreachable, agree) == (0, 0, True), (kernel.name, reductions)


@pytest.mark.parametrize("race", races.RACES.values(), ids=lambda race: race.id)
def test_a_mend_holds_with_more_cpus(race: Race) -> None:
    verdict = race.prove(users=3)
    verdict.assert_safe()
    assert verdict.states > race.prove(users=1).states


def test_no_operation_is_no_question() -> None:
    with pytest.raises(InputError, match="operations: found none, expected at least one"):
        tlbcore.check("linux-5.10", [])


def test_each_invariant_can_be_violated() -> None:
    violated = {race.invariant for race in races.RACES.values()}
    assert violated == {"I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I10"}
    early = tlbcore.check("linux-5.10", ["madvise_dontneed", "page_mkclean"], invariants=["I10"])
    assert early.violated == ("I10",)
    assert set(INVARIANTS) == violated | {"I12"}


def test_a_verdict_says_what_it_is_worth() -> None:
    verdict = tlbcore.check("linux-6.18", ["munmap", "page_mkclean"], users=2, pages=2)
    assert verdict.safe
    assert verdict.checked == DEFAULT_INVARIANTS
    assert verdict.bounds == {"users": 2, "pages": 2, "faulting threads": 0}
    assert verdict.locks == ("folio_lock", "mmap_lock", "pml", "ptl", "rmap_lock")
    cut = tlbcore.check("linux-6.18", ["munmap", "page_mkclean"], users=2, pages=2, states=10)
    assert not cut.safe
    assert cut.stopped is not None
    with pytest.raises(tlbcore.UnsafeError, match="undecided"):
        cut.assert_safe()
    with pytest.raises(tlbcore.UnsafeError, match="user store p0 through"):
        tlbcore.check("linux-5.10", ["munmap", "page_mkclean"]).assert_safe()


def test_faults_beside_operations_are_safe() -> None:
    for operations in (
        ["munmap", "page_mkclean"],
        ["madvise_dontneed", "page_mkclean"],
        ["mprotect", "page_mkclean"],
        ["wp_shared_mapping_range", "page_mkclean"],
        ["clear_refs_soft_dirty", "page_mkclean"],
    ):
        tlbcore.check("linux-6.18", operations, faults=1, users=2).assert_safe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ["unplug"]}, "found operation unplug"),
        ({"operations": ["munmap"], "users": 9}, "found 9 users"),
        ({"operations": ["munmap"], "pages": 0}, "found 0 pages"),
        ({"operations": [{"operation": "munmap", "first": 1}]}, r"pages 1\.\.1"),
        ({"operations": ["collapse_huge_page"]}, "expected a scenario with whole_tables"),
        ({"operations": ["gup_fast"]}, "expected a scenario with whole_tables"),
        ({"operations": ["munmap"], "invariants": ["I99"]}, "found invariant 'I99'"),
        ({"operations": ["munmap"], "reductions": ["luck"]}, 'found "luck"'),
        ({"operations": "munmap"}, "found the text 'munmap'"),
        ({"operations": ["munmap"], "pages": [{"kind": "file", "vma": 3}]}, "found vma 3"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        tlbcore.check("linux-6.18", **arguments)
    assert "\n" not in str(raised.value)


def test_lazy_mmu_sections_are_explored() -> None:
    for arch in ("sparc64", "xen-pv"):
        for operation in ("munmap", "mprotect", "page_mkclean", "mremap", "clear_refs_soft_dirty", "madvise_free"):
            kind = "anon" if operation == "madvise_free" else "file"
            tlbcore.check(f"linux-6.18:lazy_mmu={arch}", [operation], kind=kind, users=2).assert_safe()
    with pytest.raises(InputError, match="found whole_tables with lazy_mmu per_pte or multicall"):
        tlbcore.check("linux-6.18:lazy_mmu=xen-pv", ["munmap"], whole_tables=True)


def test_a_batch_of_a_gather_can_be_full() -> None:
    pages = [{"kind": "file", "mapped": "dirty"}] * 2
    plain, full = (
        tlbcore.check("linux-6.18", ["madvise_dontneed", "page_mkclean"], pages=pages, users=2, engine=engine)
        for engine in ({}, {"batches_fill": True})
    )
    plain.assert_safe()
    full.assert_safe()
    assert full.states > plain.states
    *_, undominated, unreachable, agree = audit(
        kernels.get("linux-6.18"),
        {"operations": ["madvise_dontneed"], "pages": [{"kind": "anon"}] * 2},
        ("saturate", "urgent", "symmetry", "dead"),
        2,
        {"batches_fill": True},
    )
    assert (undominated, unreachable, agree) == (0, 0, True)


def test_mprotect_can_take_all_rights() -> None:
    for kind in ("file", "anon"):
        for other in ("munmap", "shrink_folio_list", "migrate_pages", "mremap", "madvise_dontneed"):
            none = {"operation": "mprotect", "none": True}
            tlbcore.check("linux-6.18", [none, other], kind=kind, users=2, faults=int(kind == "anon")).assert_safe()
    with pytest.raises(InputError, match="found none, expected it for mprotect, without write"):
        tlbcore.check("linux-6.18", [{"operation": "munmap", "none": True}])


@pytest.mark.parametrize("kind", ["file", "anon"])
@pytest.mark.parametrize("tables", ["whole", "held"])
def test_urgent_steps_are_exact_where_locks_of_two_tables_meet(kind: str, tables: str) -> None:
    # The unlock of the one table is followed at once by a look into the other, whose lock nobody else takes.
    scenario = {
        "operations": ["munmap", "madvise_dontneed"],
        "pages": [{"kind": kind, "mapped": "dirty"}, {"kind": kind, "table": 1, "mapped": "dirty"}],
        "whole_tables": tables == "whole",
    }
    for reductions in (("urgent",), ("saturate", "urgent", "symmetry", "dead")):
        plain, kept, undominated, unreachable, agree = audit(kernels.get("linux-6.18"), scenario, reductions, 2, {})
        assert kept < plain
        assert (undominated, unreachable, agree) == (0, 0, True)


def test_threads_that_run_the_same_change_names() -> None:
    for operations, kind, faults in (
        (["madvise_dontneed"] * 2, "file", 0),
        (["migrate_pages"] * 2, "anon", 0),
        (["madvise_free"] * 2, "anon", 0),
        (["madvise_dontneed"], "file", 2),
    ):
        found = {
            reductions: tlbcore.check(
                "linux-6.18", operations, kind=kind, faults=faults, reductions=reductions, states=3_000_000
            )
            for reductions in (("saturate", "urgent", "dead"), ("saturate", "urgent", "symmetry", "dead"))
        }
        with_names, without = (verdict.states for verdict in found.values())
        assert without < 0.7 * with_names
        scenario = {"operations": operations, "pages": [{"kind": kind}]}
        if not faults:
            *_, undominated, unreachable, agree = audit(kernels.get("linux-6.18"), scenario, ("symmetry",), 2, {})
            assert (undominated, unreachable, agree) == (0, 0, True)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["check", "linux-6.18", "--op", "munmap", "--op", "page_mkclean:0-0", "--users", "1", "--pages", "1"]) == 0
    )
    assert "safe for I1 I2 I3 I4 I5 within users 1, pages 1" in capsys.readouterr().out
    assert main(["check", "linux-5.10", "--op", "munmap", "--op", "page_mkclean", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["violated"] == ["I4"]
    assert main(["check", "linux-5.10", "--op", "munmap:x"]) == 2
    assert main(["races", "R05"]) == 0
    assert "==> " in capsys.readouterr().out
    assert main(["races", "R99"]) == 2


def test_the_kernels_programs_can_all_be_explored_but_for_huge_pages() -> None:
    for name in kernels.FAMILIES:
        for program in _core.program_names():
            kind = "anon" if program in ("fork", "fault", "migrate_pages", "madvise_pageout") else "file"
            if program == "collapse_huge_page":
                continue
            tlbcore.check(name, [program], kind=kind, states=100_000)


def test_every_pair_of_operations_of_the_newest_kernel() -> None:
    # What is found is a finding about the model. The first: reclaim defers the flush of a dirty file page, unlocks it;
    # writeback, which finds no mapping, writes it out while a CPU can still store. The others: mapping_dirty_helpers
    # does not ask what reclaim and migration left unflushed.
    of_files: tuple[str, ...] = (
        "munmap",
        "madvise_dontneed",
        "mprotect",
        "mremap",
        "page_mkclean",
        "wp_shared_mapping_range",
        "truncate",
    )
    of_files += ("shrink_folio_list", "madvise_cold", "clear_refs_soft_dirty", "exit_mmap", "migrate_pages")
    of_memory: tuple[str, ...] = (
        "munmap",
        "madvise_dontneed",
        "madvise_free",
        "mprotect",
        "mremap",
        "shrink_folio_list",
        "madvise_pageout",
    )
    of_memory += ("madvise_cold", "clear_refs_soft_dirty", "fork", "migrate_pages", "change_prot_numa", "exit_mmap")
    found = {}
    for kind, operations in (("file", of_files), ("anon", of_memory)):
        for pair in itertools.combinations_with_replacement(operations, 2):
            verdict = tlbcore.check("linux-6.18", pair, kind=kind, states=1_000_000)
            assert verdict.stopped is None
            if not verdict.safe:
                found[pair] = verdict.violated
    assert found == {
        ("page_mkclean", "shrink_folio_list"): ("I4",),
        ("wp_shared_mapping_range", "shrink_folio_list"): ("I3",),
        ("wp_shared_mapping_range", "migrate_pages"): ("I3",),
    }


@pytest.mark.parametrize(
    ("invariant", "says"), [("I6", "page tables as objects"), ("I8", "the flush engine"), ("I9", "the flush engine")]
)
def test_that_something_holds_of_what_is_not_there_is_no_answer(invariant: str, says: str) -> None:
    with pytest.raises(InputError, match=f"found {invariant} without {says}, expected"):
        tlbcore.check("linux-6.18", ["munmap"], invariants=[invariant])


def test_pages_of_an_operation_are_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "linux-6.18", "--op", "munmap:5-2"]) == 2
    assert "--op: found munmap:5-2, expected a last page that is not before the first" in capsys.readouterr().err
