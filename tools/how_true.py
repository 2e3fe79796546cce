"""The page ``docs/how-true.md``: the scores of every given recording, what disagrees most, and what is not known.

And ``docs/differences.md``: each entry of the lab that is not exact, and each flush of a program below its bar, with its cause
and the records that show it. ``python tools/how_true.py`` writes both; ``tests/test_scores.py`` holds them against what comes out
today.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tlbcore import machines
from tlbcore.report.table import number
from tlbcore.report.validation import PLACES
from tlbcore.validate import (
    COLUMN_RULES,
    RULES,
    Cause,
    Row,
    Shown,
    Summary,
    Validation,
    proofs,
    validate,
    validate_folder,
)

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "how-true.md"
DIFFERENCES: Final = ROOT / "docs" / "differences.md"

#: What scores of programs are held against without targets: below it each difference is shown.
BAR: Final = 0.98

_HEAD: Final = """\
# How true is it

What the model predicts, held against what real kernels did, for every recording in `data/`.
`python tools/how_true.py` makes this page from the recordings; a test fails when it is out of date, and another when a
score falls below what is pinned in `tests/data/scores.json`.
[Validation](validate.md) says how it is measured; `tlbcore validate data --explain` shows an example of every cause.

*With targets*: a flush counts as right if its size (strides or full) and whether other CPUs were told are right.
*Without targets*: if its size is. Scores are matched / (matched + missed + extra).
"""

_PROGRAMS: Final = """\
## Real programs, Linux 6.18

