"""`tlbcore validate`: how close the model comes to what the real kernel did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbcore import machines, recordings
from tlbcore.cli import OK
from tlbcore.cli.common import add_json, add_machine, add_recording, print_json
from tlbcore.report.table import assumptions, heading, is_terminal, number, table
from tlbcore.validate import flush_text, validate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tlbcore.validate import Validation

NR_DISAGREEMENTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_recording(parser)
    parser.add_argument(
        "--kernel",
        metavar="K",
        help="a kernel as `tlbcore kernels` lists them (without: the one nearest to the recorded kernel)",
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
        type=Path,
        help="write each operation with both lists of flushes",
    )
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Validate and print."""
    recording = recordings.load(args.recording)
    kernel = recordings.kernel_of(recording) if args.kernel is None else args.kernel
    machine = machines.get(args.machine)
    validation = validate(
        recording,
        kernel,
        machine.config(),
        follow_masks=args.follow,
        nr_disagreements=NR_DISAGREEMENTS,
    )
    if args.operations is not None:
        validation.write_operations(args.operations)
    if args.json:
        print_json(validation.to_dict())
    else:
        print(text(validation))
    return OK


def text(validation: Validation) -> str:
    """The validation as tables."""
    emphasis = is_terminal()
    plain = validation.plain
    rows = [
        [kind, *(number(row[key]) for key in ("nr_operations", "matched", "missed", "extra", "score"))]
        for kind, row in sorted(plain["by_operation"].items(), key=lambda item: -_flushes(item[1]))
        if _flushes(row)
    ]
    total = [number(plain[key]) for key in ("nr_operations", "matched", "missed", "extra", "score")]
    rows.append(["all", *total])
    head = ["operation", "times", "matched", "missed", "extra", "score"]
    lines = [
        heading(
            f"{validation.replay.recording.meta['file']} held against {validation.replay.kernel.name}:"
            f" matched {validation.matched}, missed {validation.missed}, extra {validation.extra},"
            f" score = {validation.score:.4f}",
            emphasis=emphasis,
        ),
        "",
        table(head, rows, emphasis=emphasis),
    ]
    if plain["nr_unattributed"]:
        nr_unattributed = number(plain["nr_unattributed"])
        lines += ["", f"  {nr_unattributed} recorded flushes belong to no recorded operation; not compared"]
    if plain["disagreements"]:
        lines += ["", heading("The largest groups of disagreement (+ = other CPUs were told)", emphasis=emphasis), ""]
        lines.append(
            table(
                ["operation", "kernel did, model not", "model did, kernel not", "example", "times"],
                [_disagreement(group) for group in plain["disagreements"]],
                emphasis=emphasis,
                left=4,
            ),
        )
    return "\n".join([*lines, *assumptions(validation.replay.notes, emphasis=emphasis)])


def _flushes(row: dict[str, Any]) -> int:
    return int(row["matched"]) + int(row["missed"]) + int(row["extra"])


def _disagreement(group: dict[str, Any]) -> list[str]:
    example = group["example"]
    name = example["name"]
    if name in (group["kind"], "fault"):
        name = f"{name}({', '.join(hex(a) for a in example['arguments'])})"
    place = f"event {example['event']}: {example['comm']} {name}"
    return [group["kind"], _list(group["missed"]), _list(group["extra"]), place, number(group["nr_operations"])]


def _list(flushes: Sequence[dict[str, Any]], limit: int = 4) -> str:
    shown = " ".join(flush_text(flush) for flush in flushes[:limit]) or "-"
    return shown if len(flushes) <= limit else f"{shown} ... ({len(flushes)})"
