"""What a user writes on a command line, as an object: the nearest name for a misspelt one, objects of Python files.

A Python file is executed as any script of the user's own would be; whatever it raises becomes one line. Nothing here
knows what is looked up.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

__all__ = ["find", "folded", "load_file", "nearest", "split_file_spec", "with_nearest"]

_PART, _FEW = 3, 6
"""A part of a name has so many letters at least, and is told of so many names at most."""
_NEAR_FILE: Final = 0.85
"""How near the name of a file must be: folders hold many that are alike."""


def folded(name: str) -> str:
    """A name in the form in which names are compared: `mmu-gather`, `mmu_gather` and `MmuGather` are one.

    >>> folded("MmuGather") == folded("mmu-gather") == folded("mmu_gather")
    True
    >>> folded("linux-6.18") == folded("linux_6_18")
    True
    """
    return "".join(letter for letter in name.lower() if letter not in "-_.")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of an error message: `, did you mean X?` if a name is near, else nothing.

    Args:
        name: What the user wrote.
        names: What there is.
        cutoff: How near, from 0 to 1 (as `difflib.get_close_matches` has it).

    >>> nearest("linux-6.81", ["linux-5.10", "linux-6.1", "linux-6.18"])
    ', did you mean linux-6.18?'
    >>> nearest("zen", ["zen2_rome", "zen3_milan", "haswell_ep"])
    ', did you mean zen2_rome or zen3_milan?'
    """
    by_folded = {folded(candidate): candidate for candidate in names}
    near = difflib.get_close_matches(folded(name), by_folded, n=3, cutoff=cutoff)
    # Letters in another order are the likelier slip than one that is missing.
    near.sort(key=lambda candidate: sorted(candidate) != sorted(folded(name)))
    if near:
        return f", did you mean {by_folded[near[0]]}?"
    # A part of a name is no slip of a letter, but says as much: `6.18`, `zen`.
    part = folded(name)
    whole = [found for candidate, found in by_folded.items() if len(part) >= _PART and part in candidate]
    return f", did you mean {' or '.join(whole)}?" if 0 < len(whole) <= _FEW else ""


def find(what: str, name: str, names: Iterable[str], more: str = "") -> str:
    """The one of `names` that is meant, whatever its case and whether with ``-`` or ``_``.

    Args:
        what: What is looked for, for the message.
        name: What the user wrote.
        names: What there is.
        more: What else could have been written, for the message.

    Raises:
        InputError: None of them; the message has the nearest.
    """
    names = list(names)
    if not isinstance(name, str):
        raise wrong_kind(what, name, f"one of {', '.join(names)}")
    for candidate in names:
        if folded(candidate) == folded(name):
            return candidate
    expected = ", ".join(names) + (f" or {more}" if more else "")
    raise InputError(f"found {what} {name!r}, expected one of {expected}{nearest(name, names)}")


def with_nearest(error: FileNotFoundError) -> FileNotFoundError:
    """The error of a missing file, which says which file of its folder has the nearest name; as it is if none is near."""
    if error.filename is None or error.strerror is None or ", did you mean " in error.strerror:
        return error
    path = Path(os.fsdecode(error.filename))
    try:
        names = sorted(
            file.name for file in path.parent.iterdir() if file.name != path.name
        )  # a link to nowhere is there
        near = nearest(path.name, names, cutoff=_NEAR_FILE)
    except OSError:
        return error
    return FileNotFoundError(error.errno, f"{error.strerror}{near}", error.filename) if near else error


def split_file_spec(spec: str) -> tuple[Path, str] | None:
    """File and name of ``FILE.py:NAME`` or ``FILE.py`` (then the name is empty); nothing for any other text."""
    if spec.endswith(".py"):
        return Path(spec), ""
    path, _, name = spec.rpartition(":")
    return (Path(path), name) if path.endswith(".py") else None


def _place(error: BaseException, path: Path) -> str:
    """The line of a file in which it failed, as the beginning of a message; nothing if it is not known."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines and lines[-1] is not None else ""


def load_file(path: Path) -> ModuleType:
    """The module that a Python file is.

    Raises:
        InputError: The file cannot be run; the message says why.
        OSError: The file cannot be read.
    """
    try:
        path.open("rb").close()  # so that a missing file is reported as the system reports it
    except FileNotFoundError as error:
        raise with_nearest(error) from None
    module_name = f"_tlbcore_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: found a file that Python cannot load, expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        found = f"{type(error).__name__} ({error})"
        raise InputError(f"{path}: {_place(error, path)}found {found}, expected a Python file that runs") from error
    return module
