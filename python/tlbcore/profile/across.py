"""The same recording under several kernels on several machines: who wins and who loses, by the same measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore.compare import METRICS, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

__all__ = ["LESS_IS_BETTER", "Across", "Change", "across"]

LESS_IS_BETTER: Final = (
    "nr_flush_requests",
    "nr_flush_full",
    "nr_flush_pages",
    "nr_flush_remote",
    "nr_ipis",
    "nr_told_lazy",
    "nr_told_gone",
    "nr_told_nothing_cached",
    "nr_tlb_fills",
)
"""Counters of which less is better; the others of `METRICS` say how the work is done, not how much it costs."""


@dataclass(frozen=True)
class Change:
    """One number under one kernel, beside the first kernel's."""

    kernel: str
    what: str
    label: str
    before: float
    after: float

    @property
    def ratio(self) -> float | None:
        """After to before; none if there was nothing before."""
        return self.after / self.before if self.before else None

    @property
    def is_better(self) -> bool:
        """Less than before."""
        return self.after < self.before

    @property
    def is_worse(self) -> bool:
        """More than before."""
        return self.after > self.before

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Across:
    """Comparisons of the same kernels, one for each machine; ratios are to the first kernel."""

    machines: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def kernels(self) -> list[str]:
        """Their names, the first one is what the others are held against."""
        return [replayed.kernel.name for replayed in self.comparisons[0].replays]

    def metrics(self) -> list[Change]:
        """The counters of which less is better, on the first machine, kernel by kernel."""
        labels = dict(METRICS)
        replays = self.comparisons[0].replays
        return [
            Change(name, what, labels[what], replays[0].counters[what], replays[at].counters[what])
            for at, name in enumerate(self.kernels)
            if at
            for what in LESS_IS_BETTER
            if replays[0].counters[what] or replays[at].counters[what]
        ]

    def operations(self) -> list[Change]:
        """The IPIs and flushes of each kind of operation, on the first machine, where a kernel changes them."""
        replays = self.comparisons[0].replays
        changes = []
        for at, kernel in enumerate(self.kernels):
            for operation in sorted({*replays[0].by_operation, *replays[at].by_operation}):
                for what, label in (("nr_flush_requests", "flushes"), ("nr_ipis", "IPIs")):
                    before, after = (r.by_operation.get(operation, {}).get(what, 0) for r in (replays[0], replays[at]))
                    if before != after:
                        changes.append(Change(kernel, what, f"{label} of {operation}", before, after))
        return sorted(changes, key=lambda c: (c.after - c.before, c.kernel, c.label))

    def times(self) -> dict[str, list[dict[str, float]]]:
        """By machine, for each kernel the estimated time in ns (a model's opinion): flushing, interrupted, refills."""
        found = {}
        for machine, comparison in zip(self.machines, self.comparisons, strict=True):
            costs = [comparison.cost(at) for at in range(len(comparison.replays))]
            found[machine] = [
                {"initiator_ns": c.initiator_ns, "interference_ns": c.interference_ns, "refill_ns": c.refill_ns}
                for c in costs
                if c is not None
            ]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {
            "machines": list(self.machines),
            "kernels": self.kernels,
            "metrics": [change.to_dict() for change in self.metrics()],
            "operations": [change.to_dict() for change in self.operations()],
            "times": self.times(),
        }


def across(
    recording: Recording,
    kernels: Sequence[str | Kernel],
    machines: Sequence[tuple[str, Machine]],
    *,
    progress: Callable[[int, str], None] | None = None,
) -> Across:
    """Replays a recording under each kernel on each machine; `progress` is told how many are done and which is next.

    Machines come with what they are called: two of one preset may have other costs.

    Raises:
        InputError: No such kernel.

    """
    comparisons = []
    for done, (name, machine) in enumerate(machines):
        if progress is not None:
            progress(done, name)
        comparisons.append(compare(recording, kernels, machine))
    return Across(tuple(name for name, _ in machines), tuple(comparisons))
