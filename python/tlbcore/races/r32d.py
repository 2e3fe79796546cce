"""R32d: nested lazy-MMU sections."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

_KERNEL = kernels.get("linux-6.18:lazy_mmu=powerpc-hash")

RACE = Race(
    id="R32d",
    title="nested lazy-MMU sections, of which the inner one leaves its batch to the outer one",
    commit="",
    fixed_in="never merged",
    scheme="3",
    invariant="I1",
    story=(
        "Lazy-MMU sections came to nest, although they were not meant to. Where the mode is a flag, the end of the inner "
        "section drains the batch and ends the mode, and the rest of the outer one is done entry by entry: slow, but safe. "
        "Where sections are counted (v7.0), the end of the inner one must still drain: what comes after it relies on that. "
        "Here mremap drops its page-table locks; truncation frees the page before the outer section ends."
    ),
    interleaving=(
        "a CPU caches an entry",
        "inside an outer section mremap enters an inner one and moves the entry: its invalidation joins the batch",
        "the inner section ends, and the batch waits for the outer one; the page-table locks are dropped",
        "truncation takes the new entry, flushes the new address and frees the page",
        "the CPU uses the old translation",
        "the outer section ends and drains the batch, too late",
    ),
    buggy=_KERNEL,
    fixed=_KERNEL,
    scenario={
        "operations": [
            {"operation": "mremap", "other_table": True},
            {"operation": "truncate", "first": 0, "count": 1},
        ],
        "users": 1,
        "pages": [{"mapped": "dirty"}],
    },
    buggy_engine={"inner_lazy_mmu_keeps_batch": True},
)
