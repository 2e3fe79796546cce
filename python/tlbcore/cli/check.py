"""`tlbcore check`: every interleaving of a few operations."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore import kernels
from tlbcore.check import DEFAULT_INVARIANTS, DEFAULT_REDUCTIONS, INVARIANTS
from tlbcore.cli import NEGATIVE, OK, check_trace, mutation
from tlbcore.cli.check_audit import run_audit
from tlbcore.cli.check_litmus import run_litmus
from tlbcore.cli.check_replay import run_replay
from tlbcore.cli.common import add_json, input_path, print_json, refuse_given
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.hunt import hunt
from tlbcore.hunt.plan import KINDS
from tlbcore.progress import Progress
from tlbcore.report.hunt import SETS, hunt_report, switch_table
from tlbcore.widen import widen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tlbcore.hunt import Progress as Hunted

#: How far a check widens unless told.
MOST_USERS, MOST_PAGES = 2, 2
#: How long a hunt widens unless told.
PAIRS_SECONDS = 600.0
TRIPLES_SECONDS = 3600.0
#: So many states for each scenario of three operations, unless told: there are a hundred thousand of them on two pages.
TRIPLES_STATES = 300_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Kernel threads run the operations, user CPUs load and store, and hardware fills and drops TLB entries, in every order,"
        " from small sizes to larger ones. What violates an invariant is printed as a shortest counterexample; else the bounds"
        " are told within which there is none.\n\n"
        "--pairs and --triples hunt through all sets of operations, --litmus answers questions in files, --mutate tells which"
        " steps of a scheme safety hangs on, --replay executes a finding again, and --audit checks the checker.",
        ("tlbcore check linux-6.18 --op munmap --op page_mkclean", "two operations: safe"),
        ("tlbcore check linux-5.10 --op munmap --op page_mkclean -o race.html", "a race, and its page to step through"),
        ("tlbcore check mine.py:KERNEL --op munmap --op fault", "a kernel of one's own"),
        ("tlbcore check linux-6.18 --pairs --users 1 --pages 1 --seconds 5", "all pairs, as far as five seconds go"),
        ("tlbcore check --litmus questions", "the questions of a folder"),
    )
    parser.add_argument(
        "kernel", nargs="?", metavar="KERNEL", help="a kernel as `tlbcore kernels` lists them, or FILE.py:NAME"
    )
    parser.add_argument(
        "--litmus",
        nargs="+",
        type=lambda text: Path(input_path(text)),
        metavar="F",
        help="litmus files, or folders of them, instead of a kernel; status 1 unless each is answered as it expects",
    )
    parser.add_argument(
        "--op",
        action="append",
        metavar="OP[:FIRST[-LAST]]",
        help="an operation that one kernel thread runs, on all pages or on some; again for more",
    )
    hunts = parser.add_mutually_exclusive_group()
    hunts.add_argument(
        "--pairs", action="store_true", help="hunt: all pairs of operations, on ranges that meet in every way"
    )
    hunts.add_argument("--triples", action="store_true", help="hunt: all triples")
    parser.add_argument("--users", type=int, metavar="N", help="CPUs that load and store at will, up to so many (2)")
    parser.add_argument("--pages", type=int, metavar="N", help="pages, up to so many (2)")
    parser.add_argument("--kind", choices=KINDS, help="what the pages hold (file; a hunt: both)")
    parser.add_argument(
        "--faults", type=int, metavar="N", help="threads that take page faults (0; a hunt: up to so many, 1)"
    )
    parser.add_argument(
        "--each-switch", action="store_true", help="hunt: with each switch of the kernel alone, and with all"
    )
    parser.add_argument(
        "--whole-tables", action="store_true", help="page tables are freed, moved and cached; GUP-fast is an operation"
    )
    check_trace.add_arguments(parser)
    parser.add_argument("--no-traces", action="store_true", help="hunt: do not print the traces")
    parser.add_argument("--workers", type=int, metavar="N", help="hunt: so many threads (as many as CPUs)")
    parser.add_argument(
        "--invariant",
        action="append",
        metavar="I",
        help=f"what to look for, of {', '.join(INVARIANTS)}; again for more (without: {', '.join(DEFAULT_INVARIANTS)})",
    )
    parser.add_argument("--states", type=int, metavar="N", help="at most so many states")
    parser.add_argument("--memory", type=int, metavar="MIB", help="at most so much memory for a search (4096)")
    parser.add_argument("--depth", type=int, metavar="N", help="at most so many steps")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"at most so much time (a hunt: {PAIRS_SECONDS:.0f} for pairs, {TRIPLES_SECONDS:.0f} for triples)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a plain search (%(default)s)")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=DEFAULT_REDUCTIONS,
        help="search without this reduction; again for more",
    )
    parser.add_argument(
        "--replay", metavar="FINDING", help="execute a finding again, step by step, instead of a search"
    )
    audits = parser.add_argument_group("audit")
    audits.add_argument(
        "--audit",
        action="store_true",
        help="hold each reduction against plain search, state by state; without KERNEL on random small programs",
    )
    audits.add_argument("--programs", type=int, default=200, metavar="N", help="random programs (%(default)s)")
    audits.add_argument("--seed", type=int, default=0, metavar="N", help="which random programs (%(default)s)")
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
    if end < int(first):
        raise InputError(f"--op: found {text}, expected a last page that is not before the first")
    return {"operation": name, "first": int(first), "count": end - int(first) + 1}


def run(args: argparse.Namespace) -> int:
    """Search and print.

    Raises:
        InputError: Arguments that do not go together.
    """
    check_trace.refuse(args)
    if args.mutate:
        return mutation.run(args)
    if args.replay:
        return run_replay(args)
    refuse_given(args, ("jobs", "mutate_kernel"), "found it without --mutate")
    if args.litmus:
        if args.kernel or args.op or args.invariant or args.pairs or args.triples:
            raise InputError("check: found --litmus and a kernel or what to do with one, expected one of both")
        return run_litmus(args)
    if args.audit and not args.kernel:
        return run_audit(args, [])
    if not args.kernel:
        raise InputError("check: found no kernel, expected KERNEL, --litmus F or --mutate SCHEME")
    if args.pairs or args.triples:
        return run_hunt(args)
    return run_one(args)


def run_one(args: argparse.Namespace) -> int:
    """Search one scenario, and print.

    Raises:
        InputError: Arguments that do not go together.
    """
    refuse_given(args, ("each_switch", "no_traces", "workers"), "found it without --pairs or --triples")
    kernels.get(args.kernel)
    if not args.op:
        raise InputError("found no operation, expected --op OPERATION, --pairs or --triples")
    operations = [operation(text) for text in args.op]
    if args.audit:
        return run_audit(args, operations)
    with Progress("states") as progress:
        verdict = widen(
            args.kernel,
            operations,
            users=MOST_USERS if args.users is None else args.users,
            pages=MOST_PAGES if args.pages is None else args.pages,
            kind=args.kind or "file",
            faults=args.faults or 0,
            whole_tables=args.whole_tables,
            invariants=args.invariant,
            reductions=[name for name in DEFAULT_REDUCTIONS if name not in args.without],
            states=args.states,
            seconds=args.seconds,
            memory_bytes=None if args.memory is None else args.memory << 20,
            depth=args.depth,
            threads=args.threads,
            progress=_told(progress),
        )
    if args.json:
        print_json(verdict.to_dict())
    else:
        check_trace.show(verdict, args.format, args.output)
    return OK if verdict.safe else NEGATIVE


def _told(progress: Progress) -> Callable[[int, int, int], None]:
    """What a search says, in one line: states, how many wait, depth, and the rate since the size before."""
    since, before = time.monotonic(), 0

    def tell(states: int, waiting: int, depth: int) -> None:
        nonlocal since, before
        if states < before:
            since = time.monotonic()
        before = states
        rate = states / max(time.monotonic() - since, 1e-3) / 1e6
        progress(states, more=f"{waiting:,} waiting, depth {depth}, {rate:.2f} M states/s")

    return tell


def run_hunt(args: argparse.Namespace) -> int:
    """Hunt and print.

    Raises:
        InputError: Bounds that a hunt has not.
    """
    refuse_given(
        args, ("memory", "depth", "without", "audit"), "found it with --pairs or --triples, expected it with --op"
    )
    if args.threads != 1:
        raise InputError("--threads: found it with --pairs or --triples, expected --workers")
    default = TRIPLES_SECONDS if args.triples else PAIRS_SECONDS
    given = {
        "users": args.users,
        "pages": args.pages,
        "faults": args.faults,
        "states": args.states,
        "invariants": args.invariant,
        "operations": args.op,
        "kinds": args.kind and (args.kind,),
        "workers": args.workers,
        "whole_tables": args.whole_tables or None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if args.triples:
        options.setdefault("states", TRIPLES_STATES)
    threads = 3 if args.triples else 2
    seconds = default if args.seconds is None else args.seconds
    settings = each_switch(args.kernel) if args.each_switch else {"": args.kernel}
    hunts = []
    for name, kernel in settings.items():
        with Progress(f"{name or kernel}:") as progress:
            hunts.append(
                (name, hunt(kernel, threads, seconds=seconds, progress=partial(say_how_far, progress), **options))
            )
        if hunts[-1][1].stopped == "Ctrl-C":
            break
    if args.json:
        found = {name: found.to_dict() for name, found in hunts}
        print_json(found if args.each_switch else found[""])
    elif args.each_switch:
        print(switch_table(hunts))
    else:
        print(hunt_report(hunts[0][1], traces=not args.no_traces))
    return OK if all(found.safe for _, found in hunts) else NEGATIVE


def say_how_far(progress: Progress, at: Hunted) -> None:
    """How far a hunt is."""
    sets = SETS.get(at.threads, f"sets of {at.threads}")
    progress(at.done, at.of, f"{sets} with {at.size}, {at.states:,} states")


def each_switch(kernel: str) -> dict[str, str]:
    """The settings of a kernel that show what each of its switches does: none, each value alone, all.

    Raises:
        InputError: The kernel has no switches, or some are set already.

    """
    family = kernels.FAMILIES.get(kernel)
    if family is None or not family.switches:
        having = ", ".join(name for name, known in kernels.FAMILIES.items() if known.switches)
        raise InputError(f"--each-switch: found {kernel}, expected a kernel with switches, of {having}")
    alone = [f"{s.name}={value}" for s in family.switches for value in s.values[:-1]]
    return {"none": f"{kernel}:none", **{one: f"{kernel}:none,{one}" for one in alone}, "all": kernel}
