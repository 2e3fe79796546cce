"""`tlbcore compare`: the same recording under several kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore import costs, machines, recordings
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, add_machine, add_recording, print_json
from tlbcore.compare import METRICS, compare
from tlbcore.report.table import assumptions, heading, is_terminal, number, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.compare import Comparison

DEFAULT_KERNELS = ("linux-5.10", "linux-6.18", "consolidated")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
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
    recording = recordings.load(args.recording)
    machine = machines.get(args.machine)
    comparison = compare(recording, args.kernel or DEFAULT_KERNELS, machine.config())
    if args.json:
        print_json(comparison.to_dict())
    else:
        print(text(comparison))
    return OK


def text(comparison: Comparison) -> str:
    """The comparison as tables."""
    emphasis = is_terminal()
    replays = comparison.replays
    recording = replays[0].recording
    names = [replayed.kernel.name for replayed in replays]
    config = replays[0].config
    head = ["", names[0]]
    for name in names[1:]:
        head += [name, "ratio"]
    rows = []
    for counter, label in METRICS:
        values = [replayed.counters[counter] for replayed in replays]
        if not any(values):
            continue
        cells = [label, number(values[0])]
        for index, value in enumerate(values[1:], start=1):
            cells += [number(value), number(comparison.ratio(counter, index))]
        rows.append(cells)
    rows += _costs(comparison)
    lines = [
        heading(
            f"{recording.meta['file']}: {number(replays[0].result.nr_events)} events, {config['nr_cpus']} CPUs,"
            f" {config['levels']} levels, {'with' if config['pcid'] else 'without'} PCID",
            emphasis=emphasis,
        ),
        "",
        table(head, rows, emphasis=emphasis),
        f"* {costs.LABEL}: counts times the costs of `tlbcore machines show`, without contention or overlap",
        "",
        heading("Who causes the flushes: flushes (of these full; CPUs told), by operation", emphasis=emphasis),
        "",
        _by_operation(comparison, emphasis=emphasis),
    ]
    return "\n".join([*lines, *assumptions(replays[0].notes, emphasis=emphasis)])


def _costs(comparison: Comparison) -> list[list[str]]:
    """Rows of estimated time, in microseconds."""
    estimates = [cost for index in range(len(comparison.replays)) if (cost := comparison.cost(index)) is not None]
    rows = []
    for label, values in (
        ("time of those who flush, us *", [estimate.initiator_ns for estimate in estimates]),
        ("time of those interrupted, us *", [estimate.interference_ns for estimate in estimates]),
        ("time of all, with refills, us *", [estimate.total_ns for estimate in estimates]),
    ):
        cells = [label, number(round(values[0] / 1000))]
        for value in values[1:]:
            cells += [number(round(value / 1000)), number(value / values[0] if values[0] else None)]
        rows.append(cells)
    return rows


def _by_operation(comparison: Comparison, *, emphasis: bool) -> str:
    kinds: dict[str, int] = {}
    for replayed in comparison.replays:
        for kind, row in replayed.by_operation.items():
            kinds[kind] = max(kinds.get(kind, 0), row["nr_flush_requests"])
    rows = []
    for kind in sorted((k for k, n in kinds.items() if n), key=lambda k: (-kinds[k], k)):
        cells = [kind, number(max(r.by_operation.get(kind, {}).get("nr_operations", 0) for r in comparison.replays))]
        for replayed in comparison.replays:
            found = replayed.by_operation.get(kind)
            cells.append(
                f"{number(found['nr_flush_requests'])} ({number(found['nr_flush_full'])}; {number(found['nr_ipis'])})"
                if found
                else "0"
            )
        rows.append(cells)
    return table(["operation", "times", *(r.kernel.name for r in comparison.replays)], rows, emphasis=emphasis)
