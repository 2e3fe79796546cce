"""Linux 6.18: mm_cpumask is cleared lazily, rmaps of dirty pages are delayed, migration batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily, Sourced
from tlbcore.kernels import linux_6_1
from tlbcore.kernels.linux_5_10 import LAZY_MMU, lazy_mmu_constants
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

_TLB_C = "arch/x86/mm/tlb.c"
_TLB_H = "include/asm-generic/tlb.h"

#: The constants of 6.1: where those that stay stand now, and what differs.
CONSTANTS: dict[str, Sourced] = linux_6_1.CONSTANTS | {
    "tlb_single_page_flush_ceiling": Sourced(33, f"{_TLB_C}:tlb_single_page_flush_ceiling (v6.18.2)"),
    "tlb_nr_dyn_asids": Sourced(6, "arch/x86/include/asm/tlbflush.h:TLB_NR_DYN_ASIDS (v6.18.2)"),
    "gather_bundle": Sourced(8, f"{_TLB_H}:MMU_GATHER_BUNDLE (v6.18.2)"),
    "gather_batch": Sourced(510, f"{_TLB_H}:MAX_GATHER_BATCH (v6.18.2)"),
    "gather_batch_count": Sourced(19, f"{_TLB_H}:MAX_GATHER_BATCH_COUNT (v6.18.2)"),
    "gather_batches_folios": Sourced(True, "mm/mmu_gather.c:__tlb_remove_folio_pages_size (v6.18.2)"),
    "mm_cpumask_rule": Sourced("lazy", "commit 209954cbc7d0 (v6.14)"),
    "should_flush_tlb": Sourced("loaded_mm", f"commit 6db2526c1d69 (v6.14); {_TLB_C}:should_flush_tlb (v6.18.2)"),
    "trim_cpumask_interval_ns": Sourced(
        1_000_000_000, f"commit 6db2526c1d69 (v6.14); {_TLB_C}:should_trim_cpumask (v6.18.2): HZ jiffies"
    ),
    "flush_tlb_range_freed_tables": Sourced(True, "commit 3ef938c35035 (v6.14)"),
    "batched_pending": Sourced("counter", "commit 5ee2fa2f0636 (v5.17); mm/rmap.c:flush_tlb_batched_pending (v6.18.2)"),
    "pending_tracking": Sourced("mm", "include/linux/mm_types.h:tlb_flush_pending (v6.18.2)"),
    "fault_around_pages": Sourced(16, "mm/memory.c:fault_around_pages (v6.18.2)"),
    "swap_cluster_max": Sourced(32, "include/linux/swap.h:SWAP_CLUSTER_MAX (v6.18.2)"),
    "cow_reuse": Sourced("exclusive", "mm/memory.c:wp_can_reuse_anon_folio (v6.18.2)"),
    "read_fault_keeps_dirty": Sourced(True, "commit 4e92030c05dc (v6.16)"),
    "lru_add_batch": Sourced(31, "commit 9cecde80aae0 (v6.9)"),
    "unmapping_drains_lru": Sourced(
        False,
        "mm/vma.c:vms_clear_ptes (v6.18.2): none since v6.14; mm/swap_state.c:free_pages_and_swap_cache (v6.18.2)",
    ),
    "swap_in_mkwrite": Sourced("exclusive", "mm/memory.c:do_swap_page (v6.18.2)"),
    "mprotect_unaccounts": Sourced(True, "mm/mprotect.c:mprotect_fixup (v6.18.2)"),
    "split_maps_zero_pages": Sourced(
        True, "commit b1f202060afe (v6.12); mm/migrate.c:try_to_map_unused_to_zeropage (v6.18.2)"
    ),
    "anon_vma_merges_either_way": Sourced(
        True, "commit 879bca0a2c4f (v6.16); mm/vma.c:is_mergeable_anon_vma (v6.18.2)"
    ),
    "pmd_move": Sourced(True, "mm/mremap.c:move_normal_pmd (v6.18.2)"),
    "thp": Sourced("madvise", "mm/huge_memory.c:transparent_hugepage_flags (v6.18.2): as the build chose"),
}

#: Where the program of each operation stands.
PROGRAMS: dict[str, str] = {
    "mmap": "mm/vma.c:mmap_region (v6.18.2); mm/vma.c:vms_clear_ptes (v6.18.2)",
    "munmap": "mm/vma.c:vms_complete_munmap_vmas (v6.18.2); mm/memory.c:zap_pte_range (v6.18.2)",
    "mprotect": "mm/mprotect.c:change_pte_range (v6.18.2); commit 4a18419f71cd (v5.19); commit c9fe66560bf2 (v5.19)",
    "mremap": "mm/mremap.c:move_ptes (v6.18.2); commit eb66ae030829 (v4.19)",
    "madvise_dontneed": "mm/memory.c:zap_page_range_single_batched (v6.18.2)",
    "madvise_free": "mm/madvise.c:madvise_free_pte_range (v6.18.2)",
    "madvise_cold": "mm/madvise.c:madvise_cold_or_pageout_pte_range (v6.18.2)",
    "madvise_pageout": "mm/madvise.c:madvise_cold_or_pageout_pte_range (v6.18.2); mm/vmscan.c:reclaim_pages (v6.18.2)",
    "clear_refs_soft_dirty": "fs/proc/task_mmu.c:clear_refs_write (v6.18.2); commit 912efa17e512 (v5.11)",
    "fork": "mm/mmap.c:dup_mmap (v6.18.2); mm/memory.c:copy_pte_range (v6.18.2)",
    "exit_mmap": "mm/mmap.c:exit_mmap (v6.18.2)",
    "fault": "mm/memory.c:handle_pte_fault (v6.18.2); mm/memory.c:wp_page_copy (v6.18.2); commit 1ced09e0331f (v6.13)",
    "page_mkclean": "mm/rmap.c:page_vma_mkclean_one (v6.18.2)",
    "shrink_folio_list": "mm/vmscan.c:shrink_folio_list (v6.18.2); mm/rmap.c:try_to_unmap_one (v6.18.2)",
    "migrate_pages": "commit 7e12beb8ca2a (v6.3); mm/migrate.c:migrate_pages_batch (v6.18.2)",
    "change_prot_numa": "mm/mempolicy.c:change_prot_numa (v6.18.2); commit 4a18419f71cd (v5.19)",
    "unmap_mapping_range": "mm/memory.c:unmap_mapping_range (v6.18.2)",
    "wp_shared_mapping_range": "mm/mapping_dirty_helpers.c:wp_shared_mapping_range (v6.18.2)",
    "collapse_huge_page": "mm/khugepaged.c:collapse_huge_page (v6.18.2)",
    "ksm_merge": "mm/ksm.c:write_protect_page (v6.18.2); mm/ksm.c:replace_page (v6.18.2)",
}


def schemes() -> dict[str, Scheme]:
    """The schemes of 6.18, by operation."""
    gather = MmuGather(dontneed_frees_tables=True)
    return linux_6_1.schemes() | {
        **dict.fromkeys(
            (
                "mmap",
                "munmap",
                "mprotect",
                "madvise_dontneed",
                "madvise_free",
                "exit_mmap",
                "change_prot_numa",
                "unmap_mapping_range",
            ),
            gather,
        ),
        "madvise_cold": MmuGather(madvise_per_vma=True),
        "fault": Synchronous(),
        "collapse_huge_page": Synchronous(),
        "ksm_merge": Synchronous(),
        "mremap": PerTable(unmapping=gather),
        **dict.fromkeys(
            ("shrink_folio_list", "madvise_pageout", "migrate_pages"),
            DeferredUnmap(madvise_per_vma=True, unmap_flushes_range=True),
        ),
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 6.18."""
    return Kernel.with_sources(
        name="linux-6.18",
        title="Linux 6.18: lazily cleared mm_cpumask",
        source="v6.18.2",
        constants=CONSTANTS | lazy_mmu_constants(switches["lazy_mmu"]),
        schemes=schemes(),
        programs=PROGRAMS,
        switches=switches,
    )


FAMILY = KernelFamily("linux-6.18", "Linux 6.18: lazily cleared mm_cpumask", build, (LAZY_MMU,))
