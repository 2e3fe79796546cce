"""Documented races that the explorer does not cover, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNCOVERED", "Uncovered"]


@dataclass(frozen=True)
class Uncovered:
    """A documented race that the explorer cannot run, or that says nothing to it."""

    id: str
    title: str
    #: The Linux commit that mended it; empty if there is none.
    commit: str
    #: The first release without it.
    fixed_in: str
    #: As in `Race`.
    scheme: str
    #: The invariant that it violates.
    invariant: str
    #: What the model would need.
    reason: str
    cve: str = ""


_LAZY = "lazy CPUs and switches between address spaces are not modelled"
_WEAK = "it needs a store that is seen late; memory is sequentially consistent in the model"

_ROWS = (
    (
        "R08",
        "arm64/mm: Close theoretical race where stale TLB entry remains valid",
        "4b634918384c",
        "v6.16",
        "5",
        "I11",
        "a flush is one request of an IPI; TLBI and the DSB that waits for it are no two events in the model",
    ),
    (
        "R10",
        "mm: fix KSM data corruption",
        "b3a81d0841a9",
        "v4.13",
        "2",
        "I5",
        "no kernel has a program of KSM, which compares two pages and merges them",
    ),
    (
        "R23",
        "x86/mm: Flush more aggressively in lazy TLB mode",
        "b956575bed91",
        "v4.14",
        "HW",
        "I6",
        _LAZY,
    ),
    (
        "R24",
        "x86/mm: Add barriers and document switch_mm()-vs-flush synchronization",
        "71b3c126e611",
        "v4.5",
        "HW",
        "I9",
        f"{_WEAK}; {_LAZY}",
        "CVE-2016-2069",
    ),
    (
        "R26",
        "x86/mm: Fix SMP ordering in switch_mm_irqs_off()",
        "83b0177a6c48",
        "v6.18",
        "HW",
        "I9",
        f"{_WEAK}; {_LAZY}",
    ),
    (
        "R28",
        "x86/mm: Fix flush_tlb_range() when used for zapping normal PMDs",
        "3ef938c35035",
        "v6.15",
        "HW",
        "I6",
        _LAZY,
    ),
    (
        "R29",
        "INVLPGB is disabled with page-table isolation: overrun of the bitmap of ASIDs",
        "94a17f2dc90b",
        "v6.15",
        "HW",
        "I8",
        "neither INVLPGB nor ASIDs are modelled; every flush of another CPU is an IPI",
    ),
    (
        "R32",
        "powerpc/64s: Disable preemption in hash lazy mmu mode",
        "b9ef323ea168",
        "v6.1",
        "3",
        "I2",
        "stores to entries that a lazy-MMU mode holds back are not modelled; x86 has none",
    ),
    (
        "R33",
        "mm: fix exec activate_mm vs TLB shootdown and lazy tlb switching race",
        "d53c3dfb23c4",
        "v5.10",
        "HW",
        "I9",
        _LAZY,
    ),
    (
        "R38",
        "bugs of patches that were posted and not merged so",
        "",
        "never merged",
        "all",
        "several",
        "not one race but a family; its members are M1 to M12",
    ),
    (
        "R39",
        "hazards of flushes that are put off beyond the unmap (LUF, LATR, vmap)",
        "",
        "never merged",
        "5+",
        "I1",
        "no kernel has programs that free pages before their flush; write one as a scheme of your own and check it",
    ),
    (
        "M1",
        "RFC 15/20: the generation is not raised if somebody raised it since the deferral",
        "",
        "never merged",
        "HW",
        "I8",
        f"generations of CPUs are not modelled; {_LAZY}",
    ),
    (
        "M5",
        "RFC 20/20: a CPU clears its bit of the batch's mask at a full flush",
        "",
        "never merged",
        "5",
        "I11",
        "masks of CPUs with an outstanding flush are decided, not modelled: a flush asks all user CPUs",
    ),
    (
        "M10",
        "migc v1: the target of a migration becomes a source before its flush",
        "",
        "never merged",
        "5+",
        "I5",
        "no kernel has a migration that defers its flush beyond the copy",
    ),
    (
        "M12",
        "batched unmap, version 5 of 2015: the handler flushes a physical address",
        "",
        "never merged",
        "5",
        "I1",
        "a flush names pages of the model; virtual and physical addresses cannot be taken for each other",
    ),
)

#: The races that are not covered, by their short names.
UNCOVERED: dict[str, Uncovered] = {row[0]: Uncovered(*row) for row in _ROWS}
