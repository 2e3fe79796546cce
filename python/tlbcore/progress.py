"""How far something is: one line on standard error that is written over, for people who look at a terminal.

Elsewhere, in a pipe, a file or a test, nothing is written; and nothing for work that is over within a second.

>>> import io
>>> with Progress("replaying", stream=io.StringIO()) as progress:
...     progress(1, 2)
>>> progress.line(3, 4, "gcc")
'replaying [################------] 3 of 4  gcc'
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, TextIO

__all__ = ["Progress"]

_WIDTH: Final = 22
"""Characters of the bar."""


class Progress:
    """A progress line: call it with how much is done and of how much; leaving the context wipes it away."""

    def __init__(
        self, what: str, *, stream: TextIO | None = None, after_seconds: float = 1.0, every_seconds: float = 0.1
    ) -> None:
        """Nothing is written yet.

        Args:
            what: What is going on, in a word or two.
            stream: Standard error if not given.
            after_seconds: Work that is over earlier shows nothing.
            every_seconds: The line is not written more often.
        """
        self.what = what
        self._stream = sys.stderr if stream is None else stream
        self._shown = False
        self._next = time.monotonic() + after_seconds
        self._every = every_seconds
        self._is_terminal = self._stream.isatty()

    def __call__(self, done: int, of: int | None = None, more: str = "") -> None:
        """Say how far it is.

        Args:
            done: So much.
            of: Of so much; None if nobody knows.
            more: What to add.
        """
        if not self._is_terminal or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        self._shown = True
        columns = shutil.get_terminal_size().columns
        self._stream.write(f"\r{self.line(done, of, more)[: columns - 1]}\x1b[K")
        self._stream.flush()

    def line(self, done: int, of: int | None = None, more: str = "") -> str:
        """What is written."""
        if of is None:
            return "  ".join(filter(None, [f"{self.what} {done:,}", more]))
        filled = min(_WIDTH, _WIDTH * done // of) if of else _WIDTH
        bar = f"[{'#' * filled}{'-' * (_WIDTH - filled)}]"
        return "  ".join(filter(None, [f"{self.what} {bar} {done:,} of {of:,}", more]))

    def close(self) -> None:
        """Wipe the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe the line away, whatever happened."""
        self.close()
