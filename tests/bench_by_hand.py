"""What the tests of the hand-driven simulator share: the lab's machine, and flushes in short."""

from __future__ import annotations

from tlbcore.simulator import DEFAULT_MACHINE, Simulator
from tlbcore.units import PAGE

BASE = 0x1000_0000_0000
LAB = {**DEFAULT_MACHINE, "levels": 5, "pcid": False}


def brief(sim: Simulator, base: int = BASE) -> list[str]:
    """Each flush by operation, first page from `base`, pages, and freed tables; then they are forgotten."""
    found = []
    for flush in sim.flushes:
        what = "all" if flush.is_full else f"{(flush.start - base) // PAGE}:{flush.nr_pages}"
        found.append(f"{flush.operation} {what}{' freed' if flush.freed_tables else ''}")
    sim.clear()
    return found
