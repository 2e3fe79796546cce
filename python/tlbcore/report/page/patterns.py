"""The fills of the plots: a colour and marks of their own each, so that they can be told apart without colour.

The first are of operations, by rank; then one for each reason, which never stands for anything else; the last for what is
of no class.
"""

from __future__ import annotations

from typing import Final

from tlbcore.profile.useless import WHY
from tlbcore.report.page.html import Raw

__all__ = ["NR_OPERATIONS", "NR_PATTERNS", "PLAIN", "REASON", "patterns"]

#: For each pattern what is drawn in the colour of the paper on its ground, and the size of the tile; as `style.css` does.
_MARKS: Final[tuple[tuple[str, int | tuple[int, int]], ...]] = (
    ("", 4),
    ('<path d="M-1,5L5,-1M3,9L9,3" stroke-width="1.3"/>', 6),
    ('<path d="M-1,1L5,7M3,-3L9,3" stroke-width="1"/>', 6),
    ('<path d="M0,3H4" stroke-width="1.4"/>', 4),
    ('<path d="M3,0V4" stroke-width="1.4"/>', 4),
    ('<circle cx="2.5" cy="2.5" r="1" stroke="none" fill="var(--paper)"/>', 5),
    ('<path d="M-1,4L4,-1M1,8L8,1" stroke-width="2.6"/>', 6),
    ('<path d="M2.6,0V4" stroke-width="2.4"/>', 4),
    ('<path d="M-1,1L5,7M3,-3L9,3" stroke-width="2.6"/>', 6),
    # The reasons: marks in two directions, which no operation has.
    ('<path d="M0,.5H5M.5,0V5" stroke-width="1"/>', 5),
    (
        '<rect width="5" height="5" fill="var(--paper)"/><circle cx="2.5" cy="2.5" r="1.6" stroke="none" fill="var(--c10)"/>',
        5,
    ),
    ('<path d="M0,1.5H3M3,4.5H6" stroke-width="3"/>', 6),
    ('<path d="M-1,-1L7,7M-1,7L7,-1" stroke-width="1"/>', 6),
    ('<path d="M0,.75H4M4,3.75H8" stroke-width="1.5"/>', (8, 6)),
    ("", 4),
)
NR_PATTERNS: Final = len(_MARKS)
"""How many there are."""
NR_OPERATIONS: Final = 8
"""Of operations; the last one is that of all others together."""
REASON: Final = {name: 9 + at for at, name in enumerate(WHY)}
"""The pattern of each class of CPUs told (`tlbcore.profile.useless.WHY`)."""
PLAIN: Final = NR_PATTERNS - 1
"""The pattern of what is of no class."""


def patterns() -> Raw:
    """All of them as SVG definitions `f0`, `f1`, ...; `style.css` has the same for bars in tables, as `p0`, `p1`, ..."""
    return Raw("".join(_pattern(at, mark, size) for at, (mark, size) in enumerate(_MARKS)))


def _pattern(at: int, mark: str, size: int | tuple[int, int]) -> str:
    width, height = size if isinstance(size, tuple) else (size, size)
    return (
        f'<pattern id="f{at}" width="{width}" height="{height}" patternUnits="userSpaceOnUse">'
        f'<rect width="{width}" height="{height}" fill="var(--c{at})"/>'
        f'<g stroke="var(--paper)" fill="none">{mark}</g></pattern>'
    )
