"""What a hunt found: violations, grouped by cause, and how far each set of operations was searched."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tlbcore.report.table import counted
from tlbcore.results import Cell, Result

if TYPE_CHECKING:
    from tlbcore.check import Verdict
    from tlbcore.hunt.plan import Size

__all__ = ["Cause", "Finding", "Hunt", "SizeCount", "cause_of", "grouped"]

#: The name of a page at the end of a step: which page it is makes no other cause.
_PAGE = re.compile(r"\bp\d+[*'c]?")


@dataclass(frozen=True)
class Finding:
    """An invariant that a set of operations violates, in the smallest scenario that does."""

    invariant: str
    operations: tuple[str, ...]
    kind: str
    #: How the ranges lie to each other.
    relation: str
    size: Size
    #: What reproduces it: the arguments of `tlbcore.check` but the kernel.
    arguments: dict[str, Any]
    verdict: Verdict

    @property
    def steps(self) -> tuple[str, ...]:
        """The last step of each kernel thread before the violation: what races."""
        return cause_of(self.verdict)

    def __str__(self) -> str:
        """One line."""
        where = f"{self.kind}, {self.relation}, {self.size}"
        steps = (
            counted(len(self.verdict.counterexample), "step")
            if self.verdict.counterexample
            else "no trace within bounds"
        )
        return f"{' x '.join(self.operations)} ({where}; {steps})"


def cause_of(verdict: Verdict) -> tuple[str, ...]:
    """The last step of each kernel thread in a counterexample, without the names of pages, sorted."""
    last: dict[int, str] = {}
    for event in verdict.counterexample:
        if not event.hardware and not event.who.startswith("user "):
            last[event.cpu] = _PAGE.sub("p", event.text)
    return tuple(sorted(last.values()))


@dataclass(frozen=True)
class Cause:
    """Findings with the same invariant and the same racing steps; the first is the smallest."""

    invariant: str
    steps: tuple[str, ...]
    findings: tuple[Finding, ...]


def grouped(findings: list[Finding]) -> tuple[Cause, ...]:
    """The findings by cause, smallest first."""

    def rank(finding: Finding) -> tuple[int, Size, int, str]:
        length = len(finding.verdict.counterexample) or 1 << 30
        return len(finding.operations), finding.size, length, str(finding)

    causes: dict[tuple[str, tuple[str, ...]], list[Finding]] = {}
    for finding in sorted(findings, key=rank):
        causes.setdefault((finding.invariant, finding.steps), []).append(finding)
    return tuple(Cause(invariant, steps, tuple(found)) for (invariant, steps), found in causes.items())


@dataclass
class SizeCount:
    """What came of one size and one number of operations."""

    size: Size
    #: Operations that run at the same time.
    threads: int
    #: Scenarios that there are.
    scenarios: int = 0
    safe: int = 0
    unsafe: int = 0
    #: Stopped by the bound on states.
    undecided: int = 0
    #: Not begun, or not ended, when the time was over.
    left: int = 0
    #: Every invariant was known to be violated by these operations in a smaller scenario.
    settled: int = 0
    refused: int = 0
    #: Maximal states.
    states: int = 0
    #: Scenarios for which the number of projections is known with one user CPU fewer.
    compared: int = 0
    #: Those of them for which it did not grow.
    same_projections: int = 0


@dataclass(frozen=True, repr=False)
class Hunt(Result):
    """What came of a hunt."""

    kernel: str
    #: Operations that ran at the same time, at most.
    threads: int
    operations: tuple[str, ...]
    causes: tuple[Cause, ...]
    counts: tuple[SizeCount, ...]
    #: What was refused and not tried: the reason of each.
    refused: dict[str, str]
    #: Scenarios that the bound on states cut short.
    undecided: tuple[str, ...]
    #: Why it ended early; None: it was through.
    stopped: str | None
    invariants: tuple[str, ...]
    seconds: float
    #: The bounds that held.
    bounds: dict[str, object]
    #: Invariants by set of operations, which were not looked for again in larger scenarios and larger sets.
    masked: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def violated(self) -> tuple[str, ...]:
        """The invariants that something violates."""
        return tuple(sorted({cause.invariant for cause in self.causes}))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, cause by cause."""
        return tuple(finding for cause in self.causes for finding in cause.findings)

    @property
    def complete(self) -> bool:
        """Everything that was planned and not refused was decided."""
        return self.stopped is None and not self.undecided

    @property
    def proven(self) -> tuple[SizeCount, ...]:
        """The sizes at which each scenario that was not refused was decided."""
        return tuple(count for count in self.counts if not count.left and not count.undecided)

    @property
    def safe(self) -> bool:
        """Nothing found, and at least the smallest size was searched for as many operations as were asked for."""
        smallest = min((count.size for count in self.counts), default=None)
        return not self.causes and any(c.size == smallest and c.threads == self.threads for c in self.proven)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain structures."""
        return asdict(self) | {"safe": self.safe}

    def to_rows(self) -> list[dict[str, Cell]]:
        """A row for each finding, cause by cause; none if nothing was found."""
        return [
            {
                "cause": number,
                "invariant": finding.invariant,
                "operations": " x ".join(finding.operations),
                "kind": finding.kind,
                "relation": finding.relation,
                "nr_users": finding.size.users,
                "nr_pages": finding.size.pages,
                "nr_faults": finding.size.faults,
                "nr_steps": len(finding.verdict.counterexample),
            }
            for number, cause in enumerate(self.causes, 1)
            for finding in cause.findings
        ]

    def headline(self) -> str:
        """One line: what was found, or how far it is safe."""
        from tlbcore.report.hunt import summary  # noqa: PLC0415 - the report names what is found here

        return summary(self)
