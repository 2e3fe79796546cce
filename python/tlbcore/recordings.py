"""Recordings: what programs did to their address spaces, and the TLB flushes that the kernel did for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from tlbcore import strace
from tlbcore._core import Recording
from tlbcore.errors import InputError
from tlbcore.given import wrong_kind
from tlbcore.lookup import with_nearest
from tlbcore.piped import as_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Recording", "kernel_of", "load", "machine_config", "opened", "why_kernel"]

#: What somebody may have wanted who gave something else than a recording.
_HINTS: Final[dict[type | tuple[type, ...], str]] = {
    (list, tuple): "one at a time; tlbcore.sweep and tlbcore.validate_folder take several",
}

#: What files begin with: ours, and those of `perf record`.
_TLBR, _PERF_DATA = b"TLBCREC\0", b"PERFILE2"

#: Names of kernels by the version that a recording tells; the newest that is not newer than it is meant.
_BY_VERSION = (((6, 14), "linux-6.18"), ((5, 19), "linux-6.1"), ((0, 0), "linux-5.10"))


def load(path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> Recording:
    """A recording from any file that is understood.

    ``.tlbr`` is the format of tlbcore; the text of ``perf script``, the records of the kernel lab (``.jsonl``) and its
    scenarios (``.scn``) are imported, plain or compressed with gzip or zstd, and the text of ``strace -f``, plain. What a
    file is, its content tells. A pipe may hold any of it too.

    Args:
        path: The file.
        progress: Told now and then how many bytes of a text are read, and of how many (0: nobody knows). What it raises
            ends the reading, as Ctrl-C does.

    Raises:
        InputError: the file is nothing of this, or damaged; the message names file, place, found and expected.
        OSError: it cannot be read.

    """
    if not isinstance(path, str | os.PathLike):
        raise wrong_kind("recording", path, "the name of a file", _HINTS)

    def needs_file(head: bytes) -> bool:
        if head.startswith(_PERF_DATA):
            expected = "its file, or the text: perf script | tlbcore import -"
            raise InputError(f"{os.fspath(path)}: found what `perf record` writes, in a pipe, expected {expected}")
        return head.startswith(_TLBR) or strace.begins_as_strace(head)

    try:
        with as_file(path, needs_file) as file:
            return strace.load(file, progress) if strace.is_strace(file) else Recording.open(file, progress)
    except FileNotFoundError as error:
        raise with_nearest(error) from None
    except OSError as error:
        if error.filename is None and error.errno is not None:  # reading failed, not opening
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def opened(recording: Recording | str | os.PathLike[str]) -> Recording:
    """A recording as it is, or loaded from a file.

    Raises:
        InputError: As `load`.
        OSError: As `load`.
    """
    if isinstance(recording, Recording):
        return recording
    if not isinstance(recording, str | os.PathLike):
        raise wrong_kind("recording", recording, "a Recording or the name of a file", _HINTS)
    return load(recording)


def kernel_of(recording: Recording) -> str:
    """The kernel of tlbcore that is nearest to the one that was recorded (linux-6.18 if the recording does not say)."""
    version = _version(str(recording.meta.get("kernel") or ""))
    if version is None:
        return "linux-6.18"
    return next(name for since, name in _BY_VERSION if version >= since)


def why_kernel(recording: Recording) -> str:
    """Why `kernel_of` takes the kernel that it takes."""
    version = _version(str(recording.meta.get("kernel") or ""))
    if version is None:
        return "the recording does not name its kernel"
    return f"nearest to the recorded {version[0]}.{version[1]}"


def _version(text: str) -> tuple[int, int] | None:
    for word in text.split():
        parts = word.split(".")
        if len(parts) > 1 and parts[0].isdecimal() and parts[1].isdecimal():
            return int(parts[0]), int(parts[1])
    return None


def machine_config(recording: Recording, machine: dict[str, Any]) -> dict[str, Any]:
    """The machine's configuration with what the recording knows of the one that it was made on: CPUs, levels, PCID."""
    meta = recording.meta
    known = {
        "nr_cpus": max(int(meta["smp"]), 1),
        "levels": meta.get("levels") or 4,  # not in a recording by perf; the more common four are assumed
        "pcid": machine.get("pcid", True) if meta.get("pcid") is None else meta["pcid"],
        "thp": meta.get("thp") or "madvise",
        "swap": meta["source"] not in {"perf", "strace"},  # not in a recording by perf; none is assumed
    }
    return {**machine, **known}
