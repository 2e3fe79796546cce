"""Rows into a file, whole or not at all: CSV, or Parquet with pyarrow."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tlbcore.errors import InputError
from tlbcore.results import Cell, arrow_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["write_table"]


def write_table(rows: Sequence[dict[str, Cell]], path: Path) -> None:
    """Write rows; the end of the file's name says how.

    Raises:
        InputError: An end that is neither ``.csv`` nor ``.parquet``, or pyarrow is not installed.
        OSError: It cannot be written; what was there before is kept.
    """
    if path.suffix not in {".csv", ".parquet"}:
        raise InputError(f"{path}: found a name that ends in {path.suffix or 'nothing'}, expected .csv or .parquet")
    content = _csv(rows) if path.suffix == ".csv" else _parquet(rows)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _csv(rows: Sequence[dict[str, Cell]]) -> bytes:
    text = io.StringIO()
    out = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[dict[str, Cell]]) -> bytes:
    table = arrow_table(rows)
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()
