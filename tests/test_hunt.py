"""The hunt: known races come out of it, results do not depend on its threads, what is not tried is said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import tlbcore
from tlbcore import InputError, races
from tlbcore.cli.main import main
from tlbcore.hunt.plan import Operation, operations, scenarios, sizes

if TYPE_CHECKING:
    from tlbcore import Hunt
    from tlbcore.races import Race


def is_hunted(race: Race) -> bool:
    """At most two operations, and nothing that no hunt has: a flush engine of its own, shared tables, huge pages, I10."""
    pages = race.scenario["pages"]
    special = isinstance(pages, list) and any({"huge", "exec"} & page.keys() for page in pages)
    return (
        len(race.scenario["operations"]) <= 2
        and not special
        and not race.engine
        and not race.scenario.get("shared_tables")
        and race.invariant != "I10"
    )


PAIRS = [race for race in races.RACES.values() if is_hunted(race)]


def programs(race: Race) -> list[str]:
    """The operations of a race, as a hunt calls them."""
    found = []
    for item in race.scenario["operations"]:
        spec = {"operation": item} if isinstance(item, str) else item
        flags = [name for name in ("write", "other_table") if spec.get(name)]
        found.append(f"{spec['operation']}({', '.join(flags)})" if flags else spec["operation"])
    return found


def without_times(found: Hunt) -> Hunt:
    """What must be the same in each run."""
    causes = [
        replace(
            cause,
            findings=tuple(replace(f, verdict=replace(f.verdict, seconds=0)) for f in cause.findings),
        )
        for cause in found.causes
    ]
    return replace(found, seconds=0, causes=tuple(causes))


def test_the_dirty_page_race_of_linux_5_10_comes_out_of_all_pairs() -> None:
    found = tlbcore.hunt("linux-5.10", users=1, pages=1, faults=0, kinds=["file"])
    race = races.get("R04")
    hits = [finding for finding in found.findings if finding.invariant == race.invariant]
    assert ("madvise_dontneed", "page_mkclean") in {finding.operations for finding in hits}
    assert found.complete
    assert not found.safe
    # The zaps that lose the same write are one cause.
    cause = next(c for c in found.causes if "page_mkclean" in c.findings[0].operations)
    assert {f.operations[0] for f in cause.findings} >= {"munmap", "madvise_dontneed", "exit_mmap"}
    newest = tlbcore.hunt(
        "linux-6.18", operations=["madvise_dontneed", "munmap", "page_mkclean"], users=2, pages=2, faults=0
    )
    assert newest.safe


@pytest.mark.parametrize("race", PAIRS, ids=lambda race: race.id)
def test_a_race_of_two_operations_is_found_without_its_scenario(race: Race) -> None:
    found = tlbcore.hunt(
        race.buggy,
        2,
        operations=sorted(set(programs(race))),
        users=1,
        pages=2,
        faults=0,
        engine=race.buggy_engine,
        whole_tables=race.scenario.get("whole_tables", False),
    )
    assert race.invariant in found.violated
    first = next(finding for finding in found.findings if finding.invariant == race.invariant)
    assert set(first.operations) <= set(programs(race))
    again = tlbcore.check(race.buggy, **first.arguments)
    assert race.invariant in again.violated
    assert again.path == first.verdict.path


def test_the_number_of_workers_changes_nothing() -> None:
    chosen = ["munmap", "mprotect", "page_mkclean", "shrink_folio_list", "migrate_pages"]
    hunts = [
        without_times(tlbcore.hunt("linux-5.10", operations=chosen, users=2, pages=1, faults=1, workers=workers))
        for workers in (1, 2, 5)
    ]
    assert hunts[0].causes
    assert hunts[0] == hunts[1] == hunts[2]


def test_a_violation_of_one_operation_is_told_once() -> None:
    found = tlbcore.hunt("linux-5.10", operations=["clear_refs_soft_dirty", "munmap"], kinds=["anon"], faults=0)
    assert [finding.operations for finding in found.findings] == [("clear_refs_soft_dirty",)]
    assert found.findings[0].size == sizes(1, 1, 0)[0]


def test_what_is_not_tried_is_said() -> None:
    found = tlbcore.hunt("linux-6.18", 1, users=1, pages=1, faults=0)
    assert any("collapse_huge_page" in where and "whole_tables" in reason for where, reason in found.refused.items())
    assert found.refused["madvise_free on file pages"].startswith("madvise() gives EINVAL")
    cut = tlbcore.hunt("linux-6.18", operations=["munmap", "page_mkclean"], users=1, pages=1, faults=0, states=3)
    assert cut.undecided
    assert not cut.safe
    late = tlbcore.hunt("linux-6.18", users=1, pages=1, faults=0, seconds=0)
    assert late.stopped == "the bound on time"
    assert all(count.left for count in late.counts)
    assert not late.safe


def test_more_user_cpus_are_compared_by_projections() -> None:
    found = tlbcore.hunt("linux-6.18", operations=["munmap", "page_mkclean"], users=2, pages=1, faults=0)
    assert sum(count.compared for count in found.counts) > 0
    assert all(count.compared == count.same_projections for count in found.counts)
    one, two = (tlbcore.check("linux-6.18", ["munmap", "page_mkclean"], users=users) for users in (1, 2))
    assert one.projections == two.projections
    assert one.states < two.states
    with_nobody = tlbcore.check("linux-6.18", ["munmap", "page_mkclean"], users=0)
    assert with_nobody.projections is not None
    assert with_nobody.projections < (one.projections or 0)


def test_ranges_meet_in_every_way() -> None:
    pair = (Operation("munmap"), Operation("mprotect"))
    relations = [scenario.relation for scenario in scenarios(pair, "anon", sizes(1, 2, 0)[1])]
    assert len(relations) == len(set(map(str, scenarios(pair, "anon", sizes(1, 2, 0)[1]))))
    assert set(relations) == {
        f"{lie}, {layout}"
        for lie in ("same range", "overlapping ranges", "neighbours")
        for layout in ("one table", "two tables", "mapped twice")
    } | {"same range, one more reference"}
    assert [scenario.relation for scenario in scenarios(pair, "file", sizes(1, 1, 0)[0])] == ["same range"]
    assert {str(operation) for operation in operations()} >= {"truncate", "fault(write)", "mremap(other_table)"}


def test_a_violation_without_a_trace_is_still_one() -> None:
    race = races.get("R06")
    found = race.find(states=2_500)
    assert found.violated == (race.invariant,)
    assert found.counterexample == ()
    assert "search for a trace stopped" in str(found)


def test_a_hint_fault_on_memory_after_a_fork_leaves_it_read_only() -> None:
    after_fork: list[dict[str, object]] = [
        {"kind": "anon", "mapped": "read"},
        {"kind": "anon", "mapped": "read", "frame": 0},
    ]
    one = {"operation": "change_prot_numa", "first": 0, "count": 1}
    tlbcore.check("linux-6.18", [one], pages=after_fork, faults=1).assert_safe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ["munmapp"]}, "found munmapp"),
        ({"threads": 0}, "threads: found 0"),
        ({"users": 0}, "users: found 0"),
        ({"kinds": ["shmem"]}, "kinds: found shmem"),
        ({"invariants": ["I99"], "operations": ["munmap"]}, "found invariant 'I99'"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        tlbcore.hunt("linux-6.18", **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--users", "1", "--pages", "1", "--faults", "0", "--op", "madvise_dontneed", "--op", "page_mkclean"]
    assert main(["check", "linux-6.18", "--pairs", *small]) == 0
    assert "safe for I1 I2 I3 I4 I5, all pairs up to 1 user CPU, 1 page" in capsys.readouterr().out
    assert main(["check", "linux-5.10", "--pairs", *small]) == 1
    assert "==> data newer than" in capsys.readouterr().out
    assert main(["check", "linux-5.10", "--triples", "--json", *small, "--kind", "file"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == 3
    assert found["causes"][0]["invariant"] == "I4"
    assert main(["check", "linux-6.18"]) == 2
    assert main(["check", "linux-6.18", "--op", "munmap", "--each-switch"]) == 2
    assert main(["check", "linux-6.18:lazy_mmu=native", "--pairs", "--each-switch"]) == 2
    assert main(["check", "consolidated", "--pairs", "--each-switch", *small]) == 1
    assert "pending=vma" in capsys.readouterr().out


def test_a_hunt_for_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="found I6 without page tables as objects"):
        tlbcore.hunt("linux-6.18", 2, invariants=["I6"], users=1, pages=1)
