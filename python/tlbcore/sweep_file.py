"""The file of a sweep: which recordings, kernels and machines, as TOML.

    recordings = ["recordings", "other/*.tlbr"]
    kernels = ["linux-6.18", "mine.py:KERNEL"]
    machines = ["zen4_genoa", "skylake_sp:invlpg_ns=80"]

Paths are seen from the file's folder, those of standard input from here; `machines` may be left out.
"""

from __future__ import annotations

import glob
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbcore import machines
from tlbcore.errors import InputError
from tlbcore.lookup import nearest, split_file_spec, with_nearest

__all__ = ["SweepFile", "load"]

STANDARD_INPUT = Path("/dev/stdin")

_KEYS = ("recordings", "kernels", "machines")


@dataclass(frozen=True)
class SweepFile:
    """What a file asks for: the arguments of `tlbcore.sweep.sweep`."""

    recordings: tuple[Path, ...]
    kernels: tuple[str, ...]
    machines: tuple[str, ...]


def load(path: Path) -> SweepFile:
    """The file of a sweep.

    Raises:
        InputError: It is none; the message names the file, what was found and what was expected.
        OSError: It cannot be read.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise with_nearest(error) from None
    except UnicodeDecodeError as error:
        found = f"a byte that is no UTF-8 at {error.start}"
        raise InputError(f"{path}: found {found}, expected TOML with lists {', '.join(_KEYS)}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: found no TOML ({error}), expected lists {', '.join(_KEYS)}") from error
    for key in plain:
        if key not in _KEYS:
            raise InputError(f"{path}: found {key}, expected one of {', '.join(_KEYS)}{nearest(key, _KEYS)}")
    texts = {key: _texts(path, key, plain.get(key, [])) for key in _KEYS}
    for key in ("recordings", "kernels"):
        if not texts[key]:
            raise InputError(f"{path}: found no {key}, expected a list of at least one")
    folder = Path() if path == STANDARD_INPUT else path.parent
    return SweepFile(
        tuple(file for text in texts["recordings"] for file in _files(path, folder, text)),
        tuple(_kernel(folder, text) for text in texts["kernels"]),
        texts["machines"] or (machines.DEFAULT,),
    )


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - what TOML has
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{path}: {key}: found {value!r}, expected a list of texts")
    return tuple(value)


def _files(path: Path, folder: Path, text: str) -> list[Path]:
    """What a path or a pattern means; a path that is not there is left for the sweep to report."""
    if not any(mark in text for mark in "*?["):
        return [folder / text]
    found = [Path(name) for name in sorted(glob.glob(str(folder / text), recursive=True))]  # noqa: PTH207 - absolute ones too
    if not found:
        raise InputError(f"{path}: recordings: found no file for {text}, expected at least one")
    return found


def _kernel(folder: Path, text: str) -> str:
    file = split_file_spec(text)
    if file is None:
        return text
    return f"{folder / file[0]}:{file[1]}" if file[1] else str(folder / file[0])
