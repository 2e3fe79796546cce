"""What a hunt tries: operations, the ways in which their ranges can meet, and sizes from small to large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

from tlbcore import _core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["KINDS", "NOT_MODELLED", "OF_WHOLE_MM", "Operation", "Scenario", "Size", "operations", "scenarios", "sizes"]

#: What pages hold.
KINDS = ("file", "anon")

#: What no scenario of a hunt has, since the model has it not (docs/explorer.md, section 4).
NOT_MODELLED = (
    "huge pages, hugetlb, freed page tables, paging-structure caches, lazy CPUs, switches between address spaces, "
    "PCIDs, userfaultfd, KSM, GUP, VMAs that split or merge, full batches of a gather, store buffers"
)

#: Operations that work on the whole address space, whatever range they are asked for.
OF_WHOLE_MM = ("fork", "exit_mmap", "clear_refs_soft_dirty")


@dataclass(frozen=True)
class Operation:
    """An operation of a kernel, as a thread of a hunt runs it."""

    #: The program, or `truncate`.
    program: str
    #: What tells it from the program's other uses: arguments of its thread.
    arguments: tuple[tuple[str, bool], ...] = ()

    def __str__(self) -> str:
        """The program with what it was told, as `mprotect(write)`."""
        told = ", ".join(name for name, _ in self.arguments)
        return f"{self.program}({told})" if told else self.program

    def thread(self, pages: Sequence[int]) -> dict[str, object]:
        """The kernel thread that runs it on pages next to each other."""
        spec: dict[str, object] = {"operation": self.program, **dict(self.arguments)}
        if self.program not in OF_WHOLE_MM:
            spec |= {"first": pages[0], "count": len(pages)}
        return spec


def operations() -> tuple[Operation, ...]:
    """All of a kernel: each program as the model knows it, in each way that its arguments give, and truncation."""
    variants = {"mprotect": "write", "mremap": "other_table", "fault": "write"}
    found = []
    for program in (*_core.program_names(), "truncate"):
        found.append(Operation(program))
        if program in variants:
            found.append(Operation(program, ((variants[program], True),)))
    return tuple(found)


@dataclass(frozen=True, order=True)
class Size:
    """How large a scenario is; the smaller one comes first."""

    #: CPUs, faulting threads and pages together.
    total: int
    pages: int
    faults: int
    users: int

    def __str__(self) -> str:
        """In words."""
        faults = f", {self.faults} faulting" if self.faults else ""
        return f"{self.users} user CPU{'s' * (self.users > 1)}, {self.pages} page{'s' * (self.pages > 1)}{faults}"


def sizes(users: int, pages: int, faults: int) -> list[Size]:
    """All sizes up to these, from small to large."""
    ranges = product(range(1, users + 1), range(1, pages + 1), range(faults + 1))
    return sorted(Size(u + p + f, p, f, u) for u, p, f in ranges)


@dataclass(frozen=True)
class Scenario:
    """Threads on pages: all but the kernel, the invariants and the numbers of user CPUs and faulting threads."""

    #: How the ranges lie to each other.
    relation: str
    pages: tuple[dict[str, Any], ...]
    threads: tuple[dict[str, object], ...]


def _layouts(kind: str, nr_pages: int) -> Iterator[tuple[str, tuple[dict[str, Any], ...]]]:
    yield "one table", tuple({"kind": kind} for _ in range(nr_pages))
    if nr_pages > 1:
        yield "two tables", tuple({"kind": kind, "table": int(page == nr_pages - 1)} for page in range(nr_pages))
        # The last page maps what the first one maps: as after a fork, or a file that is mapped twice.
        again = {"kind": kind, "frame": 0} | ({"mapped": "read"} if kind == "anon" else {})
        yield "mapped twice", (*({"kind": kind} for _ in range(nr_pages - 1)), again)


def _relation(ranges: Sequence[tuple[int, ...]]) -> str:
    if len(set(ranges)) == 1:
        return "same range"
    if any(set(a).isdisjoint(b) for a in ranges for b in ranges):
        return "neighbours"
    return "overlapping ranges"


def scenarios(chosen: Sequence[Operation], kind: str, nr_pages: int) -> list[Scenario]:
    """Every way to lay the ranges of operations over so many pages, none twice, each page in one of them."""
    spans = [tuple(range(a, b)) for a in range(nr_pages) for b in range(a + 1, nr_pages + 1)]
    spans.sort(key=lambda span: (-len(span), span))
    found: dict[str, Scenario] = {}
    for (layout, pages), ranges in product(_layouts(kind, nr_pages), product(spans, repeat=len(chosen))):
        real = [
            tuple(range(nr_pages)) if operation.program in OF_WHOLE_MM else span
            for operation, span in zip(chosen, ranges, strict=True)
        ]
        # A page that no operation comes by may still be another mapping of one that is.
        touched = set().union(*real)
        if len(touched) < nr_pages and (layout != "mapped twice" or not touched & {0, nr_pages - 1}):
            continue
        threads = tuple(operation.thread(span) for operation, span in zip(chosen, real, strict=True))
        if len({str(operation) for operation in chosen}) < len(chosen):
            # The same operation twice: which thread is first makes no difference.
            threads = tuple(sorted(threads, key=str))
        key = f"{pages} {threads}"
        words = layout if len(chosen) == 1 else f"{_relation(real)}, {layout}"
        found.setdefault(key, Scenario(words if nr_pages > 1 else "same range", pages, threads))
    return list(found.values())


def groups(known: Sequence[Operation], number: int) -> list[tuple[Operation, ...]]:
    """All sets of so many operations, one twice among them."""
    return list(combinations_with_replacement(known, number))
