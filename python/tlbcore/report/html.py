"""A table as a notebook shows it: plain HTML in the notebook's own colours, with nothing that runs or is fetched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["html_columns", "html_table"]

_NUMBER = ' style="text-align:right"'
_WORD = ' style="text-align:left"'


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line above it; only that line if there are no rows. Columns of numbers stand right.

    >>> html_table("two", ["name", "nr"], [["a<b", "1 000"]]).count("&lt;")
    1
    """
    if not rows:
        return f"<p>{escape(caption)}</p>"
    aligned = [_NUMBER if all(_is_number(row[i]) for row in rows) else _WORD for i in range(len(head))]
    lines = ["<table>", f'<caption style="text-align:left">{escape(caption)}</caption>', "<thead>"]
    lines.append(_row("th", head, aligned))
    lines += ["</thead>", "<tbody>", *(_row("td", row, aligned) for row in rows), "</tbody>", "</table>"]
    return "\n".join(lines)


def html_columns(caption: str, cpus: Sequence[str], events: Sequence[tuple[int, str]], ends: Sequence[str]) -> str:
    """An interleaving: a column for each CPU that does something, a row for each event, then what it ends in.

    Args:
        caption: The line above.
        cpus: What runs on each CPU.
        events: CPU and text of each event, in their order.
        ends: What the last event leads to.
    """
    used = sorted({cpu for cpu, _ in events})
    head = [f"CPU{cpu} ({cpus[cpu]})" for cpu in used]
    rows = [[text if cpu == column else "" for column in used] for cpu, text in events]
    rows += [[f"⇒ {end}" if column == events[-1][0] else "" for column in used] for end in ends if events]
    return html_table(caption, head, rows)


def _row(tag: str, cells: Sequence[str], aligned: Sequence[str]) -> str:
    cells = [f"<{tag}{style}>{escape(cell)}</{tag}>" for cell, style in zip(cells, aligned, strict=True)]
    return f"<tr>{''.join(cells)}</tr>"


def _is_number(cell: str) -> bool:
    return not cell.strip(" 0123456789.,-%e")
