"""The exceptions of tlbcore, raised by Python and by the compiled core alike.

A message is one line that says where, what was found and what was expected. What the operating system refuses is an
``OSError``, as everywhere in Python. Anything else that escapes is a bug.
"""

__all__ = ["InputError", "ProgramError", "TlbcoreError"]


class TlbcoreError(Exception):
    """The base of everything that tlbcore raises on purpose."""


class InputError(TlbcoreError, ValueError):
    """A file, a value or an argument that cannot be what it should be."""


class ProgramError(TlbcoreError):
    """A program of steps that cannot run; the message names the program and the path of the step."""
