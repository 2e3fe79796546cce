"""`tlbcore sweep`: kernels x machines x recordings."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore import costs, sweep_file
from tlbcore.cli import OK, USAGE
from tlbcore.cli.common import add_json, file_path, input_path, print_json
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.progress import Progress
from tlbcore.report.table import is_terminal, table, warned
from tlbcore.results import columns
from tlbcore.sweep import sweep
from tlbcore.tables import FORMATS, check_format, write_table
from tlbcore.whole_file import check_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from concurrent.futures import Executor

EXECUTORS = ("threads", "processes", "serial", "dask")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        'F is TOML with the lists recordings, kernels and machines: recordings = ["app.tlbr"], kernels = ["linux-5.10",'
        ' "linux-6.18"], machines = ["zen4_genoa"]. Names are seen from its folder; machines may be left out. A recording that'
        " cannot be read does not stop the others.",
        ("tlbcore sweep sweep.toml", "a row for each combination"),
        ("tlbcore sweep sweep.toml --executor processes -o points.csv", "over processes, with all counters as a table"),
    )
    parser.add_argument(
        "file",
        metavar="F",
        type=lambda text: Path(input_path(text)),
        help="TOML with lists of recordings, kernels and machines; - is standard input",
    )
    parser.add_argument(
        "--executor",
        default="threads",
        metavar="E",
        help=f"where the replays run: {', '.join(EXECUTORS)}, or dask:ADDRESS of a scheduler (%(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="so many threads or processes (as many as CPUs)")
    ends = ", .".join(FORMATS)
    parser.add_argument("-o", dest="out", metavar="OUT", type=file_path, help=f"write a row for each point: .{ends}")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Sweep and print; a recording that cannot be read is a line on standard error, and the status says so."""
    asked = sweep_file.load(args.file)
    if args.out is not None:
        check_format(args.out)
        check_place(args.out)
    with _executor(args.executor, args.workers) as executor, Progress("points") as progress:
        found = sweep(asked.recordings, asked.kernels, asked.machines, executor=executor, progress=progress)
    if args.out is not None:
        write_table(columns(found.to_rows()), args.out)
    if args.json:
        print_json(found.to_dict())
    else:
        head, rows = found.table()
        names = _short_names([row[0] for row in rows])
        print(table(head, [[names[row[0]], *row[1:]] for row in rows], emphasis=is_terminal(), left=3))
        print(f"* {costs.LABEL}; ratios are to the first kernel on the same machine")
        for line in warned([_short(line, names) for line in found.warnings]):
            print(line)
    for message in dict.fromkeys(failure.message for failure in found.failures):
        print(f"tlbcore: error: {message}", file=sys.stderr)
    return USAGE if found.failures else OK


def _short(warning: str, names: dict[str, str]) -> str:
    """A warning that begins with the short name of its recording."""
    path = next(path for path in names if warning.startswith(f"{path}: "))
    return names[path] + warning.removeprefix(path)


def _short_names(paths: list[str]) -> dict[str, str]:
    """The paths without the folder that all are in."""
    if not paths:
        return {}
    folder = os.path.commonpath([Path(path).parent for path in paths])
    return {path: os.path.relpath(path, folder or ".") for path in paths}


@contextmanager
def _executor(name: str, workers: int | None) -> Iterator[Executor | None]:
    """The executor of that name, closed at the end; what has not begun is given up on Ctrl-C."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: found {workers}, expected at least 1")
    kind, _, address = name.partition(":")
    if kind not in EXECUTORS or (address and kind != "dask"):
        raise InputError(f"--executor: found {name}, expected one of {', '.join(EXECUTORS)}{nearest(kind, EXECUTORS)}")
    if kind == "serial":
        yield None
        return
    if kind == "dask":
        with _dask(address, workers) as executor:
            yield executor
        return
    pool: Executor = ThreadPoolExecutor(workers or os.cpu_count())
    if kind == "processes":
        pool.shutdown()
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Executor]:
    """An executor on a Dask cluster: that of a scheduler, or one of this computer."""
    try:
        from distributed import Client  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--executor dask: found no distributed, expected it: pip install 'tlbcore[dask]'") from error
    try:
        client = Client(address) if address else Client(n_workers=workers, dashboard_address=None)
    except (OSError, ValueError) as error:
        raise InputError(f"--executor dask:{address}: found no scheduler ({error}), expected its address") from error
    with client:
        yield client.get_executor()
