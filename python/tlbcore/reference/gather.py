"""`mmu_gather` (include/asm-generic/tlb.h): what was cleared, and the pages and tables that wait for the flush."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlbcore.reference.config import ALL, PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PUD_SHIFT, Constants

if TYPE_CHECKING:
    from tlbcore.reference.pages import Mapping, Page

P4D_SHIFT = 39


@dataclass
class MmuGather:
    """One gather. `start` > `end` while nothing was recorded."""

    fullmm: bool
    light: bool
    start: int = ALL
    end: int = 0
    freed_tables: bool = False
    need_flush_all: bool = False
    cleared_ptes: bool = False
    cleared_pmds: bool = False
    cleared_puds: bool = False
    cleared_p4ds: bool = False
    pages: list[Page] = field(default_factory=list)
    nr_tables: int = 0
    delayed_rmaps: list[tuple[Page, Mapping]] = field(default_factory=list)
    #: Places taken in the bundle (0) or batch that is filled, and which that is.
    nr_taken: int = 0
    nr_batch: int = 0
    #: Pages of a huge page that follow in a run whose places are taken, and whether those were the last.
    run_left: int = 0
    is_run_last: bool = False
    #: Whether a delayed rmap may wait: then a new batch is not begun once the bundle is left.
    delayed_rmap: bool = False

    def reset_range(self) -> None:
        """`__tlb_reset_range()`."""
        self.start, self.end = ALL, 0
        self.freed_tables = self.need_flush_all = False
        self.cleared_ptes = self.cleared_pmds = self.cleared_puds = self.cleared_p4ds = False

    def take_in(self, start: int, end: int) -> None:
        """`__tlb_adjust_range()`."""
        self.start, self.end = min(self.start, start), max(self.end, end)

    def record_pte(self, addr: int) -> None:
        """`tlb_remove_tlb_entry()`."""
        self.take_in(addr, addr + PAGE_SIZE)
        self.cleared_ptes = True

    def record_pmd(self, addr: int) -> None:
        """`tlb_remove_pmd_tlb_entry()`."""
        start = addr & ~((1 << PMD_SHIFT) - 1)
        self.take_in(start, start + (1 << PMD_SHIFT))
        self.cleared_pmds = True

    def record_pud(self, addr: int) -> None:
        """`tlb_flush_pmd_range()` of all that an entry above a PMD table maps."""
        start = addr & ~((1 << PUD_SHIFT) - 1)
        self.take_in(start, start + (1 << PUD_SHIFT))
        self.cleared_puds = True

    def free_table(self, level: int, addr: int) -> None:
        """`pte_free_tlb()` and its like: the entry one level up is gone; level 3 has no flag of its own."""
        self.take_in(addr, addr + PAGE_SIZE)
        self.freed_tables = True
        self.cleared_pmds |= level == 0
        self.cleared_puds |= level == 1
        self.cleared_p4ds |= level == 2

    @property
    def has_work(self) -> bool:
        """Whether `tlb_flush_mmu_tlbonly()` does anything."""
        return self.freed_tables or self.cleared_ptes or self.cleared_pmds or self.cleared_puds or self.cleared_p4ds

    @property
    def stride_shift(self) -> int:
        """`tlb_get_unmap_shift()`."""
        for cleared, shift in (
            (self.cleared_ptes, PAGE_SHIFT),
            (self.cleared_pmds, PMD_SHIFT),
            (self.cleared_puds, PUD_SHIFT),
            (self.cleared_p4ds, P4D_SHIFT),
        ):
            if cleared:
                return shift
        return PAGE_SHIFT

    def queue(self, page: Page, run: int, constants: Constants) -> bool:
        """Queue a page, the first of so many of a huge page in a row or one of those; whether the last place is taken."""
        self.pages.append(page)
        if self.run_left:
            self.run_left -= 1
        else:
            self.run_left = run - 1
            self.is_run_last = self._takes_last(2 if run > 1 else 1, constants)
        return self.run_left == 0 and self.is_run_last

    def _takes_last(self, places: int, constants: Constants) -> bool:
        """Whether there is no next batch when the current one is full (`tlb_next_batch()`)."""
        spare = int(constants.gather_batches_folios)
        self.nr_taken += places
        if self.nr_taken < (constants.gather_batch if self.nr_batch else constants.gather_bundle) - spare:
            return False
        more = self.nr_batch < constants.gather_batch_count and constants.gather_batch > spare
        if not more or (self.delayed_rmap and self.nr_batch):
            return True
        self.nr_batch, self.nr_taken = self.nr_batch + 1, 0
        return False
