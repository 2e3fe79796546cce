"""R32: powerpc/64s: Disable preemption in hash lazy mmu mode."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R32",
    title="powerpc/64s: Disable preemption in hash lazy mmu mode",
    commit="b9ef323ea168",
    fixed_in="v6.1",
    scheme="3",
    invariant="I2",
    story=(
        "Hash MMUs are told of each entry that changes, and inside a lazy-MMU section the CPU collects what "
        "it has to be told. A task that is preempted in the section and goes on on another CPU drains the "
        "batch of that one: its own invalidations stay where it was."
    ),
    interleaving=(
        "a task enters lazy-MMU mode, clears an entry and queues its invalidation in the batch of its CPU",
        "it is preempted, and goes on on another CPU",
        "it leaves the mode there: the batch of that CPU is empty",
        "the call returns",
        "a CPU uses the old translation",
    ),
    buggy=kernels.get("linux-6.18:lazy_mmu=powerpc-hash"),
    fixed=kernels.get("linux-6.18:lazy_mmu=powerpc-hash"),
    scenario={"operations": ["madvise_dontneed"], "users": 1, "pages": 1, "kind": "anon"},
    buggy_engine={"lazy_mmu_preempts": True},
)
