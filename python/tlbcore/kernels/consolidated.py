"""The consolidated kernel: Linux 5.10 with the changes of the 2021 series, each a switch of its own.

With all switches off it is linux-5.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.kernel import Kernel, KernelFamily, Switch
from tlbcore.kernels import linux_5_10
from tlbcore.schemes.consolidated import Consolidated
from tlbcore.schemes.per_table import PerTable
from tlbcore.schemes.tlb_flush_pending import TlbFlushPending
from tlbcore.steps import pte_demoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.scheme import Scheme

SWITCHES = (
    Switch("mprotect_gather", "patch 02: mprotect and NUMA hints use mmu_gather"),
    Switch("skip_unless_demoted", "patch 03: no flush when an entry loses no right"),
    Switch("dirty_helpers_gather", "patch 04: mapping_dirty_helpers uses mmu_gather"),
    Switch("clear_refs_gather", "patch 06: clear_refs records what it changes in its mmu_gather"),
    Switch(
        "pending",
        "patches 08, 15, 16: outstanding flushes known by generations per table, VMA or mm, else by a count",
        ("table", "vma", "mm", "off"),
    ),
    Switch("reclaim_cpumask", "patch 20: reclaim notes in a cpumask who has flushes outstanding"),
    Switch("light_gather", "review: operations that free no pages use a gather without a page list"),
)

#: The switch `pending` as the constant `pending_tracking`.
PENDING = {"table": "table", "vma": "vma", "mm": "mm_gen", "off": "mm"}


def build(switches: Mapping[str, str]) -> Kernel:
    """Linux 5.10 with the chosen changes."""
    on = {name for name, value in switches.items() if value == "on"}
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
    schemes["mremap"] = PerTable(unmapping=gather)
    schemes |= dict.fromkeys(("mprotect", "change_prot_numa"), gather if "mprotect_gather" in on else pending)
    schemes["wp_shared_mapping_range"] = gather if "dirty_helpers_gather" in on else pending
    if "clear_refs_gather" in on:
        schemes["clear_refs_soft_dirty"] = gather
    return Kernel(
        name="consolidated",
        title="Linux 5.10 with the series of January 2021",
        source="RFC 00/20, 30 January 2021",
        constants=linux_5_10.CONSTANTS
        | {
            "pending_tracking": tracking,
            "batched_pending": "cpumask" if "reclaim_cpumask" in on else "flag",
        },
        schemes=schemes,
        switches=dict(switches),
    )


FAMILY = KernelFamily("consolidated", "Linux 5.10 with the series of January 2021", build, SWITCHES)
