"""The lab's rules on whole operations: how many flushes a call makes, and of what.

Counted where the state is known: steps that ran alone and succeeded, in the scenarios written for the operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab_records import Flush, Operation, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab_rules_of_requests import Check, Verdict

#: What a gather holds: 8 pages on the stack and 19 batches of 510.
GATHER_PAGES = 8 + 19 * 510
TABLE = 512


@dataclass(frozen=True)
class Mapping:
    """A region as the steps so far left it."""

    offset: int
    nr_pages: int
    prot: str
    kind: str
    #: How it was touched: ``None`` not at all, ``w`` or ``r`` each page, else ``partial`` or ``sparseN`` (each Nth).
    touched: str | None = None
    #: The last advice, unless pages were touched since.
    advised: str | None = None

    def is_whole(self, words: list[str]) -> bool:
        """Whether an operation's OFFSET and N are all of it."""
        return (int(words[2]), int(words[3])) == (self.offset, self.nr_pages)

    def after_touch(self, words: list[str]) -> Mapping:
        """The region after ``touch R off n r|w [stride]``."""
        stride = int(words[5]) if len(words) > 5 else 1
        touched = self.touched
        if self.is_whole(words) and touched is None:
            touched = words[4] if stride == 1 else f"sparse{stride}"
        elif self.is_whole(words) and stride == 1 and words[4] == "w":
            touched = "w"
        elif not self.is_whole(words) or touched is None:
            touched = "partial"
        return replace(self, touched=touched, advised=None)


def steps(run: Run) -> Iterator[tuple[Operation, Mapping | None]]:
    """Each step that ran alone, with the region that it names as it was before the step."""
    regions: dict[str, Mapping] = {}
    for operation in run.operations():
        words = operation.words
        if operation.parallel or not operation.succeeded:
            regions.clear()
            continue
        name, region = words[0], words[1] if len(words) > 1 else ""
        before = regions.get(region)
        yield operation, before
        if name == "mmap":
            regions[region] = Mapping(int(words[2]), int(words[3]), words[4], words[5])
        elif before is None:
            continue
        elif name == "touch":
            regions[region] = before.after_touch(words)
        elif name == "mprotect" and before.is_whole(words):
            regions[region] = replace(before, prot=words[4])
        elif name == "madvise":
            gone = words[4] == "dontneed"
            regions[region] = replace(
                before, touched=None if gone else before.touched, advised=None if gone else words[4]
            )
        elif name == "munmap" and (before.is_whole(words) or not run.scenario.startswith("munmap")):
            del regions[region]
        elif name == "mremap":
            del regions[region]
            regions[words[4]] = replace(before, offset=int(words[5]))


def of(run: Run, name: str) -> Iterator[tuple[Operation, Mapping]]:
    """The steps of one operation on a known region, in the scenarios written for it."""
    if run.scenario.startswith(name):
        yield from ((step, region) for step, region in steps(run) if step.words[0] == name and region is not None)


def munmap_fills_gathers(run: Run) -> Iterator[Verdict]:
    """Rule 2: private pages: one flush, and one more each time that a gather was full."""
    for step, region in of(run, "munmap"):
        full = region.is_whole(step.words) and region.touched in ("w", "r")
        if full and region.kind == "anon" and step.words[1] == "A":
            yield len(step.flushes) == region.nr_pages // GATHER_PAGES + 1, step.place


def untouched_memory_flushes_nothing(run: Run) -> Iterator[Verdict]:
    """Rule 2: nothing was touched, nothing is flushed."""
    for step, region in of(run, "munmap"):
        if region.is_whole(step.words) and region.touched is None and run.config != "q4":
            yield not step.flushes, step.place
    for step, region in of(run, "madvise"):
        if region.touched is None and region.advised is None and step.words[4] in ("dontneed", "free", "cold"):
            yield not step.flushes, step.place


