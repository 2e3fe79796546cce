"""`tlbcore check --litmus`: questions in files, and whether the answers are as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.check import DEFAULT_REDUCTIONS
from tlbcore.cli import NEGATIVE, OK, USAGE
from tlbcore.cli.common import print_json, refuse_given
from tlbcore.cli.error_line import tell_error
from tlbcore.errors import TlbcoreError
from tlbcore.litmus_check import check_litmus, files
from tlbcore.progress import Progress
from tlbcore.report.table import counted, is_terminal, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tlbcore.litmus_check import LitmusVerdict

#: Options of a scenario, which stands in the file, and of hunts and audits.
_OF_THE_FILE = ("users", "pages", "kind", "faults", "whole_tables", "audit", "each_switch", "no_traces", "workers")


def run_litmus(args: argparse.Namespace) -> int:
    """Answer each file and print a table; a single one with its question and counterexample.

    Raises:
        InputError: Options that a litmus file decides itself.
    """
    refuse_given(args, _OF_THE_FILE, "found it with --litmus, expected it in the file, or not at all")
    bounds = {
        "states": args.states,
        "seconds": args.seconds,
        "memory_bytes": None if args.memory is None else args.memory << 20,
        "depth": args.depth,
        "threads": args.threads,
        "reductions": [name for name in DEFAULT_REDUCTIONS if name not in args.without],
    }
    found, refused = _answers(args.litmus, bounds)
    if args.json:
        print_json([answer.to_dict() for answer in found])
    elif found:
        print(_table(found))
        if len(found) == 1:
            _tell(found[0])
        else:
            locks = sorted({lock for answer in found for lock in answer.verdict.locks})
            print(f"\nlocks relied on: {', '.join(locks)}")
    for error in refused:
        tell_error(error)
    if refused:
        return USAGE
    return OK if all(answer.as_expected for answer in found) else NEGATIVE


def _answers(
    asked: Iterable[Path], bounds: Mapping[str, object]
) -> tuple[list[LitmusVerdict], list[TlbcoreError | OSError]]:
    """The answers, and what was wrong with the files that have none."""
    found, refused = [], []
    with Progress("litmus files") as progress:
        paths = files(asked)
        for number, path in enumerate(paths):
            progress(number, len(paths), path.name)
            try:
                found.append(check_litmus(path, **bounds))
            except (TlbcoreError, OSError) as error:
                refused.append(error)  # the answers to the others are not lost
    return found, refused


def _table(found: Iterable[LitmusVerdict]) -> str:
    head = ["litmus", "kernel", "exists", "expected", "observed", "after", "users x pages", ""]
    rows = []
    for answer in found:
        litmus, verdict = answer.litmus, answer.verdict
        after = counted(len(verdict.path), "step") if verdict.path else counted(verdict.states, "state", group="")
        if answer.observed == "Undecided":
            after += f", stopped by {verdict.stopped}"
        mark = "ok" if answer.as_expected else "NOT AS EXPECTED"
        exists = " \\/ ".join(litmus.exists)
        size = f"{verdict.bounds['users']} x {verdict.bounds['pages']}"
        rows.append([litmus.name, litmus.changed_kernel, exists, litmus.result, answer.observed, after, size, mark])
    return table(head, rows, emphasis=is_terminal(), left=len(head))


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
