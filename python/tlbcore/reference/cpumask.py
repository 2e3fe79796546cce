"""Sets of CPUs as integers: bit `c` is CPU `c`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def bit(cpu: int) -> int:
    """The set of one CPU."""
    return 1 << cpu


def cpus_of(mask: int) -> Iterator[int]:
    """The CPUs of a set, ascending."""
    cpu = 0
    while mask:
        if mask & 1:
            yield cpu
        mask >>= 1
        cpu += 1


def weight(mask: int) -> int:
    """How many CPUs are in the set."""
    return mask.bit_count()


def cpulist(mask: int) -> str:
    """The set as Linux prints it with ``%*pbl``: ``0-3,7``; empty text for the empty set."""
    runs: list[list[int]] = []
    for cpu in cpus_of(mask):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
