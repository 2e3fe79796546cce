"""Recordings for other tools: timelines for Perfetto, tables for pandas, Polars and DuckDB.

>>> from tlbcore import recordings
>>> from tlbcore.export import table
>>> flushes = table(recordings.load("data/recordings/micro.perf.txt.zst"), "flushes")
>>> int(flushes["nr_interrupted"].sum())
314
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tlbcore import tables as files
from tlbcore.errors import InputError
from tlbcore.export.perfetto import write_perfetto
from tlbcore.export.tables import TABLES, check_table, table
from tlbcore.given import several
from tlbcore.lookup import nearest
from tlbcore.recordings import opened
from tlbcore.whole_file import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from tlbcore._core import Recording

__all__ = ["FORMATS", "TABLES", "export", "table", "to_arrow"]

FORMATS: Final = ("perfetto", *files.FORMATS)
"""The formats there are."""


def to_arrow(recording: Recording | str | os.PathLike[str], name: str) -> Any:  # noqa: ANN401  # a pyarrow.Table
    """One of `tlbcore.export.TABLES` as a `pyarrow.Table`; texts are dictionaries, since few are many times there.

    Raises:
        InputError: No such table, pyarrow is not installed, or as `tlbcore.recordings.load`.

    """
    recording = opened(recording)
    return files.arrow_table(table(recording, name), _metadata(recording))


def _metadata(recording: Recording) -> dict[str, str]:
    return {"tlbcore.recording": str(recording.meta["file"])}


def export(
    recording: Recording | str | os.PathLike[str],
    form: str,
    output: str | os.PathLike[str],
    *,
    tables: tuple[str, ...] = TABLES,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Writes a recording in another format, each file whole or not at all; the paths of what was written.

    Args:
        recording: From `tlbcore.recordings.load`, or its file.
        form: One of `FORMATS`.
        output: The file; for several tables a folder, made if need be, which gets a file for each.
        tables: Which of `TABLES`; Perfetto has all in one.
        progress: Told how much of how much is done, and of what.

    Raises:
        InputError: No such format or table, or pyarrow is not installed.
        OSError: It cannot be written there.

    """
    output = Path(output)
    if form not in FORMATS:
        raise InputError(
            f"export: found the format {form!r}, expected one of {', '.join(FORMATS)}{nearest(form, FORMATS)}"
        )
    for name in several("tables", tables):
        check_table(name)
    recording = opened(recording)
    if form == "perfetto":
        with replacing(output) as partial:
            write_perfetto(recording, partial, progress)
        return [output]
    files.check_format(Path(f"x.{form}"))
    is_new = len(tables) > 1 and not output.exists()
    if len(tables) > 1:
        output.mkdir(exist_ok=True)
        paths = [output / f"{name}.{form}" for name in tables]
    else:
        paths = [output]
    try:
        for number, (name, path) in enumerate(zip(tables, paths, strict=True)):
            if progress is not None:
                progress(number, len(tables), name)
            files.write_table(table(recording, name), path, form=form, metadata=_metadata(recording))
    except BaseException:  # Ctrl-C too leaves no empty folder
        if is_new and not any(output.iterdir()):
            output.rmdir()
        raise
    return paths
