"""R33: mm: fix exec activate_mm vs TLB shootdown and lazy tlb switching race."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R33",
    title="mm: fix exec activate_mm vs TLB shootdown and lazy tlb switching race",
    commit="d53c3dfb23c4",
    fixed_in="v5.10",
    scheme="HW",
    invariant="I9",
    story=(
        "Where a CPU judges by active_mm whether a shootdown is for the address space that it has loaded, an "
        "interrupt between the change of active_mm and the switch flushes the context that is still loaded, "
        "and the old translations of the new one stay. Interrupts have to be off from the one to the other."
    ),
    interleaving=(
        "a CPU that holds old translations of an address space sets active_mm to it",
        "a call clears an entry and sends an IPI",
        "the CPU takes the address space for loaded, and flushes the context that really is",
        "the call returns",
        "the CPU switches, and uses the old translation",
    ),
    buggy=kernels.get("linux-5.10"),
    fixed=kernels.get("linux-5.10"),
    scenario={
        "operations": ["madvise_dontneed"],
        "users": 1,
        "pages": 1,
        "kind": "anon",
        "invariants": ("I1", "I2", "I3", "I4", "I5", "I8", "I9"),
    },
    engine={"by_active_mm": True, "switches": True},
    buggy_engine={"irqs_on_in_use_mm": True},
)
