"""`tlbcore check --litmus`: questions in files, and whether the answers are as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.check import DEFAULT_REDUCTIONS
from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import print_json
from tlbcore.errors import InputError
from tlbcore.litmus_check import check_litmus, files
from tlbcore.progress import Progress
from tlbcore.report.table import counted, is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.litmus_check import LitmusVerdict

#: Options of a scenario, which stands in the file, and of hunts and audits.
_OF_THE_FILE = ("users", "pages", "kind", "faults", "whole_tables", "audit", "each_switch", "no_traces", "workers")


def run_litmus(args: argparse.Namespace) -> int:
    """Answer each file and print a table; a single one with its question and counterexample.

    Raises:
        InputError: Options that a litmus file decides itself.
    """
    for name in _OF_THE_FILE:
        if getattr(args, name):
            raise InputError(
                f"--{name.replace('_', '-')}: found it with --litmus, expected it in the file, or not at all"
            )
    bounds = {
        "states": args.states,
        "seconds": args.seconds,
        "memory_bytes": None if args.memory is None else args.memory << 20,
        "depth": args.depth,
        "threads": args.threads,
        "reductions": [name for name in DEFAULT_REDUCTIONS if name not in args.without],
    }
    found = []
    with Progress("litmus files") as progress:
        paths = files(args.litmus)
        for number, path in enumerate(paths):
            progress(number, len(paths), path.name)
            found.append(check_litmus(path, **bounds))
    as_expected = all(answer.as_expected for answer in found)
    if args.json:
        print_json([answer.to_dict() for answer in found])
        return OK if as_expected else NEGATIVE
    head = ["litmus", "kernel", "exists", "expected", "observed", "after", ""]
    rows = []
    for answer in found:
        litmus, verdict = answer.litmus, answer.verdict
        after = counted(len(verdict.path), "step") if verdict.path else counted(verdict.states, "state", group="")
        mark = "ok" if answer.as_expected else "NOT AS EXPECTED"
        exists = " \\/ ".join(litmus.exists)
        rows.append([litmus.name, litmus.changed_kernel, exists, litmus.result, answer.observed, after, mark])
    print(table(head, rows, emphasis=is_terminal(), left=len(head)))
    if len(found) == 1:
        _tell(found[0])
    return OK if as_expected else NEGATIVE


def _tell(answer: LitmusVerdict) -> None:
    """Print what was asked, and the counterexample or the bounds."""
    verdict = answer.verdict
    if answer.litmus.question:
        print(f"\n{answer.litmus.question}")
    if verdict.path:
        print(f"\n{verdict.diagram()}")
        print(f"\ntlbcore check --replay {verdict.finding}")
    bounds = ", ".join(f"{name} {value}" for name, value in verdict.bounds.items())
    print(f"\nwithin {bounds}; locks relied on: {', '.join(verdict.locks)}")
    if verdict.stopped:
        what = "the search for a trace " if verdict.violated else ""
        print(f"{what}stopped by {verdict.stopped}")
