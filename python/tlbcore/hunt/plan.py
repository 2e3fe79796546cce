"""What a hunt tries: operations, the ways in which their ranges can meet, and sizes from small to large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

from tlbcore import _core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "KINDS",
    "NOT_MODELLED",
    "NOT_WITHOUT_TABLES",
    "OF_WHOLE_MM",
    "Operation",
    "Scenario",
    "Size",
    "is_on",
    "operations",
    "scenarios",
    "sizes",
]

#: What pages hold.
KINDS = ("file", "anon")

#: What no scenario of a hunt has, since the model has it not (docs/explorer.md, section 4).
NOT_MODELLED = (
    "huge pages, hugetlb, lazy CPUs, switches between address spaces, "
    "PCIDs, userfaultfd, VMAs that split or merge, full batches of a gather, store buffers"
)

#: What it has not either, unless page tables are objects (`whole_tables`).
NOT_WITHOUT_TABLES = "freed page tables, paging-structure caches, GUP"

#: Operations that work on the whole address space, whatever range they are asked for.
OF_WHOLE_MM = ("fork", "exit_mmap", "clear_refs_soft_dirty")


#: Operations that there are for one kind of page only, and why.
OF_ONE_KIND = {
    "page_mkclean": ("file", "writeback cleans pages of the page cache"),
    "wp_shared_mapping_range": ("file", "it walks the mappings of a file"),
    "unmap_mapping_range": ("file", "it walks the mappings of a file"),
    "truncate": ("file", "files are truncated"),
    "ksm_merge": ("anon", "KSM merges anonymous memory"),
    "madvise_free": ("anon", "madvise() gives EINVAL for a VMA of a file"),
}


def is_on(program: str, kind: str) -> bool:
    """Whether there is an operation for pages of this kind."""
    return OF_ONE_KIND.get(program, (kind, ""))[0] == kind


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


def operations(*, whole_tables: bool = False) -> tuple[Operation, ...]:
    """All of a kernel: each program as the model knows it, in each way that its arguments give, and truncation.

    With page tables as objects GUP-fast is one more.
    """
    variants = {"mprotect": ("write", "none"), "mremap": ("other_table",), "fault": ("write",)}
    found = []
    for program in (*_core.program_names(), "truncate", *(["gup_fast"] if whole_tables else [])):
        found.append(Operation(program))
        found += [Operation(program, ((variant, True),)) for variant in variants.get(program, ())]
    return tuple(found)


@dataclass(frozen=True, order=True)
class Size:
    """How large a scenario is; the smaller one comes first."""

    #: User CPUs and pages, and faulting threads twice, since they cost most.
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
    return sorted(Size(u + p + 2 * f, p, f, u) for u, p, f in ranges)


@dataclass(frozen=True)
class Scenario:
    """Threads on pages: all but the kernel, the invariants and the numbers of user CPUs and faulting threads."""

    #: How the ranges lie to each other.
    relation: str
    pages: tuple[dict[str, Any], ...]
    threads: tuple[dict[str, object], ...]
    #: Invariants that say nothing here.
    without: tuple[str, ...] = ()


#: Operations that work on a whole page table, whatever range they are asked for.
OF_WHOLE_TABLE = ("collapse_huge_page",)

#: A page of anonymous memory that stays writable although somebody else refers to it, as a pin does: the second
#: mapping is the reference, so no operation and no fault may come by it.
_REFERENCED = "one more reference"

#: A table without entries: what khugepaged takes away without a look at mmap_lock.
_EMPTY = "an empty table"

_TWO = 2


def _layouts(kind: str, size: Size, *, whole_tables: bool) -> Iterator[tuple[str, tuple[dict[str, Any], ...]]]:
    nr_pages = size.pages
    yield "one table", tuple({"kind": kind} for _ in range(nr_pages))
    if nr_pages < _TWO:
        if whole_tables and kind == "file":
            yield _EMPTY, ({"kind": kind, "mapped": "none"},)
        return
    yield "two tables", tuple({"kind": kind, "table": int(page == nr_pages - 1)} for page in range(nr_pages))
    # The last page maps what the first one maps: memory after a fork, which nobody may write, or a file mapped twice.
    shared = {"kind": kind} | ({"mapped": "read"} if kind == "anon" else {})
    between = ({"kind": kind} for _ in range(nr_pages - 2))
    yield "mapped twice", (shared, *between, {**shared, "frame": 0})
    if kind == "anon" and nr_pages == _TWO and not size.faults:
        yield _REFERENCED, ({"kind": kind}, {"kind": kind, "frame": 0, "mapped": "read"})


def _relation(ranges: Sequence[tuple[int, ...]]) -> str:
    if len(set(ranges)) == 1:
        return "same range"
    if any(set(a).isdisjoint(b) for a in ranges for b in ranges):
        return "neighbours"
    return "overlapping ranges"


def scenarios(chosen: Sequence[Operation], kind: str, size: Size, *, whole_tables: bool = False) -> list[Scenario]:
    """Every way to lay the ranges of operations over the pages, none twice nor mirrored, each page in some range."""
    nr_pages = size.pages
    whole = tuple(range(nr_pages))
    spans = [whole[a:b] for a in whole for b in range(a + 1, nr_pages + 1)]
    spans.sort(key=lambda span: (-len(span), span))
    found: dict[str, Scenario] = {}
    for (layout, pages), ranges in product(
        _layouts(kind, size, whole_tables=whole_tables), product(spans, repeat=len(chosen))
    ):
        real = [
            whole if operation.program in OF_WHOLE_MM else span for operation, span in zip(chosen, ranges, strict=True)
        ]
        # A page that no operation comes by may still be another mapping of one that is.
        untouched = set(whole).difference(*real)
        if layout == _REFERENCED:
            if any(span != (0,) for span in ranges) or any(operation.program in OF_WHOLE_TABLE for operation in chosen):
                continue
        elif untouched and (layout != "mapped twice" or untouched - {nr_pages - 1}):
            continue
        mirrored = [tuple(nr_pages - 1 - page for page in reversed(span)) for span in real]
        key = min(_key(chosen, real), _key(chosen, mirrored))
        threads = tuple(operation.thread(span) for operation, span in zip(chosen, real, strict=True))
        words = layout if len(chosen) == 1 else f"{_relation(real)}, {layout}"
        words = words if nr_pages > 1 or layout == _EMPTY else "same range"
        # Whether the other reference reads what is stored while the page is given up is not what I4 asks.
        without = ("I4",) if layout == _REFERENCED else ()
        found.setdefault(f"{layout} {key}", Scenario(words, pages, threads, without))
    return list(found.values())


def _key(chosen: Sequence[Operation], ranges: Sequence[tuple[int, ...]]) -> str:
    # Which thread is first makes no difference: two of the same operation may change places.
    return str(sorted((str(operation), span) for operation, span in zip(chosen, ranges, strict=True)))


def groups(known: Sequence[Operation], kind: str, number: int) -> list[tuple[Operation, ...]]:
    """All sets of so many operations that there are for this kind of page, one twice among them."""
    fitting = [operation for operation in known if is_on(operation.program, kind)]
    return list(combinations_with_replacement(fitting, number))


def left_out(known: Sequence[Operation], kinds: Sequence[str]) -> dict[str, str]:
    """What is not tried, and why."""
    found: dict[str, str] = {}
    for operation in known:
        if operation.program in OF_ONE_KIND:
            only, reason = OF_ONE_KIND[operation.program]
            found |= {f"{operation} on {kind} pages": reason for kind in kinds if kind != only}
    return found
