"""Validation of many recordings: a row for each, a total, and the causes over all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tlbcore import machines
from tlbcore.errors import InputError, TlbcoreError
from tlbcore.given import several
from tlbcore.replay import kernel_named
from tlbcore.report.table import counted
from tlbcore.results import Cell, Result
from tlbcore.validate.explain import Cause, explain, merge
from tlbcore.validate.scores import Validation, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

COUNTS: Final = ("matched", "missed", "extra")
#: Names of recordings end so, each perhaps followed by `.gz` or `.zst`.
SUFFIXES: Final = (".tlbr", ".txt", ".perf", ".jsonl")


@dataclass(frozen=True)
class Row:
    """What one recording gave."""

    path: Path
    #: As `Validation.to_dict`.
    plain: Mapping[str, Any]
    #: None if nobody asked for them.
    causes: tuple[Cause, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        causes = {} if self.causes is None else {"causes": [cause.to_dict() for cause in self.causes]}
        return {"path": str(self.path), **self.plain, **causes}


@dataclass(frozen=True)
class Failure:
    """A file that could not be read or compared."""

    path: Path
    message: str

    def to_dict(self) -> dict[str, str]:
        """The plain structure."""
        return {"path": str(self.path), "error": self.message}


@dataclass(frozen=True, repr=False)
class Summary(Result):
    """The outcome of all."""

    rows: tuple[Row, ...]
    failures: tuple[Failure, ...] = field(default=())

    @property
    def total(self) -> dict[str, Any]:
        """The sums of all rows: `nr_operations`, `matched`, `missed`, `extra`, `score`, and `without_targets`."""
        without = _sums([row.plain["without_targets"] for row in self.rows])
        nr_operations = sum(row.plain["nr_operations"] for row in self.rows)
        return {**_sums([row.plain for row in self.rows]), "nr_operations": nr_operations, "without_targets": without}

    @property
    def lab(self) -> dict[str, dict[str, int]] | None:
        """The sums of the lab's entries, `single` and `parallel`: `nr_entries`, `nr_exact`; None without any."""
        found = [row.plain["lab"] for row in self.rows if "lab" in row.plain]
        if not found:
            return None
        return {
            side: {key: sum(lab[side][key] for lab in found) for key in ("nr_entries", "nr_exact")}
            for side in ("single", "parallel")
        }

    @property
    def undecided(self) -> dict[str, Any] | None:
        """The sums of what recordings by perf cannot decide (`Undecided.to_dict`); None without any such recording."""
        found = [row.plain["undecided"] for row in self.rows if "undecided" in row.plain]
        if not found:
            return None
        classes: dict[str, dict[str, int]] = {}
        for one in found:
            for name, counts in one["classes"].items():
                sums = classes.setdefault(name, dict.fromkeys(counts, 0))
                for key, count in counts.items():
                    sums[key] += count
        decided = [one["decided"] for one in found]
        without = _sums([one["without_targets"] for one in decided])
        return {
            "nr_flushes": sum(one["nr_flushes"] for one in found),
            "classes": classes,
            "decided": {**_sums(decided), "without_targets": without},
        }

    @property
    def notes(self) -> dict[str, int]:
        """What the recordings do not say, over all."""
        total: dict[str, int] = {}
        for row in self.rows:
            for name, count in row.plain["notes"].items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def causes(self) -> list[Cause]:
        """The causes over all rows; empty if nobody asked for them."""
        return merge(row.causes or () for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {
            "recordings": [row.to_dict() for row in self.rows],
            "failures": [failure.to_dict() for failure in self.failures],
            **({} if self.undecided is None else {"undecided": self.undecided}),
            "total": self.total if self.lab is None else {**self.total, "lab": self.lab},
            "notes": self.notes,
            "causes": [cause.to_dict() for cause in self.causes],
        }

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each recording."""
        return [
            {
                "recording": str(row.path),
                **{key: row.plain[key] for key in ("kernel", "nr_operations", *COUNTS, "score")},
                "score_without_targets": row.plain["without_targets"]["score"],
            }
            for row in self.rows
        ]

    def headline(self) -> str:
        """How many were held against the model, and the score over all."""
        failed = f", {len(self.failures)} could not be" if self.failures else ""
        if not self.rows:
            return f"no recording validated{failed}"
        return f"{counted(len(self.rows), 'recording')} validated{failed}: score {self.total['score']:.4f}"


def find_recordings(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The recordings that paths mean: a file itself, a folder all below it that are named like a recording.

    Scenarios (``.scn``) hold no flushes and are not meant. Sorted by path within each folder.

    Raises:
        InputError: a folder without any.

    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if _is_named_like_a_recording(file) and file.is_file())
        if not inside:
            names = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
            msg = f"{path}: found no recording in the folder, expected files named {names} (or compressed)"
            raise InputError(msg)
        found += inside
    return list(dict.fromkeys(found))


def _is_named_like_a_recording(path: Path) -> bool:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return name.endswith(SUFFIXES) and not name.startswith(".")


def validate_folder(  # noqa: PLR0913 - what to compare, and how
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    machine: str | Machine | Mapping[str, Any] = machines.DEFAULT,
    *,
    kernel: str | Kernel | None = None,
    follow_masks: bool = True,
    with_causes: bool = False,
    progress: Callable[[int, int, str], object] | None = None,
) -> Summary:
    """Validates each recording of a folder, or of several paths; one that cannot be read does not stop the others.

    Args:
        paths: Files and folders, as `find_recordings` takes them.
        machine: As `validate`.
        kernel: For all; None takes for each the one nearest to the kernel that was recorded.
        follow_masks: As `validate`.
        with_causes: Explain the disagreements too.
        progress: Called with the recordings done, all of them, and the name of the next.

    Raises:
        InputError: a folder without recordings, or no such kernel.

    """
    chosen = None if kernel is None else kernel_named(kernel)
    asked = [paths] if isinstance(paths, str | os.PathLike) else several("recordings", paths)
    rows: list[Row] = []
    failures: list[Failure] = []
    config = machines.config_of(machine)
    found_paths = find_recordings(asked)
    for number, path in enumerate(found_paths):
        if progress is not None:
            progress(number, len(found_paths), path.name)
        try:
            found = validate(path, chosen, config, follow_masks=follow_masks)
        except TlbcoreError as error:
            failures.append(Failure(path, _named(path, str(error))))
        except OSError as error:
            failures.append(Failure(path, f"{path}: {error.strerror or error}"))
        else:
            rows.append(_row(path, found, with_causes=with_causes))
    return Summary(tuple(rows), tuple(failures))


def _row(path: Path, found: Validation, *, with_causes: bool) -> Row:
    return Row(path, found.to_dict(), tuple(explain(found)) if with_causes else None)


def _named(path: Path, message: str) -> str:
    """A message that begins with the path, whether it did before or not."""
    if message.startswith(f"{path}:"):
        return message
    return f"{path}: {message.removeprefix(f'{path.name}: ')}"


def _sums(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {key: sum(part[key] for part in parts) for key in COUNTS}
    everything = sum(sums.values())
    return {**sums, "score": sums["matched"] / everything if everything else 1.0}
