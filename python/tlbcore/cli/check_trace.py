"""The counterexample of `tlbcore check`: printed, or written in a form for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlbcore.cli.common import output_path, refuse_both
from tlbcore.errors import InputError
from tlbcore.report.trace import FORMATS, trace_text, write_trace
from tlbcore.whole_file import check_place, is_standard_output
from tlbcore.widen import settled

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from tlbcore.check import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How it is shown, and where."""
    parser.add_argument(
        "--format", choices=FORMATS, help="the counterexample as text for a commit message, Markdown, SVG or a page"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        metavar="F",
        help="where the counterexample goes (.txt, .md, .svg, .html tell its format); - is standard output",
    )


_ENDS: Final = {".md": "markdown", ".svg": "svg", ".html": "html", ".txt": "text"}


def refuse(args: argparse.Namespace) -> None:
    """What cannot be shown or written is said before the search, which may take long.

    Raises:
        InputError: A form for one counterexample, where there can be several; a file whose name tells no form.
        OSError: There is no folder for the file.

    """
    several = next((name for name in ("litmus", "mutate", "pairs", "triples") if getattr(args, name)), None)
    if several and (args.format or args.output):
        raise InputError(
            f"check: found --{several} and --format or --output, expected these with --op, for one counterexample"
        )
    output: Path | None = args.output
    if output is None:
        return
    refuse_both(output, json=args.json)
    if is_standard_output(output):
        args.output = None  # where it goes anyway
        return
    if args.format is None and output.suffix not in _ENDS:
        raise InputError(
            f"{output}: found a name that ends in {output.suffix or 'nothing'}, expected {', '.join(_ENDS)}"
        )
    check_place(output)


def show(verdict: Verdict, form: str | None, output: Path | None) -> None:
    """Print a verdict and its counterexample, or write that in a form for people."""
    if (form is None and output is None) or not verdict.counterexample:
        _say(verdict)
        if output is not None:
            print(f"no counterexample: {output} is not written")
        return
    if form is None:
        assert output is not None  # noqa: S101  # one of both is given
        form = _ENDS[output.suffix]
    if output is None:
        print(trace_text(verdict, form), end="")
    else:
        write_trace(verdict, form, output)
        print(verdict)
        print(f"written to {output}")


def _say(verdict: Verdict) -> None:
    """Print a verdict, what it was searched for, and its counterexample."""
    print(verdict)
    print(f"locks relied on: {', '.join(verdict.locks)}")
    if verdict.sizes:
        tried = ", ".join(f"{size.users} x {size.pages}" for size in verdict.sizes)
        print(f"sizes tried (user CPUs x pages): {tried}")
    if same := settled(verdict):
        pages = " and ".join(f"{number} page{'s' * (number > 1)}" for number in same)
        says = "one more user CPU changes nothing for the kernel threads: evidence, not proof, for any number"
        print(f"with {pages} {says}")
    if verdict.violated:
        print(f"\n{verdict.diagram()}")
        if verdict.finding:
            print(f"\ntlbcore check --replay {verdict.finding}")
