"""`tlbcore tlb`: address traces through the TLBs of a machine."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tlbcore import machines, tlb
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, input_path, print_json
from tlbcore.cli.usage_text import tell
from tlbcore.errors import InputError
from tlbcore.progress import Progress
from tlbcore.report.table import counted, heading, is_terminal, number, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

_RANGE: Final = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)-(0x[0-9a-fA-F]+|[0-9]+):(\w+)")

_ROWS: Final[tuple[tuple[str, Callable[[tlb.Counts], int]], ...]] = (
    ("accesses", lambda counts: counts.nr_accesses),
    ("first-level hits", lambda counts: counts.nr_l1_hits),
    ("first-level misses", lambda counts: counts.nr_l1_misses),
    ("second-level hits", lambda counts: counts.nr_stlb_hits),
    ("page walks", lambda counts: counts.nr_walks),
    ("  with 1 load", lambda counts: counts.walks_by_loads[0]),
    ("  with 2 loads", lambda counts: counts.walks_by_loads[1]),
    ("  with 3 loads", lambda counts: counts.walks_by_loads[2]),
    ("  with 4 loads", lambda counts: counts.walks_by_loads[3]),
    ("  with 5 loads", lambda counts: counts.walks_by_loads[4]),
    ("  to 2M pages", lambda counts: counts.walks_by_size[1]),
    ("  to 1G pages", lambda counts: counts.walks_by_size[2]),
    ("loads of walks", lambda counts: counts.nr_walk_loads),
)
"""The rows of the table; those that are 0 everywhere are left out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Every access of a trace goes through the first and the second level of a machine's TLBs; what misses both is a page"
        " walk, of which the loads are counted. Raw and .npy files are mapped, the others are read, plain or compressed.",
        ("tlbcore tlb app.npy --machine skylake_sp", "one trace on one machine"),
        ("tlbcore tlb cpu0.raw cpu1.raw --page-size 2M", "two CPUs, and pages of 2 MiB"),
        ("xz -dc app.lackey.xz | tlbcore tlb -", "out of a pipe"),
    )
    parser.add_argument(
        "traces",
        metavar="T",
        nargs="+",
        type=input_path,
        help=f"a file with addresses (- is standard input); several files are several CPUs. Formats: {', '.join(tlb.FORMATS)}",
    )
    parser.add_argument(
        "--machine", default=machines.DEFAULT, metavar="M", help="a machine as `tlbcore machines` lists them"
    )
    parser.add_argument("--format", choices=tlb.FORMATS, help="what the files are (without: their content tells)")
    parser.add_argument("--page-size", choices=tlb.PAGE_SIZES, default="4K", help="the size of pages (default 4K)")
    parser.add_argument(
        "--pages",
        action="append",
        default=[],
        metavar="START-END:SIZE",
        help="other pages at these addresses, as 0x7f0000000000-0x7f0040000000:2M; again for more",
    )
    parser.add_argument(
        "--by-thread", action="store_true", help="each thread of a trace that knows them has a CPU of its own"
    )
    parser.add_argument(
        "--flush-every", type=int, metavar="N", help="drop everything before access N, 2N, ... of each CPU"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="threads that work (default: all CPUs)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate and print."""
    traces = [tlb.open_trace(path, args.format) for path in args.traces]
    for path, trace in zip(args.traces, traces, strict=True):
        if not len(trace.addresses) and trace.nr_other_lines:
            raise InputError(
                f"{path}: found {counted(trace.nr_other_lines, 'line')} without an access, expected accesses"
            )
    streams = _by_thread(traces) if args.by_thread else [trace.addresses for trace in traces]
    machine = machines.get(args.machine)
    accesses = counted(sum(len(stream) for stream in streams), "access")
    since = time.monotonic()
    # A stream is a file, or a thread of one.
    files = dict(enumerate(args.traces)) if not args.by_thread else {}
    with Progress("simulating for s:") as progress, _in_its_file(files, args.traces):
        result = tlb.simulate(
            streams,
            machine,
            page_size=args.page_size,
            page_ranges=[_page_range(text) for text in args.pages],
            events=_flushes(streams, args.flush_every),
            threads=_positive("--threads", args.threads),
            progress=lambda: progress(int(time.monotonic() - since), more=accesses),
        )
    if args.json:
        print_json(
            {"traces": [_described(*pair) for pair in zip(args.traces, traces, strict=True)], **result.to_dict()}
        )
    else:
        print(_text(args.traces, traces, machine, result))
    return OK


@contextmanager
def _in_its_file(files: Mapping[int, Any], traces: Sequence[Any]) -> Iterator[None]:
    """Name the file of an access that cannot be: that of its stream (CPU), or all there are."""
    try:
        yield
    except tlb.AccessError as error:
        file = files.get(error.cpu)
        place = f"{file}: access {error.access}"
        if file is None:
            place = f"{', '.join(map(str, traces))}: access {error.access} of CPU {error.cpu}"
        raise InputError(f"{place}: {error.found}") from error


def _by_thread(traces: list[tlb.AddressTrace]) -> list[Any]:
    streams: list[Any] = []
    for trace in traces:
        if trace.threads is None:
            streams.append(trace.addresses)
        else:
            streams += [trace.addresses[trace.threads == thread] for thread in range(len(trace.thread_names))]
    return streams


def _flushes(streams: list[Any], every: int | None) -> list[Any]:
    if every is None:
        return []
    step = _positive("--flush-every", every)
    return [tlb.flush_all(np.arange(step, len(stream), step), cpu=cpu) for cpu, stream in enumerate(streams)]


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{option}: found {value}, expected 1 or more")
    return value


def _page_range(text: str) -> tuple[int, int, str]:
    match = _RANGE.fullmatch(text)
    if match is None or match[3] not in tlb.PAGE_SIZES:
        raise InputError(f"--pages: found {text!r}, expected START-END:SIZE with a size of {', '.join(tlb.PAGE_SIZES)}")
    return int(match[1], 0), int(match[2], 0), match[3]


def _described(path: str, trace: tlb.AddressTrace) -> dict[str, Any]:
    return {
        "file": path,
        "format": trace.format,
        "nr_accesses": len(trace.addresses),
        "nr_instructions": trace.nr_instructions,
        "nr_other_lines": trace.nr_other_lines,
        "threads": trace.thread_names,
    }


def _text(paths: list[str], traces: list[tlb.AddressTrace], machine: machines.Machine, result: tlb.Result) -> str:
    emphasis = is_terminal()
    lines = []
    for path, trace in zip(paths, traces, strict=True):
        others = [
            f", {number(count)} {what}"
            for count, what in ((trace.nr_instructions, "instructions"), (trace.nr_other_lines, "other lines"))
            if count
        ]
        lines.append(f"{path}: {trace.format}, {counted(len(trace.addresses), 'access', group=' ')}{''.join(others)}")
    lines += [f"{machine.name}: {machine.title}", ""]
    columns = [("all", result)] if len(result.cpus) == 1 else [*enumerate(result.cpus), ("all", result)]
    head = ["CPU", *(str(name) for name, _ in columns)]
    rows = []
    for label, value in _ROWS:
        cells = [value(counts) for _, counts in columns]
        if any(cells):
            rows.append([label, *map(number, cells)])
    lines.append(table(head, rows, emphasis=emphasis))
    if result.nr_accesses:
        share = result.nr_walks / result.nr_accesses
        loads = result.nr_walk_loads / result.nr_walks if result.nr_walks else 0.0
        lines += ["", heading(f"walks per access {share:.6f}, loads per walk {loads:.3f}", emphasis=emphasis)]
    return "\n".join(lines)
