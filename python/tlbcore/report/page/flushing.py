"""What was recorded: the head of the page, the timeline with its storms, who caused the flushes, who was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tlbcore.profile.storms import PER_SECOND, WINDOW_NS
from tlbcore.report.page.html import Bar, Raw, duration, legend, number, share, table, text
from tlbcore.report.page.patterns import NR_OPERATIONS, PLAIN
from tlbcore.report.table import counted

if TYPE_CHECKING:
    from tlbcore.profile import Profile

__all__ = ["head", "over_time", "who_caused", "who_was_interrupted"]

NR_ROWS: Final = 15
"""Rows of a table that are shown; the others are summed up in one."""

_CONTROLS: Final = (
    ("in", "Zoom in"),
    ("out", "Zoom out"),
    ("left", "\u2190"),
    ("right", "\u2192"),
    ("all", "All"),
)


def head(profile: Profile) -> Raw:
    """Facts, the numbers that matter, and what they say."""
    meta, recording = profile.recording.meta, profile.recording
    begin, end = profile.span_ns
    facts = [
        str(meta["kernel"]) if meta["kernel"] else f"kernel not recorded, taken as {profile.replayed.kernel.name}",
        counted(int(meta["smp"]), "CPU") + (f" ({meta['cpu_model']})" if meta["cpu_model"] else ""),
        Raw(
            f"{number(recording.nr_events)} events of {number(len(recording.tasks))} threads in {duration(end - begin)}"
        ),
    ]
    if not profile.is_recorded:
        facts.append("no flushes recorded: those shown are the model's")
    warning = "".join(f"<p><strong>Warning: {text(line)}.</strong></p>" for line in profile.warnings)
    return Raw(
        f'<p class="facts">{" · ".join(text(fact) for fact in facts)}</p>{warning}{_tiles(profile)}{_says(profile)}'
    )


def _tiles(profile: Profile) -> Raw:
    told = len(profile.flushes.interruptions)
    vain = sum(row.nr_in_vain for row in profile.in_vain)
    model_told = sum(row.nr_told for row in profile.in_vain)
    tiles = [
        (number(len(profile.flushes)), "flushes"),
        (number(told), "interruptions of other CPUs"),
        (share(vain, model_told) or Raw("0"), "of the CPUs told in vain (model, at most)"),
        (number(len(profile.storms)), "storm" if len(profile.storms) == 1 else "storms"),
    ]
    if profile.validation is not None:
        tiles.append((Raw(f"{profile.validation.score:.3f}"), "model against this recording (1 = every flush)"))
    return Raw(
        '<ul class="tiles">'
        + "".join(f"<li><b>{value}</b><span>{text(name)}</span></li>" for value, name in tiles)
        + "</ul>"
    )


def _says(profile: Profile) -> Raw:
    """The findings as sentences."""
    sums, sentences = profile.by_operation, []
    if sums:
        top = sums[0]
        sentences.append(
            f"{share(top.nr_flushes, len(profile.flushes))} of the flushes come from <b>{text(top.operation)}</b>."
        )
    causes = profile.causes
    told = len(profile.flushes.interruptions)
    if told and causes:
        threads: dict[str, int] = {}
        for cause in causes:
            threads[cause.thread] = threads.get(cause.thread, 0) + cause.nr_told
        thread, count = max(threads.items(), key=lambda item: item[1])
        sentences.append(
            f"The thread that interrupts most is <b>{text(thread)}</b> ({share(count, told)} of all interruptions)."
        )
    elif not told:
        sentences.append("No CPU was interrupted.")
    gains = [change for change in profile.across.metrics() if change.what == "nr_ipis"]
    better = min(gains, key=lambda change: change.after, default=None)
    if better is not None and better.before:
        if better.is_better:
            sentences.append(
                f"Fewest IPIs of the kernels compared: <b>{text(better.kernel)}</b>,"
                f" {number(int(better.after))} instead of {number(int(better.before))}."
            )
        else:
            sentences.append("None of the kernels compared would send fewer IPIs for it.")
    return Raw(f"<p>{' '.join(sentences)}</p>")


def over_time(profile: Profile, timeline: dict[str, Any]) -> Raw:
    """The timeline and its storms."""
    if not timeline["lanes"]:
        return Raw("<p>Nothing was flushed.</p>")
    buttons = "".join(f'<button type="button" data-do="{do}">{text(name)}</button>' for do, name in _CONTROLS)
    legends = "".join(
        f'<p class="note">{text(lane["title"])}</p>{legend(list(zip(lane["p"], lane["series"], strict=True)))}'
        for lane in timeline["lanes"]
        if lane["form"] == "bars"
    )
    return Raw(
        '<figure><div class="controls" role="group" aria-label="Zoom">'
        f'{buttons}<span class="note">drag to zoom · Ctrl + wheel or pinch · keys + &minus; &larr; &rarr; 0</span></div>'
        '<div class="plot" id="timeline" tabindex="0"><noscript>The timeline needs JavaScript; the tables do not.</noscript></div>'
        f'<div class="readout" id="readout" aria-live="polite"></div>{legends}</figure>{_storms(profile)}'
    )


def _storms(profile: Profile) -> Raw:
    definition = (
        f"A storm is a stretch in which CPUs are interrupted at least {PER_SECOND:.0f} times a second,"
        f" within every {WINDOW_NS // 1_000_000} ms."
    )
    if not profile.storms:
        return Raw(f"<h3>Storms</h3><p>None. {definition}</p>")
    begin = profile.span_ns[0]
    listed = sorted(enumerate(profile.storms), key=lambda item: -item[1].nr_told)
    rows = [
        [
            Raw(f'<button type="button" class="link" data-storm="{at}">⚡{at + 1}</button>'),
            Raw(f"{text(storm.thread)}, <b>{text(storm.operation)}</b>"),
            duration(storm.begin_ns - begin),
            duration(storm.end_ns - storm.begin_ns),
            storm.nr_told,
            Raw(f"{number(round(storm.per_second))}/s"),
            share(storm.nr_by_thread, storm.nr_told),
        ]
        for at, storm in listed[:NR_ROWS]
    ]
    left = "" if len(listed) <= NR_ROWS else f" The {NR_ROWS} largest of {len(listed)} are listed."
    names = ["", "most of it by", "at", "lasts", "interruptions", "rate", "by that thread"]
    return Raw(f"<h3>Storms</h3><p>{definition}{left}</p>{table(names, rows, left=2)}")


def who_caused(profile: Profile) -> Raw:
    """By operation, and by thread, operation and call site."""
    sums = profile.by_operation
    most = max((row.nr_flushes for row in sums), default=1)
    place = {name: min(at, NR_OPERATIONS - 1) for at, name in enumerate(profile.flushes.operations)}
    rows = [
        [
            row.operation,
            Bar(((row.nr_flushes / most, place[row.operation]),), f"{row.nr_flushes} flushes"),
            row.nr_flushes,
            row.nr_full,
            row.nr_remote,
            row.nr_told,
        ]
        for row in sums
    ]
    operations = table(
        ["operation", "", "flushes", "of these full", "others in mm_cpumask", "CPUs interrupted"],
        rows,
        caption="By operation",
    )
    causes = profile.causes
    sites = any(cause.site for cause in causes)
    listed: list[list[object]] = []
    most_told = max((cause.nr_told for cause in causes), default=0)
    for cause in causes[:NR_ROWS]:
        size = cause.nr_told / most_told if most_told else 0
        says = f"{cause.nr_told} interruptions"
        row: list[object] = [cause.thread, cause.operation, Bar(((size, place[cause.operation]),), says)]
        row += [cause.nr_told, cause.nr_flushes, cause.nr_full]
        listed.append([*row, Raw(f"<code>{text(cause.site)}</code>")] if sites else row)
    rest = causes[NR_ROWS:]
    if rest:
        sums_of_rest = [sum(getattr(cause, name) for cause in rest) for name in ("nr_told", "nr_flushes", "nr_full")]
        listed.append([f"{len(rest)} others", "", "", *sums_of_rest, *([""] if sites else [])])
    names = [
        "thread",
        "operation",
        "",
        "CPUs interrupted",
        "flushes",
        "of these full",
        *(["call site"] if sites else []),
    ]
    caption = "By thread" + (", and where in the program" if sites else "")
    threads = table(names, listed, left=2, words_last=sites, caption=caption)
    note = (
        "Call sites are known of page faults, by the instruction that faulted; those of calls are recorded by"
        " <code>tlbcore record --callers</code>."
        if not _has_callers(profile)
        else "Call sites are callers, innermost first, as far as they could be walked."
    )
    return Raw(f'{operations}{threads}<p class="note">{note}</p>')


def _has_callers(profile: Profile) -> bool:
    """Whether the recording was made with callers."""
    return bool((profile.recording.column("site") < len(profile.recording.names)).any())


def who_was_interrupted(profile: Profile) -> Raw:
    """Victims, and who did it to them."""
    pairs = profile.interrupted
    if not pairs:
        return Raw("<p>Nobody.</p>")
    victims: dict[str, list[int]] = {}
    for pair in pairs:
        sums = victims.setdefault(pair.victim, [0, 0])
        sums[0] += pair.nr_told
        sums[1] += pair.nr_wrong_cpu
    most = max(count for count, _ in victims.values())
    ordered = sorted(victims.items(), key=lambda item: (-item[1][0], item[0]))
    rows: list[list[object]] = [
        [name, Bar(((count / most, PLAIN),), f"{count} interruptions"), count, wrong]
        for name, (count, wrong) in ordered[:NR_ROWS]
    ]
    if len(ordered) > NR_ROWS:
        rest = [counts for _, counts in ordered[NR_ROWS:]]
        rows.append([f"{len(rest)} others", "", sum(n for n, _ in rest), sum(n for _, n in rest)])
    names = ["what ran there", "", "interruptions", "of these in vain: other address space"]
    most = pairs[0].nr_told
    listed: list[list[object]] = [
        [p.by, p.operation, p.victim, Bar(((p.nr_told / most, PLAIN),), f"{p.nr_told} interruptions"), p.nr_told]
        for p in pairs[:NR_ROWS]
    ]
    if len(pairs) > NR_ROWS:
        listed.append([f"{len(pairs) - NR_ROWS} others", "", "", "", sum(p.nr_told for p in pairs[NR_ROWS:])])
    how = "recorded" if profile.is_recorded else "the model's flushes; who ran there is known by the recorded switches"
    unknown = profile.flushes.nr_unknown_sender
    more = f" {number(unknown)} more were told by somebody whom the recording does not show." if unknown else ""
    return Raw(
        f"{table(names, rows, caption='By victim')}"
        f"{table(['by', 'operation', 'interrupted', '', 'times'], listed, left=3, caption='Who interrupts whom')}"
        f'<p class="note">Each row counts CPUs that were told of a flush ({how}).{more}</p>'
    )
