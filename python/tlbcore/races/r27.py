"""R27: x86/mm/tlb: Ignore f->new_tlb_gen when zero."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R27",
    title="x86/mm/tlb: Ignore f->new_tlb_gen when zero",
    commit="8f1d56f64f8d",
    fixed_in="v6.0",
    scheme="HW+5",
    invariant="I1",
    story=(
        "The batched flush of reclaim carries generation 0, which the early exit of the flush handler took "
        "for one that is long done: every batched flush is lost, and pages are freed while CPUs still use "
        "them."
    ),
    interleaving=(
        "reclaim clears an entry; the generation goes up",
        "the batched flush is sent with generation 0",
        "the CPU takes 0 for older than what it has, and flushes nothing",
        "reclaim frees the page",
        "the CPU uses it",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["shrink_folio_list"], "users": 1, "pages": 1, "kind": "anon"},
    buggy_engine={"gen_zero_is_old": True},
)
