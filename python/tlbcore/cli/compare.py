"""`tlbcore compare`: the same recording under several kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore import kernels, machines
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, add_machine, add_recording, print_json, read_recording
from tlbcore.cli.usage_text import tell
from tlbcore.compare import DEFAULT_KERNELS, compare
from tlbcore.progress import Progress
from tlbcore.report.comparison import comparison_report
from tlbcore.report.table import is_terminal

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "The recorded work runs through the model once for each kernel. Printed are flushes, IPIs, CPUs told in vain and"
        " estimated times, with ratios to the first kernel, and which operations cause the flushes.",
        ("tlbcore compare app.tlbr", "the kernels that are compared unless told"),
        ("tlbcore compare app.tlbr --kernel linux-5.10 --kernel linux-6.18", "two kernels; ratios are to the first"),
        ("tlbcore compare app.tlbr --kernel linux-6.18 --kernel mine.py:KERNEL", "a kernel of one's own"),
        ("tlbcore compare app.tlbr --machine skylake_sp:invlpg_ns=80 --json", "other sizes and costs, as JSON"),
    )
    add_recording(parser)
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="K",
        help="a kernel as `tlbcore kernels` lists them, NAME:SWITCH=VALUE,... or FILE.py:NAME; again for more"
        f" (without: {', '.join(DEFAULT_KERNELS)}); ratios are to the first",
    )
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    chosen = [
        kernels.get(name) for name in args.kernel or DEFAULT_KERNELS
    ]  # slips are told before a large file is read
    machine = machines.get(args.machine)
    recording = read_recording(args.recording)
    with Progress("replaying") as progress:
        comparison = compare(recording, chosen, machine, progress=progress)
    if args.json:
        print_json(comparison.to_dict())
    else:
        print(comparison_report(comparison, emphasis=is_terminal()))
    return OK
