"""`tlbcore races`: documented races, found again and proven mended."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from tlbcore.cli import NEGATIVE, OK
from tlbcore.cli.common import add_json, print_json
from tlbcore.cli.usage_text import tell
from tlbcore.progress import Progress
from tlbcore.report.table import counted, is_terminal, table

if TYPE_CHECKING:
    import argparse

    from tlbcore.check import Verdict
    from tlbcore.races import Race, Uncovered

_WIDTH = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "Each race is looked for in a kernel that has it and in one that has not, in the scenario in which it was documented."
        " Those that are not covered are named, with the reason.",
        ("tlbcore races", "all of them"),
        ("tlbcore races R04", "how one was documented, what is found, and what mended it"),
    )
    parser.add_argument("race", nargs="?", metavar="RACE", help="tell the story of this one, as R04")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """List the races, or tell of one."""
    from tlbcore import races  # noqa: PLC0415 - resolving all their kernels takes a moment

    if args.json:
        every: list[Race | Uncovered] = [*races.RACES.values(), *races.UNCOVERED.values()]
        chosen = races.matching(args.race) if args.race else every
        plain = [_plain(race) for race in chosen]
        print_json(plain)
        return OK if all(entry.get("as_documented", True) for entry in plain) else NEGATIVE
    if not args.race:
        return _list()
    as_expected = True
    for number, race in enumerate(races.matching(args.race)):
        if number:
            print()
        if isinstance(race, races.Uncovered):
            _tell_why_not(race)
        else:
            as_expected &= _tell(race)
    return OK if as_expected else NEGATIVE


def _plain(race: Race | Uncovered) -> dict[str, Any]:
    """A race as a plain structure; both verdicts of one that is covered, the reason of one that is not."""
    from tlbcore.races import Uncovered  # noqa: PLC0415 - as above

    names = ("id", "title", "commit", "fixed_in", "scheme", "invariant", "cve")
    plain: dict[str, Any] = {name: getattr(race, name) for name in names}
    if isinstance(race, Uncovered):
        return plain | {"covered": False, "reason": race.reason}
    found, proven = race.find(), race.prove()
    return plain | {
        "covered": True,
        "story": race.story,
        "interleaving": list(race.interleaving),
        "found": found.to_dict(),
        "mended": proven.to_dict(),
        "as_documented": race.invariant in found.violated and proven.safe,
    }


def _list() -> int:
    from tlbcore.races import RACES, UNCOVERED  # noqa: PLC0415 - as above

    emphasis = is_terminal()
    head = ["race", "commit", "scheme", "violates", "documented", "found after", "mended in", "mended kernel", "what"]
    rows = []
    as_expected = True
    with Progress("races") as progress:
        verdicts = []
        for number, race in enumerate(RACES.values()):
            progress(number, len(RACES), race.id)
            verdicts.append((race, race.find(), race.prove()))
    for race, found, proven in verdicts:
        as_expected &= race.invariant in found.violated and proven.safe
        safe = f"safe ({counted(proven.states, 'state', group='')})" if proven.safe else "UNSAFE"
        documented = f"{race.documented_steps} step{'s' if race.documented_steps > 1 else ''}"
        rows.append([race.id, race.commit or "-", race.scheme, race.invariant, documented, _length(found)])
        rows[-1] += [race.fixed_in, safe, race.title]
    print(table(head, rows, emphasis=emphasis, left=len(head)))
    print(
        "\nA turn is as many steps of one CPU as come one after the other, without hardware: about a documented step.\n"
    )
    print("Not covered:\n")
    head = ["race", "commit", "scheme", "violates", "mended in", "why not"]
    rows = [
        [race.id, race.commit or "-", race.scheme, race.invariant, race.fixed_in, race.reason]
        for race in UNCOVERED.values()
    ]
    print(table(head, rows, emphasis=emphasis, left=len(head)))
    return OK if as_expected else NEGATIVE


def _length(found: Verdict) -> str:
    return (
        f"{counted(len(found.counterexample), 'step')}, {counted(found.turns, 'turn')}"
        if found.violated
        else "not found"
    )


def _head(race: Race | Uncovered) -> None:
    print(f"{race.id}: {race.title}")
    where = f"Linux kernel commit {race.commit}, in {race.fixed_in}" if race.commit else race.fixed_in
    print(f"{where}; scheme {race.scheme}{f'; {race.cve}' if race.cve else ''}\n")


def _tell(race: Race) -> bool:
    found, proven = race.find(), race.prove()
    _head(race)
    print(textwrap.fill(race.story, _WIDTH))
    print("\nAs documented:\n")
    for number, step in enumerate(race.interleaving, 1):
        print(textwrap.fill(step, _WIDTH, initial_indent=f"{number:3}. ", subsequent_indent="     "))
    print(f"\nFound after {_length(found)} ({race.documented_steps} as documented):\n")
    print(f"{found}\n\n{found.diagram()}\n\n{proven}")
    if found.finding:
        print(f"\ntlbcore check --replay {found.finding}")
    return race.invariant in found.violated and proven.safe


def _tell_why_not(race: Uncovered) -> None:
    _head(race)
    print(textwrap.fill(f"Not covered: {race.reason}.", _WIDTH))
