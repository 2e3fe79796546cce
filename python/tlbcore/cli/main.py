"""The entry point of ``tlbcore``: finds the command, imports only its module, turns errors into one line and a status.

A command raises :class:`tlbcore.TlbcoreError` or ``OSError`` for bad input; it prints none itself, unless it goes on after it
(`tlbcore.cli.error_line`). Any other exception is a bug and keeps its traceback.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn, Protocol, cast

import tlbcore
from tlbcore.cli import USAGE
from tlbcore.cli.error_line import tell_error
from tlbcore.cli.usage_text import tell
from tlbcore.lookup import nearest

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as a shell reports it."""

BROKEN_PIPE: Final = 141
"""Exit status when the reader of our output went away: 128 + SIGPIPE, as a shell reports it."""


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options and arguments to its parser."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit status."""


class Command(NamedTuple):
    """A command as the list in ``tlbcore --help`` needs it, known without importing its module."""

    module: str
    summary: str
    #: What it imports whatever its arguments are, but not for its help.
    needs: tuple[str, ...] = ()


_NUMPY: Final = ("numpy",)

COMMANDS: Final[Mapping[str, Command]] = {
    "record": Command("tlbcore.cli.record", "Record a command or the whole system with perf", _NUMPY),
    "import": Command("tlbcore.cli.import_recording", "Make a recording of text that other tools wrote", _NUMPY),
    "compare": Command(
        "tlbcore.cli.compare", "Replay a recording under several kernels and say what flushing costs", _NUMPY
    ),
    "validate": Command("tlbcore.cli.validate", "Hold the model against the flushes that were recorded", _NUMPY),
    "report": Command("tlbcore.cli.report", "Write a page of what a program did to its TLBs, and why", _NUMPY),
    "export": Command(
        "tlbcore.cli.export", "Write a recording for Perfetto, or as tables for pandas, Polars, DuckDB", _NUMPY
    ),
    "sweep": Command("tlbcore.cli.sweep", "Replay recordings under kernels on machines: every combination", _NUMPY),
    "check": Command("tlbcore.cli.check", "Try every interleaving of a few operations: safe, or a counterexample"),
    "races": Command("tlbcore.cli.races", "List the documented races, found and mended, or tell the story of one"),
    "tlb": Command(
        "tlbcore.cli.tlb", "Run address traces through TLBs: hits and misses of each level, page walks", _NUMPY
    ),
    "schemes": Command("tlbcore.cli.schemes", "List the batching schemes, or print what one does step by step"),
    "kernels": Command("tlbcore.cli.kernels", "List the kernels and their switches, or print one"),
    "machines": Command("tlbcore.cli.machines", "List the machines, or print one with the source of each number"),
    "completion": Command("tlbcore.cli.completion", "Print the completion of this command line for a shell"),
}
"""The commands, in the order in which ``--help`` lists them."""


def main(
    argv: Sequence[str] | None = None,
    commands: Mapping[str, Command] = COMMANDS,
    before_run: Callable[[], None] = lambda: None,
) -> int:
    """Run one command line.

    Args:
        argv: The arguments after the program's name; ``sys.argv`` if not given.
        commands: The commands to offer.
        before_run: Called when the command's module is imported, its arguments are read and it is about to run.

    Returns:
        The exit status: 0 fine, 1 a negative verdict, 2 a usage or input error.

    Raises:
        SystemExit: From argparse, after ``--help``, ``--version`` or a usage error.
    """
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # names of files are bytes, and what a terminal cannot show is no error
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv, commands, before_run)
        finally:
            if sys.stdout is not None:  # closed by whoever started us
                sys.stdout.flush()  # here, so that a reader who went away is noticed where we can handle it
    except BrokenPipeError:
        # Nobody reads any more. What is still buffered goes nowhere, or the interpreter would complain as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (tlbcore.TlbcoreError, OSError) as error:
        tell_error(error)
        return USAGE


