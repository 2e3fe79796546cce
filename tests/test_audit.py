"""The reductions against plain search: scenarios that are asked for, and hundreds of random small programs."""

from __future__ import annotations

import json

import pytest

from tlbcore import InputError, _core
from tlbcore.audit import REDUCTIONS, Row, audit, audit_random
from tlbcore.check import DEFAULT_REDUCTIONS
from tlbcore.cli.main import main


def test_each_reduction_alone_and_all_together() -> None:
    rows = audit("linux-5.10", ["madvise_dontneed", "page_mkclean"], users=2)
    assert [row.reductions for row in rows] == list(REDUCTIONS)
    assert rows[-1].reductions == DEFAULT_REDUCTIONS
    assert all(row.clean for row in rows)
    assert len({row.plain_states for row in rows}) == 1
    assert rows[-1].reduced_states < rows[0].reduced_states < rows[0].plain_states


@pytest.mark.parametrize("seed", [0, 2, 4, 5, 6])  # each with programs that violate something
def test_random_small_programs(seed: int) -> None:
    found = audit_random(50, seed=seed)
    assert found.dirty == ()
    assert found.nr_audited == 50
    assert found.nr_violating > 0
    assert found.nr_plain_states > 20_000
    assert found.nr_refused + found.nr_too_large < 40


def test_a_seed_gives_the_same_programs() -> None:
    assert audit_random(10, seed=1) == audit_random(10, seed=1)


def test_a_row_that_is_not_clean() -> None:
    clean = Row(("dead",), 10, 5, 0, 0, same_violations=True)
    assert clean.clean
    assert not Row(("dead",), 10, 5, 1, 0, same_violations=True).clean
    assert not Row(("dead",), 10, 5, 0, 1, same_violations=True).clean
    assert not Row(("dead",), 10, 5, 0, 0, same_violations=False).clean


def test_a_graph_that_is_too_large_is_said() -> None:
    with pytest.raises(InputError, match="stopped by the bound on states"):
        audit("linux-6.18", ["munmap", "shrink_folio_list"], users=2, pages=2, states=1000)


def test_ctrl_c_tells_what_was_audited(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    audits = iter(range(100))
    real = _core.explore_audit

    def interrupted(*arguments: str) -> tuple[int, int, int, int, bool]:
        if next(audits) == 3 + len(REDUCTIONS):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(_core, "explore_audit", interrupted)
    # The third of the second scenario; of random programs some are refused before.
    assert main(["check", "linux-6.18", "--op", "munmap", "--audit"]) == 0
    capsys.readouterr()
    assert main(["check", "linux-6.18", "--op", "munmap", "--audit"]) == 1
    told = capsys.readouterr()
    assert told.out.count("\n") == 2 + 3
    assert f"after 3 of {len(REDUCTIONS)}" in told.err
    audits = iter(range(3 + len(REDUCTIONS), 100))
    assert main(["check", "--audit", "--programs", "5", "--seed", "3"]) == 1
    assert capsys.readouterr().out.startswith("stopped by a request to stop: 0 of 5 programs")


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "linux-6.18", "--op", "munmap", "--op", "page_mkclean", "--audit"]) == 0
    assert "saturate urgent symmetry dead" in capsys.readouterr().out
    assert main(["check", "linux-6.18", "--op", "munmap", "--audit", "--json"]) == 0
    assert all(row["clean"] for row in json.loads(capsys.readouterr().out))
    assert main(["check", "--audit", "--programs", "5", "--seed", "3"]) == 0
    assert "5 random programs (seed 3)" in capsys.readouterr().out
    assert main(["check", "linux-6.18", "--audit"]) == 2
