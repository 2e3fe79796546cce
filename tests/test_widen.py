"""Widening: small sizes first, all of them told, bounds for all together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tlbcore
from tlbcore.cli.main import main
from tlbcore.widen import settled, widen

if TYPE_CHECKING:
    import pytest

SAFE = ("linux-6.18", ["munmap", "page_mkclean"])


def test_all_sizes_are_tried_and_each_is_the_search_of_that_size() -> None:
    verdict = widen(*SAFE, users=3, pages=2)
    assert verdict.safe
    assert [(size.users, size.pages) for size in verdict.sizes] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    for size in verdict.sizes:
        alone = tlbcore.check(*SAFE, users=size.users, pages=size.pages)
        assert (alone.states, alone.projections) == (size.states, size.projections)
    assert verdict.bounds["users"] == "1 to 3"
    assert "6 sizes" in str(verdict)
    assert settled(verdict) == (1, 2)


def test_the_smallest_size_that_fails_ends_it() -> None:
    verdict = widen("linux-5.10", SAFE[1], users=2, pages=2)
    assert verdict.violated == ("I4",)
    assert len(verdict.sizes) == 1
    assert len(verdict.counterexample) == len(tlbcore.check("linux-5.10", SAFE[1]).counterexample)
    # Reclaim's batch in another page table needs two pages.
    late = widen("linux-5.10", [{"operation": "munmap", "first": 1, "count": 1}, "page_mkclean"], users=2, pages=3)
    assert [(size.users, size.pages) for size in late.sizes] == [(1, 2)]


def test_a_bound_is_for_all_sizes_together() -> None:
    cut = widen(*SAFE, users=2, pages=2, states=60)
    assert not cut.safe
    assert cut.stopped == "the bound on states"
    assert [size.safe for size in cut.sizes] == [True] * (len(cut.sizes) - 1) + [False]
    assert widen(*SAFE, seconds=0.0).stopped == "the bound on time"


def test_what_is_not_the_same_is_not_settled() -> None:
    alone = widen(*SAFE, users=1, pages=2)
    assert settled(alone) == ()
    assert settled(widen(*SAFE, users=0, pages=1)) == ()


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", SAFE[0], "--op", SAFE[1][0], "--op", SAFE[1][1]]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "users 1 to 2, pages 1 to 2" in out
    assert "sizes tried (user CPUs x pages): 1 x 1, 1 x 2, 2 x 1, 2 x 2" in out
    assert "evidence, not proof" in out
    assert main([*arguments, "--users", "1", "--pages", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sizes"]) == 1
    assert main([*arguments, "--depth", "3"]) == 1
    assert "stopped by the bound on depth" in capsys.readouterr().out
    assert main([*arguments, "--without", "saturate", "--without", "urgent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "plain"
    assert main([*arguments, "--without", "saturate", "--memory", "0"]) == 1
    assert "stopped by the bound on memory" in capsys.readouterr().out
