"""One recording held against the model: scores with and without the targets.

One flush is (thread, operation, strides or full, other CPUs told or not). For each recorded operation the predicted and
the recorded flushes are compared as multisets: `matched` are in both, `missed` only in the recording, `extra` only in
the model; ``score = matched / (matched + missed + extra)``. Without the targets, "told or not" is left out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from tlbcore import machines, recordings
from tlbcore.caveats import caveats
from tlbcore.errors import InputError
from tlbcore.given import whole_number
from tlbcore.lab import LabExactness
from tlbcore.replay import Replay, kernel_named, replay
from tlbcore.results import Cell, Result
from tlbcore.validate.timeline import Timeline
from tlbcore.validate.undecided import Undecided, undecided
from tlbcore.whole_file import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

_EXPECTED: Final = {
    "perf": "some: the event tlb:tlb_flush, which tlbcore record has perf record",
    "strace": "a recording by perf: strace sees no flushes",
}
"""What to hold the model against, by what a recording was made with."""


@dataclass(frozen=True, repr=False)
class Validation(Result):
    """The outcome; `to_dict` has all of it."""

    replay: Replay
    plain: Mapping[str, Any]
    #: How the kernel was chosen, as words for people.
    kernel_choice: str

    @property
    def score(self) -> float:
        """From 0 to 1: matched / (matched + missed + extra)."""
        return float(self.plain["score"])

    @property
    def score_without_targets(self) -> float:
        """The same when it does not count whether other CPUs were told."""
        return float(self.plain["without_targets"]["score"])

    @property
    def matched(self) -> int:
        """Flushes both predicted and recorded."""
        return int(self.plain["matched"])

    @property
    def lab(self) -> LabExactness | None:
        """For a recording of the kernel lab: which entries agree in every column."""
        return LabExactness(self.plain["lab"]) if "lab" in self.plain else None

    @property
    def missed(self) -> int:
        """Flushes recorded and not predicted."""
        return int(self.plain["missed"])

    @property
    def extra(self) -> int:
        """Flushes predicted and not recorded."""
        return int(self.plain["extra"])

    @cached_property
    def warnings(self) -> list[str]:
        """Why the scores are poor or of too few flushes: events lost, processes older than the recording; a line each."""
        return caveats(self.replay.recording)

    @cached_property
    def operations(self) -> list[dict[str, Any]]:
        """The operations with both lists of flushes (`tlbcore._core.Replay.operations`)."""
        return self.replay.result.operations(self.replay.recording)

    @cached_property
    def differing(self) -> list[dict[str, Any]]:
        """Those of them where the lists differ."""
        return self.replay.result.operations(self.replay.recording, only_differing=True)

    @cached_property
    def undecided(self) -> Undecided | None:
        """For a recording by perf: which differences it cannot decide."""
        if self.lab is not None:
            return None
        return undecided(Timeline(self.replay.recording), self.differing, self.plain)

    def to_dict(self) -> dict[str, Any]:
        """The plain structure, with `matched`, `missed`, `extra` and `score` at the top."""
        return {
            "recording": self.replay.recording.meta["file"],
            "kernel": self.replay.kernel.name,
            "kernel_choice": self.kernel_choice,
            **self.plain,
            **({} if self.undecided is None else {"undecided": self.undecided.to_dict()}),
            "warnings": self.warnings,
            "notes": self.replay.notes,
        }

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each kind of operation."""
        return [
            {
                "operation": kind,
                **{key: counts[key] for key in ("nr_operations", "matched", "missed", "extra", "score")},
                "score_without_targets": counts["without_targets"]["score"],
            }
            for kind, counts in self.plain["by_operation"].items()
        ]

    def headline(self) -> str:
        """What was held against what, and the score."""
        counts = f"matched {self.matched}, missed {self.missed}, extra {self.extra}"
        held = f"{self.replay.recording.meta['file']} held against {self.replay.kernel.name}"
        return f"{held}: {counts}, score {self.score:.4f}"

    def write_operations(self, path: Path) -> None:
        """Writes each operation with both lists as a row of a CSV file, whole or not at all (`flush_text`)."""
        recording = self.replay.recording
        times, tasks = recording.column("time_ns"), recording.column("task")
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["event", "time_ns", "tid", "kind", "predicted", "recorded", "matched", "missed", "extra"])
            for operation in self.operations:
                row = operation["row"]
                task = int(tasks[row])
                tid = recording.tasks[task][0] if task < len(recording.tasks) else ""
                lists = [" ".join(flush_text(f) for f in operation[side]) for side in ("predicted", "recorded")]
                scores = [operation[key] for key in ("matched", "missed", "extra")]
                out.writerow([row, int(times[row]), tid, operation["kind"], *lists, *scores])


def flush_text(flush: Mapping[str, Any]) -> str:
    """A flush in short: its strides or ``full``, and ``+`` if other CPUs were told."""
    pages = "full" if flush["pages"] < 0 else str(flush["pages"])
    return pages + ("+" if flush["told"] else "")


def validate(  # noqa: PLR0913 - what to compare, and how
    recording: Recording | str | os.PathLike[str],
    kernel: str | Kernel | None = None,
    machine: str | Machine | Mapping[str, Any] = machines.DEFAULT,
    *,
    follow_masks: bool = True,
    nr_disagreements: int = 10,
    progress: Callable[[int, int], object] | None = None,
) -> Validation:
    """Replays a recording and holds the model's flushes against those that were recorded.

    Without a `kernel` it is the one nearest to that which was recorded (`tlbcore.recordings.kernel_of`).

    Whether a CPU is still in mm_cpumask can hang on foreign tasks that are not in the recording, and one such chance
    then decides over hundreds of flushes. With `follow_masks` each flush is predicted first, and its record then
    corrects the model's mask for the flushes after it; the wrong prediction counts, once. The corrections are counted
    in `notes`.

    `recording`, `machine` and `progress` are as `tlbcore.replay.replay` takes them.

    Raises:
        InputError: the recording holds no flushes to compare with (a scenario), or as `tlbcore.replay.replay`.

    """
    whole_number("nr_disagreements", nr_disagreements)
    named = None if kernel is None else kernel_named(kernel)  # before a large file is read
    config = machines.config_of(machine)
    found = recordings.opened(recording)
    chosen = recordings.kernel_of(found) if named is None else named
    of_lab = found.meta["source"] == "lab"
    replayed = replay(found, chosen, config, follow_masks=follow_masks, traced=of_lab, progress=progress)
    plain = replayed.result.validate(found, nr_disagreements)
    if of_lab:
        plain["lab"] = replayed.result.lab(found)
    if not plain["has_truth"]:
        expected = _EXPECTED.get(str(found.meta["source"]), "a recording of a real kernel")
        raise InputError(f"{found.meta['file']}: found no recorded flushes, expected {expected}")
    return Validation(replayed, plain, "given" if kernel is not None else recordings.why_kernel(found))
