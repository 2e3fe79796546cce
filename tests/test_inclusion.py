"""A replay does not leave the explorer's state space: scenarios of the kernel lab, operation by operation.

Each scenario of the lab is run on the machine that replays. Before and after each operation that the explorer has, up to three
pages that it met are looked at: from the entries that they had, the explorer's own steps (one path of its state space, each
IPI answered at once) must lead to the entries that the machine came to, and flush if and only if the machine flushed.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.scenario import PAGE_BYTES as PAGE
from lab.scenario import REGION_BASE, REGION_BYTES, Entry, parse
from test_one_meaning import explored, spelled
from tlbcore.hunt.plan import is_on
from tlbcore.simulator import File, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlbcore.process import Process

KERNEL = "linux-6.1"
SCENARIOS = sorted((Path(__file__).parents[1] / "data" / "lab" / "scenarios").glob("*/*.scn"))
#: As many pages as a question to the explorer has; its scenarios have up to eight.
WINDOW = 3
#: The program of a scenario's operation, for the kind of page that has it.
PROGRAMS = {
    "munmap": "munmap",
    "mprotect": "mprotect",
    "msync": "page_mkclean",
    "clearrefs": "clear_refs_soft_dirty",
    "fork": "fork",
}
ADVICE = {"dontneed": "madvise_dontneed", "free": "madvise_free", "cold": "madvise_cold"}
#: Entries of the machine that a scenario of the explorer can start from.
STARTS = {"none": "none", "P": "read", "P W": "write", "P WD": "dirty"}


@dataclass
class Run:
    """A scenario on the machine that replays."""

    sim: Simulator
    process: Process
    files: dict[str, File] = field(default_factory=dict)
    #: What each page of a region was last mapped as: anon, file (shared), shmem (a file whose first write is not tracked),
    #: or private, which the explorer has not.
    kinds: dict[int, str] = field(default_factory=dict)
    #: Pages of mappings without the right to write.
    read_only: set[int] = field(default_factory=set)
    #: Operations compared, by program.
    compared: Counter[str] = field(default_factory=Counter)


def addr_of(region: str, page: int) -> int:
    return REGION_BASE + (ord(region) - ord("A")) * REGION_BYTES + page * PAGE


def apply(run: Run, entry: Entry) -> None:
    """Do one entry on the machine."""
    args = entry.args
    if entry.op == "mkfile":
        run.files[args[0]] = run.sim.file(int(args[1]))
    elif entry.op == "clearrefs" and args[0] == "4":
        run.process.clear_refs()
    elif entry.op == "fork":
        run.process.fork()
    elif entry.op in {"mmap", "touch", "munmap", "mprotect", "madvise", "msync", "mremap"}:
        apply_to_range(run, entry.op, addr_of(args[0], int(args[1])), int(args[2]), args)


def apply_to_range(run: Run, op: str, addr: int, nr_pages: int, args: tuple[str, ...]) -> None:
    process, length = run.process, nr_pages * PAGE
    if op == "mmap":
        map_pages(run, addr, length, args)
    elif op == "touch":
        stride = int(args[4]) if len(args) > 4 else 1
        process.touch(addr, -(-nr_pages // stride), write=args[3] == "w", stride_pages=stride)
    elif op == "munmap":
        process.munmap(addr, length)
    elif op == "mprotect":
        process.mprotect(addr, length, args[3])
        note_rights(run, addr, length, args[3])
    elif op == "msync":
        process.msync(addr, length)
    elif op == "madvise" and args[3] in ADVICE:
        process.madvise(addr, length, args[3])
    elif op == "mremap":
        new_len = int(args[5]) * PAGE if len(args) > 5 else length
        process.mremap(addr, length, new_len, new_addr=addr_of(args[3], int(args[4])))


def map_pages(run: Run, addr: int, length: int, args: tuple[str, ...]) -> None:
    backing, _, name = args[4].partition(":")
    kind = {"anon": "anon", "shared": "shmem", "sfile": "file", "file": "private"}[backing]
    offset = int(args[5]) * PAGE if len(args) > 5 else 0
    if backing == "anon":
        run.process.mmap(length, args[3], addr=addr)
    elif backing == "shared":
        run.process.mmap(length, args[3], addr=addr, file=run.sim.file(length // PAGE, shmem=True), shared=True)
    else:
        run.process.mmap(length, args[3], addr=addr, file=run.files[name], shared=kind == "file", offset=offset)
    for page in range(addr, addr + length, PAGE):
        run.kinds[page] = kind
    note_rights(run, addr, length, args[3])


def note_rights(run: Run, addr: int, length: int, prot: str) -> None:
    pages = range(addr, addr + length, PAGE)
    run.read_only = run.read_only.difference(pages) if "w" in prot else run.read_only.union(pages)


def asked(entry: Entry) -> tuple[str, dict[str, Any], range] | None:
    """The explorer's operation for an entry, and the pages that it goes over (all of a mapping where it names none)."""
    program = ADVICE.get(entry.args[3]) if entry.op == "madvise" else PROGRAMS.get(entry.op)
    if program is None or (entry.op == "clearrefs" and entry.args[0] != "4") or entry.args[3:4] == ("none",):
        return None
    if entry.op in {"clearrefs", "fork"}:
        return program, {}, range(0)
    first = addr_of(entry.args[0], int(entry.args[1]))
    told = {"write": "w" in entry.args[3]} if entry.op == "mprotect" else {}
    return program, told, range(first, first + int(entry.args[2]) * PAGE, PAGE)


