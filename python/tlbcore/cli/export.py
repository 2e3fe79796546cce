"""`tlbcore export`: a recording for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.caveats import caveats
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, add_recording, output_path, print_json, read_recording, refuse_both, stem
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.export import FORMATS, TABLES, export
from tlbcore.progress import Progress
from tlbcore.report.table import number
from tlbcore.whole_file import check_ending, is_standard_output

if TYPE_CHECKING:
    import argparse


#: What no name of a timeline ends in: these are other things. The viewer takes any name.
_NO_TIMELINE: Final = (".tlbr", ".html", ".txt", *(f".{form}" for form in FORMATS))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "A timeline opens in ui.perfetto.dev. The tables are events, flushes and operations, with a row for each; the column"
        " event joins them. Parquet and Arrow need pyarrow.",
        ("tlbcore export app.tlbr --format perfetto", "writes app.perfetto-trace"),
        ("tlbcore export app.tlbr --format parquet -o tables", "a folder with a file for each table"),
        ("tlbcore export app.tlbr --format csv --table flushes -o flushes.csv", "one table"),
    )
    add_recording(parser)
    parser.add_argument("--format", required=True, choices=FORMATS, help="perfetto: a timeline; the others: tables")
    parser.add_argument("--table", action="append", choices=TABLES, help="one table alone, as a file; again for more")
    parser.add_argument(
        "-o",
        "--output",
        metavar="F",
        type=output_path,
        help="the file, or the folder for several tables (without: the name of R, here); - is standard output, for one file",
    )
    add_json(parser)


def _endings(form: str, nr_tables: int, ending: str) -> tuple[str, ...]:
    """What the name that ends so may end in; that of a folder in anything."""
    if form == "perfetto":
        return (".perfetto-trace",) if ending in _NO_TIMELINE else (ending,)
    return (f".{form}",) if nr_tables == 1 else (ending,)


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    tables = tuple(args.table or TABLES)
    if args.format == "perfetto" and args.table:
        raise InputError("export: found --table and --format perfetto, expected no table: a timeline has all of them")
    output = args.output
    to_output = output is not None and is_standard_output(output)
    refuse_both(output, json=args.json)
    if to_output and len(tables) > 1 and args.format != "perfetto":
        raise InputError("export: found several tables for standard output, expected one: --table events, ...")
    if output is not None:
        check_ending(output, _endings(args.format, len(tables), output.suffix), but_not=args.recording)
    recording = read_recording(args.recording)
    if output is None:
        name = stem(args.recording)
        single = f"-{tables[0]}.{args.format}" if len(tables) == 1 else f"-{args.format}"
        output = Path(f"{name}.perfetto-trace" if args.format == "perfetto" else f"{name}{single}")
    with Progress("exporting") as progress:
        written = export(
            recording,
            args.format,
            output,
            tables=tables,
            progress=lambda done, of, what: progress(done, of or None, what),
        )
    # The tables have no place for it.
    for line in caveats(recording):
        print(f"tlbcore: {line}", file=sys.stderr)
    if to_output:
        return OK
    if args.json:
        print_json([{"path": str(path), "bytes": path.stat().st_size} for path in written])
    for path in written if not args.json else ():
        print(f"{path}: {number(path.stat().st_size)} bytes")
    return OK
