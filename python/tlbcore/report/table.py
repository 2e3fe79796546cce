"""Tables for a terminal: plain text when nobody looks, light emphasis when somebody does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BOLD, _DIM, _END = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def number(value: float | None) -> str:
    """A count with thin groups of three digits, a ratio with three decimals, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.3f}"


def counted(count: int, one: str, many: str | None = None, *, group: str = ",") -> str:
    """A count with its noun, in the right number.

    >>> counted(1, "flush"), counted(1234, "flush"), counted(0, "entry", "entries")
    ('1 flush', '1,234 flushes', '0 entries')

    Args:
        count: How many.
        one: What one of them is called.
        many: What several are; without, it ends in -s or -es.
        group: What stands between groups of three digits: a comma in a line for `repr`, a space in what commands print.
    """
    plural = many or f"{one}{'es' if one.endswith(('s', 'sh', 'ch', 'x')) else 's'}"
    return f"{count:,}".replace(",", group) + f" {one if count == 1 else plural}"


def heading(text: str, *, emphasis: bool) -> str:
    """A line above a table."""
    return f"{_BOLD}{text}{_END}" if emphasis else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, emphasis: bool, left: int = 1) -> str:
    """Columns as wide as their widest cell; the first `left` columns stand left, the others right.

    Args:
        head: The columns' names.
        rows: Cells, as many in each row as there are names.
        emphasis: Bold head and dim zeroes, for a terminal.
        left: How many columns are words.

    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        parts = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(parts).rstrip()

    lines = [line(head), "  ".join("-" * width for width in widths)]
    lines += [line(row) for row in rows]
    if emphasis:
        lines[0] = f"{_BOLD}{lines[0]}{_END}"
        lines[1] = f"{_DIM}{lines[1]}{_END}"
    return "\n".join(lines)


def warned(lines: Sequence[str]) -> list[str]:
    """What speaks against all numbers of a result, as lines below its heading."""
    return [f"Warning: {line}" for line in lines]


def assumptions(notes: Mapping[str, int], *, emphasis: bool) -> list[str]:
    """What a replay had to assume, most frequent first, as lines below its tables; none if it assumed nothing."""
    if not notes:
        return []
    head = heading("What the recording does not say, and the model assumed", emphasis=emphasis)
    counted = sorted(notes.items(), key=lambda note: -note[1])
    return ["", head, "", *(f"  {number(count)} x {name}" for name, count in counted)]
