"""The three ways in which an operation does not succeed."""

from __future__ import annotations


class UsageError(ValueError):
    """The caller asked for what cannot be: an unknown task, a CPU out of range, a kernel with an unknown step."""


class StepError(UsageError):
    """A program with a step that cannot be; the message has its path, as ``munmap[2].body[0]``."""


class ModelError(RuntimeError):
    """A program did what no kernel may do (or the model is wrong): it frees what is mapped, say."""


class ErrnoError(Exception):
    """The operation fails as the system call would; the name is its result."""

    def __init__(self, name: str) -> None:
        """Remember the errno's `name`, such as ``EINVAL``."""
        super().__init__(name)
        self.name = name
