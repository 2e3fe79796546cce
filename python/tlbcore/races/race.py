"""What a documented race is: a kernel that has it, one that has not, and the scenario in which they differ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tlbcore.check import DEFAULT_INVARIANTS, TABLE_INVARIANTS, Verdict, check
from tlbcore.finding import RACE, pack
from tlbcore.report.html import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.kernel import Kernel

__all__ = ["Race"]


@dataclass(frozen=True, repr=False)
class Race:
    """A race of Linux, or of a patch that was posted.

    `scenario` holds the arguments of `tlbcore.check` but the kernel; `engine` says which flush engine both have, and
    `buggy_engine` bugs of it, which no scheme can express, and go with the buggy kernel only.
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
    #: What the flush engine has in both.
    engine: Mapping[str, bool] = field(default_factory=dict)
    buggy_engine: Mapping[str, bool] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line."""
        return f"<Race {self.id}: {self.title}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the documented interleaving, step by step."""
        rows = [[str(step), text] for step, text in enumerate(self.interleaving, 1)]
        return html_table(f"{self.id}: {self.title}. {self.story}", ["step", "as documented"], rows)

    @property
    def documented_steps(self) -> int:
        """Steps of the documented interleaving: coarse ones, each some steps of the explorer."""
        return len(self.interleaving)

    def find(self, **options: Any) -> Verdict:  # noqa: ANN401
        """The verdict on the kernel that has the race."""
        arguments = {
            **self.scenario,
            "engine": {**self.engine, **self.buggy_engine},
            "invariants": (self.invariant,),
            **options,
        }
        verdict = check(self.buggy, **arguments)
        if verdict.path and not verdict.finding:
            again = pack(RACE + self.id, verdict.scenario, arguments["invariants"], verdict.path)
            verdict = replace(verdict, finding=again)
        return verdict

    def prove(self, **options: Any) -> Verdict:  # noqa: ANN401
        """The verdict on the kernel that has it not."""
        invariants = [*DEFAULT_INVARIANTS, *(TABLE_INVARIANTS if self.scenario.get("whole_tables") else ())]
        invariants += [] if self.invariant in invariants else [self.invariant]
        return check(self.fixed, **{**self.scenario, "engine": self.engine, "invariants": invariants, **options})
