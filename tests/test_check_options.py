"""`tlbcore check` refuses options that it would ignore."""

from __future__ import annotations

import pytest

from tlbcore.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linux-6.18", "--op", "munmap", "--workers", "0"], "--workers: found it without --pairs or --triples"),
        (["linux-6.18", "--op", "munmap", "--no-traces"], "--no-traces: found it without --pairs or --triples"),
        (["linux-6.18", "--op", "munmap", "--jobs", "3"], "--jobs: found it without --mutate"),
        (["linux-6.18", "--op", "munmap", "--kernel", "linux-5.10"], "--kernel: found it without --mutate"),
        (["linux-6.18", "--pairs", "--memory", "0"], "--memory: found it with --pairs or --triples"),
        (["linux-6.18", "--pairs", "--without", "dead"], "--without: found it with --pairs or --triples"),
        (["linux-6.18", "--triples", "--threads", "2"], "--threads: found it with --pairs or --triples"),
        (["linux-6.18", "--op", "munmap", "--audit", "--seconds", "0"], "--seconds: found it with --audit"),
        (["--litmus", "none.litmus", "--users", "0"], "--users: found it with --litmus"),
        (["linux-6.81"], "found kernel 'linux-6.81'"),
        (["linux-6.18", "--op", "munmap", "--faults", "100"], "fewer operations, pages, user CPUs or faults"),
    ],
)
def test_what_would_be_ignored_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out
