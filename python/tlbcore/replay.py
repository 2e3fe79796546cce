"""Replay: a recording runs through the model under a kernel of one's choice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbcore import _core, kernels, recordings
from tlbcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
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


def kernel_named(spec: str | Kernel) -> Kernel:
    """A kernel by name, or as it is.

    Raises:
        InputError: no such kernel.

    """
    try:
        return kernels.get(spec) if isinstance(spec, str) else spec
    except ValueError as error:
        raise InputError(str(error)) from error


def kernel_for(spec: str | Kernel, recording: Recording) -> Kernel:
    """The same with the flush ceiling of the recorded kernel where that is known.

    Raises:
        InputError: no such kernel.

    """
    kernel = kernel_named(spec)
    ceiling = recording.meta.get("ceiling_pages")
    if ceiling is None or ceiling == kernel.constants["tlb_single_page_flush_ceiling"]:
        return kernel
    return kernel.derive(kernel.name, constants={"tlb_single_page_flush_ceiling": int(ceiling)})


def replay(  # noqa: PLR0913  # each says something of its own, by name
    recording: Recording,
    kernel: str | Kernel,
    machine: Mapping[str, Any],
    *,
    follow_masks: bool = False,
    traced: bool = False,
    threads: int = 1,
    keep_flushes: bool = True,
) -> Replay:
    """Replays a recording under a kernel on a machine.

    Args:
        recording: From `tlbcore.recordings.load`.
        kernel: A name as `tlbcore.kernels.get` understands it, or a `Kernel` of one's own.
        machine: The configuration (`tlbcore.machines`); CPUs, levels and PCID are the recording's where it knows them.
        follow_masks: Correct mm_cpumask by what each recorded flush shows of it, after that flush was predicted.
        traced: Keep everything that the machine did about flushes, for comparisons by column (`tlbcore.lab`); slower.
        threads: Replay processes that share no CPU and no ancestor on up to so many threads; the result is the same for
            any number. Ignored with `traced`.
        keep_flushes: Keep each flush and note with its event, for validation. Without, only sums are there, and memory does
            not grow with the recording.

    Raises:
        InputError: no such kernel, or a machine that cannot be.
        ProgramError: a kernel with an impossible step; the message names it.

    """
    chosen = kernel_for(kernel, recording)
    config = recordings.machine_config(recording, dict(machine))
    result = _core.replay(recording, chosen.to_json(), json.dumps(config), follow_masks, traced, threads, keep_flushes)
    return Replay(chosen, recording, config, result)
