"""Tables in files, each whole or not at all: CSV by the standard library, Parquet and Arrow by pyarrow, an extra.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "ipis.csv"
...     write_table({"kernel": ["linux-5.10", "linux-6.18"], "nr_ipis": [5343, 5348]}, path)
...     print(path.read_text(encoding="utf-8"), end="")
kernel,nr_ipis
linux-5.10,5343
linux-6.18,5348
"""

from __future__ import annotations

import csv
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tlbcore.errors import InputError
from tlbcore.whole_file import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]

__all__ = ["FORMATS", "arrow_table", "check_format", "write_table"]


def _pyarrow(name: str) -> Any:  # noqa: ANN401  # a module that need not be there
    try:
        return import_module(name)
    except ImportError:
        raise InputError("Parquet and Arrow: found no pyarrow, expected it: pip install 'tlbcore[arrow]'") from None


def arrow_table(columns: Columns, metadata: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401  # a pyarrow.Table
    """Columns as a `pyarrow.Table`; arrays of texts become dictionaries, since few texts are many times there.

    Args:
        columns: Column -> values, all of one length.
        metadata: What the schema says beside them.

    Raises:
        InputError: pyarrow is not installed.

    """
    arrow = _pyarrow("pyarrow")
    arrays = {}
    for name, values in columns.items():
        array = arrow.array(values)
        is_texts = getattr(getattr(values, "dtype", None), "kind", "") == "O"
        arrays[name] = array.dictionary_encode() if is_texts else array
    return arrow.table(arrays).replace_schema_metadata(metadata)


def _write_csv(columns: Columns, path: Path, _metadata: Mapping[str, str] | None) -> None:
    listed = [getattr(values, "tolist", lambda values=values: values)() for values in columns.values()]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(columns)
        out.writerows(zip(*listed, strict=True))


def _write_parquet(columns: Columns, path: Path, metadata: Mapping[str, str] | None) -> None:
    table = arrow_table(columns, metadata)
    with path.open("wb") as file:  # pyarrow itself takes no name that is not UTF-8
        _pyarrow("pyarrow.parquet").write_table(table, file)


def _write_arrow(columns: Columns, path: Path, metadata: Mapping[str, str] | None) -> None:
    table = arrow_table(columns, metadata)
    with (
        path.open("wb") as sink,
        _pyarrow("pyarrow.ipc").new_file(sink, table.schema) as out,
    ):
        out.write_table(table)


_WRITERS: Final[dict[str, Callable[[Columns, Path, Mapping[str, str] | None], None]]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "csv": _write_csv,
}
FORMATS: Final = tuple(_WRITERS)
"""The formats there are; a file of one ends in its name. Arrow's is also called Feather."""


def check_format(path: Path) -> None:
    """Raise what `write_table` would raise of a name, before hours went into what it is to write.

    Raises:
        InputError: The name ends in none of `FORMATS`, or pyarrow is needed and not installed.

    """
    if path.suffix.removeprefix(".") not in FORMATS:
        ends = " or ".join(f".{name}" for name in FORMATS)
        raise InputError(f"{path}: found a name that ends in {path.suffix or 'nothing'}, expected {ends}")
    if path.suffix != ".csv":
        _pyarrow("pyarrow")


def write_table(
    columns: Columns, path: Path, *, form: str | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes columns.

    Args:
        columns: Column -> values, all of one length.
        path: The file.
        form: One of `FORMATS`; without it the end of the file's name says which.
        metadata: What an Arrow or Parquet file says beside them; CSV has no place for it.

    Raises:
        InputError: No such format, or pyarrow is needed and not installed.
        OSError: It cannot be written there; what was there before is kept.

    """
    if form is None:
        check_format(path)
        form = path.suffix.removeprefix(".")
    with replacing(path) as partial:
        _WRITERS[form](columns, partial, metadata)
