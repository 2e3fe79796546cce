"""Replay and explorer mean the same: operations in a row leave the same entries and ask for as many flushes."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tlbcore import _core, kernels
from tlbcore.simulator import File, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlbcore.process import Process

PAGE = 4096
BASE = 0x10_0000_0000
KERNELS = (
    "linux-5.10",
    "linux-6.1",
    "linux-6.18",
    "consolidated",
    "consolidated:pending=vma",
    "consolidated:pending=mm",
)
OPERATIONS = (
    "munmap",
    "madvise_dontneed",
    "madvise_cold",
    "mprotect",
    "clear_refs_soft_dirty",
    "change_prot_numa",
    "migrate_pages",
    "page_mkclean",
    "wp_shared_mapping_range",
    "truncate",
    "shrink_folio_list",
    "fork",
)
#: Operations on files only, on anonymous memory only.
FILE_ONLY = {"page_mkclean", "wp_shared_mapping_range", "truncate"}
ANON_ONLY = {"fork", "change_prot_numa", "migrate_pages"}


def replayed(kernel: str, kind: str, mapped: list[str], operations: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The entries after the operations, and how many flushes were asked for."""
    sim = Simulator("default", kernel)
    process = sim.process(cpu=0)
    process.thread(cpu=1)
    file = sim.file(len(mapped)) if kind == "file" else None
    for index, how in enumerate(mapped):
        addr = BASE + index * PAGE
        offset = index * PAGE if file else 0
        process.mmap(PAGE, "rw", addr=addr, file=file, shared=file is not None, offset=offset)
        if how == "dirty":
            process.write(addr)
        elif how == "read":
            process.read(addr)
    # Something near by keeps the page tables, as in a scenario.
    process.mmap(PAGE, addr=BASE + 16 * PAGE)
    process.write(BASE + 16 * PAGE)
    sim.clear()
    for operation in operations:
        apply(sim, process, file, operation)
    return entries(sim, len(mapped)), len(sim.flushes)


def apply(sim: Simulator, process: Process, file: File | None, operation: dict[str, Any]) -> None:
    """Do one operation, by the name of its program."""
    first, count = operation["first"], operation["count"]
    addr, length = BASE + first * PAGE, count * PAGE
    calls: dict[str, Callable[[], object]] = {
        "munmap": lambda: process.munmap(addr, length),
        "madvise_dontneed": lambda: process.madvise(addr, length, "dontneed"),
        "madvise_cold": lambda: process.madvise(addr, length, "cold"),
        "mprotect": lambda: process.mprotect(addr, length, "r"),
        "clear_refs_soft_dirty": process.clear_refs,
        "change_prot_numa": lambda: process.numa_hint(addr, length),
        "migrate_pages": lambda: process.migrate(addr, count),
        "page_mkclean": lambda: process.msync(addr, length),
        "shrink_folio_list": lambda: process.reclaim(addr, count),
        "fork": process.fork,
    }
    if file is not None:
        op = {"op": "wp_shared_mapping_range", "task": process.task, "file": file.id, "from_page": first}
        calls["truncate"] = lambda: process.truncate(file, first, count)
        calls["wp_shared_mapping_range"] = lambda: sim.apply({**op, "nr_pages": count})
    calls[operation["operation"]]()


def entries(sim: Simulator, nr_pages: int) -> list[str]:
    """What kind of entry each page has, and whether it may be written and is dirty."""
    mm = next(mm for mm in sim.state()["mms"] if mm["id"] == 1)
    texts = {addr: text for addr, _, text in mm["ptes"]}
    return [spelled(texts.get(BASE + index * PAGE, "")) for index in range(nr_pages)]


def spelled(text: str) -> str:
    """An entry of the machine in the few words that the explorer has for it."""
    words = text.split()
    kinds = {"P": "P", "swap": "swap", "PROTNONE": "protnone", "MIGRATION": "migration"}
    kind = next((kinds[word] for word in words if word in kinds), "none")
    flags = "" if kind in ("none", "swap") else "".join(flag for flag in "WD" if flag in words)
    return f"{kind} {flags}".strip()


def reduced(text: str) -> str:
    """An entry of the explorer without its frame and A."""
    kind, _, rest = text.partition("(")
    flags = "".join(flag for flag in "WD" if flag in rest)
    return f"{kind} {flags}".strip()


def explored(kernel: str, kind: str, mapped: list[str], operations: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The same from the explorer."""
    scenario = {
        "users": 1,
        "pages": [{"kind": kind, "mapped": how} for how in mapped],
        "threads": operations,
    }
    ran = json.loads(_core.explore_in_order(kernels.get(kernel).to_json(), json.dumps(scenario)))
    nr_flushes = sum(event["text"].endswith("send IPIs") for event in ran["events"])
    return [reduced(text) for _, text in ran["end"]["ptes"][: len(mapped)]], nr_flushes


def scenario(rng: random.Random, kernel: str) -> tuple[str, list[str], list[dict[str, Any]]]:
    """A few operations on a few pages.

    Left out is what a scenario has not: VMAs that split (mprotect takes all pages), VMAs that are gone (munmap comes
    last), and the child's flushes after a fork. The page that keeps the page tables has an entry that clear_refs of the
    consolidated kernels records.
    """
    kind = rng.choice(("file", "anon"))
    nr_pages = rng.randint(1, 3)
    mapped = [rng.choice(("dirty", "dirty", "none")) for _ in range(nr_pages)]
    others = ANON_ONLY if kind == "file" else FILE_ONLY
    left_out = {"clear_refs_soft_dirty"} if kernel.startswith("consolidated") else set()
    allowed = [name for name in OPERATIONS if name not in others | left_out]
    operations: list[dict[str, Any]] = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(allowed)
        first = rng.randrange(nr_pages)
        count = rng.randint(1, nr_pages - first)
        if name in ("clear_refs_soft_dirty", "fork", "mprotect"):
            first, count = 0, nr_pages
        operations.append({"operation": name, "first": first, "count": count})
        if name in ("munmap", "fork"):
            break
    return kind, mapped, operations


@pytest.mark.parametrize("kernel", KERNELS)
def test_operations_one_after_the_other_mean_the_same(kernel: str) -> None:
    rng = random.Random(20)
    for _ in range(200):
        kind, mapped, operations = scenario(rng, kernel)
        expected, found = replayed(kernel, kind, mapped, operations), explored(kernel, kind, mapped, operations)
        assert found == expected, (kind, mapped, operations)
