"""Recordings for other tools: timelines for Perfetto, tables for pandas, Polars and DuckDB.

>>> from tlbcore import recordings
>>> from tlbcore.export import table
>>> flushes = table(recordings.load("data/recordings/micro.perf.txt.zst"), "flushes")
>>> int(flushes["nr_interrupted"].sum())
314
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.export.columnar import to_arrow, write_arrow, write_csv, write_parquet
from tlbcore.export.perfetto import write_perfetto
from tlbcore.export.tables import TABLES, table
from tlbcore.whole_file import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from tlbcore._core import Recording

__all__ = ["FORMATS", "TABLES", "export", "table", "to_arrow"]

_TABULAR: Final[dict[str, tuple[str, Callable[[Recording, str, Path], None]]]] = {
    "parquet": (".parquet", write_parquet),
    "arrow": (".arrow", write_arrow),
    "csv": (".csv", write_csv),
}
FORMATS: Final = ("perfetto", *_TABULAR)
"""The formats there are."""


def export(
    recording: Recording, form: str, output: str | os.PathLike[str], *, tables: tuple[str, ...] = TABLES
) -> list[Path]:
    """Writes a recording in another format, each file whole or not at all; the paths of what was written.

    Args:
        recording: From `tlbcore.recordings.load`.
        form: One of `FORMATS`.
        output: The file; for several tables a folder, made if need be, which gets a file for each.
        tables: Which of `TABLES`; Perfetto has all in one.

    Raises:
        InputError: No such format or table, or pyarrow is not installed.
        OSError: It cannot be written there.

    """
    output = Path(output)
    if form == "perfetto":
        with replacing(output) as partial:
            write_perfetto(recording, partial)
        return [output]
    if form not in _TABULAR:
        raise InputError(f"export: found the format {form!r}, expected one of {', '.join(FORMATS)}")
    for name in tables:
        if name not in TABLES:
            raise InputError(f"export: found the table {name!r}, expected one of {', '.join(TABLES)}")
    suffix, write = _TABULAR[form]
    if len(tables) > 1:
        output.mkdir(exist_ok=True)
        paths = [output / f"{name}{suffix}" for name in tables]
    else:
        paths = [output]
    for name, path in zip(tables, paths, strict=True):
        with replacing(path) as partial:
            write(recording, name, partial)
    return paths
