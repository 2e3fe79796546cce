"""Which interruptions and flushes were useless, and why: what the model knows of each CPU that was told.

Every CPU told is in exactly one class, the first that holds: it was *lazy* and left the address space instead; it was
*gone*, with another one loaded; it had *flushed already*; it had *nothing cached* of what was flushed, as far as the
recording knows, since TLBs are filled by recorded faults only: an upper bound; or it was *needed*.

A flush is *promoted only* if no entry in its range lost a right: measured by replaying with the switch
`skip_unless_demoted` of the kernel `consolidated` and without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tlbcore.replay import replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore._core import Recording
    from tlbcore.profile.flushes import Flushes, Ints
    from tlbcore.replay import Replay

__all__ = ["SHORT", "WHY", "InVain", "Promoted", "classes", "in_vain", "promoted"]

WHY: Final[dict[str, str]] = {
    "needed": "held something of what was flushed",
    "nothing_cached": "nothing cached: held nothing of it, as far as the recording knows",
    "up_to_date": "already flushed: another flush had taken it along",
    "gone": "gone: another address space was loaded",
    "lazy": "lazy: ran a kernel thread or nothing, and left the address space",
}
"""The classes of CPUs told, the useful one first, and what each means."""
SHORT: Final = {
    "needed": "needed",
    "nothing_cached": "nothing cached",
    "up_to_date": "already flushed",
    "gone": "gone",
    "lazy": "lazy",
}
"""The same classes in a word or two."""

_BY_PRECEDENCE: Final = (
    ("lazy", "told_lazy"),
    ("gone", "told_gone"),
    ("up_to_date", "told_up_to_date"),
    ("nothing_cached", "told_nothing_cached"),
)


@dataclass(frozen=True)
class InVain:
    """The CPUs told for one kind of operation, by class (`WHY`)."""

    operation: str
    needed: int
    nothing_cached: int
    up_to_date: int
    gone: int
    lazy: int

    @property
    def nr_told(self) -> int:
        """All of them."""
        return self.needed + self.nr_in_vain

    @property
    def nr_in_vain(self) -> int:
        """Those told in vain."""
        return self.nothing_cached + self.up_to_date + self.gone + self.lazy

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {**asdict(self), "nr_told": self.nr_told, "nr_in_vain": self.nr_in_vain}


@dataclass(frozen=True)
class Promoted:
    """Flushes of one kind of operation in which no entry lost a right."""

    operation: str
    #: Flushes when the kernel flushes whatever changed.
    nr_always: int
    #: Flushes when it leaves out those that take no right away.
    nr_unless_demoted: int

    @property
    def nr_useless(self) -> int:
        """What the difference is."""
        return self.nr_always - self.nr_unless_demoted

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {**asdict(self), "nr_useless": self.nr_useless}


def classes(replayed: Replay) -> dict[str, Ints]:
    """For each flush of a replay the number of CPUs told (of CPUs 0 to 63), by class."""
    columns = replayed.result.flushes()
    left = columns["told"].copy()
    found = {}
    for name, column in _BY_PRECEDENCE:
        found[name] = np.bitwise_count(left & columns[column]).astype(np.int64)
        left &= ~columns[column]
    return {"needed": np.bitwise_count(left).astype(np.int64), **found}


def in_vain(replayed: Replay, flushes: Flushes) -> list[InVain]:
    """The CPUs told by kind of operation, most in vain first.

    Args:
        replayed: The replay.
        flushes: The same as `tlbcore.profile.flushes.predicted` gives it.

    """
    sums = {
        name: np.bincount(flushes.operation, weights=told, minlength=len(flushes.operations)).astype(np.int64)
        for name, told in classes(replayed).items()
    }
    listed = [
        InVain(operation, **{name: int(sums[name][at]) for name in WHY})
        for at, operation in enumerate(flushes.operations)
    ]
    return sorted((one for one in listed if one.nr_told), key=lambda one: (-one.nr_in_vain, one.operation))


def promoted(recording: Recording, machine: Mapping[str, Any]) -> list[Promoted]:
    """Flushes that are useless since no right was taken away, by kind of operation, most first.

    Measured on `consolidated`, whose other switches are off, so that the two replays differ in nothing else.
    """
    always = replay(recording, "consolidated:none", machine).by_operation
    unless = replay(recording, "consolidated:none,skip_unless_demoted=on", machine).by_operation
    listed = [
        Promoted(name, row["nr_flush_requests"], unless.get(name, {}).get("nr_flush_requests", 0))
        for name, row in always.items()
    ]
    return sorted((one for one in listed if one.nr_useless), key=lambda one: (-one.nr_useless, one.operation))
