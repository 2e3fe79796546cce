"""Tables in files: CSV by the standard library, Parquet and Arrow by pyarrow, which is an extra."""

from __future__ import annotations

import csv
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tlbcore.errors import InputError
from tlbcore.export.tables import table

if TYPE_CHECKING:
    from pathlib import Path

    from tlbcore._core import Recording
    from tlbcore.export.tables import Table

__all__ = ["to_arrow", "write_arrow", "write_csv", "write_parquet"]


def _pyarrow(name: str) -> Any:  # noqa: ANN401  # a module that need not be there
    try:
        return import_module(name)
    except ImportError:
        raise InputError("Parquet and Arrow: found no pyarrow, expected it: pip install 'tlbcore[arrow]'") from None


def to_arrow(recording: Recording, name: str) -> Any:  # noqa: ANN401  # a pyarrow.Table
    """One of `tlbcore.export.TABLES` as a `pyarrow.Table`; texts are dictionaries, since few are many times there.

    Raises:
        InputError: pyarrow is not installed.

    """
    arrow = _pyarrow("pyarrow")
    columns = {}
    for column, values in table(recording, name).items():
        array = arrow.array(values)
        columns[column] = array.dictionary_encode() if values.dtype == object else array
    return arrow.table(columns).replace_schema_metadata({"tlbcore.recording": str(recording.meta["file"])})


def write_parquet(recording: Recording, name: str, path: Path) -> None:
    """Writes a table as Parquet."""
    _pyarrow("pyarrow.parquet").write_table(to_arrow(recording, name), path)


def write_arrow(recording: Recording, name: str, path: Path) -> None:
    """Writes a table as an Arrow file (also called Feather)."""
    found = to_arrow(recording, name)
    arrow = _pyarrow("pyarrow")
    with arrow.OSFile(str(path), "wb") as sink, arrow.ipc.new_file(sink, found.schema) as writer:
        writer.write_table(found)


def write_csv(recording: Recording, name: str, path: Path) -> None:
    """Writes a table as CSV with a head."""
    found: Table = table(recording, name)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(found)
        out.writerows(zip(*(values.tolist() for values in found.values()), strict=True))
