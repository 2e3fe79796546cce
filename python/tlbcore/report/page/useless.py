"""What was useless: the CPUs told in vain, by reason, and the flushes in which no right was taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.profile.useless import SHORT, WHY
from tlbcore.report.page.html import Bar, Raw, legend, number, share, table, text
from tlbcore.report.page.patterns import REASON

if TYPE_CHECKING:
    from tlbcore.profile import Profile

__all__ = ["section"]


def section(profile: Profile) -> Raw:
    """All of it."""
    return Raw(f"{_told(profile)}{_promoted(profile)}{_spared(profile)}")


def _told(profile: Profile) -> Raw:
    rows = profile.in_vain
    kernel = profile.replayed.kernel.name
    if not rows:
        return Raw(f"<p>Under {text(kernel)} no CPU was told of a flush, so none was told in vain.</p>")
    told, vain = sum(row.nr_told for row in rows), sum(row.nr_in_vain for row in rows)
    most = max(row.nr_told for row in rows)
    listed: list[list[object]] = []
    for row in rows:
        counts = [getattr(row, name) for name in WHY]
        says = ", ".join(f"{count} {SHORT[name]}" for name, count in zip(WHY, counts, strict=True))
        parts = tuple((count / most, REASON[name]) for name, count in zip(WHY, counts, strict=True))
        listed.append([row.operation, Bar(parts, says), row.nr_told, *counts])
    if len(rows) > 1:
        listed.append(["all", "", told, *(sum(getattr(row, name) for row in rows) for name in WHY)])
    names = ["operation", "", "CPUs told", *(SHORT[name] for name in WHY)]
    meaning = legend([(REASON[name], says) for name, says in WHY.items()])
    return Raw(
        f"<p>Of {number(told)} CPUs that the model of {text(kernel)} tells, {number(vain)} ({share(vain, told)}) had nothing to"
        " flush. <em>Nothing cached</em> is an upper bound: TLBs are filled by the recorded page faults only, and"
        " a CPU may hold entries that it loaded without a fault.</p>"
        f"{meaning}{table(names, listed, caption='CPUs told, by what they had to do with it (the model)')}"
    )


def _promoted(profile: Profile) -> Raw:
    rows = profile.promoted
    head = "<h3>Promoted only</h3>"
    if not rows:
        return Raw(
            f"{head}<p>No flush was for entries that only gained rights, or changed in nothing that a TLB holds.</p>"
        )
    listed = [[row.operation, row.nr_always, row.nr_unless_demoted, row.nr_useless] for row in rows]
    names = ["operation", "flushes, whatever changed", "flushes, if a right was lost", "useless"]
    avoided = profile.replayed.counters["nr_flush_avoided"]
    own = (
        f" {text(profile.replayed.kernel.name)} looks for this already, and left out the flush of {number(avoided)} entries."
        if avoided
        else ""
    )
    return Raw(
        f"{head}<p>Flushes of entries that lost no right, measured by replaying with the switch"
        f" <code>skip_unless_demoted</code> and without it.{own}</p>{table(names, listed)}"
    )


def _spared(profile: Profile) -> Raw:
    counters = profile.replayed.counters
    told = profile.flushes.interruptions
    parts = [f"{number(counters['nr_lazy_skipped'])} times a lazy CPU was in the mask and was spared (the model)."]
    if profile.is_recorded and len(told):
        wrong = int(told.wrong_cpu.sum())
        parts.append(
            f"In the recording itself {number(wrong)} of {number(len(told))} interruptions ({share(wrong, len(told))}) found"
            " another address space loaded; what a CPU had cached, no kernel records."
        )
    return Raw(f"<p>{' '.join(parts)}</p>")
