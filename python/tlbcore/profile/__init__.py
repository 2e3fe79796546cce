"""What a program did to its TLBs: who flushed, who was interrupted, what was useless, what other kernels would do.

>>> from tlbcore import recordings
>>> from tlbcore.profile import profile
>>> found = profile(recordings.load("data/recordings/micro.perf.txt.zst"))
>>> found.causes[0].operation, found.causes[0].nr_told
('munmap', 314)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore import machines as all_machines
from tlbcore import recordings
from tlbcore.caveats import caveats
from tlbcore.given import several
from tlbcore.profile.across import Across, across
from tlbcore.profile.causes import Cause, Interrupted, OperationSums, by_operation, causes, interrupted
from tlbcore.profile.flushes import Flushes, predicted, recorded
from tlbcore.profile.storms import Storm, storms
from tlbcore.profile.useless import InVain, Promoted, in_vain, promoted
from tlbcore.replay import kernel_named, replay
from tlbcore.report.table import counted
from tlbcore.results import Result
from tlbcore.validate import explain, validate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from collections.abc import Sequence as Seq

    from tlbcore._core import Recording
    from tlbcore.kernel import Kernel
    from tlbcore.machines import Machine
    from tlbcore.replay import Replay
    from tlbcore.results import Cell
    from tlbcore.validate import Cause as Difference
    from tlbcore.validate import Validation

__all__ = ["KERNELS", "MACHINES", "Across", "Cause", "Flushes", "InVain", "Interrupted", "Profile", "Storm", "profile"]

KERNELS: Final = ("linux-5.10", "linux-6.18", "consolidated")
"""The kernels that are compared unless told."""

MACHINES: Final = ("default", "skylake_sp", "sapphire_rapids", "zen2_rome")
"""The machines that are compared unless told; the first one is what the counts are of."""


@dataclass(frozen=True, repr=False)
class Profile(Result):
    """What a recording says about its TLB flushes, and what the model adds."""

    recording: Recording
    #: The replay under the kernel nearest to the recorded one.
    replayed: Replay
    #: The flushes that were recorded, or the model's if none were.
    flushes: Flushes
    #: The model's.
    model: Flushes
    in_vain: Seq[InVain]
    promoted: Seq[Promoted]
    storms: Seq[Storm]
    across: Across
    #: None if no flushes were recorded.
    validation: Validation | None
    differences: Seq[Difference]

    @property
    def is_recorded(self) -> bool:
        """Whether the flushes are those of the kernel; else they are the model's."""
        return self.flushes.source == "recorded"

    @property
    def span_ns(self) -> tuple[int, int]:
        """The first and the last moment of the recording."""
        if not self.recording.nr_events:
            return (0, 0)
        times = self.recording.column("time_ns")
        return int(times.min()), int(max(times.max(), self.recording.column("end_ns").max()))

    @property
    def warnings(self) -> list[str]:
        """Why the numbers are too low or guessed: events lost, processes older than the recording; a line each."""
        return caveats(self.recording)

    @property
    def causes(self) -> list[Cause]:
        """Who caused the flushes, those that interrupted most first."""
        return causes(self.flushes)

    @property
    def interrupted(self) -> list[Interrupted]:
        """Who was interrupted by whom, most first."""
        return interrupted(self.flushes)

    @property
    def by_operation(self) -> list[OperationSums]:
        """Sums by kind of operation, most flushes first."""
        return by_operation(self.flushes)

    def to_rows(self) -> list[dict[str, Cell]]:
        """The sums by kind of operation."""
        return [row.to_dict() for row in self.by_operation]

    def headline(self) -> str:
        """What was flushed, who was interrupted."""
        name, source = self.recording.meta["file"], self.flushes.source
        flushes, told = counted(len(self.flushes), "flush"), counted(len(self.flushes.interruptions), "interruption")
        return f"{name}: {flushes} ({source}), {told}, {counted(len(self.storms), 'storm')}"

    def to_dict(self) -> dict[str, Any]:
        """The plain structure, without the single flushes."""
        begin, end = self.span_ns
        return {
            "recording": dict(self.recording.meta),
            "warnings": self.warnings,
            "flushes": self.flushes.source,
            "nr_flushes": len(self.flushes),
            "nr_told": len(self.flushes.interruptions),
            "nr_unknown_sender": self.flushes.nr_unknown_sender,
            "begin_ns": begin,
            "end_ns": end,
            "by_operation": [row.to_dict() for row in self.by_operation],
            "causes": [cause.to_dict() for cause in self.causes],
            "interrupted": [row.to_dict() for row in self.interrupted],
            "kernel": self.replayed.kernel.name,
            "in_vain": [row.to_dict() for row in self.in_vain],
            "promoted": [row.to_dict() for row in self.promoted],
            "storms": [storm.to_dict() for storm in self.storms],
            "across": self.across.to_dict(),
            "validation": None if self.validation is None else self.validation.to_dict(),
            "differences": [cause.to_dict() for cause in self.differences],
            "notes": self.replayed.notes,
        }


def profile(
    recording: Recording | str | os.PathLike[str],
    *,
    kernels: Sequence[str | Kernel] = KERNELS,
    machines: Sequence[str | Machine] = MACHINES,
    progress: Callable[[int, int, str], None] | None = None,
) -> Profile:
    """What a program did to its TLBs.

    Args:
        recording: A recording, or the name of a file with one.
        kernels: What is compared; the kernel nearest to the recorded one comes first, given or not.
        machines: On what; counts are those of the first.
        progress: Told how many parts of how many are done, and what is next.

    Raises:
        InputError: No such kernel or machine.

    """
    say = progress or (lambda _done, _of, _next: None)
    several("kernels", kernels)
    found = [all_machines.get(machine) for machine in several("machines", machines)]
    named = [
        (spec if isinstance(spec, str) else spec.name, machine) for spec, machine in zip(machines, found, strict=True)
    ]
    recording = recordings.opened(recording)
    steps = 3 + len(named)
    nearest = recordings.kernel_of(recording)
    machine = found[0].config()
    truth = recorded(recording)
    say(0, steps, nearest)
    validation = None if truth is None else validate(recording, nearest, machine)
    replayed = validation.replay if validation is not None else replay(recording, nearest, machine)
    model = predicted(replayed)
    flushes = model if truth is None else truth
    names = [kernel for kernel in kernels if kernel_named(kernel).name != nearest]
    say(1, steps, "promotions")
    useless = promoted(recording, machine)
    compared = across(recording, [nearest, *names], named, progress=lambda done, name: say(2 + done, steps, name))

    def explaining(done: int, of: int) -> None:
        say(steps - 1, steps, f"why {done:,} of {of:,} differ")

    differences = [] if validation is None else explain(validation, progress=explaining)
    say(steps, steps, "")
    return Profile(
        recording=recording,
        replayed=replayed,
        flushes=flushes,
        model=model,
        in_vain=in_vain(replayed, model),
        promoted=useless,
        storms=storms(flushes),
        across=compared,
        validation=validation,
        differences=differences,
    )
