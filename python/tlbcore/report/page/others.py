"""Other kernels and machines: what each would change, the losses as plainly as the gains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from tlbcore import costs
from tlbcore.report.page.html import Bar, Raw, duration, legend, number, table, text

if TYPE_CHECKING:
    from tlbcore.profile import Profile
    from tlbcore.profile.across import Change

__all__ = ["section"]

#: A bar reaches its end at so many doublings.
_DOUBLINGS: Final = 2.0
_NR_ROWS: Final = 10


def section(profile: Profile) -> Raw:
    """All of it."""
    across = profile.across
    first, *others = across.kernels
    if not others:
        return Raw("<p>Only one kernel was asked for.</p>")
    return Raw(
        f"<p>The same work under {text(', '.join(others))}, held against <b>{text(first)}</b>."
        ' <span class="better">is less</span>, <span class="worse">is more</span>; less is better in every row.</p>'
        f"{_why_other_sums(profile)}{_metrics(profile)}{_winners(profile)}{_machines(profile)}"
    )


def _why_other_sums(profile: Profile) -> Raw:
    """Why the first kernel's numbers are not quite those of the section before, if they need not be."""
    if profile.validation is None:  # both are the same replay then
        return Raw("")
    return Raw(
        '<p class="note">Sums may differ a little from <a href="#useless">what was useless</a>: there <code>mm_cpumask</code>'
        " is corrected by what the recording shows of it, here by nothing, since no recording shows another kernel's; and"
        " there a CPU is in one class only.</p>"
    )


def _verdict(change: Change) -> Raw:
    """What became of a number, as a ratio; as a difference where a ratio would not show it."""
    if not change.is_better and not change.is_worse:
        return Raw('<span class="same">same</span>')
    if change.ratio is None:
        says = "from none"
    elif change.ratio == 0:
        says = "to none"
    elif f"{change.ratio:.3f}" == "1.000":
        says = f"{change.after - change.before:+.0f}"
    else:
        says = _times(change.ratio)
    return Raw(f'<span class="{"better" if change.is_better else "worse"}">{says}</span>')


def _times(ratio: float) -> str:
    return f"{ratio:.3f}\u00d7"


def _middle(change: Change) -> Raw:
    """A bar from the middle: to the left less, to the right more, each doubling as long as the next."""
    if not change.is_better and not change.is_worse:
        return Raw('<span class="mid"></span>')
    doublings = math.log2(change.ratio) if change.ratio else _DOUBLINGS * (1 if change.is_worse else -1)
    half = 50 * min(1.0, abs(doublings) / _DOUBLINGS)
    place = f"right:50%;width:{half:.1f}%" if change.is_better else f"left:50%;width:{half:.1f}%"
    return Raw(
        f'<span class="mid" aria-hidden="true"><span class="p{0 if change.is_better else 1}" style="{place}"></span></span>'
    )


def _metrics(profile: Profile) -> Raw:
    by_kernel: dict[str, list[Change]] = {}
    for change in profile.across.metrics():
        by_kernel.setdefault(change.kernel, []).append(change)
    tables = []
    for kernel, changes in by_kernel.items():
        better, worse = sum(c.is_better for c in changes), sum(c.is_worse for c in changes)
        rows = [[c.label, int(c.before), int(c.after), _verdict(c), _middle(c)] for c in changes]
        caption = f"{kernel}: {better} less, {worse} more, {len(changes) - better - worse} the same"
        tables.append(table(["", profile.across.kernels[0], kernel, "", ""], rows, caption=caption))
    return Raw("".join(tables))


def _winners(profile: Profile) -> Raw:
    changes = profile.across.operations()
    sides = []
    for title, chosen in (
        ("Largest gains", [c for c in changes if c.is_better][:_NR_ROWS]),
        ("Largest losses", [c for c in reversed(changes) if c.is_worse][:_NR_ROWS]),
    ):
        rows = [[c.label, c.kernel, int(c.before), int(c.after), _verdict(c)] for c in chosen]
        shown = table(["", "kernel", "before", "after", ""], rows, left=2) if rows else Raw("<p>None.</p>")
        sides.append(f"<div><h3>{title}, by operation</h3>{shown}</div>")
    return Raw(f'<div class="two">{"".join(sides)}</div>')


def _machines(profile: Profile) -> Raw:
    times, names = profile.across.times(), profile.across.kernels
    parts = ("initiator_ns", "interference_ns", "refill_ns")
    most = max((sum(cost.values()) for found in times.values() for cost in found), default=0)
    if not most:
        return Raw("")
    rows: list[list[object]] = []
    for machine, found in times.items():
        totals = [sum(cost.values()) for cost in found]
        for at, cost in enumerate(found):
            says = f"{machine}, {names[at]}: {totals[at] / 1000:.0f} microseconds"
            bar = Bar(tuple((cost[part] / most, place) for place, part in enumerate(parts)), says)
            ratio = totals[at] / totals[0] if totals[0] else 1.0
            # What differs by less than the digits shown is called the same.
            kind = "same" if round(ratio, 3) == 1 else "better" if ratio < 1 else "worse"
            says = "same" if kind == "same" else _times(ratio)
            verdict = Raw("") if at == 0 else Raw(f'<span class="{kind}">{says}</span>')
            spent = [duration(ns) for ns in (*(cost[part] for part in parts), totals[at])]
            rows.append([machine if at == 0 else "", names[at], bar, *spent, verdict])
    head = ["machine", "kernel", "", "those who flush", "those interrupted", "refills", "all", ""]
    meaning = legend(
        [(0, "time of those who flush"), (1, "time of those interrupted"), (2, "TLB refills of pages seen")]
    )
    nr_cpus = number(profile.across.comparisons[0].replays[0].config["nr_cpus"])
    return Raw(
        f"<h3>Time, machine by machine</h3><p>CPU time, {text(costs.LABEL)}: counts times the costs of each machine, without"
        f" contention or overlap; use it to rank, not to predict. CPUs are as recorded ({nr_cpus}).</p>"
        f"{meaning}{table(head, rows, left=2)}"
    )
