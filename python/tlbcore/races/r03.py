"""R03: mm: split tlb_flush_mmu() into tlb flushing and memory freeing parts."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race
from tlbcore.races.variants import LateFlushGather

RACE = Race(
    id="R03",
    title="mm: split tlb_flush_mmu() into tlb flushing and memory freeing parts",
    commit="1cf35d47712d",
    fixed_in="v3.15",
    scheme="1",
    invariant="I4",
    story=(
        "The zap takes a dirty entry, marks the page dirty and drops the page-table lock before it flushes. "
        "Writeback, which finds no entry, clears the dirty flag and writes the page; a store through the "
        "stale translation comes after that."
    ),
    interleaving=(
        "the zap clears a dirty entry, marks the page dirty and drops the page-table lock",
        "writeback finds no entry, clears the dirty flag and writes the page",
        "a CPU stores through its old translation",
        "the gather flushes and frees the page",
    ),
    buggy=kernels.get("linux-6.18").derive("linux-3.14 zap", madvise_dontneed=LateFlushGather()),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["madvise_dontneed", "page_mkclean"], "users": 1, "pages": 1},
)
