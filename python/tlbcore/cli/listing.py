"""What the commands that list and show things share: their arguments, and text in columns."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Final

from tlbcore.lookup import find
from tlbcore.scheme import OPERATIONS

_WIDTH: Final = 100


def add_list_and_show(parser: argparse.ArgumentParser, what: str, spec: str, spec_help: str) -> argparse.ArgumentParser:
    """Add `[--json]` for the list and the subcommand `show SPEC [--json]`; return the parser of `show`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.usage = f"{parser.prog} [-h] [--json] [show {spec} ...]"  # argparse would have `show` as if it were required
    actions = parser.add_subparsers(dest="action", metavar="show", prog=parser.prog)
    show = actions.add_parser("show", help=f"print one {what}", description=f"Print one {what}.", allow_abbrev=False)
    show.add_argument("spec", metavar=spec, help=spec_help)
    # Its absence must not undo a --json that stands before `show`.
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return show


def add_operation(parser: argparse.ArgumentParser) -> None:
    """Add `--operation OP`."""
    parser.add_argument("--operation", metavar="OP", help="only the program of this operation, such as munmap")


def the_operation(name: str | None) -> str | None:
    """The operation that a user means.

    Raises:
        InputError: There is no such operation; the message has the nearest.
    """
    return None if name is None else find("operation", name, OPERATIONS)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))


def wrapped(label: str, text: str) -> str:
    """A label and a text beside it, over as many lines as it needs."""
    indent = "  " + " " * (len(label) + 1) if label else "  "
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"  {label} " if label else "  ", subsequent_indent=indent, break_on_hyphens=False
    )


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, the columns flush left, the last as long as it is."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in rows
    )