def ptes(run: Run) -> dict[int, str]:
    mm = next(mm for mm in run.sim.state()["mms"] if mm["id"] == run.process.mm)
    return {addr: text for addr, _, text in mm["ptes"]}


def window(pages: Iterable[int], before: dict[int, str]) -> list[int]:
    """Pages whose entries the explorer can start from, of as many sorts as there are, in address order."""
    chosen: dict[str, list[int]] = {}
    for page in pages:
        text = before.get(page, "")
        # Its entries are young, and of pages of their own.
        if "SPECIAL" not in text and spelled(text) in STARTS and ("A" in text.split()) == bool(text):
            chosen.setdefault(spelled(text), []).append(page)
    picked = [found[0] for found in chosen.values()] + [page for found in chosen.values() for page in found[1:2]]
    return sorted(picked[:WINDOW])


def compare(run: Run, entry: Entry) -> None:
    """Do an entry on the machine, and hold what it did against the explorer."""
    question = asked(entry)
    before = ptes(run) if question else {}
    read_only = run.read_only
    run.sim.clear()
    with suppress(OSError):  # the scenario has calls that fail, and accesses that are a SIGSEGV
        apply(run, entry)
    if question is None:
        return
    program, told, pages = question
    after, flushes = ptes(run), len(run.sim.flushes)
    for mapped_as, of_read_only in product(("file", "shmem", "anon"), (False, True)):
        kind = "anon" if mapped_as == "anon" else "file"
        # Of shmem's entries mprotect() makes those writable that no write fault has to be seen of.
        if not is_on(program, kind) or (mapped_as, program) == ("shmem", "mprotect"):
            continue
        there = [page for page in pages or sorted(run.kinds) if (page in read_only) == of_read_only]
        picked = window([page for page in there if run.kinds.get(page) == mapped_as], before)
        threads = [{"operation": program, **told}]
        if told.get("write") and of_read_only:
            # A scenario's mappings can be written to: this one could not.
            threads.insert(0, {"operation": "mprotect"})
        if picked:
            mapped = [STARTS[spelled(before.get(page, ""))] for page in picked]
            ends, nr_flushes = explored(KERNEL, kind, mapped, threads)
            expected = [spelled(after.get(page, "")) for page in picked]
            assert ends == expected, (str(entry), kind, mapped)
            assert not nr_flushes or flushes, (str(entry), kind, mapped)
            run.compared[program] += 1


def run_scenario(path: Path) -> Counter[str]:
    """Run a scenario; what was compared."""
    sim = Simulator("default", KERNEL)
    run = Run(sim, sim.process(cpu=0))
    run.process.thread(cpu=1)
    for step in parse(path.read_text(encoding="utf-8"), str(path)).steps:
        for entry in step:
            if entry.actor.startswith("T") or entry.op == "mkfile":
                for _ in range(min(entry.repetitions, 2)):
                    compare(run, entry)
    return run.compared


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_operation_is_a_path_of_the_explorer(path: Path) -> None:
    run_scenario(path)


def scenario(name: str) -> Path:
    return next(path for path in SCENARIOS if path.stem == name)


def test_as_many_are_compared_as_there_are() -> None:
    compared = run_scenario(scenario("mix_seq_05")) + run_scenario(scenario("file_spin2sleep1"))
    assert sum(compared.values()) == 73
    assert set(compared) == {"munmap", "madvise_dontneed", "madvise_free", "mprotect", "page_mkclean"}


@pytest.mark.parametrize(("op", "other"), [("munmap", "madvise_cold"), ("mprotect", "munmap"), ("fork", "munmap")])
def test_another_operation_of_the_explorer_is_told_apart(op: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, op, other)
    names = {"munmap": "munmap_alone", "mprotect": "mprotect_alone", "fork": "fork_alone"}
    with pytest.raises(AssertionError):
        run_scenario(scenario(names[op]))
