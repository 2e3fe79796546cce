"""How every command tells an error: in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tlbcore.lookup import with_nearest

__all__ = ["tell_error"]


def tell_error(error: Exception) -> None:
    """Print an error as every command tells it: one line on standard error."""
    print(f"tlbcore: error: {_one_line(error)}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """Put an error on one line; an ``OSError`` without its number, the file first."""
    if isinstance(error, FileNotFoundError):
        error = with_nearest(error)
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
        if error.filename is not None:
            text = f"{Path(os.fsdecode(error.filename))}: {text}"
    else:
        text = str(error) or type(error).__name__
    # Bytes of a name that are no text are shown as a recording's name shows them.
    return " ".join(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())
