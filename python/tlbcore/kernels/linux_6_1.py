"""Linux 6.1 (long-term series, as of 6.1.192): mprotect uses mmu_gather, reclaim counts what it left unflushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Constant, Kernel, KernelFamily
from tlbcore.kernels import linux_5_10
from tlbcore.kernels.linux_5_10 import LAZY_MMU
from tlbcore.schemes.deferred_unmap import DeferredUnmap
from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

#: What differs from 5.10, and since when.
CONSTANTS: dict[str, Constant] = linux_5_10.CONSTANTS | {
    "flush_skips_old_gen": True,  # aa44284960d5 and 8f1d56f64f8d, in v6.0
    "flush_tlb_range_freed_tables": True,  # 3ef938c35035, in v6.14, as in the 6.1 series (seen in recordings of it)
    "local_flush_first": False,  # 4ce94eabac16, in v5.13
    "batched_pending": "counter",  # 5ee2fa2f0636, in v5.17
    "pud_move": True,  # c49dd3401802, in v5.11
}


def schemes() -> dict[str, Scheme]:
    """The schemes of 6.1, by operation."""
    gather = MmuGather(delay_rmap=False, huge_mkwrite=False, madvise_per_vma=True)
    pending = TlbFlushPending()
    deferred = DeferredUnmap(batch_migration=False, madvise_per_vma=True, pageout_clears_young=True)
    return linux_5_10.legacy_schemes() | {
        "mprotect": gather,  # 4a18419f71cd, in v5.19
        "change_prot_numa": gather,
        "clear_refs_soft_dirty": pending,  # 912efa17e512, in v5.11
        "mremap": PerTable(unmapping=gather),
        "shrink_folio_list": deferred,
        "madvise_pageout": deferred,
    }


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 6.1."""
    return Kernel(
        name="linux-6.1",
        title="Linux 6.1: mprotect with mmu_gather",
        source="v6.1.192",
        constants=CONSTANTS | LazyMmu(switches["lazy_mmu"]).constants(),
        schemes=schemes(),
        switches=dict(switches),
    )


FAMILY = KernelFamily("linux-6.1", "Linux 6.1: mprotect with mmu_gather", build, (LAZY_MMU,))
