"""Modules that are imported when they are first used, so that `tlbcore --help` does not wait for numpy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["LazyModule"]


class LazyModule:
    """Stands for a module until somebody asks for a name in it.

    >>> LazyModule("math").floor(2.5)
    2
    """

    def __init__(self, name: str) -> None:
        """Nothing is imported yet."""
        self._name = name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        """The module's own, kept for the next time."""
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)
        return value
