"""Comparison: the same recording under several kernels.

>>> import tlbcore
>>> found = tlbcore.compare("data/recordings/gcc.perf.txt.zst", ["linux-5.10", "linux-6.18"])
>>> found
<Comparison gcc.perf.txt.zst: 1,478 flushes under linux-5.10, 1,441 under linux-6.18>
>>> [row["nr_ipis"] for row in found.to_rows()]
[270, 280]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbcore import machines, recordings, tables
from tlbcore.caveats import caveats
from tlbcore.errors import InputError
from tlbcore.given import several, whole_number
from tlbcore.lookup import find
from tlbcore.replay import Replay, kernel_named, replay
from tlbcore.report.table import counted, number
from tlbcore.results import Cell, Result, columns

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from tlbcore import costs
    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

__all__ = ["DEFAULT_KERNELS", "METRICS", "TIMES", "Comparison", "compare"]

#: What is compared unless kernels are named.
DEFAULT_KERNELS = ("linux-5.10", "linux-6.18", "consolidated")

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

#: The estimated times: attribute of `tlbcore.costs.CostEstimate`, what it says. A model's opinion.
TIMES: tuple[tuple[str, str], ...] = (
    ("initiator_ns", "time of those who flush, us *"),
    ("interference_ns", "time of those interrupted, us *"),
    ("total_ns", "time of all, with refills, us *"),
)


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """The replays, in the order asked for; ratios are to the first."""

    replays: Sequence[Replay]

    def ratio(self, counter: str, index: int) -> float | None:
        """A counter of a kernel as a ratio to the first kernel's; none if that is 0.

        Raises:
            InputError: No such counter, or no such kernel.
        """
        find("counter", counter, self.replays[0].counters)
        whole_number("index", index, most=len(self.replays) - 1)
        first = self.replays[0].counters[counter]
        return self.replays[index].counters[counter] / first if first else None

    @property
    def warnings(self) -> list[str]:
        """Why the numbers are too low or guessed: events lost, processes older than the recording; a line each."""
        return caveats(self.replays[0].recording)

    def cost(self, index: int) -> costs.CostEstimate | None:
        """What the flushes of a kernel would cost, a model's opinion; none for a machine without costs."""
        return self.replays[index].cost()

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        return {
            "recording": self.replays[0].recording.meta["file"],
            "nr_events": self.replays[0].result.nr_events,
            "machine": dict(self.replays[0].config),
            "warnings": self.warnings,
            "kernels": [
                {**replayed.to_dict(), "ratios": {name: self.ratio(name, index) for name, _ in METRICS}}
                for index, replayed in enumerate(self.replays)
            ],
        }

    def to_rows(self, by: str = "kernel") -> list[dict[str, Cell]]:
        """A row for each kernel, with its counters and estimated times; or for each kernel and operation.

        Args:
            by: ``kernel`` or ``operation``.

        Raises:
            InputError: `by` is something else.
        """
        if by == "operation":
            return [{"kernel": r.kernel.name, **row} for r in self.replays for row in r.to_rows()]
        if by != "kernel":
            raise InputError(f"by: found {by!r}, expected kernel or operation")
        rows: list[dict[str, Cell]] = []
        for replayed in self.replays:
            cost = replayed.cost()
            times = {name: getattr(cost, name) for name, _ in TIMES} if cost else {}
            rows.append({"kernel": replayed.kernel.name, **replayed.counters, **times})
        return rows

    def to_arrow(self, by: str = "kernel") -> pa.Table:
        """`to_rows` as an Arrow table.

        Raises:
            InputError: pyarrow is not installed, or as `to_rows`.
        """
        return tables.arrow_table(columns(self.to_rows(by)))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """A row for each counter that some kernel has, then the times; a column for each kernel, ratios to the first."""
        first, *others = [replayed.kernel.name for replayed in self.replays]
        head = ["", first]
        for name in others:
            head += [name, "ratio"]
        lines: list[tuple[str, list[int]]] = [
            (label, [replayed.counters[counter] for replayed in self.replays]) for counter, label in METRICS
        ]
        lines = [(label, values) for label, values in lines if any(values)]
        found = [cost for replayed in self.replays if (cost := replayed.cost()) is not None]
        rows = [self._line(label, values, values) for label, values in lines]
        if len(found) == len(self.replays):
            for name, label in TIMES:
                times_ns = [getattr(cost, name) for cost in found]
                rows.append(self._line(label, [round(time / 1000) for time in times_ns], times_ns))
        return head, rows

    @staticmethod
    def _line(label: str, shown: Sequence[int], values: Sequence[float]) -> list[str]:
        cells = [label, number(shown[0])]
        for value, exact in zip(shown[1:], values[1:], strict=True):
            cells += [number(value), number(exact / values[0] if values[0] else None)]
        return cells

    def headline(self) -> str:
        """What was compared, and the flushes under each."""
        first, *others = self.replays
        parts = [f"{counted(first.counters['nr_flush_requests'], 'flush')} under {first.kernel.name}"]
        parts += [f"{replayed.counters['nr_flush_requests']:,} under {replayed.kernel.name}" for replayed in others]
        return f"{self.replays[0].recording.meta['file']}: {', '.join(parts)}"


def compare(
    recording: Recording | str | os.PathLike[str],
    kernels: Sequence[str | Kernel] = DEFAULT_KERNELS,
    machine: str | Machine | Mapping[str, Any] = machines.DEFAULT,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Replays a recording under each kernel.

    Args:
        recording: As `tlbcore.replay.replay` takes it.
        kernels: Each as `tlbcore.replay.replay` takes it; ratios are to the first.
        machine: As `tlbcore.replay.replay` takes it.
        progress: Called now and then with the events done and all of them, of all kernels.

    Raises:
        InputError: as `tlbcore.replay.replay`; no kernel at all, or a name instead of a list.

    """
    chosen = [kernel_named(kernel) for kernel in several("kernels", kernels)]  # before a large file is read
    config = machines.config_of(machine)
    found = recordings.opened(recording)
    replays = []
    for index, kernel in enumerate(chosen):

        def tell(done: int, of: int, index: int = index) -> None:
            if progress is not None:
                progress(index * of + done, len(chosen) * of)

        replays.append(replay(found, kernel, config, progress=tell))
    return Comparison(replays)
