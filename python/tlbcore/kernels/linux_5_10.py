"""Linux 5.10 (long-term series, as of 5.10.7): the five legacy schemes, each in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily, Sourced, Switch
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import ForgetfulGather, MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

_MM_TYPES = "include/linux/mm_types.h"
_TLB_C = "arch/x86/mm/tlb.c"
_TLB_H = "include/asm-generic/tlb.h"

#: Constants, and where each stands.
CONSTANTS: dict[str, Sourced] = {
    "tlb_single_page_flush_ceiling": Sourced(33, f"{_TLB_C}:tlb_single_page_flush_ceiling (v5.10.7)"),
    "tlb_nr_dyn_asids": Sourced(6, "arch/x86/include/asm/tlbflush.h:TLB_NR_DYN_ASIDS (v5.10.7)"),
    "gather_bundle": Sourced(8, f"{_TLB_H}:MMU_GATHER_BUNDLE (v5.10.7)"),
    "gather_batch": Sourced(510, f"{_TLB_H}:MAX_GATHER_BATCH (v5.10.7)"),
    "gather_batch_count": Sourced(19, f"{_TLB_H}:MAX_GATHER_BATCH_COUNT (v5.10.7)"),
    "gather_batches_folios": Sourced(False, "mm/mmu_gather.c:__tlb_remove_page_size (v5.10.7): until v6.8"),
    "mm_cpumask_rule": Sourced("eager", f"{_TLB_C}:switch_mm_irqs_off (v5.10.7): until v6.13"),
    "should_flush_tlb": Sourced("is_lazy", f"{_TLB_C}:tlb_is_not_lazy (v5.10.7): until v6.13"),
    "trim_cpumask_interval_ns": Sourced(0, f"{_TLB_C}:switch_mm_irqs_off (v5.10.7): no bit is left to trim"),
    "flush_skips_old_gen": Sourced(False, f"{_TLB_C}:flush_tlb_func_common (v5.10.7)"),
    "flush_tlb_range_freed_tables": Sourced(False, "arch/x86/include/asm/tlbflush.h:flush_tlb_range (v5.10.7)"),
    "local_flush_first": Sourced(True, f"{_TLB_C}:flush_tlb_mm_range (v5.10.7): until v5.12"),
    "batched_pending": Sourced("flag", f"{_MM_TYPES}:tlb_flush_batched (v5.10.7): a bool until v5.16"),
    "pending_tracking": Sourced("mm", f"{_MM_TYPES}:tlb_flush_pending (v5.10.7)"),
    "fault_around_pages": Sourced(16, "mm/memory.c:fault_around_bytes (v5.10.7)"),
    "swap_cluster_max": Sourced(32, "include/linux/swap.h:SWAP_CLUSTER_MAX (v5.10.7)"),
    "cow_reuse": Sourced("page_count", "mm/memory.c:do_wp_page (v5.10.7)"),
    "read_fault_keeps_dirty": Sourced(False, "mm/memory.c:alloc_set_pte (v5.10.7): until v6.15"),
    "lru_add_batch": Sourced(15, "include/linux/pagevec.h:PAGEVEC_SIZE (v5.10.7): until v6.8"),
    "unmapping_drains_lru": Sourced(
        True,
        "mm/mmap.c:unmap_region (v5.10.7); mm/memory.c:zap_page_range (v5.10.7);"
        " mm/swap_state.c:free_pages_and_swap_cache (v5.10.7)",
    ),
    "swap_in_mkwrite": Sourced("write_fault", "mm/memory.c:do_swap_page (v5.10.7)"),
    "mprotect_unaccounts": Sourced(False, "mm/mprotect.c:mprotect_fixup (v5.10.7): until v6.6"),
    "split_maps_zero_pages": Sourced(False, "mm/huge_memory.c:remap_page (v5.10.7): until v6.11"),
    "anon_vma_merges_either_way": Sourced(False, "mm/mmap.c:is_mergeable_anon_vma (v5.10.7): until v6.15"),
    "pmd_move": Sourced(True, "mm/mremap.c:move_normal_pmd (v5.10.7)"),
    "pud_move": Sourced(False, "mm/mremap.c:move_page_tables (v5.10.7): until v5.10"),
    "thp": Sourced("madvise", "mm/huge_memory.c:transparent_hugepage_flags (v5.10.7): as the build chose"),
}

LAZY_MMU = Switch(
    "lazy_mmu",
    "what the architecture batches in lazy-MMU sections",
    {
        "native": "include/linux/pgtable.h:arch_enter_lazy_mmu_mode (v6.18.2): empty",
        "sparc64": "arch/sparc/include/asm/tlbflush_64.h:TLB_BATCH_NR (v6.18.2)",
        "powerpc-hash": "arch/powerpc/include/asm/book3s/64/tlbflush-hash.h:PPC64_TLB_BATCH_NR (v6.18.2)",
        "xen-pv": "arch/x86/xen/multicalls.c:MC_BATCH (v6.18.2)",
    },
)

#: Where the masks of the architectures whose hardware has no page tables to walk keep their bits.
_KEEPS_BITS = {
    "sparc64": "arch/sparc/include/asm/mmu_context_64.h:switch_mm (v6.18.2)",
    "powerpc-hash": "arch/powerpc/mm/mmu_context.c:switch_mm_irqs_off (v6.18.2)",
}

#: Where the program of each operation stands.
PROGRAMS: dict[str, str] = {
    "mmap": "mm/mmap.c:mmap_region (v5.10.7)",
    "munmap": "mm/mmap.c:__do_munmap (v5.10.7); mm/memory.c:zap_pte_range (v5.10.7)",
    "mprotect": "mm/mprotect.c:change_protection_range (v5.10.7): until v5.18",
    "mremap": "mm/mremap.c:move_ptes (v5.10.7); commit eb66ae030829 (v4.19)",
    "madvise_dontneed": "mm/madvise.c:madvise_dontneed_single_vma (v5.10.7)",
    "madvise_free": "mm/madvise.c:madvise_free_pte_range (v5.10.7)",
    "madvise_cold": "mm/madvise.c:madvise_cold_or_pageout_pte_range (v5.10.7)",
    "madvise_pageout": "mm/madvise.c:madvise_cold_or_pageout_pte_range (v5.10.7); mm/vmscan.c:reclaim_pages (v5.10.7)",
    "clear_refs_soft_dirty": "fs/proc/task_mmu.c:clear_refs_write (v5.10.7): until v5.10",
    "fork": "kernel/fork.c:dup_mmap (v5.10.7); mm/memory.c:copy_page_range (v5.10.7)",
    "exit_mmap": "mm/mmap.c:exit_mmap (v5.10.7)",
    "fault": "mm/memory.c:do_wp_page (v5.10.7); mm/memory.c:wp_page_copy (v5.10.7)",
    "page_mkclean": "mm/rmap.c:page_mkclean_one (v5.10.7)",
    "shrink_folio_list": "mm/vmscan.c:shrink_page_list (v5.10.7); mm/rmap.c:try_to_unmap_one (v5.10.7)",
    "migrate_pages": "mm/rmap.c:try_to_unmap_one (v5.10.7): page by page until v6.2",
    "change_prot_numa": "mm/mempolicy.c:change_prot_numa (v5.10.7): until v5.18",
    "unmap_mapping_range": "mm/memory.c:unmap_mapping_range (v5.10.7)",
    "wp_shared_mapping_range": "mm/mapping_dirty_helpers.c:wp_shared_mapping_range (v5.10.7)",
    "collapse_huge_page": "mm/khugepaged.c:collapse_huge_page (v5.10.7)",
    "ksm_merge": "mm/ksm.c:write_protect_page (v5.10.7); mm/ksm.c:replace_page (v5.10.7)",
}


def lazy_mmu_constants(arch: str) -> dict[str, Sourced]:
    """What the switch `lazy_mmu` says of the constants."""
    constants = LazyMmu(arch).constants()
    source = LAZY_MMU.sources[arch]
    return {
        name: Sourced(value, _KEEPS_BITS.get(arch, source) if "cpumask" in name else source)
        for name, value in constants.items()
    }


def legacy_schemes() -> dict[str, Scheme]:
    """The schemes of 5.10, by operation."""
    gather = MmuGather(
        delay_rmap=False, huge_mkwrite=False, clean_mkwrite=False, madvise_per_vma=True, ages_lru_only=False
    )
    pending = TlbFlushPending()
    deferred = DeferredUnmap(
        batch_migration=False, madvise_per_vma=True, pageout_clears_young=True, ages_lru_only=False
    )
    at_once = Synchronous(
        collapse_syncs_walkers=False,
        retracts_under_mmap_lock=True,
        ksm_flushes_exclusive=False,
        replaces_huge_zero_page=False,
    )
    return {
        "mmap": gather,
        "munmap": gather,
        "mprotect": pending,
        "mremap": PerTable(unmapping=gather, rmap_locked_move=False, rechecks_pmd=False),
        "madvise_dontneed": gather,
        "madvise_free": gather,
        "madvise_cold": gather,
        "madvise_pageout": deferred,
        "clear_refs_soft_dirty": ForgetfulGather(
            delay_rmap=False, huge_mkwrite=False, clean_mkwrite=False, madvise_per_vma=True
        ),
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
        "ksm_merge": at_once,
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 5.10 on the chosen architecture's lazy-MMU mode."""
    return Kernel.with_sources(
        name="linux-5.10",
        title="Linux 5.10: five schemes",
        source="v5.10.7",
        constants=CONSTANTS | lazy_mmu_constants(switches["lazy_mmu"]),
        schemes=legacy_schemes(),
        programs=PROGRAMS,
        switches=switches,
    )


FAMILY = KernelFamily("linux-5.10", "Linux 5.10: five schemes", build, (LAZY_MMU,))
