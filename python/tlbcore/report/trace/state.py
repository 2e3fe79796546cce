"""The states of a counterexample in words: page table, TLBs, locks, masks, pages, and what each thread knows.

The explorer names its variables as its model does (`rust/core/src/explore/model/vars.rs`); a variable that this table does not
know is shown by that name, so that nothing is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.check import Verdict

__all__ = ["GROUPS", "INVARIANTS", "Entry", "changes", "states"]

INVARIANTS: Final[dict[str, str]] = {name: says for name, _, says in _core.invariants()}
"""What a violation of each means."""

GROUPS: Final = ("page table", "TLBs", "locks", "masks and pending flushes", "pages", "threads")
"""Groups of entries, in the order in which they are shown."""

_LOCKS: Final = {
    "Ptl": "page-table lock {}",
    "Pml": "PMD lock {}",
    "FolioLock": "folio lock of frame {}",
    "MmapReaders": "mmap_lock, readers",
    "MmapWriter": "mmap_lock, writer",
    "VmaReaders": "VMA lock {}, readers",
    "VmaWriter": "VMA lock {}, writer",
    "RmapReaders": "rmap lock, readers",
    "RmapWriter": "rmap lock, writer",
}
_PENDING: Final = {
    "FlushPending": "mm->tlb_flush_pending",
    "BatchPending": "mm->tlb_flush_batched: pending",
    "BatchFlushed": "mm->tlb_flush_batched: flushed",
    "TlbGen": "mm->context.tlb_gen",
    "GenCompleted": "generations flushed up to",
    "DeferGen": "generation that does what is outstanding",
}
_PAGES: Final = {
    "Dirty": "frame {}: PG_dirty",
    "Mapcount": "frame {}: mapcount",
    "Refs": "frame {}: references",
    "Lazyfree": "frame {}: taken by MADV_FREE",
    "Cached": "frame {}: in the page cache",
    "Lru": "frame {}: on the LRU list",
    "Newer": "frame {}: data newer than storage",
    "Late": "frame {}: stored to while it was copied",
    "Kept": "frame {}: stores from now on must survive",
    "Freer": "frame {}: given up by thread",
    "VmaGone": "VMA of page {}: out of the tree",
    "VmaWrite": "VMA of page {}: VM_WRITE",
}
_THREAD_PENDING: Final = {
    "Range": "gather: pages to flush",
    "FullMm": "gather: whole address space",
    "FreedTables": "gather: freed tables",
    "Queued": "gather: pages to free",
    "Delayed": "gather: rmap to be removed",
    "UbcRequired": "tlb_ubc.flush_required",
    "UbcWritable": "tlb_ubc.writable",
    "ForceFlush": "force_flush",
    "BatchPending": "pending count that it read",
    "BatchFlushed": "flushed count that it read",
}
_THREADS: Final = {
    "Changed": "has changed entries",
    "DelayRmap": "removes the rmap of this entry later",
    "Listed": "frames on its list",
    "NewFrame": "frame allocated",
    "Cleaned": "found an entry to clean",
    "Tracked": "range tracked",
    "Hold": "alone knows that this frame is dirty",
    "Writing": "writes out frame",
    "Copying": "copies frame",
    "Migrated": "migration entries made",
}
#: Where it is and what it read are seen in the steps; the rest is kept for the checks and says nothing to a reader.
_HIDDEN_LOCALS: Final = ("Pc", "Pte", "New", "Visited")
_HIDDEN: Final = ("Unmapped", "Protected", "Seen")
#: Sets with a bit for each virtual page, for each entry that a TLB can hold, for each frame.
_PAGE_MASKS: Final = ("Range", "Tracked", "Migrated")
_OTHER_MASKS: Final = {"Queued": "entry", "Delayed": "entry", "Listed": "frame"}
_NUMBERED: Final = ("Hold", "Writing", "Copying", "Freer")
_VARIABLE: Final = re.compile(r"^(\w+)(?:\((.*)\))?$")


@dataclass(frozen=True)
class Entry:
    """One thing that a state says."""

    group: str
    name: str
    value: str


def states(verdict: Verdict) -> list[list[Entry]]:
    """What each state of a counterexample says, the first one before any step; a lock is shown with who took it."""
    holders: dict[str, int] = {}
    found = []
    before: dict[str, int] = {}
    nr_threads = sum(not cpu.startswith("user ") for cpu in verdict.cpus)
    for at, snapshot in enumerate(verdict.snapshots):
        variables = {name: int(value) for name, value in snapshot["variables"]}
        if at:
            for name, value in variables.items():
                if value > before.get(name, 0):
                    holders[name] = verdict.counterexample[at - 1].cpu
        before = variables
        found.append(_entries(snapshot, variables, holders, verdict, nr_threads))
    return found


def _entries(
    snapshot: Mapping[str, Any],
    variables: Mapping[str, int],
    holders: Mapping[str, int],
    verdict: Verdict,
    nr_threads: int,
) -> list[Entry]:
    entries = [Entry("page table", page, text) for page, text in snapshot["ptes"]]
    users = range(nr_threads, len(verdict.cpus))
    cached: dict[int, list[str]] = {cpu: [] for cpu in users}
    for cpu, page, text in snapshot["tlbs"]:
        cached.setdefault(nr_threads + cpu, []).append(f"{page}: {text}")
    entries += [Entry("TLBs", f"CPU{cpu}", "; ".join(texts) or "empty") for cpu, texts in sorted(cached.items())]
    waiting: dict[int, list[str]] = {}
    for name, value in variables.items():
        match = _VARIABLE.match(name)
        kind, inside = (match[1], match[2] or "") if match else (name, "")
        pending = re.fullmatch(r"(\d+), Pending\((\d+)\)", inside) if kind == "Thread" else None
        if pending:
            waiting.setdefault(int(pending[1]), []).append(f"CPU{nr_threads + int(pending[2])}")
        elif kind not in _HIDDEN:
            entries += _variable(
                kind, inside, value, holders.get(name), verdict, [page for page, _ in snapshot["ptes"]]
            )
    for thread, cpus in sorted(waiting.items()):
        entries.append(
            Entry("masks and pending flushes", f"CPU{thread} waits for the answer of", ", ".join(sorted(cpus)))
        )
    return sorted(entries, key=lambda entry: GROUPS.index(entry.group))


def _variable(  # noqa: PLR0913, PLR0917  # what it is, and what its numbers mean
    kind: str, inside: str, value: int, holder: int | None, verdict: Verdict, pages: list[str]
) -> list[Entry]:
    if kind in _LOCKS:
        by = "held" if holder is None else f"CPU{holder} ({verdict.cpus[holder]})"
        return [Entry("locks", _LOCKS[kind].format(inside), by if value == 1 else f"{value}, last {by}")]
    if kind in _PENDING:
        return [Entry("masks and pending flushes", _PENDING[kind], str(value))]
    if kind in _PAGES:
        return [Entry("pages", _PAGES[kind].format(inside), _value(kind, value, ("Mapcount", "Refs"), pages))]
    if kind == "Thread":
        thread, _, local = inside.partition(", ")
        if local in _HIDDEN_LOCALS:
            return []
        group, known = (
            ("masks and pending flushes", _THREAD_PENDING) if local in _THREAD_PENDING else ("threads", _THREADS)
        )
        name = f"CPU{thread} ({verdict.cpus[int(thread)]}) {known.get(local, local)}"
        return [Entry(group, name, _value(local, value, ("NewFrame", "BatchPending", "BatchFlushed"), pages))]
    return [Entry("threads", f"{kind} {inside}".strip(), str(value))]


def _value(kind: str, value: int, counts: tuple[str, ...], pages: list[str]) -> str:
    """A number in words: a set of pages, the number before it, a count, or whether it is so."""
    bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    if kind in _PAGE_MASKS:
        return ", ".join(pages[bit] for bit in bits)
    if kind in _OTHER_MASKS:
        return ", ".join(f"{_OTHER_MASKS[kind]} {bit}" for bit in bits)
    if kind in _NUMBERED:
        return str(value - 1)
    return str(value) if kind in counts or value > 1 else "yes"


def changes(before: list[Entry], after: list[Entry]) -> list[str]:
    """What a step changed, in words."""
    old, new = ({(entry.group, entry.name): entry.value for entry in state} for state in (before, after))
    said = [
        f"{_where(key)}: {old[key]} \u2192 {value}" if key in old else f"{_where(key)}: {value}"
        for key, value in new.items()
        if old.get(key) != value
    ]
    return [*said, *(f"{_where(key)}: {_gone(key[0], value)}" for key, value in old.items() if key not in new)]


def _gone(group: str, value: str) -> str:
    """What became of something that a state does not tell any more."""
    if group == "locks":
        return "released"
    return "no" if value == "yes" else f"{value} \u2192 {0 if value.isdecimal() and group != 'threads' else 'none'}"


def _where(key: tuple[str, str]) -> str:
    group, name = key
    return {"page table": f"PTE of {name}", "TLBs": f"TLB of {name}"}.get(group, name)