Seven programs on two CPUs, held against `linux-6.18`.
*Without following*: with targets (and *neither*: without) when no record of a flush is looked at: the model has to keep
`mm_cpumask` right all by itself ([why](validate.md#following-mm_cpumask)), and takes two requests at the same time in the order
in which their operations began ([why not](validate.md#requests-in-the-order-of-their-records)).
"""

_LAB: Final = """\
## The kernel lab

Scenarios on an emulated machine (an idle CPU that a recorded mask has lost is followed, no other).
*Single* and *parallel*: entries (steps) that are exact in every column: requests with ranges and strides, masks, who
obeyed, lazy CPUs, local flushes, gathers, deferred flushes, faults.
Parallel ones ran at the same time as others: their order is searched for by what was recorded, so they show what the model
allows, not what it predicts ([how](validate.md#steps-that-ran-at-the-same-time)).
So it is with single ones during which a CPU switched, if they are not exact without
([how](validate.md#steps-during-which-a-cpu-switched)); how many is in the line below each table.
"""

_INEXACT: Final = """\
### Entries that are not exact

*Cause*: what outside the model explains all of the difference, told by rules over the recorded events
([which](validate.md#the-lab-exactly)); an entry without one is a mistake of the model or of the search.
[Differences, one by one](differences.md) has each entry with the records that show its cause.
"""

_DIFFERENCES: Final = """\
# Differences, one by one

Each entry of the kernel lab that is not [exact](how-true.md), and each flush that differs in a recording whose score without
targets is below 0.98, with following or without: in what, why, and the records that show it. `python tools/how_true.py` makes
this page.

Records have microseconds from the begin of the entry, in the lab with a meaning for their order only; the letter after a
thread that is switched out is its state (`R` could run, `R+` was preempted in the kernel, `S` and `D` sleep).
Columns are those of [the lab](validate.md#the-lab-exactly): a flush of a CPU is `CPU:strides:reason`, a request
`region+page:pages:stride:freed tables`.
"""

_OF_LAB: Final = """\
Without a cause the first records of requests and gathers of the time are shown.
"""

_OF_PROGRAM: Final = """\
Score without targets {score:.4f}, without following {alone:.4f}; over what the recording decides {decided:.4f}
({undecided} of {differing} flushes that differ are of [classes](validate.md#what-the-recording-cannot-decide) that it cannot
decide; they are counted as wrong in the first figure, and in neither sum of the second).
"""

_CAUSES: Final = """\
Told by the rules [below](#how-causes-are-told), from the recording itself; a likely cause is no proof.
*Share* is of all differing flushes; an entry of the lab that differs in other columns only counts as one.
"""

#: What is to be known of the scenarios of a folder.
_FOLDERS: Final = {
    "lab-found": ", random scenarios that showed mistakes of the model, which were mended",
    "lab-held": ", random scenarios from which no rule was made ([of which some were looked at](../data/README.md))",
}

#: The note of an entry whose order of switches and requests was taken from the records.
_LED: Final = "entry during which a CPU switched: their order taken from the records"

_NOT_RECORDED: Final = """\
## What the recordings do not say

Counted on its own wherever a replay had to assume something; `tlbcore validate` shows it for each recording.
"""

_HOW_TOLD = """\
An entry of the lab whose records show [causes](differences.md) is counted under the first of these.
Else the first rule that holds names the cause.
"""
_NEVER_SEEN: Final = """\
## Not shown by any recording here

- More than two CPUs of a real machine, or eight emulated ones (four on 6.18).
- Other machines than one virtual one (6.18) and one emulated one (6.1, 6.18): no NUMA, no INVLPGB, no page-table isolation.
- Swap on another device than zram; file systems other than what the scenarios use; CPU hotplug.
- Other architectures than x86-64.
"""


def page(data: Path = ROOT / "data") -> str:
    """The page as it should be.

    Raises:
        ValueError: A recording could not be read.
    """
    machine = machines.get("default").config()
    both = validate_folder(data, machine, with_causes=True)
    if both.failures:
        raise ValueError(both.failures[0].message)
    lab = Summary(tuple(row for row in both.rows if "lab" in row.plain))
    programs = Summary(tuple(row for row in both.rows if "lab" not in row.plain))
    alone = validate_folder([row.path for row in programs.rows], machine, follow_masks=False)
    unled = validate_folder([row.path for row in lab.rows], machine, follow_masks=False)
    parts = [
        _HEAD,
        _PROGRAMS,
        _programs(programs, alone),
        "By kind of operation, all programs together:\n",
        _kinds(programs),
        "### Largest causes left\n",
        _CAUSES,
        _causes(programs.causes),
        _LAB,
        *_labs(lab, unled),
        "By kind of entry, all files together:\n",
        _entries(lab),
        "### Largest causes left in the lab\n",
        _causes(lab.causes),
        _INEXACT,
        _inexact(lab),
        _NOT_RECORDED,
        _notes(programs, lab),
        "## How causes are told\n",
        _HOW_TOLD,
        _rules(),
        _NEVER_SEEN,
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of a page; the first `left` columns stand left."""
    marks = ["---" if index < left else "---:" for index in range(len(head))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, marks, *rows])


def _score(counts: Mapping[str, Any]) -> str:
    return f"{counts['score']:.4f}"


def _name(row: Row) -> str:
    """The file's name without what tells its format: `6.18-c4_exit_a.jsonl.gz` is `6.18-c4_exit_a`."""
    name = row.path.name
    for suffix in (".gz", ".zst", ".jsonl", ".txt", ".perf"):
        name = name.removesuffix(suffix)
    return name


def _flushes(counts: Mapping[str, Any]) -> str:
    return number(int(counts["matched"]) + int(counts["missed"]))


def _programs(programs: Summary, alone: Summary) -> str:
    rows = [
        (_name(row), number(row.plain["nr_operations"]), *_scores(row.plain, other.plain))
        for row, other in zip(programs.rows, alone.rows, strict=True)
    ]
    total = programs.total
    rows.append(("all", number(total["nr_operations"]), *_scores(total, alone.total)))
    head = ["program", "operations", "flushes", "with targets", "without targets", "without following", "neither"]
    return _table(head, rows)


def _scores(plain: Mapping[str, Any], alone: Mapping[str, Any]) -> tuple[str, ...]:
    scores = (_score(side) for side in (plain, plain["without_targets"], alone, alone["without_targets"]))
    return _flushes(plain), *scores


def _kinds(programs: Summary) -> str:
    sums: dict[str, list[int]] = {}
    for row in programs.rows:
        for kind, counts in row.plain["by_operation"].items():
            found = [counts["nr_operations"], *_counts(counts), *_counts(counts["without_targets"])]
            sums[kind] = [a + b for a, b in zip(sums.get(kind, [0] * len(found)), found, strict=True)]
    rows = [
        (kind, *(number(count) for count in found[:4]), _share(found[1:4]), _share(found[4:]))
        for kind, found in sorted(sums.items(), key=lambda item: (-sum(item[1][1:4]), item[0]))
        if sum(found[1:4])
    ]
    return _table(["operation", "times", "matched", "missed", "extra", "with targets", "without targets"], rows)


def _counts(counts: Mapping[str, Any]) -> tuple[int, int, int]:
    return counts["matched"], counts["missed"], counts["extra"]


def _share(counts: Sequence[int]) -> str:
    return f"{counts[0] / sum(counts):.4f}" if sum(counts) else ""


def _labs(lab: Summary, unled: Summary) -> Iterable[str]:
    """A table for each folder and kernel, and what comes out if nothing is taken from records of flushes."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in lab.rows:
        groups.setdefault((row.path.parent.name, row.plain["kernel"]), []).append(row)
    for (folder, kernel), rows in groups.items():
        led = sum(row.plain["notes"].get(_LED, 0) for row in rows)
        yield f"`data/{folder}`{_FOLDERS.get(folder, '')}, held against `{kernel}`:\n"
        yield _lab(Summary(tuple(rows)))
        exact, entries = (sum(row.plain["lab"]["single"][key] for row in rows) for key in ("nr_exact", "nr_entries"))
        yield (
            f"Of the {exact} single ones, {led} are exact only with the order of switches and requests from the records:"
            f" {exact - led} of {entries}, {(exact - led) / entries:.4f}, without.\n"
        )
        paths = {row.path for row in rows}
        sums = Summary(tuple(row for row in unled.rows if row.path in paths)).lab or {}
        sides = [
            f"{_exact(sums[side])} {side}" for side in ("single", "parallel") if sums.get(side, {}).get("nr_entries")
        ]
        told = "what reclaim visits and which touches fault is still told"
        yield f"Without following and leading (`--no-follow`; {told}): {'; '.join(sides)}.\n"


def _inexact(lab: Summary) -> str:
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in lab.rows:
        for entry in row.plain["lab"]["differences"]:
            cause = "; ".join(reason["cause"] for reason in entry["reasons"]) or "none found"
            counts[(row.plain["kernel"], "parallel" if entry["parallel"] else "single", cause)] += 1
    rows = [
        (*what, str(count)) for what, count in sorted(counts.items(), key=lambda item: (item[0][:2], -item[1], item[0]))
    ]
    return _table(["kernel", "ran", "cause", "entries"], rows, left=3)


def differences(data: Path = ROOT / "data") -> str:
    """The page of differences as it should be.

    Raises:
        ValueError: A recording could not be read.
    """
    machine = machines.get("default").config()
    found = validate_folder(data, machine)
    if found.failures:
        raise ValueError(found.failures[0].message)
    programs = [row.path for row in found.rows if "lab" not in row.plain]
    alone = {row.path: row for row in validate_folder(programs, machine, follow_masks=False).rows}
    parts = [_DIFFERENCES, _OF_LAB]
    for row in found.rows:
        of_program = alone.get(row.path)
        if of_program is None:
            differs = bool(row.plain["lab"]["differences"])
        else:
            differs = min(side.plain["without_targets"]["score"] for side in (row, of_program)) < BAR
        if differs:
            validation = validate(row.path, None, machine)
            parts += [f"## {_name(row)}\n", *(_of_program(validation, of_program) if of_program else [])]
            parts += [_shown(shown) for shown in proofs(validation)]
    return "\n".join(parts)


def _of_program(validation: Validation, alone: Row) -> list[str]:
    undecided = validation.undecided
    if undecided is None:
        return []
    counts = {
        "score": validation.score_without_targets,
        "alone": alone.plain["without_targets"]["score"],
        "decided": undecided.decided["without_targets"]["score"],
        "undecided": sum(undecided.nr_flushes.values()),
        "differing": validation.missed + validation.extra,
    }
    return [_OF_PROGRAM.format(**counts)]


def _shown(shown: Shown) -> str:
    lines = [
        f"- {shown.where}",
        f"  - {'; '.join(shown.differs)}",
        f"  - cause: {'; '.join(shown.causes) or 'none found'}",
    ]
    if shown.records:
        lines += ["", "    ```text", *(f"    {record}" for record in shown.records), "    ```"]
    return "\n".join(lines) + "\n"


def _lab(lab: Summary) -> str:
    rows = [(_name(row), *_lab_cells(row.plain, row.plain["lab"])) for row in lab.rows]
    if lab.lab is not None:
        rows.append(("all", *_lab_cells(lab.total, lab.lab)))
    return _table(["file", "flushes", "with targets", "without targets", "single", "parallel"], rows)


def _lab_cells(plain: Mapping[str, Any], entries: Mapping[str, Any]) -> tuple[str, ...]:
    sides = (_exact(entries[side]) for side in ("single", "parallel"))
    return _flushes(plain), _score(plain), _score(plain["without_targets"]), *sides


def _exact(entries: Mapping[str, int]) -> str:
    good, everything = entries["nr_exact"], entries["nr_entries"]
    return f"{good} of {everything}, {good / everything:.4f}" if everything else ""


def _entries(lab: Summary) -> str:
    sums: dict[str, dict[str, dict[str, int]]] = {}
    for row in lab.rows:
        for kind, sides in row.plain["lab"]["by_operation"].items():
            for side, entries in sides.items():
                found = sums.setdefault(kind, {}).setdefault(side, {"nr_entries": 0, "nr_exact": 0})
                for key in found:
                    found[key] += entries[key]
    rows = [
        (kind, _exact(sides["single"]), _exact(sides["parallel"]))
        for kind, sides in sorted(sums.items(), key=lambda item: (_wrong(item[1]), item[0]))
    ]
    return _table(["entry", "single", "parallel"], rows)


def _wrong(sides: Mapping[str, Mapping[str, int]]) -> int:
    """How many entries are not exact, as a key that puts most first."""
    return sum(entries["nr_exact"] - entries["nr_entries"] for entries in sides.values())


def _causes(causes: Sequence[Cause]) -> str:
    rows = [
        (
            cause.rule.title.replace("|", "\\|"),
            PLACES[cause.rule.lies_in].partition(":")[0],
            number(cause.nr_operations),
            number(cause.nr_flushes),
            f"{cause.share:.1%}",
        )
        for cause in causes
    ]
    unknown = sum(cause.share for cause in causes if cause.rule.lies_in == "unknown")
    rows_text = _table(["likely cause", "lies in", "operations", "flushes", "share"], rows, left=2)
    return f"{rows_text}\nWhere it lies is unknown for {unknown:.1%}.\n"


def _notes(*summaries: Summary) -> str:
    counts = [summary.notes for summary in summaries]
    names = sorted(set().union(*counts), key=lambda name: (-sum(found.get(name, 0) for found in counts), name))
    rows = [(name, *(number(found.get(name, 0)) for found in counts)) for name in names]
    return _table(["what", "programs", "lab"], rows)


def _rules() -> str:
    return _table(["cause", "told by"], _rule_rows(), left=2)


def _rule_rows() -> Iterator[tuple[str, str]]:
    for rule in dict.fromkeys((*RULES, *COLUMN_RULES)):
        yield rule.title.replace("|", "\\|"), rule.how.replace("|", "\\|")


def main() -> int:
    """Write the pages."""
    for path, make in ((PAGE, page), (DIFFERENCES, differences)):
        text = make()
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != before:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'as it was' if text == before else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
