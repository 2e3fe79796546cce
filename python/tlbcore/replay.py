"""Replay: a recording runs through the model under a kernel of one's choice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tlbcore import _core, costs, kernels, machines, recordings
from tlbcore.errors import InputError
from tlbcore.report.table import counted
from tlbcore.results import Cell, Result

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine

__all__ = ["Replay", "replay"]


@dataclass(frozen=True, repr=False)
class Replay(Result):
    """What a recording gave under a kernel."""

    kernel: Kernel
    recording: Recording
    config: Mapping[str, Any]
    result: _core.Replay

    @property
    def counters(self) -> dict[str, int]:
        """Sums of the machine, by name (``nr_flush_requests``, ``nr_ipis``, ...)."""
        return self.result.counters

    @property
    def by_operation(self) -> dict[str, dict[str, int]]:
        """Sums of each kind of operation."""
        return self.result.by_operation

    @property
    def notes(self) -> dict[str, int]:
        """What had to be assumed or passed over, and how often."""
        return self.result.notes

    def cost(self) -> costs.CostEstimate | None:
        """What the flushes would cost, a model's opinion; None for a machine without costs."""
        costs_ns = self.config.get("costs")
        return costs.estimate(self.counters, costs_ns) if costs_ns else None

    def to_dict(self) -> dict[str, Any]:
        """The plain structure."""
        cost = self.cost()
        return {
            "kernel": self.kernel.name,
            "title": self.kernel.title,
            "switches": dict(self.kernel.switches),
            "counters": self.counters,
            "cost_ns": {**asdict(cost), "total_ns": cost.total_ns, "is": costs.LABEL} if cost else None,
            "by_operation": self.by_operation,
            "notes": self.notes,
        }

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each kind of operation, with its sums."""
        return [{"operation": kind, **sums} for kind, sums in self.by_operation.items()]

    def headline(self) -> str:
        """What ran, and the two numbers that one asks for first."""
        flushes, ipis = counted(self.counters["nr_flush_requests"], "flush"), counted(self.counters["nr_ipis"], "IPI")
        return f"{self.recording.meta['file']} under {self.kernel.name}: {flushes}, {ipis}"


def kernel_named(spec: str | Kernel) -> Kernel:
    """A kernel by name, or as it is.

    Raises:
        InputError: no such kernel.

    """
    try:
        return kernels.get(spec)
    except ValueError as error:
        raise InputError(str(error)) from error


def kernel_for(kernel: Kernel, recording: Recording) -> Kernel:
    """The kernel with the flush ceiling of the recorded one where that is known."""
    ceiling = recording.meta.get("ceiling_pages")
    if ceiling is None or ceiling == kernel.constants["tlb_single_page_flush_ceiling"]:
        return kernel
    return kernel.derive(kernel.name, constants={"tlb_single_page_flush_ceiling": int(ceiling)})


def replay(  # noqa: PLR0913 - what to run, on what, how
    recording: Recording | str | os.PathLike[str],
    kernel: str | Kernel,
    machine: str | Machine | Mapping[str, Any] = machines.DEFAULT,
    *,
    follow_masks: bool = False,
    traced: bool = False,
    progress: Callable[[int, int], object] | None = None,
    threads: int = 1,
    keep_flushes: bool = True,
) -> Replay:
    """Replays a recording under a kernel on a machine.

    Args:
        recording: From `tlbcore.recordings.load`, or a file that it takes.
        kernel: A name as `tlbcore.kernels.get` understands it, or a `Kernel` of one's own.
        machine: A name as `tlbcore.machines.get` understands it, a `Machine`, or its configuration; CPUs, levels and
            PCID are the recording's where it knows them.
        follow_masks: Correct mm_cpumask by what each recorded flush shows of it, after that flush was predicted.
        traced: Keep everything that the machine did about flushes, for comparisons by column (`tlbcore.lab`); slower.
        progress: Called now and then with the events done and all of them.
        threads: Replay processes that share no CPU and no ancestor on up to so many threads; the result is the same for
            any number. Ignored with `traced`.
        keep_flushes: Keep each flush and note with its event, for validation and plots. Without, only sums are there, and
            memory does not grow with the recording.

    Raises:
        InputError: no such kernel, or a machine that cannot be.
        ProgramError: a kernel with an impossible step; the message names it.

    """
    named = kernel_named(kernel)  # before a large file is read
    config = machines.config_of(machine)
    found = recordings.opened(recording)
    chosen = kernel_for(named, found)
    config = recordings.machine_config(found, config)
    result = _core.replay(
        found,
        chosen.to_json(),
        json.dumps(config),
        follow_masks,
        traced,
        progress,
        threads=threads,
        keep_flushes=keep_flushes,
    )
    return Replay(chosen, found, config, result)
