"""`tlbcore report`: what a program did to its TLBs, as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore import kernels, machines
from tlbcore.cli import OK
from tlbcore.cli.common import (
    add_json,
    add_recording,
    beside,
    output_path,
    print_json,
    read_recording,
    refuse_both,
    stem,
)
from tlbcore.cli.usage_text import tell
from tlbcore.profile import KERNELS, MACHINES, profile
from tlbcore.progress import Progress
from tlbcore.report.page import write_page
from tlbcore.report.table import counted, warned
from tlbcore.whole_file import check_ending, check_place

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "The page is one HTML file that asks nothing of the network: flushes over time with storms, who caused them, who was"
        " interrupted, what was useless and why, other kernels and machines, and how far the model agrees.",
        ("tlbcore report app.tlbr", "writes app.html"),
        (
            "tlbcore report app.tlbr -o page.html --kernel mine.py:KERNEL",
            "a kernel of one's own beside the recorded one",
        ),
        ("tlbcore report app.tlbr --json", "the numbers alone"),
    )
    add_recording(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="F",
        type=output_path,
        help="the page to write (without: the name of R with .html, here); - is standard output",
    )
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="K",
        help=f"a kernel to compare with the recorded one; again for more (without: {', '.join(KERNELS)})",
    )
    parser.add_argument(
        "--machine",
        action="append",
        metavar="M",
        help=f"a machine to compare on; again for more, counts are of the first (without: {', '.join(MACHINES)})",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Profile, write, and say what is in it."""
    refuse_both(args.output, json=args.json)
    if args.output is not None:
        check_ending(args.output, (".html", ".htm"), but_not=args.recording)
        check_place(args.output)
    chosen = [kernels.get(name) for name in args.kernel or KERNELS]  # slips are told before a large file is read
    for name in args.machine or ():
        machines.get(name)
    recording = read_recording(args.recording)
    output = args.output
    if output is None and not args.json:
        output = Path(f"{stem(args.recording)}.html")
    with Progress("report") as progress:
        found = profile(recording, kernels=chosen, machines=args.machine or MACHINES, progress=progress)
        if output is not None:
            progress(1, 1, "writing the page")
            write_page(found, output)
    if args.json:
        print_json(found.to_dict())
        return OK
    source = "recorded" if found.is_recorded else "of the model, none are recorded"
    out = beside(output)
    flushes, told, storms = found.flushes, found.flushes.interruptions, found.storms
    print(f"{recording.meta['file']}: {counted(len(flushes), 'flush', group=' ')} ({source}),", file=out)
    print(f"{counted(len(told), 'interruption', group=' ')}, {counted(len(storms), 'storm', group=' ')}", file=out)
    for line in warned(found.warnings):
        print(line, file=out)
    print(f"written to {output}", file=out)
    return OK
