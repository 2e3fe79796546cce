"""What the explorer's variables are called in Linux, by their kind in the model (`rust/core/src/explore/model/vars.rs`).

In a text, `{number}` is the first number of the variable, `{page}` and `{cpu}` are the page and the user CPU of that number,
`{mm}` is empty for the address space of the user CPUs, `{elsewhere}` for the CPU where the thread began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BY_ACTIVE_MM", "GROUPS", "HIDDEN", "HIDDEN_LOCALS", "LOCALS", "VARIABLES", "Label"]

GROUPS: Final = ("page table", "TLBs", "CPUs", "locks", "masks and pending flushes", "pages", "threads")
"""Groups of entries, in the order in which they are shown."""
_TABLE, _TLBS, _CPUS, _LOCKS, _MASKS, _PAGES, _THREADS = GROUPS


@dataclass(frozen=True)
class Label:
    """Where a variable is shown, as what, and what kind of value it has (`tlbcore.report.trace.state`)."""

    group: str
    text: str
    value: str = "flag"


VARIABLES: Final[dict[str, Label]] = {
    "Pmd": Label(_TABLE, "PMD entry {number}", "table + 1"),
    "TableFreed": Label(_TABLE, "page table {number}: freed or waiting for RCU"),
    "TableReused": Label(_TABLE, "page table {number}: its page used again"),
    "Shared": Label(_TABLE, "page table {number}: shared by two mms"),
    "Psc": Label(_TLBS, "{cpu} paging-structure cache", "way"),
    "LoadedMm": Label(_CPUS, "{cpu} cpu_tlbstate.loaded_mm", "mm"),
    "Cr3": Label(_CPUS, "{cpu} CR3", "mm"),
    "IsLazy": Label(_CPUS, "{cpu} is_lazy"),
    "CpuGen": Label(_CPUS, "{cpu} ctxs[].tlb_gen of the mm", "count"),
    "Missed": Label(_CPUS, "{cpu} answered an IPI, neither flushed nor noted that it must"),
    "Ptl": Label(_LOCKS, "page-table lock {number}", "lock"),
    "Pml": Label(_LOCKS, "PMD lock {number}", "lock"),
    "FolioLock": Label(_LOCKS, "folio lock of frame {number}", "lock"),
    "MmapReaders": Label(_LOCKS, "mmap_lock{mm}, readers", "lock"),
    "MmapWriter": Label(_LOCKS, "mmap_lock{mm}, writer", "lock"),
    "VmaReaders": Label(_LOCKS, "VMA lock {number}, readers", "lock"),
    "VmaWriter": Label(_LOCKS, "VMA lock {number}, writer", "lock"),
    "RmapReaders": Label(_LOCKS, "rmap lock, readers", "lock"),
    "RmapWriter": Label(_LOCKS, "rmap lock, writer", "lock"),
    "InMask": Label(_MASKS, "mm_cpumask", "CPUs"),
    "BatchedCpu": Label(_MASKS, "tlb_flush_batched_cpumask", "CPUs"),
    "FlushPending": Label(_MASKS, "mm->tlb_flush_pending{mm}", "count"),
    "BatchPending": Label(_MASKS, "mm->tlb_flush_batched{mm}: pending", "count"),
    "BatchFlushed": Label(_MASKS, "mm->tlb_flush_batched{mm}: flushed", "count"),
    "TlbGen": Label(_MASKS, "mm->context.tlb_gen{mm}", "count"),
    "GenCompleted": Label(_MASKS, "generations flushed up to{mm}", "count"),
    "FlushedGen": Label(_MASKS, "latest generation whose flush has returned", "count"),
    "DeferGen": Label(_MASKS, "deferred flush {number}: generation that does it", "count"),
    "PageGen": Label(_MASKS, "generation that covers the last right taken from the PTE of {page}", "generation"),
    "Dirty": Label(_PAGES, "frame {number}: PG_dirty"),
    "Mapcount": Label(_PAGES, "frame {number}: mapcount", "count"),
    "Refs": Label(_PAGES, "frame {number}: references", "count"),
    "Copied": Label(_PAGES, "frame {number}: references of write faults that copy it", "count"),
    "Lazyfree": Label(_PAGES, "frame {number}: taken by MADV_FREE"),
    "Ksm": Label(_PAGES, "frame {number}: made a KSM page"),
    "NotExclusive": Label(_PAGES, "frame {number}: no longer anon-exclusive"),
    "Cached": Label(_PAGES, "frame {number}: in the page cache or swap cache"),
    "Lru": Label(_PAGES, "frame {number}: on the LRU list"),
    "Newer": Label(_PAGES, "frame {number}: data newer than storage"),
    "Late": Label(_PAGES, "frame {number}: stored to while it was copied"),
    "Kept": Label(_PAGES, "frame {number}: stores from now on must survive"),
    "Freer": Label(_PAGES, "frame {number}: given up by", "thread + 1"),
    "VmaGone": Label(_PAGES, "VMA of {page}: out of the tree"),
    "VmaWrite": Label(_PAGES, "VMA of {page}: VM_WRITE"),
    "VmaNone": Label(_PAGES, "VMA of {page}: PROT_NONE"),
    "Unlinked": Label(_PAGES, "VMA of {page}: out of the reverse map"),
}
"""Those that belong to no thread."""

BY_ACTIVE_MM: Final[dict[str, Label]] = {
    "LoadedMm": Label(_CPUS, "{cpu} active_mm", "mm"),
    "CpuGen": Label(_CPUS, "{cpu} needs no flush when it loads the mm"),
}
"""What two of them are in kernels without generations, whose handlers look at `active_mm`."""

LOCALS: Final[dict[str, Label]] = {
    "Pending": Label(_MASKS, "waits for the answer of", "CPUs"),
    "BatchMask": Label(_MASKS, "tlb_ubc.arch.cpumask", "CPUs"),
    "UbcRequired": Label(_MASKS, "tlb_ubc.flush_required"),
    "UbcWritable": Label(_MASKS, "tlb_ubc.writable"),
    "FlushGen": Label(_MASKS, "generation of its flush (new_tlb_gen)", "count"),
    "DeferGen": Label(_MASKS, "generation when it deferred its flush (defer_gen)", "count"),
    "Tlbi": Label(_MASKS, "TLBI on its way", "pages"),
    "LazyBatch": Label(_MASKS, "lazy MMU batch{elsewhere}", "pages"),
    "Multicall": Label(_MASKS, "lazy MMU multicall to store the PTE of {page}", "queued"),
    "Range": Label(_MASKS, "gather: pages to flush", "pages"),
    "FullMm": Label(_MASKS, "gather: whole address space"),
    "FreedTables": Label(_MASKS, "gather: freed tables"),
    "Tables": Label(_MASKS, "gather: page tables to free", "tables"),
    "Queued": Label(_MASKS, "gather: pages to free", "entries"),
    "Delayed": Label(_MASKS, "gather: rmap to be removed", "entries"),
    "ForceFlush": Label(_MASKS, "force_flush"),
    "BatchPending": Label(_MASKS, "pending count that it read", "count"),
    "BatchFlushed": Label(_MASKS, "flushed count that it read", "count"),
    "Changed": Label(_THREADS, "has changed entries"),
    "DelayRmap": Label(_THREADS, "removes the rmap of this entry later"),
    "Listed": Label(_THREADS, "frames on its list", "frames"),
    "NewFrame": Label(_THREADS, "frame allocated", "count"),
    "Merging": Label(_THREADS, "has a KSM page"),
    "Cleaned": Label(_THREADS, "found an entry to clean"),
    "Tracked": Label(_THREADS, "range tracked", "pages"),
    "Moved": Label(_THREADS, "was moved to another CPU"),
    "Hold": Label(_THREADS, "alone knows that this frame is dirty", "number + 1"),
    "Writing": Label(_THREADS, "writes out frame", "number + 1"),
    "Copying": Label(_THREADS, "copies frame", "number + 1"),
    "Migrated": Label(_THREADS, "migration entries made", "pages"),
    "Walk": Label(_THREADS, "has mapped", "table + 1"),
    "Aside": Label(_THREADS, "took out of the tree, to free later", "table + 1"),
}
"""Those of a thread; its CPU and its operation come first."""

HIDDEN: Final = ("One", "Pte", "Tlb", "Unmapped", "Protected", "CpuStep", "CpuNote", "Seen")
"""The first three are no variables of a snapshot, which tells page table and TLBs apart; the others are kept for the checks, or are
positions in the program of a CPU, whose steps are seen."""

HIDDEN_LOCALS: Final = ("Pc", "Pte", "New", "Visited")
"""Where a thread is and what it read are seen in the steps; the rest is kept for the checks."""
