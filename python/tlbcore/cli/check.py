"""`tlbcore check`: every interleaving of a few operations."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tlbcore.check import DEFAULT_INVARIANTS, INVARIANTS, check
from tlbcore.cli import NEGATIVE, OK, mutation
from tlbcore.cli.common import add_json, print_json
from tlbcore.errors import InputError

if TYPE_CHECKING:
    import argparse

    from tlbcore.check import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("kernel", metavar="KERNEL", nargs="?", help="a kernel as `tlbcore kernels` lists them, or FILE.py:NAME")
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
    mutation.add_arguments(parser)


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
    """Search and print."""
    if args.mutate:
        return mutation.run(args)
    if args.kernel is None or not args.op:
        raise InputError("check: expected a KERNEL and --op OPERATION, or --mutate SCHEME")
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


def show(verdict: Verdict) -> None:
    """Print a verdict, and its counterexample."""
    print(verdict)
    print(f"locks relied on: {', '.join(verdict.locks)}")
    if verdict.violated:
        print()
        print(verdict.diagram())
