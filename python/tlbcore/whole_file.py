"""Files that are written whole or not at all: Ctrl-C, an error or a full disk leave what was there before."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, Final

from tlbcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["STANDARD_OUTPUT", "check_ending", "check_place", "is_standard_output", "replacing", "write_text"]

STANDARD_OUTPUT: Final = Path("/dev/stdout")


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of standard output, wherever that goes."""
    return Path(path) in {STANDARD_OUTPUT, Path("/dev/fd/1"), Path("/proc/self/fd/1")}


def _is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket has the name: it must stay what it is, and there is nothing in it to lose."""
    # A file behind standard output is somebody else's: the shell's, who may want to append to it.
    return is_standard_output(path) or (path.exists() and not path.is_file() and not path.is_dir())


def check_ending(
    path: str | os.PathLike[str], endings: Sequence[str], *, but_not: str | os.PathLike[str] | None = None
) -> None:
    """Raise if a name says something else than what is to be written, or is that of the file that is read.

    Args:
        path: Where it is to go.
        endings: What such files end in; a name without an ending is right too, and so is a device or a pipe.
        but_not: The file that is read.

    Raises:
        InputError: Another ending, or the same file.

    """
    path = Path(path)
    if but_not is not None and path.is_file() and Path(but_not).exists() and path.samefile(but_not):
        raise InputError(f"{path}: found the file that is read, expected another to write")
    if path.suffix and path.suffix not in endings and not _is_special(path):
        raise InputError(f"{path}: found a name that ends in {path.suffix}, expected {' or '.join(endings)}")


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise now what writing a file would raise later, after long work: its folder is not there, or a folder has its name.

    Raises:
        OSError: It cannot be written there.

    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _is_special(path):
        return
    path = _meant(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def _meant(path: Path) -> Path:
    """Where a symbolic link leads: the file there is replaced, not the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives the path of a file to write to, beside `path`; it becomes `path` when the block ends without an exception.

    What a symbolic link leads to is replaced; into a device or a pipe the file is copied.

    Raises:
        OSError: It cannot be written there.

    """
    path = Path(path)
    if _is_special(path):
        with TemporaryDirectory() as folder:
            partial = Path(folder) / "partial"
            yield partial
            with partial.open("rb") as source, _stream(path) as target:
                shutil.copyfileobj(source, target)
        return
    path = _meant(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stream(path: Path) -> BinaryIO:
    if not is_standard_output(path):
        return path.open("wb")
    if sys.stdout is not None:
        sys.stdout.flush()  # what was printed before comes before
    return os.fdopen(os.dup(1), "wb")


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
