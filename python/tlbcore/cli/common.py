"""What several commands share: their arguments, and how a result goes out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tlbcore import recordings
from tlbcore.errors import InputError
from tlbcore.progress import Progress
from tlbcore.whole_file import STANDARD_OUTPUT, is_standard_output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlbcore.recordings import Recording


def input_path(text: str) -> str:
    """The type of an argument that names what is read: `-` is standard input.

    Raises:
        ArgumentTypeError: Standard input is a terminal, on which nobody types a recording.
    """
    if text != "-":
        return text
    if sys.stdin is not None and sys.stdin.isatty():
        raise argparse.ArgumentTypeError("found a terminal on standard input, expected a file or a pipe")
    return "/dev/stdin"


def output_path(text: str) -> Path:
    """The type of an argument that names what is written: `-` is standard output."""
    return STANDARD_OUTPUT if text == "-" else Path(text)


def file_path(text: str) -> Path:
    """The type of an argument that names a file to write, which no pipe can be.

    Raises:
        ArgumentTypeError: It is `-`.
    """
    if text == "-":
        raise argparse.ArgumentTypeError("found -, expected the name of a file")
    return Path(text)


def refuse_both(output: Path | None, *, json: bool) -> None:
    """Refuse what would mix on standard output.

    Raises:
        InputError: JSON and something else are to go there.
    """
    if json and output is not None and is_standard_output(output):
        raise InputError("--json: found that another output goes to standard output too, expected one of both there")


def beside(output: Path | None) -> TextIO:
    """Where to say what was written: standard error if it went to standard output."""
    return sys.stderr if output is not None and is_standard_output(output) else sys.stdout


def add_recording(parser: argparse.ArgumentParser) -> None:
    """The recording, as every command that reads one takes it."""
    parser.add_argument(
        "recording",
        metavar="R",
        type=input_path,
        help="a recording (.tlbr), or any file that `tlbcore import` understands; - is standard input",
    )


def read_recording(path: str) -> Recording:
    """The recording of that name; a large text takes a while, and shows how far it is."""
    with Progress("reading") as progress:
        return recordings.load(path, progress=lambda done, of: progress(done >> 20, of >> 20 or None, "MiB"))


def stem(path: str) -> str:
    """What a recording is called, for the names of what is made of it: `apache` of ``data/apache.perf.txt.zst``."""
    name = Path(path).name
    return name.split(".", maxsplit=1)[0] or name.strip(".") or "recording"


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The machine."""
    parser.add_argument(
        "--machine",
        default="default",
        metavar="M",
        help="a machine as `tlbcore machines` lists them; CPUs, levels and PCID are the recording's if it knows them",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Plain structures instead of tables."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever json takes
    """The result as JSON text."""
    print(json.dumps(value, indent=2))


def refuse_given(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuse options that would be ignored, 0 among what is given.

    Raises:
        InputError: One of them was given.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value is not False and value != []:
            option = "kernel" if name == "mutate_kernel" else name.replace("_", "-")
            raise InputError(f"--{option}: {why}")
