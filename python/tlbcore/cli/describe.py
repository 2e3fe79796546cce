"""A command line as data, read off its parser: what man pages and the completions of shells are made of."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.cli.usage_text import Example, examples_of, paragraphs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CommandText", "Option", "describe"]


@dataclass(frozen=True)
class Option:
    """An option, or an argument by position."""

    #: ``-o``, ``--kernel``; none for an argument by position.
    flags: tuple[str, ...]
    #: What stands for its value; empty if it takes none.
    metavar: str
    help: str
    #: The values that there are; empty if any will do.
    choices: tuple[str, ...] = ()
    required: bool = False
    repeated: bool = False


@dataclass(frozen=True)
class CommandText:
    """A command with what it takes."""

    #: As it is written: ``tlbcore kernels show``.
    name: str
    summary: str
    usage: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]
    commands: tuple[CommandText, ...] = ()
    #: What it does, beside the summary: a line for each paragraph.
    description: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    def walk(self) -> Iterator[CommandText]:
        """This command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def describe(parser: argparse.ArgumentParser, summary: str = "") -> CommandText:
    """What a parser takes, and those below it.

    Args:
        parser: The parser.
        summary: What the command does, if the parser's own description is not meant.
    """
    options: list[Option] = []
    arguments: list[Option] = []
    commands: list[CommandText] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask what a parser takes
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            helps = {choice.dest: choice.help for choice in action._choices_actions}  # noqa: SLF001 - the same
            commands += [describe(sub, helps.get(name) or "") for name, sub in action.choices.items()]
            continue
        option = _option(parser, action)
        (options if action.option_strings else arguments).append(option)
    return CommandText(
        name=parser.prog,
        summary=(summary or next(iter(paragraphs_of(parser)), "")).rstrip("."),
        usage=_usage(parser.prog, arguments, commands),
        options=tuple(options),
        arguments=tuple(arguments),
        commands=tuple(commands),
        description=paragraphs_of(parser),
        examples=examples_of(parser),
    )


def _usage(name: str, arguments: list[Option], commands: list[CommandText]) -> str:
    """How it is called, in one line that does not depend on the version of argparse."""
    words = [name, "[OPTION]..."]
    for argument in arguments:
        word = argument.metavar + ("..." if argument.repeated else "")
        words.append(word if argument.required else f"[{word}]")
    return " ".join([*words, *(["COMMAND ..."] if commands else [])])


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> Option:
    choices = tuple(str(choice) for choice in action.choices or ())
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.nargs == 0:
        metavar = ""
    elif not metavar:
        metavar = f"{{{','.join(choices)}}}" if choices else action.dest.upper()
    values = {**vars(action), "prog": parser.prog}
    return Option(
        flags=tuple(action.option_strings),
        metavar=metavar,
        help=(action.help or "") % values if action.help else "",
        choices=choices,
        # What versions of argparse say of "the rest of the line" differs; it may be nothing.
        required=action.required and action.nargs != argparse.REMAINDER,
        repeated=action.nargs in {"+", "*"} or isinstance(action, argparse._AppendAction),  # noqa: SLF001 - the same
    )
