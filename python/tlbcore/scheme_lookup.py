"""A scheme by what a user writes: one that tlbcore has, or a class of a Python file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind
from tlbcore.lookup import find, load_file, nearest, split_file_spec
from tlbcore.scheme import Scheme
from tlbcore.schemes import SCHEMES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["get"]


def get(spec: str | Scheme) -> Scheme:
    """The scheme named `spec` with its defaults: ``MmuGather``, ``mmu_gather``, ``mmu-gather`` or ``FILE.py:CLASS``.

    A `Scheme` is taken as it is.

    >>> get("mmu-gather").operations()[:3]
    ('mmap', 'munmap', 'mprotect')

    Raises:
        InputError: No such scheme, or a file that does not hold one.
        OSError: The file cannot be read.
    """
    if isinstance(spec, Scheme):
        return spec
    if not isinstance(spec, str):
        raise wrong_kind("scheme", spec, 'a name such as "MmuGather" or a Scheme', {type: "an object of it, CLASS()"})
    file = split_file_spec(spec)
    if file is None:
        return SCHEMES[find("scheme", spec, SCHEMES, "FILE.py:CLASS")]()
    return _from_file(*file)


def _from_file(path: Path, name: str) -> Scheme:
    module = load_file(path)
    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, Scheme) or (isinstance(value, type) and value.__module__ == module.__name__)
    }
    schemes = {key: value for key, value in own.items() if isinstance(value, Scheme) or issubclass(value, Scheme)}
    if not name and len(schemes) == 1:
        name = next(iter(schemes))
    if name not in schemes:
        expected = (
            f"one of {', '.join(schemes)}{nearest(name, schemes)}" if schemes else "a subclass of tlbcore.scheme.Scheme"
        )
        raise InputError(f"{path}: found no scheme {name!r}, expected {expected}")
    found = schemes[name]
    if isinstance(found, Scheme):
        return found
    try:
        return found()
    except Exception as error:
        where = f"{path}: {name}()"
        raise InputError(f"{where}: found {type(error).__name__} ({error}), expected a scheme") from error
