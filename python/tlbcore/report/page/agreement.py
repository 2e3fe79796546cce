"""How far the model agrees with this very recording, why it does not where it does not, and what it had to assume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.recordings import why_kernel
from tlbcore.report.page.html import Bar, Raw, number, share, table, text

if TYPE_CHECKING:
    from tlbcore.profile import Profile

__all__ = ["section"]


def section(profile: Profile) -> Raw:
    """All of it."""
    return Raw(f"{_scores(profile)}{_causes(profile)}{_assumed(profile)}")


def _scores(profile: Profile) -> Raw:
    found = profile.validation
    if found is None:
        return Raw(
            "<p>The recording holds no flushes of a kernel, so nothing here was compared with one: all flushes are the"
            " model's opinion.</p>"
        )
    plain = found.plain
    rows: list[list[object]] = []
    by_operation = sorted(plain["by_operation"].items(), key=lambda item: (-item[1]["matched"], item[0]))
    for name, score in [*by_operation, ("all", plain)]:
        total = score["matched"] + score["missed"] + score["extra"]
        if not total:
            continue
        parts = tuple((score[key] / total, at) for key, at in (("matched", 0), ("missed", 1), ("extra", 4)))
        says = f"{score['matched']} matched, {score['missed']} missed, {score['extra']} extra"
        without = score["without_targets"]["score"]
        rows.append(
            [
                name,
                Bar(parts, says),
                score["matched"],
                score["missed"],
                score["extra"],
                f"{score['score']:.3f}",
                f"{without:.3f}",
            ]
        )
    head = ["operation", "", "matched", "missed", "extra", "score", "score of sizes alone"]
    return Raw(
        f"<p>Each flush that the model of <b>{text(profile.replayed.kernel.name)}</b> ({text(why_kernel(profile.recording))})"
        " predicts is held against the flushes that the kernel did for the same operation:"
        f" {number(found.matched)} matched, {number(found.missed)} were missed, {number(found.extra)} were predicted and"
        " did not happen. Score = matched / (matched + missed + extra).</p>"
        '<ul class="legend"><li><span class="key p0"></span>matched</li><li><span class="key p1"></span>missed</li>'
        f'<li><span class="key p4"></span>extra</li></ul>{table(head, rows)}'
    )


def _causes(profile: Profile) -> Raw:
    if not profile.differences:
        return Raw("")
    weight = sum(cause.weight for cause in profile.differences)
    rows = [
        [cause.rule.title, cause.rule.lies_in, cause.nr_flushes, share(cause.weight, weight)]
        for cause in profile.differences
    ]
    names = ["likely cause", "lies in", "flushes", "share"]
    return Raw(f"<h3>Why they differ</h3>{table(names, rows, left=2)}")


def _assumed(profile: Profile) -> Raw:
    notes = sorted(profile.replayed.notes.items(), key=lambda note: (-note[1], note[0]))
    unknown = sorted(profile.recording.meta["unknown_events"].items())
    items = [f"<li>{number(count)} &times; {text(name)}</li>" for name, count in notes]
    items += [
        f"<li>{number(int(count))} &times; {text(name)}: not understood, passed over</li>" for name, count in unknown
    ]
    if not items:
        return Raw("")
    return Raw(f"<h3>What the recording does not say, and the model assumed</h3><ul>{''.join(items)}</ul>")
