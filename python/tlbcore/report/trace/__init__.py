"""Counterexamples for people: as text for a commit message, Markdown, a drawing, and a page to step through.

>>> import tlbcore
>>> verdict = tlbcore.check("linux-5.10", ["munmap", "page_mkclean"])
>>> trace_text(verdict, "markdown").splitlines()[4].startswith("| | CPU0 (munmap) | CPU1")
True
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.report.trace.markdown import markdown
from tlbcore.report.trace.page import page
from tlbcore.report.trace.svg import svg
from tlbcore.whole_file import write_text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from tlbcore.check import Verdict

__all__ = ["FORMATS", "markdown", "page", "svg", "trace_text", "write_trace"]


def _plain(verdict: Verdict) -> str:
    said = textwrap.fill(str(verdict), 75, break_long_words=False, break_on_hyphens=False)
    return f"{said}\n\n{verdict.diagram()}\n"


_WRITERS: Final[dict[str, Callable[[Verdict], str]]] = {
    "text": _plain,
    "markdown": markdown,
    "svg": svg,
    "html": page,
}
FORMATS: Final = tuple(_WRITERS)
"""The formats there are; `text` is that of commit messages, within 75 columns."""


def trace_text(verdict: Verdict, form: str) -> str:
    """A counterexample in one of `FORMATS`.

    Raises:
        InputError: No such format, or a verdict without a counterexample.

    """
    if form not in _WRITERS:
        raise InputError(f"trace: found the format {form!r}, expected one of {', '.join(FORMATS)}")
    if not verdict.counterexample:
        raise InputError(f"{verdict.kernel}: found no counterexample to show")
    return _WRITERS[form](verdict)


def write_trace(verdict: Verdict, form: str, path: str | os.PathLike[str]) -> None:
    """Writes it, whole or not at all.

    Raises:
        InputError: As `trace_text`.
        OSError: It cannot be written there.

    """
    write_text(path, trace_text(verdict, form))
