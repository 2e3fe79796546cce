"""The fills of the plots: a colour and lines of their own each, so that they can be told apart without colour."""

from __future__ import annotations

from typing import Final

from tlbcore.report.page.html import Raw

__all__ = ["NR_PATTERNS", "patterns"]

#: For each pattern what is drawn in the colour of the paper on its ground, and the size of the tile; as `style.css` does.
_MARKS: Final = (
    ("", 4),
    ('<path d="M-1,5L5,-1M3,9L9,3" stroke-width="1.3"/>', 6),
    ('<path d="M-1,1L5,7M3,-3L9,3" stroke-width="1"/>', 6),
    ('<path d="M0,3H4" stroke-width="1.4"/>', 4),
    ('<path d="M3,0V4" stroke-width="1.4"/>', 4),
    ('<circle cx="2.5" cy="2.5" r="1" stroke="none" fill="var(--paper)"/>', 5),
    ('<path d="M-1,4L4,-1M1,8L8,1" stroke-width="2.6"/>', 6),
    ('<path d="M2.6,0V4" stroke-width="2.4"/>', 4),
    ('<path d="M-1,1L5,7M3,-3L9,3" stroke-width="2.6"/>', 6),
)
NR_PATTERNS: Final = len(_MARKS)
"""How many there are."""


def patterns() -> Raw:
    """All of them as SVG definitions `f0`, `f1`, ...; `style.css` has the same for bars in tables, as `p0`, `p1`, ..."""
    return Raw(
        "".join(
            f'<pattern id="f{at}" width="{size}" height="{size}" patternUnits="userSpaceOnUse">'
            f'<rect width="{size}" height="{size}" fill="var(--c{at})"/>'
            f'<g stroke="var(--paper)" fill="none">{mark}</g></pattern>'
            for at, (mark, size) in enumerate(_MARKS)
        )
    )
