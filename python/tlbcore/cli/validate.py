"""`tlbcore validate`: how close the model comes to what the real kernel did."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore import kernels, machines
from tlbcore.cli import OK, USAGE
from tlbcore.cli.common import (
    add_json,
    add_machine,
    beside,
    input_path,
    output_path,
    print_json,
    read_recording,
    refuse_both,
)
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.progress import Progress
from tlbcore.report import validation as report
from tlbcore.report.table import is_terminal
from tlbcore.validate import explain, validate, validate_folder
from tlbcore.whole_file import check_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tlbcore.validate import Cause, Summary, Validation

NR_DISAGREEMENTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Each recorded flush is compared with what the model predicts for the same operation: size, and whether other CPUs"
        " were told. Score = matched / (matched + missed + extra). A folder, or several recordings, give a row for each.",
        ("tlbcore validate app.tlbr", "how far to believe the model for this program"),
        ("tlbcore validate app.tlbr --explain", "why they disagree, with an example of each cause"),
        ("tlbcore validate recordings", "all recordings of a folder"),
    )
    parser.add_argument(
        "recording",
        metavar="R",
        nargs="+",
        type=input_path,
        help="a recording (- is standard input), or a folder: all below it that are named like one (.tlbr, .txt, .jsonl, ...)",
    )
    parser.add_argument(
        "--kernel",
        metavar="K",
        help="a kernel as `tlbcore kernels` lists them (without: the one nearest to the recorded kernel)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="group the disagreements by likely cause, each with an example",
    )
    parser.add_argument(
        "--no-follow",
        dest="follow",
        action="store_false",
        help="do not correct mm_cpumask by what each recorded flush shows of it (after it was predicted)",
    )
    parser.add_argument(
        "--operations",
        metavar="OUT.csv",
        type=output_path,
        help="write each operation with both lists of flushes (of one recording)",
    )
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Validate and print."""
    if len(args.recording) > 1 or Path(args.recording[0]).is_dir():
        return _run_many(args)
    refuse_both(args.operations, json=args.json)
    if args.operations is not None:
        check_place(args.operations)
    kernel = None if args.kernel is None else kernels.get(args.kernel)  # slips are told before a large file is read
    machine = machines.get(args.machine)
    recording = read_recording(args.recording[0])
    with Progress("replaying") as progress:
        validation = validate(
            recording,
            kernel,
            machine,
            follow_masks=args.follow,
            nr_disagreements=NR_DISAGREEMENTS,
            progress=progress,
        )
    if args.operations is not None:
        validation.write_operations(args.operations)
    if args.json:
        print_json({**validation.to_dict(), "causes": [cause.to_dict() for cause in explain(validation)]})
    else:
        print(text(validation, explain(validation) if args.explain else None), file=beside(args.operations))
    return OK


def _run_many(args: argparse.Namespace) -> int:
    """One row for each recording; a file that cannot be read is a line on standard error, and the status says so."""
    if args.operations is not None:
        msg = "--operations: found several recordings, expected one"
        raise InputError(msg)
    with Progress("recordings") as progress:
        summary = validate_folder(
            args.recording,
            args.machine,
            kernel=args.kernel,
            follow_masks=args.follow,
            with_causes=args.explain or args.json,
            progress=progress,
        )
    if args.json:
        print_json(summary.to_dict())
    elif summary.rows:
        print(summary_text(summary, args.recording, with_causes=args.explain))
    for failure in summary.failures:
        print(f"tlbcore: error: {failure.message}", file=sys.stderr)
    return USAGE if summary.failures else OK


def text(validation: Validation, causes: Sequence[Cause] | None) -> str:
    """The validation as tables, with the causes instead of the groups of disagreement if there are any."""
    emphasis = is_terminal()
    if causes is None:
        differences = report.disagreements(validation, emphasis=emphasis)
    else:
        differences = report.causes(causes, emphasis=emphasis)
    notes = report.notes(validation.replay.notes, emphasis=emphasis)
    found = None if validation.undecided is None else validation.undecided.to_dict()
    undecided = report.undecided(found, validation.missed + validation.extra, emphasis=emphasis)
    return "\n".join([*report.scores(validation, emphasis=emphasis), *undecided, *differences, *notes])


def summary_text(summary: Summary, paths: Sequence[str], *, with_causes: bool) -> str:
    """The summary as a table, with the causes over all recordings if they are wanted."""
    emphasis = is_terminal()
    folder = paths[0] if len(paths) == 1 else ""
    names = {str(row.path): os.path.relpath(row.path, folder) if folder else str(row.path) for row in summary.rows}
    causes = report.causes(summary.causes, emphasis=emphasis) if with_causes else []
    notes = report.notes(summary.notes, emphasis=emphasis)
    by_perf = [row.plain for row in summary.rows if "undecided" in row.plain]
    nr_differing = sum(plain["missed"] + plain["extra"] for plain in by_perf)
    undecided = report.undecided(summary.undecided, nr_differing, emphasis=emphasis)
    return "\n".join([*report.summary(summary, names, emphasis=emphasis), *undecided, *causes, *notes])