#: How argparse says that a value is no number.
_INVALID: Final = re.compile(r"invalid (int|float) value: ('.*')")
_TYPES: Final = {"int": "a whole number", "float": "a number"}


class _OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line with the nearest name, as all errors are."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse has it
        """As argparse does, but what this parser does not know is refused here, where the options are that it has."""
        found, unknown = super().parse_known_args(args, namespace)
        for word in unknown:
            options = [option for option in self._option_string_actions if option.startswith("--")]
            near = nearest(word.partition("=")[0], options) if word.startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found, unknown

    def parse_known_options(self, words: Sequence[str]) -> None:
        """Refuse the first option that this parser does not know."""
        known = self._option_string_actions
        for word in words:
            if word.startswith("-") and word not in known:
                self.error(f"unrecognized arguments: {word}{nearest(word, [o for o in known if o.startswith('--')])}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as argparse has it
        """Say which choice is nearest."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = nearest(str(value), choices)
            message = f"found {value!r}, expected one of {', '.join(choices)}{near}"
            if choices == ["show"] and not near:
                message = f"found {value!r}, expected show: {self.prog} show {value}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where to read how it is done."""
        message = _INVALID.sub(lambda found: f"found {found[2]}, expected {_TYPES[found[1]]}", message)
        self.exit(USAGE, f"tlbcore: error: {message} (see {self.prog} --help)\n")


def build_parser(commands: Mapping[str, Command] = COMMANDS, chosen: str | None = None) -> _OneLineParser:
    """The parser of a command line.

    Args:
        commands: The commands to offer.
        chosen: The only command whose arguments are wanted, and whose module is imported; None for all of them.
    """
    parser = _OneLineParser(
        prog="tlbcore",
        description="Measure and check TLB-flush batching schemes of Linux before writing the kernel patch.",
        epilog="Exit status: 0 fine, 1 a negative verdict, 2 a usage or input error.",
        allow_abbrev=False,
    )
    tell(
        parser,
        "Record what a program did to its memory, replay it under the kernels and machines of your choice, and see what TLB"
        " flushing costs there; or explore every interleaving of a few operations, and see whether a batching scheme is safe.",
        ("tlbcore record -o app.tlbr -- ./app", "record a program (tlbcore record --check: what is missing for it)"),
        ("tlbcore report app.tlbr", "a page of what it did to its TLBs"),
        ("tlbcore compare app.tlbr", "the same work under several kernels"),
        ("tlbcore check linux-6.18 --op munmap --op page_mkclean", "are these two safe beside each other?"),
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in commands.items():
        subparser = subparsers.add_parser(
            name, help=command.summary, description=f"{command.summary}.", allow_abbrev=False
        )
        if chosen is None or name == chosen:
            _module(command).add_arguments(subparser)
    return parser


def _module(command: Command) -> CommandModule:
    return cast("CommandModule", import_module(command.module))


def _run(argv: Sequence[str], commands: Mapping[str, Command], before_run: Callable[[], None]) -> int:
    # No option before the command takes a value, so the first word is the command. Only its module is imported:
    # `tlbcore --help` should not wait for numpy.
    chosen = next((word for word in argv if not word.startswith("-")), "")
    if not argv:  # a question, not a slip; but nothing was done, which a script should notice
        build_parser(commands, chosen).print_help(sys.stderr)
        return USAGE
    parser = build_parser(commands, chosen)
    if not chosen:  # argparse would only say that a command is missing
        parser.parse_known_options(argv)
    args = parser.parse_args(argv)
    if chosen not in commands:
        message = f"argparse accepted the unknown command {chosen!r}"
        raise AssertionError(message)
    for name in commands[chosen].needs:  # here, since the core cannot pass on a Ctrl-C in the middle of an import
        import_module(name)
    before_run()
    return _module(commands[chosen]).run(args)


def _version() -> str:
    features = ", ".join(tlbcore.build_features()) or "no features"
    return f"tlbcore {tlbcore.__version__} ({tlbcore.build_profile()} build; {features})"
