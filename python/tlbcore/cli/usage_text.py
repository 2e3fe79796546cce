"""What a command says of itself beside its arguments: paragraphs, and examples, which a test runs.

The parser holds both, so that ``--help`` and the man pages (`tools/man_pages.py`) say the same.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import Final, NamedTuple

__all__ = ["Example", "examples_of", "paragraphs_of", "tell"]

_HEAD: Final = "examples:\n"
_COMMAND, _SAYS = "  ", "      "


class Example(NamedTuple):
    """A command line and what it is for."""

    command: str
    says: str


class _Paragraphs(argparse.HelpFormatter):
    """Fills paragraph by paragraph; examples stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith(_HEAD) else textwrap.fill(" ".join(part.split()), width, initial_indent=indent)
            for part in text.split("\n\n")
        )


def tell(parser: argparse.ArgumentParser, description: str, *examples: tuple[str, str]) -> None:
    """Give a parser its text.

    Args:
        parser: The parser, whose description is its summary so far.
        description: Paragraphs, with an empty line between two.
        examples: Command lines, each with what it is for.
    """
    parser.formatter_class = _Paragraphs
    parser.description = f"{parser.description}\n\n{description}"
    listed = "\n".join(f"{_COMMAND}{command}\n{_SAYS}{says}" for command, says in examples)
    parser.epilog = "\n\n".join(filter(None, [f"{_HEAD}{listed}", parser.epilog]))


def paragraphs_of(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """The paragraphs of a parser's description, each as one line."""
    return tuple(" ".join(part.split()) for part in (parser.description or "").split("\n\n") if part.strip())


def examples_of(parser: argparse.ArgumentParser) -> tuple[Example, ...]:
    """The examples at the end of a parser's help."""
    found: list[Example] = []
    for part in (parser.epilog or "").split("\n\n"):
        lines = part.removeprefix(_HEAD).splitlines() if part.startswith(_HEAD) else []
        found += [Example(command.strip(), says.strip()) for command, says in zip(lines[::2], lines[1::2], strict=True)]
    return tuple(found)
