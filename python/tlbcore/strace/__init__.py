"""Recordings from the text of `strace -f`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore._core import Recording
from tlbcore.strace.text import as_perf_text, begins_as_strace, is_strace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final

__all__ = ["MAX_CPUS", "begins_as_strace", "is_strace", "load"]

MAX_CPUS: Final = 64
"""CPUs that the threads of a text are spread over; it does not say how many its machine had."""
_LINES_PER_TELLING: Final = 4096


def load(path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> Recording:
    """A recording from the text of strace; `progress` as `tlbcore.recordings.load` has it.

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
            out.writelines(as_perf_text(_told(lines, Path(path).stat().st_size, progress), name, MAX_CPUS))
        return Recording.open(text)


def _told(lines: Iterable[str], nr_bytes: int, progress: Callable[[int, int], None] | None) -> Iterator[str]:
    done = 0
    for at, line in enumerate(lines):
        if progress is not None and at % _LINES_PER_TELLING == 0:
            progress(done, nr_bytes)
        done += len(line)
        yield line
