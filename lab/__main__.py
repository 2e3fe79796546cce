"""`python -m lab`: run, generate, convert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lab import generate, recording, run
from lab.errors import LabError


def main(given: list[str] | None = None) -> int:
    """The command; returns its exit status, 1 for anything that is wrong."""
    parser = argparse.ArgumentParser(prog="python -m lab", description="The kernel lab; see lab/README.md.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run.add_arguments(commands.add_parser("run", help="run scenarios on a kernel in QEMU and record the flushes"))
    generate.add_arguments(commands.add_parser("generate", help="write random scenarios"))
    convert = commands.add_parser("convert", help="convert the raw traces of a run again")
    convert.add_argument("raw", type=Path, help="build/lab/raw/LABEL")
    convert.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default %(default)s")
    arguments = parser.parse_args(given)
    try:
        if arguments.command == "run":
            return run.run(arguments)
        if arguments.command == "generate":
            return generate.run(arguments)
        problems = recording.convert(arguments.raw, arguments.out)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"warning: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
