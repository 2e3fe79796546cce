"""Linux 6.18: mm_cpumask is cleared lazily, rmaps of dirty pages are delayed, migration batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Constant, Kernel, KernelFamily
from tlbcore.kernels import linux_6_1
from tlbcore.kernels.linux_5_10 import LAZY_MMU
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

#: What differs from 6.1, and since when.
CONSTANTS: dict[str, Constant] = linux_6_1.CONSTANTS | {
    "mm_cpumask_rule": "lazy",  # 209954cbc7d0, in v6.14
    "should_flush_tlb": "loaded_mm",  # 6db2526c1d69, in v6.14
    "swap_in_mkwrite": "exclusive",  # do_swap_page(), mm/memory.c
    "trim_cpumask_interval_ns": 1_000_000_000,  # HZ jiffies, should_trim_cpumask(), arch/x86/mm/tlb.c
}


def schemes() -> dict[str, Scheme]:
    """The schemes of 6.18, by operation."""
    gather = MmuGather()
    return linux_6_1.schemes() | {
        **dict.fromkeys(
            (
                "mmap",
                "munmap",
                "mprotect",
                "madvise_dontneed",
                "madvise_free",
                "madvise_cold",
                "exit_mmap",
                "change_prot_numa",
                "unmap_mapping_range",
            ),
            gather,
        ),
        "mremap": PerTable(unmapping=gather),
        "migrate_pages": DeferredUnmap(),
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 6.18."""
    return Kernel(
        name="linux-6.18",
        title="Linux 6.18: lazily cleared mm_cpumask",
        source="v6.18.2",
        constants=CONSTANTS | LazyMmu(switches["lazy_mmu"]).constants(),
        schemes=schemes(),
        switches=dict(switches),
    )


FAMILY = KernelFamily("linux-6.18", "Linux 6.18: lazily cleared mm_cpumask", build, (LAZY_MMU,))
