"""`tlbcore check --replay`: a finding executed again, step by step."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tlbcore.check import INVARIANTS
from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import print_json
from tlbcore.finding import repeat
from tlbcore.report.columns import columns
from tlbcore.report.table import counted

if TYPE_CHECKING:
    import argparse


def run_replay(args: argparse.Namespace) -> int:
    """Execute and print; 1 if the last state violates something, as it did."""
    found = repeat(args.replay)
    if args.json:
        print_json(asdict(found))
    else:
        says = [INVARIANTS[name] for name in found.violated]
        outcome = f"UNSAFE ({'; '.join(found.violated)})" if found.violated else "nothing violated"
        print(f"{found.kernel}: {counted(len(found.path), 'step')} repeated, {outcome}\n")
        print(columns(found.cpus, [(event["cpu"], event["text"]) for event in found.events], says or ["no violation"]))
    return NEGATIVE if found.violated else OK
