"""The scheme of the tutorial (docs/tutorial.md): mremap with one flush for the whole move, in three attempts."""

from tlbcore import kernels
from tlbcore.schemes import LazyMmu, PerTable
from tlbcore.steps import *


class OneFlush(PerTable):
    """Move all tables, then flush once."""

    def begin(self):
        """What is done before the first table."""
        return []

    def moved(self):
        """What is done about an entry that moves, under the locks of its table."""
        return []

    def before_unlock(self):
        """What is done before these locks are dropped."""
        return []

    def end(self):
        """What is done after the last table."""
        return [flush_tlb_mm()]

    def _move(self) -> Block:
        both_pml = [pmd_lock(), lock("new_pml")]
        drop_both_pml = [unlock("new_pml"), pmd_unlock()]
        entry = [ptep_get_and_clear(), when(present, self.moved()), set_pte_at_new()]
        return [
            copy_vma(),
            select_range("old"),
            self.begin(),
            for_each_extent(
                pte_offset_map_lock(),
                lock("new_ptl"),
                flush_tlb_batched_pending(),
                LazyMmu.section(for_each_pte(entry, filter="not_none")),
                self.before_unlock(),
                unlock("new_ptl"),
                pte_unmap_unlock(),
                on_pmd=[both_pml, move_normal_pmd(), flush_tlb_range("extent"), drop_both_pml],
                on_huge_pmd=[both_pml, move_huge_pmd(), flush_tlb_range("pmd"), drop_both_pml],
            ),
            self.end(),
            when(copies_dontunmap, vma_dontunmap(), otherwise=[self.unmapping.unmap("old")]),
        ]


class MoveGather(OneFlush):
    """Collect what moves in a gather: a gather that frees pages meanwhile sees this one and flushes everything first."""

    def begin(self):
        return [tlb_gather_mmu(light=True)]

    def moved(self):
        return [tlb_remove_tlb_entry()]

    def end(self):
        return [tlb_finish_mmu()]


class CarefulMove(MoveGather):
    """As MoveGather, but a table with a dirty page of a file is flushed before page_mkclean can come to its entry."""

    def moved(self):
        return [when(dirty & file_backed, set_force_flush()), tlb_remove_tlb_entry()]

    def before_unlock(self):
        return [when(force_flush, tlb_flush_mmu_tlbonly())]


BASE = kernels.get("linux-6.18")
ONE_FLUSH = BASE.derive("one-flush", mremap=OneFlush())
MOVE_GATHER = BASE.derive("move-gather", mremap=MoveGather())
CAREFUL = BASE.derive("careful", mremap=CarefulMove())
