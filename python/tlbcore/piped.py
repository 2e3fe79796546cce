"""What comes through a pipe, for readers that want a file: it is looked into, and kept in a file for a while if need be.

A pipe can be read once and not be mapped. So its first bytes are read here, and somebody says by them whether a file is
needed; text is passed on as it comes, by a thread, since recordings as text can be larger than the disk has room for.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

__all__ = ["as_file"]

_PEEK: Final = 1 << 14
"""Bytes of a pipe that are looked into."""


@contextmanager
def as_file(path: str | os.PathLike[str], needs_file: Callable[[bytes], bool]) -> Iterator[str | os.PathLike[str]]:
    """A path by which `path` can be read: itself, or, of a pipe, what stands for it within the block.

    Args:
        path: What is to be read.
        needs_file: Whether what begins with these bytes has to be in a file.

    Raises:
        InputError: As the block does, but with the name of `path`.
        OSError: It cannot be read.
    """
    if not Path(path).is_fifo():
        yield path
        return
    with TemporaryDirectory(prefix="tlbcore-") as folder, open(path, "rb", buffering=0) as source:  # noqa: PTH123  # whatever a path may be
        name = Path(folder) / Path(path).name
        head = _head(source)
        try:
            if needs_file(head):
                with name.open("wb") as target:
                    target.write(head)
                    shutil.copyfileobj(source, target, 1 << 20)
                yield name
            else:
                with _passed_on(head, source) as end:
                    name.symlink_to(f"/dev/fd/{end}")
                    yield name
        except InputError as error:
            raise InputError(str(error).replace(str(name), os.fspath(path))) from error


def _head(source: BinaryIO) -> bytes:
    head = b""
    while len(head) < _PEEK and (part := source.read(_PEEK - len(head))):
        head += part
    return head


@contextmanager
def _passed_on(head: bytes, source: BinaryIO) -> Iterator[int]:
    """The end of a pipe out of which come some bytes, and then what comes out of another."""
    out, into = os.pipe()

    def work() -> None:
        with suppress(OSError), os.fdopen(into, "wb", buffering=0) as target:  # nobody reads any more
            part = head
            while part:
                left = memoryview(part)
                while left:  # a pipe may take a part only
                    left = left[target.write(left) :]
                part = source.read(1 << 16)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield out
    finally:
        os.close(out)
