"""`tlbcore import`: a foreign file becomes a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore.caveats import caveats
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, file_path, input_path, print_json, read_recording
from tlbcore.cli.usage_text import tell
from tlbcore.progress import Progress
from tlbcore.record import is_perf_data, load_data
from tlbcore.report.table import counted, number, warned
from tlbcore.whole_file import check_ending, check_place

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Reads the text of perf script or strace -f, records and scenarios of the kernel lab, or what perf record wrote,"
        " and says what is in it. What the file is, its content tells. A recording (.tlbr) is read many times faster than text.",
        ("tlbcore import perf.txt -o app.tlbr", "a recording of what perf script printed"),
        ("zcat perf.txt.gz | tlbcore import - -o app.tlbr", "out of a pipe"),
        ("tlbcore import app.tlbr", "what is in a recording"),
    )
    parser.add_argument(
        "file",
        metavar="F",
        type=input_path,
        help="text of `perf script`, records (.jsonl) or scenarios (.scn) of the kernel lab; plain, .gz or .zst;"
        " or what `perf record` wrote (perf.data); - is standard input",
    )
    parser.add_argument("-o", "--output", metavar="R", type=file_path, help="the recording to write (.tlbr)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Import, write, and say what there is."""
    if args.output is not None:
        check_ending(args.output, (".tlbr",), but_not=args.file)
        check_place(args.output)
    if is_perf_data(Path(args.file)):
        with Progress("reading lines:") as progress:
            recording = load_data(args.file, progress)
    else:
        recording = read_recording(args.file)
    if args.output is not None:
        recording.save(args.output)
    meta = recording.meta
    if args.json:
        counts = {"nr_events": recording.nr_events, "nr_flushes": recording.nr_flushes}
        print_json({**counts, **meta, "warnings": caveats(recording)})
        return OK
    events, flushes = (
        counted(recording.nr_events, "event", group=" "),
        counted(recording.nr_flushes, "flush record", group=" "),
    )
    threads, cpus = counted(len(recording.tasks), "thread", group=" "), counted(int(meta["smp"]), "CPU", group=" ")
    print(f"{meta['file']}: {events} of {threads} on {cpus},")
    print(flushes + (f", kernel {meta['kernel']}" if meta["kernel"] else ""))
    for name, count in sorted({**meta["counts"], **meta["unknown_events"]}.items()):
        print(f"  {number(count)} x {name}")
    for line in warned(caveats(recording)):
        print(line)
    if args.output is not None:
        print(f"written to {args.output}")
    return OK
