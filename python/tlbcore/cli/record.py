"""`tlbcore record`: a recording of a command or of the whole system."""

from __future__ import annotations

import sys
from argparse import REMAINDER
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import file_path, print_json
from tlbcore.cli.ending import Ended, ended_by_signals, signal_name
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.progress import Progress
from tlbcore.record import CALLERS, SOURCES, LacksError, lacks, record
from tlbcore.record.needs import has_strace
from tlbcore.record.perf import BUFFER_PAGES
from tlbcore.report.table import counted
from tlbcore.whole_file import check_ending

if TYPE_CHECKING:
    import argparse

    from tlbcore.record import Recorded


_STDERR: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Runs CMD under the system's perf, or under strace where there is no perf, and keeps what it did to its memory and the"
        " TLB flushes that the kernel did for it. Without CMD everything is recorded, for N seconds or until Ctrl-C."
        " Recording flushes takes root, or a lower kernel.perf_event_paranoid: --check says what is missing, and what to do.",
        ("tlbcore record -o app.tlbr -- ./app --its --options", "what one program does, from its start on"),
        (
            "tlbcore record --callers -o app.tlbr -- ./app",
            "the same, with who called: call sites in reports and exports",
        ),
        ("tlbcore record -o all.tlbr --seconds 1", "the whole system for a second"),
        ("tlbcore record --check", "what is missing for it here"),
    )
    parser.usage = "tlbcore record [-o F] [--seconds N | -- CMD ...]"
    parser.add_argument(
        "-o",
        "--output",
        metavar="F",
        type=file_path,
        help="the recording (.tlbr), or its text (.txt); without: CMD.tlbr, here",
    )
    parser.add_argument("--seconds", type=float, metavar="N", help="record the whole system for N seconds")
    parser.add_argument(
        "--source",
        choices=SOURCES,
        default="auto",
        help="perf; strace, which knows less; auto: perf, or else strace for a CMD",
    )
    parser.add_argument(
        "--buffer-pages",
        type=int,
        default=BUFFER_PAGES,
        metavar="N",
        help=f"pages of each CPU's buffer, a power of two ({BUFFER_PAGES}); more if events are lost",
    )
    parser.add_argument(
        "--callers",
        choices=CALLERS,
        nargs="?",
        const=CALLERS[0],
        help="record who called, so that flushes have call sites: along frame pointers (fp), or otherwise",
    )
    parser.add_argument("--everybody", action="store_true", help="keep the events of all programs, not of CMD alone")
    parser.add_argument("--check", action="store_true", help="say what is missing for a recording, and record nothing")
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON; what CMD prints goes to standard error"
    )
    parser.add_argument(
        "command_line", nargs=REMAINDER, metavar="-- CMD", help="what to run and record (else: until Ctrl-C)"
    )


def run(args: argparse.Namespace) -> int:
    """Record, and say what there is."""
    if args.check:
        return _check(json=args.json)
    command = args.command_line
    if command and command[0] != "--":
        raise InputError(f"record: found {command[0]!r}, expected -- before the command")
    command = command[1:] if command else None
    name = Path(command[0]).name if command else "system"
    output = args.output or Path(f"{name}.tlbr")
    check_ending(output, (".tlbr", ".txt"))
    told: set[str] = set()

    def tell(text: str) -> None:
        told.add(text)
        _say(text)

    try:
        with ended_by_signals(), Progress("reading lines:") as progress:
            done = record(
                output,
                command=command,
                seconds=args.seconds,
                source=args.source,
                buffer_pages=args.buffer_pages,
                everybody=args.everybody,
                callers=args.callers,
                # The result alone goes to standard output.
                stdout=_STDERR if args.json else None,
                say=tell,
                progress=progress,
            )
    except LacksError as error:
        *first, last = error.lacks
        for lack in first:
            _say(str(lack))
        raise InputError(str(last)) from error
    except Ended as ended:
        _say(f"ended by {ended.signal.name}, {output} was not written")
        return ended.status
    if args.json:
        print_json(done.to_dict())
        return OK
    _tell(done, told, name)
    return OK


def _tell(done: Recorded, told: set[str], name: str) -> None:
    """What is missing in a recording, and what to do with it."""
    for warning in done.warnings:
        if warning not in told:
            _say(warning)
    if done.nr_lost_events:
        more = "all counts are too low; record again with a larger --buffer-pages"
        _say(f"{counted(done.nr_lost_events, 'event was', 'events were', group=' ')} lost: {more}")
    if done.status:
        _say(f"{name} ended {how_ended(done.status)}")
    events = counted(done.nr_events, "event", group=" ")
    flushes = counted(done.nr_flushes, "flush record", group=" ")
    print(f"{done.path}: {events}, {flushes}, by {done.source}")
    print(f"next: tlbcore report {done.path}")


def how_ended(status: int) -> str:
    """An exit status as words; minus the number of a signal is its name."""
    return f"by {signal_name(-status)}" if status < 0 else f"with status {status}"


def _check(*, json: bool) -> int:
    found = lacks()
    if json:
        print_json([{"what": lack.what, "advice": lack.advice, "stops": lack.stops} for lack in found])
    elif not found:
        print("nothing is missing")
    for lack in found if not json else ():
        print(lack)
    stops = any(lack.stops for lack in found)
    if stops and has_strace() and not json:
        print("meanwhile `tlbcore record -- CMD` takes strace, which knows neither faults nor flushes")
    return NEGATIVE if stops else OK


def _say(text: str) -> None:
    # The terminal may be what has gone (SIGHUP); there is still to tidy up.
    with suppress(OSError):
        print(f"tlbcore: {text}", file=sys.stderr)
