"""Replay and explorer mean the same: operations one after the other leave the same entries and ask for as many flushes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tlbcore import _core, kernels
from tlbcore.simulator import Simulator

PAGE = 4096
BASE = 0x10_0000_0000
KERNELS = ("linux-5.10", "linux-6.1", "linux-6.18", "consolidated", "consolidated:pending=vma", "consolidated:pending=mm")
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
        offset = {"offset": index * PAGE} if file else {}
        process.mmap(PAGE, "rw", addr=addr, file=file, shared=file is not None, **offset)
        if how == "dirty":
            process.write(addr)
        elif how == "read":
            process.read(addr)
    # Something near by keeps the page tables, as in a scenario.
    process.mmap(PAGE, addr=BASE + 16 * PAGE)
    process.write(BASE + 16 * PAGE)
    sim.clear()
    for operation in operations:
        first, count = operation["first"], operation["count"]
        addr, length = BASE + first * PAGE, count * PAGE
        name = operation["operation"]
        if name == "munmap":
            process.munmap(addr, length)
        elif name.startswith("madvise"):
            process.madvise(addr, length, name.removeprefix("madvise_"))
        elif name == "mprotect":
            process.mprotect(addr, length, "r")
        elif name == "clear_refs_soft_dirty":
            process.clear_refs()
        elif name == "change_prot_numa":
            process.numa_hint(addr, length)
        elif name == "migrate_pages":
            process.migrate(addr, count)
        elif name == "page_mkclean":
            process.msync(addr, length)
        elif name == "truncate":
            assert file is not None
            process.truncate(file, first, count)
        elif name == "shrink_folio_list":
            process.reclaim(addr, count)
        elif name == "fork":
            process.fork()
        else:
            sim.apply({"op": "wp_shared_mapping_range", "task": process.task, "file": file.id, "from_page": first, "nr_pages": count})
    return entries(sim, len(mapped)), len(sim.flushes)


def entries(sim: Simulator, nr_pages: int) -> list[str]:
    """What kind of entry each page has, and whether it may be written and is dirty."""
    mm = next(mm for mm in sim.state()["mms"] if mm["id"] == 1)
    texts = {addr: text.split() for addr, _, text in mm["ptes"]}
    return [spelled(texts.get(BASE + index * PAGE, [])) for index in range(nr_pages)]


def spelled(words: list[str]) -> str:
    """An entry of the machine in the few words that the explorer has for it."""
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


def scenario(rng: random.Random) -> tuple[str, list[str], list[dict[str, Any]]]:
    """A few operations on a few pages."""
    kind = rng.choice(("file", "anon"))
    nr_pages = rng.randint(1, 3)
    mapped = [rng.choice(("dirty", "dirty", "none")) for _ in range(nr_pages)]
    others = ANON_ONLY if kind == "file" else FILE_ONLY
    allowed = [name for name in OPERATIONS if name not in others]
    operations = []
    for _ in range(rng.randint(1, 3)):
        first = rng.randrange(nr_pages)
        count = rng.randint(1, nr_pages - first)
        name = rng.choice(allowed)
        if name in ("clear_refs_soft_dirty", "fork"):
            first, count = 0, nr_pages
        operations.append({"operation": name, "first": first, "count": count})
    return kind, mapped, operations


@pytest.mark.parametrize("kernel", KERNELS)
def test_operations_one_after_the_other_mean_the_same(kernel: str) -> None:
    rng = random.Random(20)  # noqa: S311 - scenarios, not secrets
    for _ in range(150):
        kind, mapped, operations = scenario(rng)
        expected, found = replayed(kernel, kind, mapped, operations), explored(kernel, kind, mapped, operations)
        assert found == expected, (kind, mapped, operations)