def munmap_inside_flushes_its_span(run: Run) -> Iterator[Verdict]:
    """Rule 2: from inside a mapping: exactly the span."""
    for step, region in of(run, "munmap"):
        if not region.is_whole(step.words) and step.words[1] == "B" and run.scenario != "munmap_big":
            spans = [(flush.at, flush.nr_pages) for flush in step.flushes]
            yield spans == [(f"B+{step.words[2]}", int(step.words[3]))], step.place


def four_levels_flush_a_folded_table(run: Run) -> Iterator[Verdict]:
    """Rule 3: with four levels an untouched mapping that is the last in its 512 GiB flushes one page there."""
    for step, region in of(run, "munmap"):
        if region.is_whole(step.words) and region.touched is None and run.config == "q4":
            yield step.flushes == [Flush("A+0", 1, 12, freed_tables=True)], step.place


def dirty_shared_pages_flush_per_table(run: Run) -> Iterator[Verdict]:
    """Rule 4: one flush for each page table with dirty shared pages, one for the freed tables."""
    for step, region in of(run, "munmap"):
        if region.is_whole(step.words) and region.touched == "w" and region.kind == "shared":
            yield len(step.flushes) == -(-region.nr_pages // TABLE) + 1, step.place


#: Rule 5: flushes by what the region is, how it was touched, and the change of its protection.
MPROTECT = {
    ("anon", "w", "rw", "r"): 1,
    ("anon", "w", "r", "rw"): 1,
    ("anon", "w", "rw", "none"): 1,
    ("anon", "w", "none", "rw"): 0,
    ("anon", "w", "r", "r"): 0,
    ("anon", "w", "rw", "rx"): 1,
    ("anon", "w", "rx", "r"): 1,
    ("anon", "w", "r", "rwx"): 1,
    ("anon", "w", "rwx", "rw"): 1,
    ("anon", "sparse8", "rw", "r"): 1,
    ("anon", "partial", "rw", "none"): 1,
    ("anon", "partial", "none", "rw"): 0,
    ("anon", "r", "rw", "r"): 0,
    ("anon", "r", "r", "none"): 1,
    ("anon", None, "rw", "r"): 0,
    ("anon", None, "r", "none"): 0,
    ("shared", "w", "rw", "r"): 1,
    ("shared", "w", "r", "rw"): 1,
    ("shared", "w", "rw", "none"): 1,
}


def mprotect_flushes_by_what_changes(run: Run) -> Iterator[Verdict]:
    """Rule 5: one flush for the call if a present entry changes a right in either direction, else none."""
    for step, region in of(run, "mprotect"):
        if region.is_whole(step.words):
            case = (region.kind, region.touched, region.prot, step.words[4])
            yield len(step.flushes) == MPROTECT.get(case), f"{step.place} {case}"


def advice_flushes_what_changed(run: Run) -> Iterator[Verdict]:
    """Rule 6: one flush of the span, without freed tables; none when repeated."""
    for step, region in of(run, "madvise"):
        advice = step.words[4]
        known = step.words[1] == "A" and region.touched in ("w", "r") and (advice, region.touched) != ("free", "r")
        if known and advice in ("dontneed", "free"):
            span = Flush(f"A+{region.offset}", region.nr_pages, 12, freed_tables=False)
            yield step.flushes == ([] if region.advised == advice else [span]), step.place


def _runs(source: int, destination: int, nr_pages: int) -> list[tuple[int, int]]:
    """The pieces that stay inside one table on both sides: first page, number of pages."""
    pieces = []
    done = 0
    while done < nr_pages:
        room = min(TABLE - (source + done) % TABLE, TABLE - (destination + done) % TABLE, nr_pages - done)
        pieces.append((source + done, room))
        done += room
    return pieces


def mremap_flushes_per_table_pair(run: Run) -> Iterator[Verdict]:
    """Rule 7: one flush for each piece inside one table on both sides, then one for the freed tables; all freed=1."""
    known: set[str] = set()
    for step, region in steps(run):
        words = step.words
        if words[0] == "mmap":
            known.add(words[1])
        elif words[0] == "munmap":
            known.discard(words[1])
        elif words[0] == "mremap" and region is not None and run.scenario.startswith("mremap"):
            known.discard(words[1])
            if region.touched == "w" and words[4] not in known:
                pieces = _runs(int(words[2]), int(words[5]), int(words[3]))
                moved = [(int(f.at.partition("+")[2]), f.nr_pages) for f in step.flushes if f.at[0] == words[1]]
                agrees = len(step.flushes) == len(pieces) + 1 and moved[: len(pieces)] == pieces
                yield agrees and all(flush.freed_tables for flush in step.flushes), step.place
            known.add(words[4])


def fork_flushes_the_parent(run: Run) -> Iterator[Verdict]:
    """Rule 8: one full flush of the parent, with freed tables."""
    for step, _ in steps(run):
        if step.words[0] == "fork":
            full = [flush for flush in step.flushes if flush.at == "ALL"]
            yield full == [Flush("ALL", -1, 0, freed_tables=True)], step.place


def clear_refs_flushes_for_soft_dirty(run: Run) -> Iterator[Verdict]:
    """Rule 8: 4 (soft-dirty) one full flush with freed tables, 1 (referenced) none."""
    for step, _ in steps(run):
        if step.words[0] == "clearrefs":
            shown = [(flush.at, flush.freed_tables) for flush in step.flushes]
            yield shown == ([("ALL", True)] if step.words[1] == "4" else []), step.place


def msync_flushes_each_dirty_page(run: Run) -> Iterator[Verdict]:
    """Rule 8: one flush of one page for each dirty page."""
    for step, _ in steps(run):
        if step.words[0] == "msync" and run.scenario.startswith("file"):
            yield [flush.nr_pages for flush in step.flushes] == [1] * int(step.words[3]), step.place


#: Rule 12: flushes by what changes; back to RW, huge pages stay write-protected until the next write.
HUGE_MPROTECT = {("rw", "r"): 1, ("r", "rw"): 0, ("rw", "none"): 1}


def huge_pages_count_in_2_mib(run: Run) -> Iterator[Verdict]:
    """Rule 12: the protection of huge pages: one flush in strides of 2 MiB."""
    for step, region in steps(run):
        if not run.scenario.startswith("thp") or step.words[0] != "mprotect" or region is None:
            continue
        if region.is_whole(step.words) and region.touched == "sparse512":
            span = Flush(f"{step.words[1]}+{region.offset}", region.nr_pages, 21, freed_tables=False)
            yield step.flushes == [span] * HUGE_MPROTECT[region.prot, step.words[4]], step.place


def collapse_flushes_each_table(run: Run) -> Iterator[Verdict]:
    """Rule 12: a collapse: one flush for each 2 MiB, with freed tables."""
    for step, region in steps(run):
        if step.words[0] == "madvise" and step.words[4] == "collapse" and region is not None:
            tables = range(region.offset, region.offset + region.nr_pages, TABLE)
            letter = step.words[1]
            expected = [(f"{letter}+{first}", TABLE, True) for first in tables]
            yield [(f.at, f.nr_pages, f.freed_tables) for f in step.flushes] == expected, step.place


#: The number of the rule that each check belongs to.
CHECKS: dict[Check, int] = {
    munmap_fills_gathers: 2,
    untouched_memory_flushes_nothing: 2,
    munmap_inside_flushes_its_span: 2,
    four_levels_flush_a_folded_table: 3,
    dirty_shared_pages_flush_per_table: 4,
    mprotect_flushes_by_what_changes: 5,
    advice_flushes_what_changed: 6,
    mremap_flushes_per_table_pair: 7,
    fork_flushes_the_parent: 8,
    clear_refs_flushes_for_soft_dirty: 8,
    msync_flushes_each_dirty_page: 8,
    huge_pages_count_in_2_mib: 12,
    collapse_flushes_each_table: 12,
}
