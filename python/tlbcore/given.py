"""What a caller gave, where it is of another kind than what is taken: one line with what was found and what is meant.

>>> raise wrong_kind("kernel", ["linux-6.18"], "a name or a Kernel", {list: "compare takes several"})
Traceback (most recent call last):
...
tlbcore.errors.InputError: kernel: found a list, expected a name or a Kernel: compare takes several
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tlbcore.errors import InputError

__all__ = ["bound_seconds", "described", "several", "whole_number", "wrong_kind"]

_NAMES: Final[dict[type, str]] = {list: "a list", tuple: "a tuple", dict: "a dictionary", set: "a set", bytes: "bytes"}
_MOST_LETTERS: Final = 60
_MANY_BITS: Final = 32


def described(value: object) -> str:
    """What a value is, for the middle of a message.

    >>> described("x"), described(None), described([1]), described(InputError)
    ("the text 'x'", 'None', 'a list', 'the class InputError')
    """
    if isinstance(value, str):
        return f"the text {value if len(value) <= _MOST_LETTERS else value[:_MOST_LETTERS] + '...'!r}"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return _NAMES.get(type(value)) or f"a{'n' * (name[:1] in 'AEIOUaeiou')} {name}"


def wrong_kind(
    what: str, found: object, expected: str, hints: Mapping[type | tuple[type, ...], str] | None = None
) -> InputError:
    """The error for something of another kind.

    Args:
        what: The argument.
        found: What it is.
        expected: What it should be.
        hints: What somebody who gave such a thing may have wanted, by its type; the first that fits is said.
    """
    hint = next((text for kind, text in (hints or {}).items() if isinstance(found, kind)), "")
    return InputError(f"{what}: found {described(found)}, expected {expected}{': ' if hint else ''}{hint}")


def several(what: str, given: Any) -> Sequence[Any]:  # noqa: ANN401 - that it is a list is what is asked
    """What was given, if it is a list of at least one.

    Raises:
        InputError: It is a single thing, or an empty list.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        raise wrong_kind(what, given, f"a list of {what}")
    if not given:
        raise InputError(f"{what}: found none, expected at least one")
    return given


def whole_number(what: str, value: object, *, least: int = 0, most: int = 2**64 - 1) -> int:
    """A number of any integer type (numpy's too) as Python's own.

    Raises:
        InputError: It is none, or out of bounds.
    """
    try:
        found = operator.index(value)  # type: ignore[arg-type]  # what cannot be is what is asked
    except TypeError:
        found = least - 1
    if not least <= found <= most:
        bound = f"2**{most.bit_length()} - 1" if most.bit_length() >= _MANY_BITS else str(most)
        raise InputError(f"{what}: found {described(value)}, expected a whole number from {least} to {bound}")
    return found


def bound_seconds(what: str, value: float | None) -> float | None:
    """A bound on time; none for an infinite one.

    Raises:
        InputError: It is no number, or below 0.
    """
    if value is None or value == math.inf:
        return None
    if not value >= 0:  # nor is what is no number
        raise InputError(f"{what}: found {value}, expected seconds, 0 or more")
    return value
