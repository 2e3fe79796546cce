"""Races in TLB-flush batching that Linux had, and that patches had which were posted, each with what mended it.

>>> from tlbcore import races
>>> race = races.get("R04")
>>> race.find().violated
('I4',)
>>> race.prove().safe
True
"""

from __future__ import annotations

from tlbcore.errors import InputError
from tlbcore.lookup import nearest
from tlbcore.races import (
    m2,
    m3,
    m4,
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
    r27,
    r35,
)
from tlbcore.races.race import Race

__all__ = ["RACES", "Race", "get"]

_MODULES = (r01, r02, r03, r04, r05, r05b, r06, r09a, r09b, r11, r12, r13, r14a, r14b, r27, r35, m2, m3, m4)

#: The races by their short names.
RACES: dict[str, Race] = {module.RACE.id: module.RACE for module in _MODULES}


def get(name: str) -> Race:
    """A race by its short name.

    Raises:
        InputError: No such race.

    """
    if name not in RACES:
        raise InputError(f"race: found {name}, expected one of {', '.join(RACES)}{nearest(name, RACES)}")
    return RACES[name]
