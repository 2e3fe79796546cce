"""A counterexample as a page in which one steps forward and back, and sees page table, TLBs, locks and masks change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.report.page import fill
from tlbcore.report.page.html import Raw, text
from tlbcore.report.table import counted
from tlbcore.report.trace.state import GROUPS, INVARIANTS, changes, states

if TYPE_CHECKING:
    from tlbcore.check import Verdict
    from tlbcore.report.trace.state import Entry

__all__ = ["page"]

_CONTROLS = (("first", "First"), ("back", "Back"), ("next", "Next"), ("last", "Last"))


def page(verdict: Verdict) -> str:
    """The counterexample of a verdict."""
    found = states(verdict)
    used = sorted({event.cpu for event in verdict.counterexample})
    title = f"{verdict.kernel}: unsafe"
    says = "; ".join(f"<b>{text(name)}</b>: {text(INVARIANTS[name])}" for name in verdict.violated)
    buttons = "".join(f'<button type="button" data-step="{name}">{label}</button>' for name, label in _CONTROLS)
    body = Raw(
        f"<header><h1>{text(title)} after {counted(len(verdict.counterexample), 'step')}</h1><p>{says}</p>"
        f'<p class="facts">Locks relied on: {text(", ".join(verdict.locks))}. Hardware may do what stands in brackets at any'
        " moment.</p></header><main>"
        f'<div class="stepper"><div class="controls" role="group" aria-label="Steps">{buttons}'
        f'<input type="range" id="slider" min="0" max="{len(verdict.counterexample)}" value="0" aria-label="Step">'
        '<span class="note">keys &larr; &rarr; Home End</span></div>'
        f'<div class="halves"><div class="scroll">{_table(verdict, used, found)}</div>'
        '<div id="state" aria-live="polite"><noscript>Stepping needs JavaScript; the table tells all changes.</noscript></div>'
        "</div></div>"
        "</main><footer><p>Made by tlbcore. This file holds all that it shows, and asks nothing of the network.</p></footer>"
    )
    data = {
        "groups": GROUPS,
        "says": [f"CPU{event.cpu} ({event.who}): {event.text}" for event in verdict.counterexample],
        "states": [[[GROUPS.index(e.group), e.name, e.value] for e in state] for state in found],
    }
    return fill("page.html", title=title, body=body, data=data, script="trace.js")


def _table(verdict: Verdict, used: list[int], found: list[list[Entry]]) -> Raw:
    heads = "".join(f'<th scope="col">{text(f"CPU{cpu} ({verdict.cpus[cpu]})")}</th>' for cpu in used)
    rows = [f'<tr data-row="0"><td class="num">0</td><td colspan="{len(used) + 1}">before the first step</td></tr>']
    for at, event in enumerate(verdict.counterexample, 1):
        kind = "hardware" if event.hardware else "user" if event.who.startswith("user ") else "kernel"
        cells = "".join(
            f'<td class="step {kind}">{text(event.text)}</td>' if cpu == event.cpu else "<td></td>" for cpu in used
        )
        changed = "<br>".join(text(change) for change in changes(found[at - 1], found[at]))
        rows.append(f'<tr data-row="{at}"><td class="num">{at}</td>{cells}<td class="changes">{changed}</td></tr>')
    last = verdict.counterexample[-1].cpu
    ends = "; ".join(INVARIANTS[name] for name in verdict.violated)
    cells = "".join(f'<td class="step end">&rArr; {text(ends)}</td>' if cpu == last else "<td></td>" for cpu in used)
    rows.append(f"<tr><td></td>{cells}<td></td></tr>")
    head = f'<thead><tr><th></th>{heads}<th scope="col" class="changes">what changes</th></tr></thead>'
    return Raw(f'<table class="trace">{head}<tbody>{"".join(rows)}</tbody></table>')
