"""Files that are written whole or not at all: Ctrl-C, an error or a full disk leave what was there before."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_place", "replacing", "write_text"]


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise now what writing a file would raise later, after long work: its folder is not there, or a folder has its name.

    Raises:
        OSError: It cannot be written there.

    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives the path of a file beside `path` to write to; it becomes `path` when the block ends without an exception.

    Raises:
        OSError: It cannot be written there.

    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8.

    Raises:
        OSError: It cannot be written there; the error names `path`.

    """
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
