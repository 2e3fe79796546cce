"""What keeps a copy of a page true while it is made, and that each of these can fail: without it a store is lost (I5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

import tlbcore
from tlbcore import kernels
from tlbcore.schemes import Synchronous
from tlbcore.steps import (
    Block,
    Step,
    for_each_mapping,
    mmap_read_lock,
    mmap_unlock,
    page_ksm,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlbcore.kernel import Kernel

LINUX = kernels.get("linux-6.18")
SHARED: list[dict[str, Any]] = [{"kind": "anon", "mapped": "read"}, {"kind": "anon", "mapped": "read", "frame": 0}]
OWN: list[dict[str, Any]] = [{"kind": "anon"}, {"kind": "anon"}]


def without(steps: Sequence[Step], *names: str) -> tuple[Step, ...]:
    """The steps without those of these names, at any depth."""
    kept = (step for step in steps if step.name not in names)
    return tuple(
        replace(step, blocks={label: without(inner, *names) for label, inner in step.blocks.items()}) for step in kept
    )


@dataclass(frozen=True)
class WithoutReference(Synchronous):
    """A fault that copies holds no reference meanwhile: others may write in place, and the entry look as before."""

    def fault(self) -> Block:
        """Page faults."""
        return without(Synchronous().program("fault"), "folio_get", "folio_put")


@dataclass(frozen=True)
class LeavesExclusive(Synchronous):
    """KSM leaves PageAnonExclusive: a NUMA hint makes the entry writable again."""

    def ksm_merge(self) -> Block:
        """KSM."""
        return without(Synchronous().program("ksm_merge"), "folio_try_share_anon_rmap")


@dataclass(frozen=True)
class SharesUnprotected(Synchronous):
    """KSM does not mind whether it could write-protect the page: one that is unmapped and not flushed yet is shared."""

    def ksm_merge(self) -> Block:
        """KSM."""
        return [mmap_read_lock(), each_page(search_outside), mmap_unlock()]


def each_page(change: Callable[[tuple[Step, ...]], tuple[Step, ...]]) -> Step:
    """KSM's loop over pages, with what it does for each mapping of a page changed."""
    (loop,) = (step for step in Synchronous().program("ksm_merge") if step.name == "for_each_page")
    locked, merges, unlocked = loop.blocks["body"]
    (for_mapping,) = merges.blocks["then"]
    changed = replace(merges, blocks={**merges.blocks, "then": change(for_mapping.blocks["body"])})
    return replace(loop, blocks={**loop.blocks, "body": (locked, changed, unlocked)})


def search_outside(body: tuple[Step, ...]) -> tuple[Step, ...]:
    """The search for the KSM page after the loop over mappings, and the replacement in one of its own."""
    search = next(index for index, step in enumerate(body) if step.name == "stable_tree_search")
    identical, *replacement = body[search + 1].blocks["then"]
    return (
        for_each_mapping(*body[:search]),
        body[search],
        when(~page_ksm, identical, for_each_mapping(*replacement)),
    )


def check(kernel: Kernel, operations: list[dict[str, Any]], pages: list[dict[str, Any]]) -> tlbcore.Verdict:
    """Beside a user CPU and a thread that takes faults."""
    return tlbcore.check(kernel, operations=operations, users=1, pages=pages, faults=1, invariants=("I5",))


BOTH = {"first": 0, "count": 2}
#: A scheme that leaves something out, for which operation, and where a store is lost then.
PLANTED: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "a fault without a reference": (
        {"fault": WithoutReference()},
        [{"operation": "fault", "write": True, **BOTH}, {"operation": "ksm_merge", **BOTH}],
        SHARED,
    ),
    "KSM leaves PageAnonExclusive": (
        {"ksm_merge": LeavesExclusive()},
        [{"operation": "change_prot_numa", **BOTH}, {"operation": "ksm_merge", **BOTH}],
        OWN,
    ),
    "KSM shares what it did not write-protect": (
        {"ksm_merge": SharesUnprotected()},
        [{"operation": "exit_mmap"}, {"operation": "ksm_merge", **BOTH}],
        [{"kind": "anon", "table": 0}, {"kind": "anon", "table": 1}],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_copy_is_true_only_with_all_of_it(name: str) -> None:
    schemes, operations, pages = PLANTED[name]
    assert check(LINUX, operations, pages).safe
    broken = check(LINUX.derive("broken", **schemes), operations, pages)
    assert broken.violated == ("I5",)


@pytest.mark.parametrize(
    ("operation", "other", "pages"),
    [
        # A page that KSM shares comes back from swap, with one entry left for it: not writable.
        ("madvise_pageout", "ksm_merge", OWN),
        # One of two entries of a page goes to swap, the other has a NUMA hint: not writable, for the page was shared.
        ("shrink_folio_list", "change_prot_numa", SHARED),
    ],
)
def test_a_page_that_was_shared_is_not_written_in_place(
    operation: str, other: str, pages: list[dict[str, Any]]
) -> None:
    assert check(LINUX, [{"operation": operation, **BOTH}, {"operation": other, **BOTH}], pages).safe
