"""Linux 6.1 (long-term series, as of 6.1.192): mprotect uses mmu_gather, reclaim counts what it left unflushed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily, Sourced
from tlbcore.kernels import linux_5_10
from tlbcore.kernels.linux_5_10 import LAZY_MMU, lazy_mmu_constants
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.synchronous import Synchronous
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

_LAB_SAW = {
    "tlb_single_page_flush_ceiling": 1,
    "gather_bundle": 2,
    "gather_batch": 2,
    "gather_batch_count": 2,
    "mm_cpumask_rule": 11,
    "should_flush_tlb": 11,
    "pending_tracking": 9,
    "swap_cluster_max": 10,
    "pmd_move": 7,
}

#: The constants of 5.10 that stay, with the rules of the lab that show them in 6.1; then what differs, and since when.
CONSTANTS: dict[str, Sourced] = {
    **linux_5_10.CONSTANTS,
    **{
        name: replace(
            linux_5_10.CONSTANTS[name], source=f"{linux_5_10.CONSTANTS[name].source}; kernel lab, rule {rule}"
        )
        for name, rule in _LAB_SAW.items()
    },
    "flush_skips_old_gen": Sourced(True, "commit aa44284960d5 (v6.0); commit 8f1d56f64f8d (v6.0)"),
    "flush_tlb_range_freed_tables": Sourced(
        True, "commit 3ef938c35035 (v6.14): and in the 6.1 series; kernel lab, rule 7"
    ),
    "local_flush_first": Sourced(False, "commit 4ce94eabac16 (v5.13)"),
    "cow_reuse": Sourced("exclusive", "commit 6c287605fd56 (v5.19); kernel lab, rule 8"),
    "batched_pending": Sourced("counter", "commit 5ee2fa2f0636 (v5.17); kernel lab, rule 10"),
    "pud_move": Sourced(True, "commit c49dd3401802 (v5.11)"),
}

#: Where the program of each operation stands: what 6.1 has from 5.10, what came since, and what the lab saw of it.
PROGRAMS: dict[str, str] = {
    **linux_5_10.PROGRAMS,
    "mmap": f"{linux_5_10.PROGRAMS['mmap']}; kernel lab, rule 2",
    "munmap": f"{linux_5_10.PROGRAMS['munmap']}; kernel lab, rule 2; kernel lab, rule 3; kernel lab, rule 4",
    "mprotect": "commit 4a18419f71cd (v5.19); commit c9fe66560bf2 (v5.19); kernel lab, rule 5",
    "mremap": f"{linux_5_10.PROGRAMS['mremap']}; kernel lab, rule 7",
    "madvise_dontneed": f"{linux_5_10.PROGRAMS['madvise_dontneed']}; kernel lab, rule 6",
    "madvise_free": f"{linux_5_10.PROGRAMS['madvise_free']}; kernel lab, rule 6",
    "madvise_cold": f"{linux_5_10.PROGRAMS['madvise_cold']}; kernel lab, rule 6",
    "madvise_pageout": f"{linux_5_10.PROGRAMS['madvise_pageout']}; kernel lab, rule 10",
    "clear_refs_soft_dirty": "commit 912efa17e512 (v5.11); kernel lab, rule 8",
    "fork": f"{linux_5_10.PROGRAMS['fork']}; kernel lab, rule 8",
    "exit_mmap": f"{linux_5_10.PROGRAMS['exit_mmap']}; kernel lab, rule 13",
    "fault": f"{linux_5_10.PROGRAMS['fault']}; kernel lab, rule 8",
    "page_mkclean": f"{linux_5_10.PROGRAMS['page_mkclean']}; kernel lab, rule 8",
    "shrink_folio_list": f"{linux_5_10.PROGRAMS['shrink_folio_list']}; kernel lab, rule 10",
    "change_prot_numa": "commit 4a18419f71cd (v5.19)",
    "collapse_huge_page": f"{linux_5_10.PROGRAMS['collapse_huge_page']}; kernel lab, rule 12",
}


def schemes() -> dict[str, Scheme]:
    """The schemes of 6.1, by operation."""
    gather = MmuGather(delay_rmap=False, huge_mkwrite=False, clean_mkwrite=False, madvise_per_vma=True)
    pending = TlbFlushPending()
    deferred = DeferredUnmap(batch_migration=False, madvise_per_vma=True, pageout_clears_young=True)
    legacy = {
        name: gather if type(scheme) is MmuGather else scheme for name, scheme in linux_5_10.legacy_schemes().items()
    }
    return legacy | {
        "mprotect": gather,
        "change_prot_numa": gather,
        "clear_refs_soft_dirty": pending,
        "collapse_huge_page": Synchronous(retracts_under_mmap_lock=True, replaces_huge_zero_page=False),
        "ksm_merge": Synchronous(retracts_under_mmap_lock=True, replaces_huge_zero_page=False),
        "mremap": PerTable(unmapping=gather, rechecks_pmd=False),
        "shrink_folio_list": deferred,
        "madvise_pageout": deferred,
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 6.1."""
    return Kernel.with_sources(
        name="linux-6.1",
        title="Linux 6.1: mprotect with mmu_gather",
        source="v6.1.192",
        constants=CONSTANTS | lazy_mmu_constants(switches["lazy_mmu"]),
        schemes=schemes(),
        programs=PROGRAMS,
        switches=switches,
    )


FAMILY = KernelFamily("linux-6.1", "Linux 6.1: mprotect with mmu_gather", build, (LAZY_MMU,))
