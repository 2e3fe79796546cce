"""The consolidated kernel: Linux 5.10 with the changes of the 2021 series, each a switch of its own.

With all switches off it is linux-5.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily, Sourced, Switch
from tlbcore.kernels import linux_5_10
from tlbcore.schemes.consolidated import Consolidated
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending
from tlbcore.steps import pte_demoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

#: Off: as in 5.10.
_OFF = linux_5_10.PROGRAMS

SWITCHES = (
    Switch(
        "mprotect_gather",
        "patch 02: mprotect and NUMA hints use mmu_gather",
        {"on": "mm/mprotect.c:change_protection (RFC 02/20); commit 4a18419f71cd (v5.19)", "off": _OFF["mprotect"]},
    ),
    Switch(
        "skip_unless_demoted",
        "patch 03: no flush when an entry loses no right",
        {
            "on": "mm/mprotect.c:change_pte_range (RFC 03/20); commit c9fe66560bf2 (v5.19): weaker",
            "off": _OFF["mprotect"],
        },
    ),
    Switch(
        "dirty_helpers_gather",
        "patch 04: mapping_dirty_helpers uses mmu_gather",
        {"on": "mm/mapping_dirty_helpers.c (RFC 04/20)", "off": _OFF["wp_shared_mapping_range"]},
    ),
    Switch(
        "clear_refs_gather",
        "patch 06: clear_refs records what it changes in its mmu_gather",
        {"on": "fs/proc/task_mmu.c:clear_refs_write (RFC 06/20)", "off": _OFF["clear_refs_soft_dirty"]},
    ),
    Switch(
        "pending",
        "patches 08, 15, 16: outstanding flushes known by generations per table, VMA or mm, else by a count",
        {
            "table": "include/linux/mm_types.h (RFC 16/20): a generation in the struct page of the table",
            "vma": "include/linux/mm_types.h:defer_tlb_gen (RFC 15/20)",
            "mm": "include/linux/mm_types.h:tlb_gen_completed (RFC 08/20)",
            "off": linux_5_10.CONSTANTS["pending_tracking"].source,
        },
    ),
    Switch(
        "reclaim_cpumask",
        "patch 20: reclaim notes in a cpumask who has flushes outstanding",
        {
            "on": "mm/rmap.c:tlb_flush_batched_cpumask (RFC 20/20)",
            "off": linux_5_10.CONSTANTS["batched_pending"].source,
        },
    ),
    Switch(
        "light_gather",
        "review: operations that free no pages use a gather without a page list",
        {
            "on": "include/asm-generic/tlb.h:mmu_gather (RFC 00/20): N. Piggin's answer of 31 January 2021",
            "off": "include/asm-generic/tlb.h:mmu_gather (v5.10.7)",
        },
    ),
)

#: The switch `pending` as the constant `pending_tracking`.
PENDING = {"table": "table", "vma": "vma", "mm": "mm_gen", "off": "mm"}


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 5.10 with the chosen changes."""
    on = {name for name, value in switches.items() if value == "on"}
    chosen = {switch.name: switch.sources[switches[switch.name]] for switch in SWITCHES}
    tracking = PENDING[switches["pending"]]
    gather = Consolidated(
        skip_unless_demoted="skip_unless_demoted" in on,
        pending=tracking,
        light_gather="light_gather" in on,
    )
    pending = TlbFlushPending(counts=pte_demoted if gather.skip_unless_demoted else None)
    schemes: dict[str, Scheme] = linux_5_10.legacy_schemes()
    schemes |= dict.fromkeys(
        (
            "mmap",
            "munmap",
            "madvise_dontneed",
            "madvise_free",
            "madvise_cold",
            "exit_mmap",
            "unmap_mapping_range",
        ),
        gather,
    )
    schemes["mremap"] = PerTable(unmapping=gather, rmap_locked_move=False, rechecks_pmd=False)
    schemes |= dict.fromkeys(("mprotect", "change_prot_numa"), gather if "mprotect_gather" in on else pending)
    schemes["wp_shared_mapping_range"] = gather if "dirty_helpers_gather" in on else pending
    if "clear_refs_gather" in on:
        schemes["clear_refs_soft_dirty"] = gather
    return Kernel.with_sources(
        name="consolidated",
        title="Linux 5.10 with the series of January 2021",
        source="v5.10.7 with RFC 00/20 of 30 January 2021",
        constants=linux_5_10.CONSTANTS
        | linux_5_10.lazy_mmu_constants("native")
        | {
            "pending_tracking": Sourced(tracking, chosen["pending"]),
            "batched_pending": Sourced("cpumask" if "reclaim_cpumask" in on else "flag", chosen["reclaim_cpumask"]),
        },
        schemes=schemes,
        programs=linux_5_10.PROGRAMS
        | {
            "mprotect": chosen["mprotect_gather"],
            "wp_shared_mapping_range": chosen["dirty_helpers_gather"],
            "clear_refs_soft_dirty": chosen["clear_refs_gather"],
            "change_prot_numa": chosen["mprotect_gather"] if "mprotect_gather" in on else _OFF["change_prot_numa"],
        },
        switches=switches,
    )


FAMILY = KernelFamily("consolidated", "Linux 5.10 with the series of January 2021", build, SWITCHES)
