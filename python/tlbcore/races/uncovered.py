"""Documented races that the explorer does not cover, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNCOVERED", "Uncovered"]


@dataclass(frozen=True)
class Uncovered:
    """A documented race that the explorer cannot run, or that says nothing to it."""

    id: str
    title: str
    #: The Linux commit that mended it; empty if there is none.
    commit: str
    #: The first release without it.
    fixed_in: str
    #: As in `Race`.
    scheme: str
    #: The invariant that it violates.
    invariant: str
    #: What the model would need.
    reason: str
    cve: str = ""


_ROWS = (
    (
        "R29",
        "INVLPGB is disabled with page-table isolation: overrun of the bitmap of ASIDs",
        "94a17f2dc90b",
        "v6.15",
        "HW",
        "I8",
        "neither INVLPGB nor ASIDs are modelled; every flush of another CPU is an IPI",
    ),
    (
        "R38",
        "bugs of patches that were posted and not merged so",
        "",
        "never merged",
        "all",
        "several",
        "not one race but a family; its members are M1 to M12, of which each is covered",
    ),
    (
        "R39",
        "hazards of flushes that are put off beyond the unmap (LUF, LATR, vmap)",
        "",
        "never merged",
        "5+",
        "I1",
        "beyond R39b to R39d: write() to pages read back into other frames, and vmap's kernel addresses, are not modelled",
    ),
)

#: The races that are not covered, by their short names.
UNCOVERED: dict[str, Uncovered] = {row[0]: Uncovered(*row) for row in _ROWS}
