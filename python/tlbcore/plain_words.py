"""What the core's reader of JSON says of a structure that cannot be, in the words that all messages have.

A user wrote an argument, no JSON: places in a text that nobody sees are left out, and a name gets the nearest.

>>> plain_words("scenario: unknown variant `fil`, expected `file` or `anon` at line 1 column 37")
"scenario: found 'fil', expected file or anon, did you mean file?"
>>> plain_words('scenario: invalid type: string "2", expected u8 at line 1 column 13')
"scenario: found the text '2', expected a whole number"
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.lookup import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_plain_words", "plain_words"]

_PLACE: Final = re.compile(r" at line \d+ column \d+$")
_UNKNOWN: Final = re.compile(r"unknown (?:variant|field) `(.*?)`, expected (.*)$", re.DOTALL)
_INVALID: Final = re.compile(
    r"invalid (?:type|value): (string|integer|floating point|boolean) (.*?), expected (.*)$", re.DOTALL
)
_TYPES: Final = re.compile(r"^[ui](?:8|16|32|64|size)$")


def plain_words(message: str) -> str:
    """The message for people; as it is if it is none of the reader's."""
    message = _PLACE.sub("", message)
    if found := _UNKNOWN.search(message):
        near = nearest(found[1], re.findall(r"`(.*?)`", found[2]))
        return f"{message[: found.start()]}found {found[1]!r}, expected {found[2].replace('`', '')}{near}"
    if found := _INVALID.search(message):
        value = f"the text {found[2][1:-1]!r}" if found[1] == "string" else found[2].strip("`")
        expected = "a whole number" if _TYPES.match(found[3]) else found[3].replace("`", "")
        return f"{message[: found.start()]}found {value}, expected {expected}"
    return message


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Raises what the block raises, in plain words.

    Raises:
        InputError: As the block does.
    """
    try:
        yield
    except InputError as error:
        raise InputError(plain_words(str(error))) from error
