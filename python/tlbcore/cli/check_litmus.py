"""`tlbcore check --litmus`: questions in files, and whether the answers are as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import print_json
from tlbcore.litmus_check import check_litmus, files
from tlbcore.progress import Progress
from tlbcore.report.table import counted, is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.litmus_check import LitmusVerdict


def run_litmus(args: argparse.Namespace) -> int:
    """Answer each file and print a table; a single one with its question and counterexample."""
    found = []
    with Progress("litmus files") as progress:
        paths = files(args.litmus)
        for number, path in enumerate(paths):
            progress(number, len(paths), path.name)
            found.append(check_litmus(path, states=args.states, seconds=args.seconds))
    as_expected = all(answer.as_expected for answer in found)
    if args.json:
        print_json([answer.to_dict() for answer in found])
        return OK if as_expected else NEGATIVE
    head = ["litmus", "kernel", "exists", "expected", "observed", "after", ""]
    rows = []
    for answer in found:
        litmus, verdict = answer.litmus, answer.verdict
        after = counted(len(verdict.path), "step") if verdict.violated else counted(verdict.states, "state", group="")
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
    if verdict.violated:
        print(f"\n{verdict.diagram()}")
        return
    bounds = ", ".join(f"{name} {value}" for name, value in verdict.bounds.items())
    print(f"\nwithin {bounds}; locks relied on: {', '.join(verdict.locks)}")
    if verdict.stopped:
        print(f"stopped by {verdict.stopped}")
