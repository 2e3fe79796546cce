"""A finding as one word: it reproduces the counterexample, and what was cut or changed is told in one line."""

from __future__ import annotations

import json

import pytest

import tlbcore
from tlbcore import InputError, kernels, races
from tlbcore.cli.main import main
from tlbcore.finding import pack, repeat

RACE = ("linux-5.10", ["madvise_dontneed", "page_mkclean"])


@pytest.mark.parametrize("users", [1, 2])
@pytest.mark.parametrize("kernel", ["linux-5.10", "consolidated:none"])
def test_a_finding_is_the_counterexample_again(kernel: str, users: int) -> None:
    verdict = tlbcore.check(kernel, RACE[1], users=users, pages=2)
    again = repeat(verdict.finding)
    assert again.kernel == verdict.kernel
    assert again.violated == verdict.violated == ("I4",)
    assert [event["text"] for event in again.events] == [event.text for event in verdict.counterexample]
    assert again.snapshots == verdict.snapshots
    assert again.path == verdict.path
    assert again.cpus == verdict.cpus


def test_there_is_none_without_a_counterexample_or_a_name() -> None:
    assert not tlbcore.check("linux-6.18", RACE[1]).finding
    shipped = kernels.get("linux-5.10")
    assert tlbcore.check(shipped, RACE[1]).finding == tlbcore.check(*RACE).finding
    assert not tlbcore.check(shipped.derive("mine", constants={}, sources=None), RACE[1]).finding
    # A name that leads to another kernel.
    changed = shipped.derive("linux-6.18", constants={}, sources=None)
    named_so = tlbcore.check(changed, RACE[1])
    assert named_so.violated
    assert not named_so.finding
    assert not tlbcore.check(shipped.derive("mine.py:KERNEL", constants={}, sources=None), RACE[1]).finding


@pytest.mark.parametrize("race", races.RACES.values(), ids=races.RACES)
def test_every_documented_race_is_repeated_by_one_command(race: races.Race) -> None:
    found = race.find()
    again = repeat(found.finding)
    assert race.invariant in again.violated
    assert again.path == found.path
    assert again.cpus == found.cpus


def test_the_story_of_a_race_ends_in_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "R10"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[:3] == ["tlbcore", "check", "--replay"]
    assert main(command[1:]) == 1
    assert "UNSAFE" in capsys.readouterr().out


def test_a_hunt_prints_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    hunted = ["--op", "madvise_dontneed", "--op", "page_mkclean", "--kind", "file", "--users", "1", "--pages", "1"]
    assert main(["check", "linux-5.10", "--pairs", *hunted]) == 1
    command = next(line for line in capsys.readouterr().out.splitlines() if "--replay" in line).split()
    assert main(command[1:]) == 1
    assert "UNSAFE (I4)" in capsys.readouterr().out


def test_what_was_changed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = tlbcore.check(*RACE)
    cases = {
        "": "found ''",
        "tlb9.abc": "found 'tlb9.abc'",
        verdict.finding[:40]: "cut or changed",
        verdict.finding[:30] + "*" + verdict.finding[31:]: "cut or changed",
        pack("linux-5.11", verdict.scenario, ["I4"], verdict.path): "found kernel 'linux-5.11'",
        pack("race:R99", verdict.scenario, ["I4"], verdict.path): "found race 'R99'",
        pack("linux-5.10", {"users": 1}, ["I4"], verdict.path): "scenario",
        pack("linux-6.18", verdict.scenario, ["I4"], verdict.path): "cannot be taken there",
        pack("linux-5.10", verdict.scenario, ["I4"], [*verdict.path, 9999]): "found action 9999 as step 12",
    }
    for text, message in cases.items():
        with pytest.raises(InputError, match=message) as raised:
            repeat(text)
        assert "\n" not in str(raised.value)
        if text:
            assert main(["check", "--replay", text]) == 2
            assert capsys.readouterr().err.count("\n") == 1


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", RACE[0], "--op", RACE[1][0], "--op", RACE[1][1]]) == 1
    out = capsys.readouterr().out
    command = out.splitlines()[-1].split()
    assert command[:3] == ["tlbcore", "check", "--replay"]
    assert main(command[1:]) == 1
    again = capsys.readouterr().out
    assert again.splitlines()[0] == "linux-5.10: 11 steps repeated, UNSAFE (I4)"
    assert "\n".join(again.splitlines()[2:]) in out
    assert main([*command[1:], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["violated"] == ["I4"]
