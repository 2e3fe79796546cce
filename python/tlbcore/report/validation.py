"""Validations as text: scores, causes with their examples, and the summary of many recordings."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tlbcore.report.table import assumptions, heading, number, table, warned
from tlbcore.validate import KINDS, flush_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tlbcore.validate import Cause, Example, Row, Summary, Validation

WIDTH: Final = 100
NR_LISTED: Final = 10
"""Flushes of one side that an example shows."""

PLACES: Final = {
    "recording": "not in the recording",
    "timing": "timing: a race, or the moment at which something arrived",
    "model": "the model",
    "unknown": "unknown",
}
"""Where a cause lies, for people."""


def scores(validation: Validation, *, emphasis: bool) -> list[str]:
    """Head line and the table of kinds."""
    plain = validation.plain
    rows = [
        [kind, *_counts(row)]
        for kind, row in sorted(plain["by_operation"].items(), key=lambda item: -_flushes(item[1]))
        if _flushes(row)
    ]
    rows.append(["all", *_counts(plain)])
    head = ["operation", "times", "matched", "missed", "extra", "score", "matched", "missed", "extra", "score *"]
    lines = [
        heading(
            f"{validation.replay.recording.meta['file']} held against {validation.replay.kernel.name}:"
            f" matched {validation.matched}, missed {validation.missed}, extra {validation.extra},"
            f" score = {validation.score:.4f}",
            emphasis=emphasis,
        ),
        *warned(validation.warnings),
        _without_targets(plain["without_targets"]),
        f"Kernel: {validation.replay.kernel.name} ({validation.kernel_choice})",
        "",
        table(head, rows, emphasis=emphasis),
        "* size alone, whether or not other CPUs were told",
    ]
    if "lab" in plain:
        lines += _lab(plain["lab"], emphasis=emphasis)
    if plain["nr_unattributed"]:
        nr_unattributed = number(plain["nr_unattributed"])
        lines += ["", f"  {nr_unattributed} recorded flushes belong to no recorded operation; not compared"]
    return lines


def undecided(found: Mapping[str, Any] | None, nr_differing: int, *, emphasis: bool) -> list[str]:
    """What the recording cannot decide, of so many differing flushes, and the score over the rest."""
    if found is None or not found["classes"]:
        return []
    decided = found["decided"]
    titles = {kind.name: kind.title for kind in KINDS}
    rows = [
        [titles[name], number(counts["nr_operations"]), number(counts["nr_flushes"])]
        for name, counts in sorted(found["classes"].items(), key=lambda item: (-item[1]["nr_flushes"], item[0]))
    ]
    title = (
        f"Of {number(nr_differing)} differing flushes, {number(found['nr_flushes'])} are of classes that the recording"
        " cannot decide"
    )
    score = f"{decided['score']:.4f}, without targets {decided['without_targets']['score']:.4f}"
    return [
        "",
        heading(title, emphasis=emphasis),
        "",
        table(["class", "operations", "flushes"], rows, emphasis=emphasis),
        f"Score over what the recording decides: {score}",
    ]


def _lab(lab: Mapping[str, Any], *, emphasis: bool) -> list[str]:
    """How many entries of the lab are exact, by operation."""
    rows = [
        [kind, exact_of(sums["single"]), exact_of(sums["parallel"])]
        for kind, sums in sorted(lab["by_operation"].items())
    ]
    rows.append(["all", exact_of(lab["single"]), exact_of(lab["parallel"])])
    return [
        "",
        heading("Entries of the lab that are exact in every column, of all", emphasis=emphasis),
        "",
        table(["entry", "single", "parallel"], rows, emphasis=emphasis),
    ]


def disagreements(validation: Validation, *, emphasis: bool) -> list[str]:
    """The largest groups of operations that differ in the same way."""
    groups = validation.plain["disagreements"]
    if not groups:
        return []
    rows = [_disagreement(group) for group in groups]
    head = ["operation", "times", "kernel did, model not", "model did, kernel not", "example"]
    left = sum(max(len(row[i]) for row in [head, *rows]) + 2 for i in range(len(head) - 1))
    rows = [[*row[:-1], clipped(row[-1], max(WIDTH - left, 30))] for row in rows]
    return [
        "",
        heading("The largest groups of disagreement (+ = other CPUs were told)", emphasis=emphasis),
        "",
        table(head, rows, emphasis=emphasis, left=len(head)),
        "",
        "`--explain` tells their likely causes.",
    ]


def notes(found: Mapping[str, int], *, emphasis: bool) -> list[str]:
    """What a replay had to assume."""
    return assumptions(found, emphasis=emphasis)


def causes(found: Sequence[Cause], *, emphasis: bool) -> list[str]:
    """The causes, each with its example."""
    if not found:
        return ["", "Nothing disagrees."]
    nr_flushes = sum(cause.nr_flushes for cause in found)
    nr_operations = sum(cause.nr_operations for cause in found)
    title = f"Likely causes of {number(nr_flushes)} differing flushes in {number(nr_operations)} differing operations"
    lines = ["", heading(title, emphasis=emphasis), "", causes_table(found, emphasis=emphasis)]
    for index, cause in enumerate(found, start=1):
        lines += ["", heading(f"{index}. {cause.rule.title}", emphasis=emphasis)]
        lines += _wrapped(f"Told by: {cause.rule.how}.", 3)
        lines += [f"   Lies in: {PLACES[cause.rule.lies_in]}."]
        kinds = ", ".join(f"{kind} {number(count)}" for kind, count in cause.by_operation.items())
        lines += _wrapped(f"Operations: {kinds}.", 3)
        lines += ["", *example(cause.example)]
    return lines


def causes_table(found: Sequence[Cause], *, emphasis: bool) -> str:
    """A row for each cause."""
    of_lab = any(cause.nr_entries for cause in found)
    rows = [
        [
            clipped(cause.rule.title, 60),
            number(cause.nr_operations),
            *([number(cause.nr_entries)] if of_lab else []),
            number(cause.nr_flushes),
            f"{cause.share:.1%}",
        ]
        for cause in found
    ]
    head = ["likely cause", "operations", *(["entries"] if of_lab else []), "flushes", "share"]
    return table(head, rows, emphasis=emphasis)


def example(found: Example) -> Iterator[str]:
    """What both sides did, and the events around it."""
    yield clipped(f"   Example: {found.operation} of {found.thread} on CPU {found.cpu}")
    yield clipped(f"            event {found.event} of {found.recording}, at {found.time_ns / 1e9:.6f} s")
    for side, did in (("model", found.model), ("kernel", found.kernel)):
        for index, text in enumerate(_listed(did)):
            yield from _wrapped(text, 13, first=f"     {side if index == 0 else '':8}")
    if found.columns:
        yield "     columns of the lab that differ (kernel / model):"
        for name, sides in found.columns.items():
            recorded, model = _apart(*sides)
            yield clipped(f"       {name}: {recorded or '-'}  /  {model or '-'}")
    yield ""
    rows = [[f"{line.time_us:.1f}", str(line.cpu), line.thread, line.text] for line in found.around]
    head = ["us", "CPU", "thread", "what"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    marks = {"operation": ">", "flush": " ", "same": " ", "other": " "}
    for cells, mark, indent in [
        (head, " ", ""),
        *((row, marks[line.role], "  " * (line.role == "flush")) for row, line in zip(rows, found.around, strict=True)),
    ]:
        time, cpu, thread = cells[0].rjust(widths[0]), cells[1].rjust(widths[1]), cells[2].ljust(widths[2])
        yield clipped(f"   {mark} {time}  {cpu}  {thread}  {indent}{cells[3]}").rstrip()


def _listed(did: Sequence[str]) -> list[str]:
    """A side's flushes, those that are the same in a row as one line, and not too many."""
    lines = []
    for text, same in itertools.groupby(did):
        count = len(list(same))
        lines.append(text if count == 1 else f"{count} x {text}")
    if len(lines) > NR_LISTED:
        lines = [*lines[:NR_LISTED], f"... and {len(lines) - NR_LISTED} more"]
    return lines or ["no flush"]


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two lists of a column; of long ones only what the other does not have."""
    if len(one) + len(other) <= WIDTH // 2:
        return one, other
    items, others = Counter(one.split(";")), Counter(other.split(";"))
    return "; ".join((items - others).elements()), "; ".join((others - items).elements())


def summary(found: Summary, names: Mapping[str, str], *, emphasis: bool) -> list[str]:
    """A row for each recording and one for all; `names` are what to call them, by path."""
    of_lab = found.lab is not None
    rows = [_summary_row(row, names[str(row.path)], of_lab=of_lab) for row in found.rows]
    rows.append(["all", "", *_scores(found.total), *(_lab_cells(found.lab) if of_lab else [])])
    head = ["recording", "kernel", "ops", "flushes", "score", "score *", *(["single", "parallel"] if of_lab else [])]
    lines = [
        table(head, rows, emphasis=emphasis, left=2),
        "* without targets: size alone, whether or not other CPUs were told",
        *warned([f"{names[str(row.path)]}: {line}" for row in found.rows for line in row.plain["warnings"]]),
    ]
    if of_lab:
        lines.append("single, parallel: entries of the lab that are exact in every column; parallel ones race")
    return lines


def _summary_row(row: Row, name: str, *, of_lab: bool) -> list[str]:
    lab = _lab_cells(row.plain.get("lab")) if of_lab else []
    return [name, row.plain["kernel"], *_scores(row.plain), *lab]


def _lab_cells(lab: Mapping[str, Any] | None) -> list[str]:
    if lab is None:
        return ["", ""]
    return [exact_of(lab[side]) for side in ("single", "parallel")]


def exact_of(sums: Mapping[str, int]) -> str:
    """How many entries are exact, of how many; nothing of nothing."""
    return f"{sums['nr_exact']}/{sums['nr_entries']}" if sums["nr_entries"] else ""


def _scores(plain: Mapping[str, Any]) -> list[str]:
    """Operations, recorded flushes, both scores."""
    flushes = int(plain["matched"]) + int(plain["missed"])
    cells = [number(int(plain["nr_operations"])), number(flushes)]
    return [*cells, f"{plain['score']:.4f}", f"{plain['without_targets']['score']:.4f}"]


def _without_targets(counts: Mapping[str, Any]) -> str:
    sums = ", ".join(f"{key} {counts[key]}" for key in ("matched", "missed", "extra"))
    return f"Without targets *: {sums}, score = {counts['score']:.4f}"


def _counts(plain: Mapping[str, Any]) -> list[str]:
    keys = ("matched", "missed", "extra", "score")
    both = [*(plain[key] for key in keys), *(plain["without_targets"][key] for key in keys)]
    return [number(plain["nr_operations"]), *(number(value) for value in both)]


def _flushes(row: Mapping[str, Any]) -> int:
    return int(row["matched"]) + int(row["missed"]) + int(row["extra"])


def _disagreement(group: Mapping[str, Any]) -> list[str]:
    shown = group["example"]
    name = shown["name"]
    if name in (group["kind"], "fault"):
        name = f"{name}({', '.join(hex(a) for a in shown['arguments'][:3])})"
    place = f"event {shown['event']}: {shown['comm']} {name}"
    return [group["kind"], number(group["nr_operations"]), _list(group["missed"]), _list(group["extra"]), place]


def _list(flushes: Sequence[Mapping[str, Any]], limit: int = 4) -> str:
    shown = " ".join(flush_text(flush) for flush in flushes[:limit]) or "-"
    return shown if len(flushes) <= limit else f"{shown} ... ({len(flushes)})"


def clipped(text: str, width: int = WIDTH) -> str:
    """A text that is not longer than this; what is cut is shown as three dots."""
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrapped(text: str, indent: int, first: str | None = None) -> list[str]:
    start = " " * indent if first is None else first
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * (indent + 2))
