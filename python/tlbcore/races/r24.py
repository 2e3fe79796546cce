"""R24: x86/mm: Add barriers and document switch_mm()-vs-flush synchronization."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R24",
    title="x86/mm: Add barriers and document switch_mm()-vs-flush synchronization",
    commit="71b3c126e611",
    fixed_in="v4.5",
    scheme="HW",
    invariant="I9",
    story=(
        "A CPU that switches to an address space sets its bit in mm_cpumask and loads CR3. If others see the "
        "bit only after the CPU walked the page tables, a flush in between does not ask it, and it keeps what "
        "it walked. The barrier that was missing is modelled as the two statements swapped."
    ),
    interleaving=(
        "a CPU that switches in reads the generation and loads CR3; its bit is not seen yet",
        "a call clears an entry",
        "it raises the generation, finds no bit, sends no IPI and returns",
        "the CPU's bit is seen",
        "the CPU goes on with what it walked before",
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
    cve="CVE-2016-2069",
    engine={"switches": True},
    buggy_engine={"mask_after_cr3": True},
)
