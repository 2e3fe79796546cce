"""The scheme that the 2021 series "TLB batching consolidation and enhancements" (Nadav Amit) proposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    Condition,
    Step,
    check_deferred_flush,
    flush_tlb_batched_pending,
    mark_tlb_gen_done,
    note_deferred_flush,
    present,
    pte_demoted,
    pte_offset_map_lock,
    tlb_finish_mmu,
    tlb_gather_mmu,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Consolidated(MmuGather):
    """One gather for all that changes entries, which knows when a flush is not needed and who has one outstanding.

    Each field is one change of the series, so that each can be measured and checked alone.
    """

    #: Patch 03: no flush when a change takes no right away.
    skip_unless_demoted: bool = True
    #: Patches 15 and 16: others look at a generation (of the mm, the VMA or the page table), not at a count of the mm.
    pending: str = "table"
    #: Piggin's wish: operations that free nothing do with a gather without a page list.
    light_gather: bool = True
    delay_rmap: bool = False
    huge_mkwrite: bool = False
    madvise_per_vma: bool = True
    ages_lru_only: bool = False
    sources: ClassVar[Mapping[str, str]] = {
        **MmuGather.sources,
        "skip_unless_demoted": "mm/mprotect.c:change_pte_range (RFC 03/20)",
        "pending": "include/linux/mm_types.h (RFC 16/20); include/linux/mm_types.h:defer_tlb_gen (RFC 15/20)",
        "light_gather": "include/asm-generic/tlb.h:mmu_gather (RFC 00/20): N. Piggin's answer of 31 January 2021",
    }
    where: ClassVar[str] = "RFC of 30 January 2021, on v5.11-rc"

    @property
    def tracks_generations(self) -> bool:
        """Whether outstanding flushes are known by generations."""
        return self.pending != "mm"

    def open_gather(self, *, frees_pages: bool = True, fullmm: bool = False) -> Block:
        """Open the gather, light if nothing is to be freed."""
        return [tlb_gather_mmu(fullmm=fullmm, light=self.light_gather and not frees_pages)]

    def close_gather(self) -> Block:
        """Flush and free; what was outstanding is done."""
        return [tlb_finish_mmu(), [mark_tlb_gen_done()] if self.tracks_generations else []]

    def lock_table(self) -> Block:
        """Lock the table; take over what others have outstanding in it (`tlb_start_ptes()`, patch 13)."""
        check = [check_deferred_flush()] if self.tracks_generations else []
        return [pte_offset_map_lock(), flush_tlb_batched_pending(), check]

    def record(self, step: Step) -> Block:
        """Record an entry, and that its flush is outstanding."""
        return [step, [note_deferred_flush()] if self.tracks_generations else []]

    @property
    def needs_flush(self) -> Condition:
        """Only demotions (patch 03), or every present entry as before it."""
        return pte_demoted if self.skip_unless_demoted else present
