"""What all results share: a plain structure, a table, one line for `repr`, and what a notebook shows.

A result says three things of itself: `to_dict` (all of it, as JSON takes it), `to_rows` (its table, a flat dictionary
for each row) and `headline` (one line). The rest is made of these.

>>> import tlbcore
>>> verdict = tlbcore.check("linux-5.10", ["munmap", "page_mkclean"])
>>> verdict
<Verdict linux-5.10: UNSAFE after 11 steps (I4: data newer than storage, page and entries clean: write lost)>
>>> verdict.to_rows()[0]
{'step': 1, 'cpu': 2, 'who': 'user 0', 'what': '[TLB fill p0 W]', 'hardware': True}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from tlbcore import tables
from tlbcore.report.html import html_table
from tlbcore.report.table import number, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

__all__ = ["Cell", "Result", "columns"]

#: What stands in a row: a number with its unit in the column's name, a text, or nothing.
Cell = str | int | float | bool | None


class Result(ABC):
    """The base of what `compare`, `validate`, `check`, `hunt`, `mutate` and `sweep` return."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures: what ``--json`` prints."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Cell]]:
        """Its table: a flat dictionary for each row, with the same keys in each."""

    @abstractmethod
    def headline(self) -> str:
        """One line."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The table for people: names of columns, and rows of cells."""
        rows = self.to_rows()
        head = list(rows[0]) if rows else []
        return head, [[_text(value) for value in row.values()] for row in rows]

    def to_arrow(self) -> pa.Table:
        """`to_rows` as an Arrow table, for pandas, Polars or DuckDB.

        Raises:
            InputError: pyarrow is not installed.
        """
        return tables.arrow_table(columns(self.to_rows()))

    def __str__(self) -> str:
        """The headline, and the table below it."""
        head, rows = self.table()
        if not rows:
            return self.headline()
        words = [any(cell.strip(" 0123456789.,-") for row in rows for cell in (row[i],)) for i in range(len(head))]
        left = [*words, False].index(False)
        return f"{self.headline()}\n\n{table(head, rows, emphasis=False, left=left)}"

    def __repr__(self) -> str:
        """One line."""
        return f"<{type(self).__name__} {self.headline()}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self.headline(), *self.table())


def columns(rows: Sequence[dict[str, Cell]]) -> dict[str, list[Cell]]:
    """Rows with the same keys as columns, for `tlbcore.tables`."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _text(value: Cell) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) or value is None else value
