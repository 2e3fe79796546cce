"""M12: batched unmap, version 5 of 2015: the handler flushes a physical address."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="M12",
    title="batched unmap, version 5 of 2015: the handler flushes a physical address",
    commit="",
    fixed_in="never merged",
    scheme="5",
    invariant="I1",
    story=(
        "The batch of reclaim carried the frames of its pages, and the handler gave their physical addresses "
        "to INVLPG, which takes virtual ones: nothing that was meant is flushed, and pages are freed while "
        "CPUs still use them."
    ),
    interleaving=(
        "a CPU caches an entry",
        "reclaim clears it and notes the frame for the batch",
        "the CPU flushes the physical address of the frame, where it has no entry",
        "reclaim frees the page",
        "the CPU uses it",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={"operations": ["shrink_folio_list"], "users": 1, "pages": 1, "kind": "anon"},
    buggy_engine={"batch_flushes_physical": True},
)
