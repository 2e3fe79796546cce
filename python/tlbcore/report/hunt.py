"""What a hunt found, for people: causes with their shortest traces, how far it came, what it has not looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.check import INVARIANTS
from tlbcore.hunt.plan import NOT_MODELLED
from tlbcore.report.table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlbcore.hunt import Hunt, SizeCount
    from tlbcore.hunt.findings import Cause

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
        begun = count.scenarios > 0
        rows.append(
            [
                {1: "one", 2: "two", 3: "three"}.get(count.threads, str(count.threads)),
                str(count.size),
                *(
                    f"{value:,}" if begun else "-"
                    for value in (count.scenarios, count.safe, count.unsafe, count.undecided, count.settled)
                ),
                f"{count.left:,}" if begun else "all",
                f"{count.states:,}" if begun else "-",
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
        f"In {same:,} of {compared:,} safe scenarios that were tried with one user CPU more, kernel threads and pages came to",
        "nothing new by it (as many projections without users): evidence, not proof, that still more CPUs change nothing.",
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
    lines.append(f"not in the model: {NOT_MODELLED}")
    return "\n".join(lines)


def switch_table(hunts: Sequence[tuple[str, Hunt]]) -> str:
    """One row for each setting of a kernel's switches: proven within bounds, or what was found."""
    rows = []
    for name, found in hunts:
        through = [str(count.size) for count in found.proven if count.threads == found.threads]
        decided = f"up to {through[-1]}" if through else "no size to its end"
        if not found.causes:
            rows.append([name, "safe", decided, ""])
        for index, cause in enumerate(found.causes):
            first, more = cause.findings[0], len(cause.findings) - 1
            what = f"{' x '.join(first.operations)}{f' and {more} more' if more else ''}"
            rows.append([name if index == 0 else "", cause.invariant, decided if index == 0 else "", what])
    return table(["switches", "verdict", "decided", "smallest operations"], rows, emphasis=False, left=4)
