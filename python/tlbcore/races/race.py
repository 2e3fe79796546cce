"""What a documented race is: a kernel that has it, one that has not, and the scenario in which they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlbcore.check import DEFAULT_INVARIANTS, TABLE_INVARIANTS, Verdict, check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.kernel import Kernel

__all__ = ["Race"]


@dataclass(frozen=True, repr=False)
class Race:
    """A race of Linux, or of a patch that was posted.

    `scenario` holds the arguments of `tlbcore.check` but the kernel; `buggy_engine` are bugs of the flush engine,
    which no scheme can express, and go with the buggy kernel only.
    """

    id: str
    title: str
    #: The Linux commit that mended it; empty for patches that were never merged.
    commit: str
    #: The first release without it.
    fixed_in: str
    #: The legacy scheme: 1 mmu_gather, 2 tlb_flush_pending, 3 lazy MMU, 4 per table, 5 reclaim batching; HW: flushing.
    scheme: str
    #: The invariant that it violates.
    invariant: str
    #: What goes wrong, in a few sentences.
    story: str
    #: How it was documented, step by step.
    interleaving: tuple[str, ...]
    buggy: Kernel
    fixed: Kernel
    scenario: Mapping[str, Any]
    cve: str = ""
    buggy_engine: Mapping[str, bool] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line."""
        return f"<Race {self.id}: {self.title}>"

    @property
    def documented_steps(self) -> int:
        """Steps of the documented interleaving: coarse ones, each some steps of the explorer."""
        return len(self.interleaving)

    def find(self, **options: Any) -> Verdict:  # noqa: ANN401
        """The verdict on the kernel that has the race."""
        return check(
            self.buggy,
            **{**self.scenario, "engine": self.buggy_engine, "invariants": (self.invariant,), **options},
        )

    def prove(self, **options: Any) -> Verdict:  # noqa: ANN401
        """The verdict on the kernel that has it not."""
        invariants = [*DEFAULT_INVARIANTS, *(TABLE_INVARIANTS if self.scenario.get("whole_tables") else ())]
        invariants += [] if self.invariant in invariants else [self.invariant]
        return check(self.fixed, **{**self.scenario, "invariants": invariants, **options})
