"""Linux 5.10 (long-term series, as of 5.10.7): the five legacy schemes, each in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Constant, Kernel, KernelFamily, Switch
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import ARCHITECTURES, LazyMmu
from tlbcore.schemes.mmu_gather import ForgetfulGather, MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

#: Constants; where each stands in v5.10.7 is said beside it.
CONSTANTS: dict[str, Constant] = {
    "tlb_single_page_flush_ceiling": 33,  # arch/x86/mm/tlb.c
    "tlb_nr_dyn_asids": 6,  # arch/x86/include/asm/tlbflush.h
    "gather_bundle": 8,  # MMU_GATHER_BUNDLE, include/asm-generic/tlb.h
    "gather_batch": 510,  # MAX_GATHER_BATCH, include/asm-generic/tlb.h
    "gather_batch_count": 19,  # MAX_GATHER_BATCH_COUNT, include/asm-generic/tlb.h
    "mm_cpumask_rule": "eager",  # switch_mm_irqs_off(), arch/x86/mm/tlb.c
    "should_flush_tlb": "is_lazy",  # tlb_is_not_lazy(), arch/x86/mm/tlb.c
    "trim_cpumask_interval_ns": 0,
    "flush_skips_old_gen": False,  # came with 8f1d56f64f8d, in v6.0
    "flush_tlb_range_freed_tables": False,  # flush_tlb_range(), arch/x86/include/asm/tlbflush.h
    "local_flush_first": True,  # before 4ce94eabac16, in v5.13
    "batched_pending": "flag",  # mm->tlb_flush_batched was a bool
    "pending_tracking": "mm",  # mm->tlb_flush_pending
    "lazy_mmu": "none",
    "lazy_mmu_batch": 0,
    "fault_around_pages": 16,  # fault_around_bytes, mm/memory.c
    "swap_cluster_max": 32,  # include/linux/swap.h
    "cow_reuse": "mapcount",
    "swap_in_mkwrite": "write_fault",  # do_swap_page(), mm/memory.c
    "pmd_move": True,  # HAVE_MOVE_PMD
    "pud_move": False,  # HAVE_MOVE_PUD came in v5.11
    "thp": "madvise",
}

LAZY_MMU = Switch("lazy_mmu", "what the architecture batches in lazy-MMU sections", tuple(ARCHITECTURES))


def legacy_schemes() -> dict[str, Scheme]:
    """The schemes of 5.10, by operation."""
    gather = MmuGather(delay_rmap=False, huge_mkwrite=False, madvise_per_vma=True)
    pending = TlbFlushPending()
    deferred = DeferredUnmap(batch_migration=False, madvise_per_vma=True, pageout_clears_young=True)
    at_once = Synchronous()
    return {
        "mmap": gather,
        "munmap": gather,
        "mprotect": pending,
        "mremap": PerTable(unmapping=gather),
        "madvise_dontneed": gather,
        "madvise_free": gather,
        "madvise_cold": gather,
        "madvise_pageout": deferred,
        "clear_refs_soft_dirty": ForgetfulGather(delay_rmap=False, huge_mkwrite=False, madvise_per_vma=True),
        "fork": at_once,
        "exit_mmap": gather,
        "fault": at_once,
        "page_mkclean": at_once,
        "shrink_folio_list": deferred,
        "migrate_pages": deferred,
        "change_prot_numa": pending,
        "unmap_mapping_range": gather,
        "wp_shared_mapping_range": pending,
        "collapse_huge_page": at_once,
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 5.10 on the chosen architecture's lazy-MMU mode."""
    return Kernel(
        name="linux-5.10",
        title="Linux 5.10: five schemes",
        source="v5.10.7",
        constants=CONSTANTS | LazyMmu(switches["lazy_mmu"]).constants(),
        schemes=legacy_schemes(),
        switches=dict(switches),
    )


FAMILY = KernelFamily("linux-5.10", "Linux 5.10: five schemes", build, (LAZY_MMU,))
