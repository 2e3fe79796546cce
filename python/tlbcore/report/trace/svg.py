"""A counterexample as a drawing: a lane for each CPU, time downwards, hardware dashed, the end framed twice."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING, Final

from tlbcore.report.table import counted
from tlbcore.report.trace.state import INVARIANTS

if TYPE_CHECKING:
    from tlbcore.check import Verdict

__all__ = ["svg"]

_LANE, _GAP, _LINE, _PAD, _TOP, _CHARACTERS = 250, 16, 17, 7, 64, 30
_STYLE: Final = """
text { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1b1f24; }
.head { font-weight: 700; } .title { font-weight: 700; font-size: 13.5px; } .nr { fill: #57606a; font-size: 11px; }
.paper { fill: #ffffff; } .lane { stroke: #d0d7de; } .turn { stroke: #57606a; fill: none; marker-end: url(#tip); }
.tip { fill: #57606a; }
.kernel { fill: #e3effa; stroke: #0072b2; }
.hardware { fill: #ffffff; stroke: #57606a; stroke-dasharray: 4 3; }
.user { fill: #e7f5ef; stroke: #009e73; } .end { fill: #fbe9df; stroke: #d55e00; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ec; } .nr { fill: #9aa5b1; } .paper { fill: #14181d; } .lane { stroke: #343c45; }
  .turn { stroke: #9aa5b1; } .tip { fill: #9aa5b1; } .kernel { fill: #16304a; } .hardware { fill: #14181d; stroke: #9aa5b1; }
  .user { fill: #12352b; } .end { fill: #45230f; }
}
"""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _CHARACTERS, subsequent_indent="  ", break_long_words=True) or [""]


def svg(verdict: Verdict) -> str:
    """The counterexample of a verdict, as a file of its own."""
    used = sorted({event.cpu for event in verdict.counterexample})
    left = {cpu: 40 + at * (_LANE + _GAP) for at, cpu in enumerate(used)}
    boxes = [
        (event.cpu, event.text, _kind(event.hardware, event.who), str(at))
        for at, event in enumerate(verdict.counterexample, 1)
    ]
    last = verdict.counterexample[-1].cpu
    boxes += [(last, INVARIANTS[name], "end", "") for name in verdict.violated]
    parts: list[str] = []
    top, before = _TOP, None
    for cpu, text, kind, number in boxes:
        lines = _wrapped(text)
        height = len(lines) * _LINE + 2 * _PAD
        x = left[cpu]
        if before is not None and before[0] != cpu:
            # Where the turn goes to another CPU.
            start = left[before[0]] + (_LANE if x > left[before[0]] else 0)
            end = x if x > left[before[0]] else x + _LANE
            parts.append(f'<path class="turn" d="M{start},{before[1]}L{end},{top + height / 2:.0f}"/>')
        parts.append(f'<rect class="{kind}" x="{x}" y="{top}" width="{_LANE}" height="{height}" rx="5"/>')
        parts += [
            f'<text x="{x + 9}" y="{top + _PAD + 13 + row * _LINE}" xml:space="preserve">{escape(line)}</text>'
            for row, line in enumerate(lines)
        ]
        parts.append(f'<text class="nr" x="30" y="{top + height / 2 + 4:.0f}" text-anchor="end">{number}</text>')
        before = cpu, top + height / 2
        top += height + 8
    width, height = 40 + len(used) * (_LANE + _GAP), top + 8
    heads = "".join(_head(cpu, verdict.cpus[cpu], left[cpu] + _LANE // 2, height) for cpu in used)
    title = f"{verdict.kernel}: unsafe after {counted(len(verdict.counterexample), 'step')}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(verdict.diagram())}</desc><style>{_STYLE}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0,0L8,4L0,8z"/></marker></defs>'
        f'<rect class="paper" width="{width}" height="{height}"/><text class="title" x="40" y="22">{escape(title)}</text>'
        f"{heads}{''.join(parts)}</svg>\n"
    )


def _head(cpu: int, what: str, middle: int, height: int) -> str:
    """The name of a lane, and its line."""
    name = escape(f"CPU{cpu} ({what})")
    return (
        f'<text class="head" x="{middle}" y="48" text-anchor="middle">{name}</text>'
        f'<path class="lane" d="M{middle},56V{height - 8}"/>'
    )


def _kind(hardware: bool, who: str) -> str:  # noqa: FBT001  # of an event
    return "hardware" if hardware else "user" if who.startswith("user ") else "kernel"
