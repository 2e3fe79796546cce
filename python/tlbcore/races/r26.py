"""R26: x86/mm: Fix SMP ordering in switch_mm_irqs_off()."""

from __future__ import annotations

from tlbcore import kernels
from tlbcore.races.race import Race

RACE = Race(
    id="R26",
    title="x86/mm: Fix SMP ordering in switch_mm_irqs_off()",
    commit="83b0177a6c48",
    fixed_in="v6.18",
    scheme="HW",
    invariant="I9",
    story=(
        "Since mm_cpumask is cleared lazily, a CPU whose bit is still set skips the locked operation that "
        "ordered its LOADED_MM_SWITCHING before its look at the generation. If it reads the generation first, "
        "a flush in between raises it, finds another mm loaded, and passes the CPU over. The barrier that was "
        "missing is modelled as the two statements swapped."
    ),
    interleaving=(
        "a CPU that switches in reads the generation before others see that it switches",
        "a call clears an entry and raises the generation",
        "it finds another mm loaded on the CPU, sends no IPI and returns",
        "the CPU loads CR3 and keeps its old entries, whose generation it takes for the newest",
    ),
    buggy=kernels.get("linux-6.18"),
    fixed=kernels.get("linux-6.18"),
    scenario={
        "operations": ["madvise_dontneed"],
        "users": 1,
        "pages": 1,
        "kind": "anon",
        "invariants": ("I1", "I2", "I3", "I4", "I5", "I8", "I9"),
    },
    engine={"switches": True, "lazy": True},
    buggy_engine={"gen_before_loaded_mm": True},
)
