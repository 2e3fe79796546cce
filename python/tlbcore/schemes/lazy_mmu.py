"""Scheme 3: the lazy-MMU sections around page-table changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.scheme import Scheme
from tlbcore.steps import Block, Step, arch_enter_lazy_mmu_mode, arch_leave_lazy_mmu_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What an architecture batches inside the section, and how much of it. TLB_BATCH_NR of arch/sparc/include/asm/
#: tlbflush_64.h, PPC64_TLB_BATCH_NR of arch/powerpc/include/asm/book3s/64/tlbflush-hash.h, MC_BATCH of
#: arch/x86/xen/multicalls.c (Linux v6.18).
ARCHITECTURES: dict[str, tuple[str, int]] = {
    "native": ("none", 0),
    "sparc64": ("per_pte", 192),
    "powerpc-hash": ("per_pte", 192),
    "xen-pv": ("multicall", 32),
}


@dataclass(frozen=True)
class LazyMmu(Scheme):
    """Batch per CPU what the architecture must be told of each PTE change; drain at leave.

    On sparc64 and hash powerpc the hardware has a second copy of each translation, so that each changed PTE is an
    invalidation of its own, and range flushes do nothing. On Xen PV a PTE change is a multicall. Native x86 has nothing
    to batch here.
    """

    arch: str = "native"
    sources: ClassVar[Mapping[str, str]] = {"arch": "include/linux/pgtable.h:arch_enter_lazy_mmu_mode (v6.18.2)"}
    where: ClassVar[str] = "arch_enter_lazy_mmu_mode() around each walk of a PTE table"

    def __post_init__(self) -> None:
        """Refuse an architecture that is not known."""
        if self.arch not in ARCHITECTURES:
            msg = f"lazy_mmu is {self.arch!r}, expected one of {', '.join(ARCHITECTURES)}"
            raise ValueError(msg)

    def constants(self) -> dict[str, str | int]:
        """What the kernel's constants say of it."""
        kind, batch = ARCHITECTURES[self.arch]
        constants: dict[str, str | int] = {"lazy_mmu": kind, "lazy_mmu_batch": batch}
        if kind == "per_pte":
            # Without generations nothing tells a CPU that comes back what it missed, so its bit must stay in the mask
            # (switch_mm() of sparc64 and of hash powerpc does not clear it).
            constants |= {"mm_cpumask_rule": "lazy", "trim_cpumask_interval_ns": 2**63}
        return constants

    @staticmethod
    def section(*steps: Step | Block) -> Block:
        """`steps` inside a lazy-MMU section; the caller holds the page-table lock."""
        return [arch_enter_lazy_mmu_mode(), *steps, arch_leave_lazy_mmu_mode()]
