"""Recordings from the text of `strace -f`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore._core import Recording
from tlbcore.strace.text import as_perf_text, is_strace

if TYPE_CHECKING:
    from typing import Final

__all__ = ["MAX_CPUS", "is_strace", "load"]

MAX_CPUS: Final = 64
"""CPUs that the threads of a text are spread over; it does not say how many its machine had."""


def load(path: str | os.PathLike[str]) -> Recording:
    """A recording from the text of strace.

    Raises:
        InputError: A line is not understood; the message names it.
        OSError: It cannot be read.

    """
    name = Path(os.fspath(path)).name
    with tempfile.TemporaryDirectory(prefix="tlbcore-strace-") as folder:
        text = Path(folder) / name
        with (
            open(path, encoding="utf-8", errors="surrogateescape") as lines,  # noqa: PTH123  # whatever a path may be
            text.open("w", encoding="utf-8", errors="surrogateescape") as out,
        ):
            out.writelines(as_perf_text(lines, name, MAX_CPUS))
        return Recording.open(text)
