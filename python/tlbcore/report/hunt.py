"""What a hunt found, for people: causes with their shortest traces, how far it came, what it has not looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.check import INVARIANTS
from tlbcore.hunt.plan import NOT_MODELLED, NOT_WITHOUT_TABLES
from tlbcore.report.table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlbcore.hunt import Hunt, SizeCount
    from tlbcore.hunt.findings import Cause, Finding

__all__ = ["hunt_report", "summary", "switch_table"]

#: At most so many names in a line.
_MANY = 6

SETS = {1: "operations", 2: "pairs", 3: "triples"}


def summary(found: Hunt) -> str:
    """One line: what was found, or how far it is safe."""
    sets = SETS.get(found.threads, f"sets of {found.threads} operations")
    if found.causes:
        nr = len(found.causes)
        return f"{found.kernel}: {nr} cause{'s' * (nr > 1)} of {' '.join(found.violated)} found among its {sets}"
    through = [str(count.size) for count in found.proven if count.threads == found.threads]
    if not through:
        return f"{found.kernel}: nothing found, not one size searched to its end"
    return f"{found.kernel}: safe for {' '.join(found.invariants)}, all {sets} up to {through[-1]}"


def _cause(number: int, cause: Cause, kernel: str, *, traces: bool) -> list[str]:
    first = cause.findings[0]
    lines = [f"{number}. {cause.invariant}: {INVARIANTS[cause.invariant]}", f"   {first}"]
    if cause.steps:
        lines.append(f"   last steps: {' | '.join(cause.steps)}")
    if traces:
        lines += ["", first.verdict.diagram(), ""]
    arguments = ", ".join(f"{name}={value!r}" for name, value in first.arguments.items())
    lines.append(f'   tlbcore.check("{kernel}", {arguments})')
    if traces and first.verdict.finding:
        lines.append(f"   tlbcore check --replay {first.verdict.finding}")
    if len(cause.findings) > 1:
        lines.append(f"   the same steps in {len(cause.findings) - 1} more:")
        lines += [f"     {finding}" for finding in cause.findings[1 : _MANY + 1]]
        if len(cause.findings) > _MANY + 1:
            lines.append(f"     and {len(cause.findings) - _MANY - 1} (--json lists them)")
    return [*lines, ""]


def _sizes(counts: Sequence[SizeCount]) -> str:
    head = ["at the same time", "size", "scenarios", "safe", "unsafe", "undecided", "settled", "not reached", "states"]
    rows = []
    for count in counts:
        if not count.scenarios:
            continue
        rows.append(
            [
                {1: "one", 2: "two", 3: "three"}.get(count.threads, str(count.threads)),
                str(count.size),
                *(
                    f"{value:,}"
                    for value in (count.scenarios, count.safe, count.unsafe, count.undecided, count.settled)
                ),
                f"{count.left:,}",
                f"{count.states:,}",
            ]
        )
    return table(head, rows, emphasis=False, left=2)


def _more_users(found: Hunt) -> list[str]:
    """The evidence for more user CPUs than were tried."""
    compared = sum(count.compared for count in found.counts)
    if not compared:
        return []
    same = sum(count.same_projections for count in found.counts)
    return [
        f"With one user CPU more, kernel threads and pages came to nothing new in {same:,} of {compared:,} scenarios",
        "(as many projections without users): where it is so, that is evidence, not proof, for still more CPUs.",
    ]


def hunt_report(found: Hunt, *, traces: bool = True) -> str:
    """All of it, as text."""
    lines = [summary(found)]
    if found.causes:
        lines.append("These are findings about the model: whether the kernel has them is for its source to say.")
    lines.append("")
    for number, cause in enumerate(found.causes, 1):
        lines += _cause(number, cause, found.kernel, traces=traces)
    lines += [_sizes(found.counts), ""]
    lines.append(f"bounds: {found.bounds['states']:,} maximal states for each scenario")
    if "seconds" in found.bounds:
        lines[-1] += f", {found.bounds['seconds']} s in all"
    if found.stopped:
        lines.append(f"stopped by {found.stopped}; what is not reached is not decided")
        later = dict.fromkeys(str(c.size) for c in found.counts if c.threads == found.threads and not c.scenarios)
        if later:
            lines.append(f"sizes not begun: {'; '.join(later)}")
    lines += _more_users(found)
    if found.masked:
        lines.append("settled: found violated, and not looked for again in larger scenarios of the same operations")
    if found.undecided:
        lines.append(f"undecided ({len(found.undecided)}):")
        lines += [f"  {text}" for text in found.undecided[:_MANY]]
        if len(found.undecided) > _MANY:
            lines.append(f"  and {len(found.undecided) - _MANY} (--json lists them)")
    if found.refused:
        lines.append("refused:")
        lines += [f"  {where}: {reason}" for where, reason in found.refused.items()]
    left_out = NOT_MODELLED if found.bounds.get("whole_tables") else f"{NOT_MODELLED}, {NOT_WITHOUT_TABLES}"
    lines.append(f"not in the model: {left_out}")
    return "\n".join(lines)


def switch_table(hunts: Sequence[tuple[str, Hunt]]) -> str:
    """One row for each setting of a kernel's switches: what is proven, and how it differs from the first one."""
    base = hunts[0][1]
    rows = []
    for name, found in hunts:
        through = [count for count in found.proven if count.threads == found.threads]
        counts = [count for count in found.counts if count.threads == found.threads and count.scenarios]
        proven = f"{sum(count.safe for count in counts):,} of {sum(count.scenarios for count in counts):,}"
        bounds = str(through[-1].size) if through else "no size to its end"
        adds, mends = _only(found, base), _only(base, found)
        for index in range(max(1, len(adds), len(mends))):
            more = [name, proven, bounds] if index == 0 else ["", "", ""]
            rows.append([*more, *(texts[index] if index < len(texts) else "" for texts in (adds, mends))])
    lines = [f"{hunts[0][0]} ({base.kernel}) violates:"]
    lines += [f"  {cause.invariant} {_names(cause.findings)}" for cause in base.causes]
    head = ["switches", "safe scenarios", "all decided up to", "violates also", "violates no more"]
    return "\n".join([*lines, "", table(head, rows, emphasis=False, left=5)])


def _names(findings: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(" x ".join(finding.operations) for finding in findings))


def _only(found: Hunt, other: Hunt) -> list[str]:
    """What the one has and the other not, neither with the same operations nor with fewer."""
    having = [(f.invariant, f.kind, set(f.operations)) for f in other.findings]
    only = [
        f"{f.invariant} {' x '.join(f.operations)} ({f.kind})"
        for f in found.findings
        if not any(i == f.invariant and k == f.kind and ops <= set(f.operations) for i, k, ops in having)
    ]
    return list(dict.fromkeys(only))
