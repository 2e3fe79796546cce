"""`tlbcore check`: every interleaving of a few operations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore.check import DEFAULT_INVARIANTS, INVARIANTS, check
from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import add_json, print_json
from tlbcore.errors import InputError
from tlbcore.litmus_check import check_litmus, files
from tlbcore.report.table import is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.check import Verdict
    from tlbcore.litmus_check import LitmusVerdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "kernel", nargs="?", metavar="KERNEL", help="a kernel as `tlbcore kernels` lists them, or FILE.py:NAME"
    )
    parser.add_argument(
        "--litmus",
        nargs="+",
        type=Path,
        metavar="F",
        help="litmus files, or folders of them, instead of a kernel; status 1 unless each is answered as it expects",
    )
    parser.add_argument(
        "--op",
        action="append",
        metavar="OP[:FIRST[-LAST]]",
        help="an operation that one kernel thread runs, on all pages or on some; again for more",
    )
    parser.add_argument(
        "--users", type=int, default=1, metavar="N", help="CPUs that load and store at will (%(default)s)"
    )
    parser.add_argument("--pages", type=int, default=1, metavar="N", help="pages (%(default)s)")
    parser.add_argument("--kind", choices=("file", "anon"), default="file", help="what the pages hold (%(default)s)")
    parser.add_argument(
        "--faults", type=int, default=0, metavar="N", help="threads that take page faults (%(default)s)"
    )
    parser.add_argument(
        "--invariant",
        action="append",
        metavar="I",
        help=f"what to look for, of {', '.join(INVARIANTS)}; again for more (without: {', '.join(DEFAULT_INVARIANTS)})",
    )
    parser.add_argument("--states", type=int, metavar="N", help="at most so many states")
    parser.add_argument("--seconds", type=float, metavar="S", help="at most so much time")
    add_json(parser)


def operation(text: str) -> dict[str, object]:
    """An operation of the command line.

    Raises:
        InputError: Its pages are no numbers.

    """
    name, colon, pages = text.partition(":")
    if not colon:
        return {"operation": name}
    first, dash, last = pages.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise InputError(f"--op: found {text}, expected OPERATION:FIRST-LAST with numbers of pages")
    end = int(last) if dash else int(first)
    return {"operation": name, "first": int(first), "count": end - int(first) + 1}


def run(args: argparse.Namespace) -> int:
    """Search and print.

    Raises:
        InputError: Neither a kernel with operations nor litmus files, or both.
    """
    if args.litmus:
        if args.kernel or args.op or args.invariant:
            raise InputError("check: found --litmus and a kernel, an operation or an invariant, expected one of both")
        return _run_litmus(args)
    if not args.kernel or not args.op:
        raise InputError("check: found no kernel or no --op, expected KERNEL --op OP, or --litmus F")
    verdict = check(
        args.kernel,
        [operation(text) for text in args.op],
        users=args.users,
        pages=args.pages,
        kind=args.kind,
        faults=args.faults,
        invariants=args.invariant or DEFAULT_INVARIANTS,
        states=args.states,
        seconds=args.seconds,
    )
    if args.json:
        print_json(asdict(verdict))
    else:
        show(verdict)
    return OK if verdict.safe else NEGATIVE


def _run_litmus(args: argparse.Namespace) -> int:
    found = [check_litmus(path, states=args.states, seconds=args.seconds) for path in files(args.litmus)]
    as_expected = all(answer.as_expected for answer in found)
    if args.json:
        print_json([{"as_expected": answer.as_expected, **asdict(answer)} for answer in found])
        return OK if as_expected else NEGATIVE
    head = ["litmus", "kernel", "exists", "expected", "observed", "after", ""]
    rows = []
    for answer in found:
        litmus, verdict = answer.litmus, answer.verdict
        after = f"{len(verdict.path)} steps" if verdict.violated else f"{verdict.states} states"
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


def show(verdict: Verdict) -> None:
    """Print a verdict, and its counterexample."""
    print(verdict)
    print(f"locks relied on: {', '.join(verdict.locks)}")
    if verdict.violated:
        print()
        print(verdict.diagram())
