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
from importlib import import_module
from pkgutil import iter_modules

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind
from tlbcore.lookup import nearest
from tlbcore.races.race import Race
from tlbcore.races.uncovered import UNCOVERED, Uncovered

__all__ = ["RACES", "UNCOVERED", "Race", "Uncovered", "get", "matching"]

#: What a module of one race is called: R04 is `r04`, M1 is `m1`.
_MODULE = re.compile(r"([rm])(\d+)([a-e]?)")


def _all() -> dict[str, Race]:
    """The race of each module: those of Linux, then those of patches, by number."""
    found = [match for module in iter_modules(__path__) if (match := _MODULE.fullmatch(module.name))]
    found.sort(key=lambda match: (match[1] != "r", int(match[2]), match[3]))
    races: list[Race] = [import_module(f"{__name__}.{match[0]}").RACE for match in found]
    return {race.id: race for race in races}


#: The races by their short names.
RACES: dict[str, Race] = _all()


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
    """A short name as it is written here: `r4` and `4` are R04."""
    if not isinstance(name, str):
        raise wrong_kind("race", name, "a short name such as R04")
    found = re.fullmatch(r"([RM]?)0*(\d+)([a-e]?)", name.strip(), re.IGNORECASE)
    if not found:
        return name
    letter, digits = found[1].upper() or "R", found[2]
    return f"{letter}{digits.zfill(2) if letter == 'R' else digits}{found[3].lower()}"
