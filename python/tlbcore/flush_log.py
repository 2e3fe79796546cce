"""What happened to the TLBs: one value for each flush request and for each flush of a CPU.

A request is what an operation asks for once (`flush_tlb_mm_range()` and its kin); it may make no CPU, one CPU or many
flush. An event is one CPU that flushes, as the tracepoint ``tlb:tlb_flush`` reports it. Both only repeat the machine's
log (`docs/machine.md` section 2, "Log").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlbcore._core import CpuMask
from tlbcore.units import PAGE_SHIFT

if TYPE_CHECKING:
    from tlbcore.backend import Json

__all__ = ["FLUSH_ALL", "REASONS", "Flush", "TlbEvent"]

FLUSH_ALL: Final = (1 << 64) - 1
"""The end of a request for the whole address space, the kernel's ``TLB_FLUSH_ALL``."""

REASONS: Final = (
    "task switch",
    "remote shootdown",
    "local shootdown",
    "local mm shootdown",
    "remote IPI send",
    "remote wrong CPU",
)
"""The names of the reasons 0 to 5 of an event (``TLB_FLUSH_REASON``, include/trace/events/tlb.h)."""


@dataclass(frozen=True, slots=True, repr=False)
class Flush:
    """One flush request. ``str()`` gives one line; addresses are in bytes.

    The masks that say how it went are disjoint from the requesting CPU: ``told`` got an interrupt, ``lazy_skipped``
    were spared since they only borrowed the address space.
    """

    #: Who asked: the name of the operation, ``read``/``write`` for a memory access that faulted.
    operation: str
    #: Number of the operation, counted from 0 since the simulator was made.
    op: int
    #: The thread that ran the operation.
    task: int
    #: The CPU that it ran on.
    cpu: int
    #: ``mm_range``; ``batch`` for what reclaim deferred (`arch_tlbbatch_flush()`); ``lazy_mmu`` for a drained batch.
    kind: str
    #: The address space; None for a batch, which may be for several.
    mm: int | None
    #: First byte of what is flushed; 0 when it is everything.
    start: int
    #: The byte after it, or ``FLUSH_ALL``.
    end: int
    #: The range asked for, before the ceiling made a full flush of it.
    range_start: int
    #: Its end.
    range_end: int
    #: Base-2 logarithm of the step between two invalidations: 12, or 21 for huge pages.
    stride_shift: int
    #: Page tables are freed: lazy CPUs are told too.
    freed_tables: bool
    #: The generation of the address space that the request makes, 0 for a batch.
    gen: int
    #: `mm_cpumask` when it was asked, the requesting CPU among them.
    mask: CpuMask
    #: Other CPUs had to be considered (`flush_tlb_multi()`).
    remote: bool
    #: CPUs that got an interrupt.
    told: CpuMask
    #: CPUs of the mask that were spared because they are lazy.
    lazy_skipped: CpuMask
    #: CPUs that were lazy when told, and left the address space.
    lazy_left: CpuMask
    #: CPUs that were told and had another address space loaded.
    gone: CpuMask
    #: CPUs that were told and held nothing of what was to be flushed.
    nothing_cached: CpuMask

    @classmethod
    def from_log(cls, entry: Json, operation: str, nr_cpus: int) -> Flush:
        """Make one of an entry of the machine's log."""
        masks = ("mask", "told", "lazy_skipped", "lazy_left", "gone", "nothing_cached")
        return cls(operation=operation, **entry | {name: _mask(entry[name], nr_cpus) for name in masks})

    @property
    def is_full(self) -> bool:
        """Whether everything of the address space goes."""
        return self.end == FLUSH_ALL

    @property
    def nr_pages(self) -> int | None:
        """Pages of 4 KiB in the range; None if it is full."""
        return None if self.is_full else (self.end - self.start) >> PAGE_SHIFT

    @property
    def nr_strides(self) -> int | None:
        """Invalidations on each CPU, ``nr_pages`` in units of the stride; None if it is full."""
        return None if self.is_full else (self.end - self.start) >> self.stride_shift

    def __str__(self) -> str:
        """One line: who, what, whom."""
        what = "all" if self.is_full else f"{self.start:#x} +{_count(self.nr_pages, 'page')}"
        if self.stride_shift != PAGE_SHIFT and not self.is_full:
            what += f" by {1 << self.stride_shift - PAGE_SHIFT}"
        where = f"cpu {self.cpu}" if self.mm is None else f"cpu {self.cpu} mm {self.mm}"
        parts = [f"{self.operation}: {where}", what]
        if self.kind != "mm_range":
            parts.append(self.kind)
        if self.freed_tables:
            parts.append("freed_tables")
        parts.append(f"told {self.told.cpulist or 'nobody'}")
        for label, mask in (("lazy left", self.lazy_left), ("gone", self.gone), ("lazy skipped", self.lazy_skipped)):
            if mask:
                parts.append(f"{label} {mask.cpulist}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        """``<Flush munmap: cpu 0 mm 1, 0x7ffff7fef000 +16 pages, told 1-2>``."""
        return f"<Flush {self}>"


@dataclass(frozen=True, slots=True, repr=False)
class TlbEvent:
    """One CPU that flushes its TLB (or sends the interrupts), as the tracepoint ``tlb:tlb_flush`` says."""

    #: Number of the request in the log of flushes; None for a flush by a task switch.
    request: int | None
    #: The CPU.
    cpu: int
    #: Index into ``REASONS``.
    reason: int
    #: Pages; 0 if nothing was left to do, None for everything.
    nr_pages: int | None

    @classmethod
    def from_log(cls, entry: Json) -> TlbEvent:
        """Make one of an entry of the machine's log."""
        request, pages = entry["request"], entry["pages"]
        return cls(
            request=None if request < 0 else request,
            cpu=entry["cpu"],
            reason=entry["reason"],
            nr_pages=None if pages < 0 else pages,
        )

    def __repr__(self) -> str:
        """``<TlbEvent cpu 1, remote shootdown, 16 pages>``."""
        pages = "all" if self.nr_pages is None else _count(self.nr_pages, "page")
        return f"<TlbEvent cpu {self.cpu}, {REASONS[self.reason]}, {pages}>"


def _mask(cpulist: str, nr_cpus: int) -> CpuMask:
    return CpuMask.from_cpulist(cpulist, nr_cpus)


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
