"""A counterexample as a Markdown table: a column for each CPU, and what each step changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.report.table import counted
from tlbcore.report.trace.state import INVARIANTS, changes, states

if TYPE_CHECKING:
    from tlbcore.check import Verdict

__all__ = ["markdown"]


def _cell(text: str) -> str:
    """A text that cannot end its cell; what hardware does is in brackets, which must not become a link."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("_", "\\_").replace("<", "&lt;")


def markdown(verdict: Verdict) -> str:
    """The counterexample of a verdict."""
    used = sorted({event.cpu for event in verdict.counterexample})
    found = states(verdict)
    violated = "; ".join(f"{name}, {_cell(INVARIANTS[name])}" for name in verdict.violated)
    lines = [
        f"**{_cell(verdict.kernel)}: unsafe** after {counted(len(verdict.counterexample), 'step')}: {violated}.",
        "",
        f"Locks relied on: {', '.join(_cell(lock) for lock in verdict.locks)}.",
        "",
        f"| | {' | '.join(_cell(f'CPU{cpu} ({verdict.cpus[cpu]})') for cpu in used)} | what changes |",
        f"|--:|{'---|' * (len(used) + 1)}",
    ]
    for at, event in enumerate(verdict.counterexample):
        code = event.text.replace("|", "\\|")
        cells = [f"`{code}`" if cpu == event.cpu else "" for cpu in used]
        lines.append(f"| {at + 1} | {' | '.join(cells)} | {_cell('; '.join(changes(found[at], found[at + 1])))} |")
    ends = [f"**{_cell(INVARIANTS[name])}**" for name in verdict.violated]
    last = verdict.counterexample[-1].cpu
    cells = ["; ".join(ends) if cpu == last else "" for cpu in used]
    lines.append(f"| ⇒ | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"
