"""Small pieces of HTML: escaped text, numbers, tables with bars in them. Nothing here knows what is shown."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Raw", "bar", "duration", "legend", "number", "share", "table", "text"]


class Raw(str):
    """A text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Bar:
    """Parts of a bar: how long each is, from 0 to 1 of the cell, and which pattern it has."""

    parts: tuple[tuple[float, int], ...]
    #: What the bar says, for those who do not see it.
    says: str


def text(value: object) -> Raw:
    """Any text, made safe; what is HTML already stays."""
    return value if isinstance(value, Raw) else Raw(escape(str(value)))


def number(value: float | None) -> Raw:
    """A count in groups of three digits, a ratio with three digits that matter, nothing for nothing."""
    if value is None:
        return Raw("")
    if isinstance(value, int):
        return Raw(f"{value:,}".replace(",", "\u202f"))
    return Raw(f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f"))  # noqa: PLR2004 - three digits


def share(part: float, whole: float) -> Raw:
    """A part of a whole as a percentage."""
    if not whole:
        return Raw("")
    percent = 100 * part / whole
    if 0 < percent < 0.1:  # noqa: PLR2004  # what would round to nothing is not nothing
        return Raw("&lt;\u202f0.1\u202f%")
    return Raw(f"{percent:.1f}\u202f%" if percent < 99.95 or part == whole else "99.9\u202f%")  # noqa: PLR2004


def duration(ns: float) -> Raw:
    """A time in the unit that fits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("\u00b5s", 1e3)):
        if abs(ns) >= size:
            return Raw(f"{ns / size:.3g}\u202f{unit}")
    return Raw(f"{ns:.0f}\u202fns")


def bar(one: Bar) -> Raw:
    """A bar as spans; the stylesheet gives each pattern its colour and its lines."""
    parts = "".join(
        f'<span class="p{pattern}" style="width:{100 * size:.2f}%"></span>' for size, pattern in one.parts if size > 0
    )
    return Raw(f'<span class="bar" role="img" aria-label="{escape(one.says)}">{parts}</span>')


def legend(entries: Sequence[tuple[int, str]]) -> Raw:
    """What the patterns mean."""
    items = "".join(f'<li><span class="key p{pattern}"></span>{text(name)}</li>' for pattern, name in entries)
    return Raw(f'<ul class="legend">{items}</ul>')


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    left: int = 1,
    words_last: bool = False,
    caption: str = "",
) -> Raw:
    """A table that scrolls by itself where it is too wide.

    Args:
        head: The columns' names.
        rows: Cells: texts, numbers (int or float), bars.
        left: So many columns are words and stand left; bars do too.
        words_last: The last column is words, too.
        caption: What it shows.

    """

    def is_words(at: int) -> bool:
        return at < left or (words_last and at == len(head) - 1)

    def is_bar(at: int) -> bool:
        return any(isinstance(row[at], Bar) for row in rows)

    def cell(at: int, value: object) -> str:
        if is_bar(at):
            return f'<td class="barcell">{bar(value) if isinstance(value, Bar) else text(value)}</td>'
        shown = number(value) if isinstance(value, int | float) else text(value)
        return f"<td>{shown}</td>" if is_words(at) else f'<td class="num">{shown}</td>'

    def kind(at: int) -> str:
        if is_bar(at):
            return " class=barcell"
        return "" if is_words(at) or not str(head[at]) else " class=num"

    heads = "".join(f'<th scope="col"{kind(at)}>{text(name)}</th>' for at, name in enumerate(head))
    body = "".join(f"<tr>{''.join(cell(at, value) for at, value in enumerate(row))}</tr>" for row in rows)
    # A caption inside would be as wide as the table, and cut off where that scrolls.
    said = f'<p class="caption">{text(caption)}</p>' if caption else ""
    name = f' aria-label="{escape(caption)}"' if caption else ""
    return Raw(
        f'{said}<div class="scroll" tabindex="0"><table{name}><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )
