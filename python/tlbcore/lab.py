"""The kernel lab, exactly: which entries of a scenario agree in every column that was recorded of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Exactness", "LabDifference", "LabExactness", "LabReason"]


@dataclass(frozen=True)
class Exactness:
    """Entries, those of them without a difference, and those that differ for what may be a cause outside the model."""

    nr_entries: int
    nr_exact: int
    nr_explained: int

    @property
    def share(self) -> float:
        """From 0 to 1; 1 if there are none."""
        return self.nr_exact / self.nr_entries if self.nr_entries else 1.0


@dataclass(frozen=True)
class LabReason:
    """A cause outside the model, with the records that show it: rows of the recording's events and of its flush records."""

    #: In a word.
    name: str
    #: In a sentence.
    cause: str
    #: What the recording does not tell, or what hangs on times: ``recording``, ``timing``.
    lies_in: str
    events: Sequence[int]
    flushes: Sequence[int]


@dataclass(frozen=True)
class LabDifference:
    """An entry that differs, with both sides: column -> text, as in the lab's own table of operations."""

    actor: str
    step: int
    iteration: int
    cpu: int
    text: str
    parallel: bool
    #: What outside the model explains all of the difference; empty if some of it is left.
    reasons: Sequence[LabReason]
    columns: Sequence[str]
    recorded: Mapping[str, str]
    model: Mapping[str, str]

    @property
    def cause(self) -> str | None:
        """The names of the reasons, if there are any."""
        return "; ".join(reason.cause for reason in self.reasons) or None


@dataclass(frozen=True)
class LabExactness:
    """The outcome of one recording; `plain` has all of it."""

    plain: Mapping[str, Any]

    @property
    def single(self) -> Exactness:
        """Entries of steps that ran alone."""
        return Exactness(**self.plain["single"])

    @property
    def parallel(self) -> Exactness:
        """Entries of steps that ran at the same time as others (``|``): in the order, found by a search, that fits best."""
        return Exactness(**self.plain["parallel"])

    @property
    def by_operation(self) -> dict[str, tuple[Exactness, Exactness]]:
        """Both sums of each operation."""
        both = self.plain["by_operation"].items()
        return {name: (Exactness(**sums["single"]), Exactness(**sums["parallel"])) for name, sums in both}

    @property
    def differences(self) -> list[LabDifference]:
        """The entries that differ, in the order in which they began."""
        return [
            LabDifference(
                **{key: value for key, value in entry.items() if key not in {"event", "reasons"}},
                reasons=[LabReason(**reason) for reason in entry["reasons"]],
            )
            for entry in self.plain["differences"]
        ]
