"""A scheme of one's own: flush before each page-table lock is dropped, so that no page is freed later than that."""

from tlbcore import kernels, machines, recordings
from tlbcore.compare import compare
from tlbcore.schemes import MmuGather
from tlbcore.steps import *


class FlushPerTable(MmuGather):
    """Flush each page table's entries under its lock, then free their pages."""

    def zap(self):
        delayed = set_delay_rmap() if self.delay_rmap else []  # page_mkclean must find the page until it is flushed
        entry = when(
            present,
            ptep_get_and_clear(),
            when(dirty & file_backed, set_page_dirty(), delayed),
            tlb_remove_tlb_entry(),
            page_remove_rmap(),
            tlb_remove_page(),
            otherwise=[pte_clear()],
        )
        flush = [tlb_flush_mmu_tlbonly(), tlb_flush_rmaps()]
        table = [pte_offset_map_lock(), for_each_pte(entry, filter="not_none"), flush]
        huge = [pmd_lock(), split_huge_pmd(), pmd_unlock()]
        return [for_each_table(table, pte_unmap_unlock(), tlb_flush_mmu(), on_huge_pmd=huge)]


LINUX, SCHEME, FIRST = kernels.get("linux-6.18"), FlushPerTable(), FlushPerTable(delay_rmap=False)
KERNEL = LINUX.derive("per-table", munmap=SCHEME, madvise_dontneed=SCHEME)
DRAFT = LINUX.derive("draft", munmap=FIRST, madvise_dontneed=FIRST)

if __name__ == "__main__":
    recording = recordings.load("data/recordings/gcc.perf.txt.zst")
    for replay in compare(recording, ["linux-6.18", KERNEL], machines.get("default").config()).replays:
        flushes = replay.by_operation["munmap"]["nr_flush_requests"]
        print(f"{replay.kernel.name:12}{flushes:6} flushes by munmap,{replay.counters['nr_ipis']:6} IPIs in all")
