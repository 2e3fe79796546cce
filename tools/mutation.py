"""The page ``docs/mutation.md``: which steps of each scheme safety hangs on, and which nothing notices.

``python tools/mutation.py`` writes the page (some minutes); ``tests/test_mutate.py`` holds the sections of two schemes
against what comes out today.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tlbcore import MutationReport, mutate
from tlbcore.mutate import WHY
from tlbcore.report.mutation import CHANGE, Group, grouped, reasons

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "mutation.md"

#: The schemes and the kernel that each is part of.
SCHEMES: Final = {
    "MmuGather": "linux-6.18",
    "TlbFlushPending": "linux-5.10",
    "LazyMmu": "linux-6.18",
    "PerTable": "linux-6.18",
    "DeferredUnmap": "linux-6.18",
    "Synchronous": "linux-6.18",
    "Consolidated": "consolidated",
}

_HEAD: Final = """\
# Mutation

Which steps does safety hang on?
`tlbcore check --mutate SCHEME` drops, swaps with the next, or moves out of its locked section each step of a scheme's
programs in turn, and explores the mutant: alone and beside every other operation of the kernel, on one page, on two, and
on two in two tables, of a file and anonymous, with one user CPU.
`python tools/mutation.py` makes this page.

- A step that opens something (a lock, a gather, `tlb_flush_pending`, lazy-MMU mode) is dropped with what closes it.
- *Moved*: over the next unlock or the lock before, of the nearest block that has one.
- *Cannot run*: the checks of every program refuse the mutant, or the explorer finds a count going below 0.
- What the scheme itself violates is listed, and not held against its mutants in the same scenario.
- A mutant is explored up to the first size at which it is noticed; *steps* is the length of the shortest counterexample.
- A lock that waits for ever, and a lock order that could, are not looked for.

Why a mutant survives, as far as it can be known:

"""

_NOTES: Final = """\

## What it shows

- `flush_tlb_batched_pending()` is needed in every walk that returns a promise (without it in mprotect: R05); mremap has it
  twice, in the move and in the unmapping that ends it, so that either can be missing here.
  With `MREMAP_DONTUNMAP`, which scenarios leave out, only the first one runs.
- `set_force_flush`, `set_delay_rmap` and the flush under the lock are each needed, for I4 beside `page_mkclean`: without
  the first or the last it is R03, without the second or with `tlb_flush_rmaps()` before the flush it is R04.
- The flush of mremap between the two unlocks is a mutant of R01 that nothing notices: whoever finds the page at its new
  address by the reverse map has come by the old one, in address order, and waited for its lock there.
- *result* is mostly the work itself: no invariant asks whether mprotect changed a right or munmap gave back a reference.
"""


def section(report: MutationReport) -> Iterator[str]:
    """The lines of a scheme."""
    yield f"## {report.scheme} ({report.kernel})"
    yield ""
    if report.baseline:
        found: dict[tuple[str, str], list[int]] = {}
        for finding in report.baseline:
            where = finding.scenario.split(",")[0]
            found.setdefault((where, " ".join(finding.violated)), []).append(finding.length)
        says = [f"{where}: {violated} after {min(lengths)} steps" for (where, violated), lengths in found.items()]
        yield f"As it is, the model finds: {'; '.join(says)}."
        yield ""
    if report.unsafe:
        yield "Unsafe:"
        yield ""
        yield "| | step | violates | steps | shortest | programs |"
        yield "|---|---|---|--:|---|---|"
        for group in grouped(report.unsafe):
            shortest = group.shortest
            yield (
                f"| {CHANGE[group.kind]} | {_code(group)} | {' '.join(group.violated)} | {shortest.length} |"
                f" {shortest.scenario} | {' '.join(group.operations)} |"
            )
        yield ""
    noted = [group for group in grouped(report.survivors) if group.why in ("unnoticed", "flushes", "on request")]
    if noted:
        yield "Survive although the model has what they change:"
        yield ""
        yield "| | step | why | programs |"
        yield "|---|---|---|---|"
        yield from (
            f"| {CHANGE[group.kind]} | {_code(group)} | {group.why} | {' '.join(group.operations)} |" for group in noted
        )
        yield ""
    for why in ("not modelled", "result"):
        dropped = dict.fromkeys(
            f"`{group.change}`" for group in grouped(report.survivors) if group.why == why and group.kind == "drop"
        )
        if dropped:
            yield f"Dropped, {why}: {', '.join(dropped)}."
            yield ""
    refused = reasons(report.refused)
    if refused:
        most = "; ".join(f"{count} {why}" for why, count in refused[:5])
        yield f"Cannot run: {most}{'; ...' if len(refused) > len(refused[:5]) else ''}."
        yield ""


def _code(group: Group) -> str:
    return f"`{group.change}`".replace("|", "\\|")


def _counts(reports: Sequence[MutationReport]) -> Iterator[str]:
    whys = list(WHY)
    yield "| scheme | kernel | mutants | unsafe | " + " | ".join(whys) + " | cannot run | undecided |"
    yield "|---|---|" + "--:|" * (len(whys) + 4)
    for report in reports:
        survive = Counter(mutation.why for mutation in report.survivors)
        cells = [len(report.mutations), len(report.unsafe), *(survive[why] for why in whys)]
        cells += [len(report.refused), len(report.undecided)]
        yield f"| {report.scheme} | {report.kernel} | {' | '.join(map(str, cells))} |"


def page(reports: Sequence[MutationReport]) -> str:
    """The whole page."""
    lines = [f"- *{why}*: {says}." for why, says in WHY.items()]
    lines += ["", *_counts(reports)]
    text = _HEAD + "\n".join(lines) + "\n" + _NOTES
    for report in reports:
        text += "\n" + "\n".join(section(report)).rstrip("\n") + "\n"
    return text


def report_of(scheme: str) -> MutationReport:
    """The mutation run of one scheme."""
    return mutate(scheme, SCHEMES[scheme], threads=2)


def main() -> None:
    """Write the page."""
    reports = []
    for scheme in SCHEMES:
        reports.append(report_of(scheme))
        print(f"{scheme}: {len(reports[-1].mutations)} mutants", file=sys.stderr)
    PAGE.write_text(page(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
