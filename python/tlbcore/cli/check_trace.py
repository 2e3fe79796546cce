"""The counterexample of `tlbcore check`: printed, or written in a form for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore.errors import InputError
from tlbcore.report.trace import FORMATS, trace_text, write_trace

if TYPE_CHECKING:
    import argparse

    from tlbcore.check import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How it is shown, and where."""
    parser.add_argument(
        "--format", choices=FORMATS, help="the counterexample as text for a commit message, Markdown, SVG or a page"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="F",
        help="where the counterexample goes (.txt, .md, .svg, .html tell its format)",
    )


def refuse_several(args: argparse.Namespace) -> None:
    """Nothing.

    Raises:
        InputError: A form for one counterexample, where there can be several.

    """
    several = next((name for name in ("litmus", "mutate", "pairs", "triples") if getattr(args, name)), None)
    if several and (args.format or args.output):
        raise InputError(
            f"check: found --{several} and --format or --output, expected these with --op, for one counterexample"
        )


def show(verdict: Verdict, form: str | None, output: Path | None) -> None:
    """Print a verdict and its counterexample, or write that in a form for people."""
    if (form is None and output is None) or not verdict.counterexample:
        print(verdict)
        print(f"locks relied on: {', '.join(verdict.locks)}")
        if verdict.violated:
            print()
            print(verdict.diagram())
        return
    if form is None:
        ends = {".md": "markdown", ".svg": "svg", ".html": "html", ".txt": "text"}
        assert output is not None  # noqa: S101  # one of both is given
        if output.suffix not in ends:
            raise InputError(
                f"{output}: found a name that ends in {output.suffix or 'nothing'}, expected {', '.join(ends)}"
            )
        form = ends[output.suffix]
    if output is None:
        print(trace_text(verdict, form), end="")
    else:
        write_trace(verdict, form, output)
        print(verdict)
        print(f"written to {output}")
