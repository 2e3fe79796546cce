"""Comparison: the same recording under several kernels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tlbcore import costs
from tlbcore.errors import InputError
from tlbcore.replay import Replay, replay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel

__all__ = ["METRICS", "Comparison", "compare"]

#: What is compared: counter, what it says.
METRICS: tuple[tuple[str, str], ...] = (
    ("nr_flush_requests", "flushes"),
    ("nr_flush_full", "of these full"),
    ("nr_flush_ranged", "of these ranged"),
    ("nr_flush_pages", "pages of the ranged ones"),
    ("nr_flush_remote", "remote flushes"),
    ("nr_ipis", "IPIs"),
    ("nr_told_lazy", "told in vain: lazy"),
    ("nr_told_gone", "told in vain: gone"),
    ("nr_told_nothing_cached", "told in vain: nothing cached"),
    ("nr_lazy_skipped", "lazy CPUs spared"),
    ("nr_flush_avoided", "flushes avoided: changes that needed none"),
    ("nr_tlb_fills", "TLB refills (of pages seen)"),
    ("nr_gathers", "gathers with a page list"),
    ("nr_light_gathers", "gathers without one"),
    ("nr_lazy_mmu_drains", "lazy-MMU batches issued"),
    ("nr_lazy_mmu_entries", "entries in them"),
)


@dataclass(frozen=True)
class Comparison:
    """The replays, in the order asked for; ratios are to the first."""

    replays: Sequence[Replay]

    def ratio(self, counter: str, index: int) -> float | None:
        """A counter of a kernel as a ratio to the first kernel's; none if that is 0."""
        first = self.replays[0].counters[counter]
        return self.replays[index].counters[counter] / first if first else None

    def cost(self, index: int) -> costs.CostEstimate | None:
        """What the flushes of a kernel would cost, a model's opinion; none for a machine without costs."""
        costs_ns = self.replays[index].config.get("costs")
        return costs.estimate(self.replays[index].counters, costs_ns) if costs_ns else None

    def _cost_to_dict(self, index: int) -> dict[str, Any] | None:
        cost = self.cost(index)
        return {**asdict(cost), "total_ns": cost.total_ns, "is": costs.LABEL} if cost else None

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {
            "recording": self.replays[0].recording.meta["file"],
            "nr_events": self.replays[0].result.nr_events,
            "machine": dict(self.replays[0].config),
            "kernels": [
                {
                    "kernel": replayed.kernel.name,
                    "title": replayed.kernel.title,
                    "switches": dict(replayed.kernel.switches),
                    "counters": replayed.counters,
                    "ratios": {name: self.ratio(name, index) for name, _ in METRICS},
                    "cost_ns": self._cost_to_dict(index),
                    "by_operation": replayed.by_operation,
                    "notes": replayed.notes,
                }
                for index, replayed in enumerate(self.replays)
            ],
        }


def compare(recording: Recording, kernels: Sequence[str | Kernel], machine: Mapping[str, Any]) -> Comparison:
    """Replays a recording under each kernel.

    Raises:
        InputError: as `tlbcore.replay.replay`; no kernel at all.

    """
    if not kernels:
        msg = "found no kernel, expected at least one"
        raise InputError(msg)
    return Comparison([replay(recording, kernel, machine, keep_flushes=False) for kernel in kernels])
