"""R04: mm: delay page_remove_rmap() until after the TLB has been flushed."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R04",
    title="mm: delay page_remove_rmap() until after the TLB has been flushed",
    commit="5df397dec7c4",
    fixed_in="v6.2",
    scheme="1",
    invariant="I4",
    story=(
        "The zap of a dirty file page flushes under the page-table lock, but removes the page's rmap before. "
        "Writeback asks page_mapped() first: not mapped, so page_mkclean() never comes to the lock. The dirty "
        "flag is cleared, the page written, and a store through the stale translation is lost."
    ),
    interleaving=(
        "under the page-table lock the zap clears the entry, marks the page dirty and removes its rmap",
        "writeback finds the page not mapped and passes that lock by; it clears the dirty flag and writes the page",
        "a CPU stores through its old translation",
        "the zap flushes, drops the lock and frees the page",
    ),
    buggy=kernels.get("linux-5.10"),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["madvise_dontneed", "page_mkclean"], "users": 1, "pages": 1},
)
