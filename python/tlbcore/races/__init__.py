"""Races in TLB-flush batching that Linux had, and that patches had which were posted, each with what mended it.

>>> from tlbcore import races
>>> race = races.get("R04")
>>> race.find().violated
('I4',)
>>> race.prove().safe
True
"""

from __future__ import annotations

import re

from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.races import (
    m2,
    m3,
    m4,
    m7,
    m8,
    m11,
    r01,
    r02,
    r03,
    r04,
    r05,
    r05b,
    r06,
    r09a,
    r09b,
    r11,
    r12,
    r13,
    r14a,
    r14b,
    r16,
    r17,
    r18,
    r19,
    r21,
    r22,
    r27,
    r30,
    r34,
    r35,
    r37,
)
from tlbcore.races.race import Race
from tlbcore.races.uncovered import UNCOVERED, Uncovered

__all__ = ["RACES", "UNCOVERED", "Race", "Uncovered", "get", "matching"]

_MODULES = (
    r01,
    r02,
    r03,
    r04,
    r05,
    r05b,
    r06,
    r09a,
    r09b,
    r11,
    r12,
    r13,
    r14a,
    r14b,
    r16,
    r17,
    r18,
    r19,
    r21,
    r22,
    r27,
    r30,
    r34,
    r35,
    r37,
    m2,
    m3,
    m4,
    m7,
    m8,
    m11,
)

#: The races by their short names.
RACES: dict[str, Race] = {module.RACE.id: module.RACE for module in _MODULES}


def get(name: str) -> Race:
    """A race by its short name.

    Raises:
        InputError: No such race, or one that is not covered; then the message says why.

    """
    short = _short(name)
    if short in UNCOVERED:
        raise InputError(f"race {short}: not covered: {UNCOVERED[short].reason}")
    if short not in RACES:
        raise InputError(f"race: found {name}, expected one of {', '.join(RACES)}{nearest(short, RACES)}")
    return RACES[short]


def matching(name: str) -> list[Race | Uncovered]:
    """The races of a documented name: R09 is R09a and R09b.

    Raises:
        InputError: No such race.

    """
    both: dict[str, Race | Uncovered] = {**RACES, **UNCOVERED}
    short = _short(name)
    parts = [short] if short in both else []
    parts += [other for other in RACES if other[:-1] == short]
    if not parts:
        raise InputError(f"race: found {name}, expected one of {', '.join(both)}{nearest(short, both)}")
    return [both[part] for part in parts]


def _short(name: str) -> str:
    """A short name as it is written here: `r4` is R04."""
    found = re.fullmatch(r"([RM])0*(\d+)([ab]?)", name.strip(), re.IGNORECASE)
    if not found:
        return name
    letter, digits = found[1].upper(), found[2]
    return f"{letter}{digits.zfill(2) if letter == 'R' else digits}{found[3].lower()}"
