"""`tlbcore races`: documented races, found again and proven mended."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tlbcore.cli import NEGATIVE, OK
from tlbcore.report.table import is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.races import Race


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("race", nargs="?", metavar="RACE", help="tell the story of this one, as R04")


def run(args: argparse.Namespace) -> int:
    """List the races, or tell of one."""
    from tlbcore import races  # noqa: PLC0415 - resolving all their kernels takes a moment

    chosen = [races.get(args.race)] if args.race else list(races.RACES.values())
    if args.race:
        return _tell(chosen[0])
    head = ["race", "commit", "scheme", "violates", "found after", "mended in", "mended kernel", "what"]
    rows = []
    as_expected = True
    for race in chosen:
        found, proven = race.find(), race.prove()
        as_expected &= race.invariant in found.violated and proven.safe
        steps = f"{len(found.counterexample)} steps" if found.violated else "not found"
        safe = f"safe ({proven.states} states)" if proven.safe else "UNSAFE"
        rows.append([race.id, race.commit or "-", race.scheme, race.invariant, steps, race.fixed_in, safe, race.title])
    print(table(head, rows, emphasis=is_terminal(), left=len(head)))
    return OK if as_expected else NEGATIVE


def _tell(race: Race) -> int:
    found, proven = race.find(), race.prove()
    print(f"{race.id}: {race.title}")
    where = f"Linux kernel commit {race.commit}, in {race.fixed_in}" if race.commit else race.fixed_in
    print(f"{where}; scheme {race.scheme}{f'; {race.cve}' if race.cve else ''}\n")
    print(textwrap.fill(race.story, 75))
    print(f"\n{found}\n\n{found.diagram()}\n\n{proven}")
    return OK if race.invariant in found.violated and proven.safe else NEGATIVE
