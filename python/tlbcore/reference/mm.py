"""Address spaces, tasks and CPUs: what `mm_struct`, `task_struct` and `cpu_tlbstate` hold of interest here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlbcore.reference.config import START_BRK
from tlbcore.reference.vma import VmaTree

if TYPE_CHECKING:
    from tlbcore.reference.page_table import PageTable


@dataclass(eq=False)
class Mm:
    """An `mm_struct`. A dead one keeps its id and its context, since a lazy CPU may still have it loaded."""

    id: int
    ctx_id: int
    page_table: PageTable
    next_trim_ns: int = 0
    live: bool = True
    tlb_gen: int = 1
    mm_cpumask: int = 0
    tlb_flush_pending: int = 0
    batched_pending: int = 0
    batched_flushed: int = 0
    batched_cpumask: int = 0
    tlb_gen_completed: int = 1
    defer_gen: int = 0
    brk: int = START_BRK
    mm_users: int = 0
    vmas: VmaTree = field(default_factory=VmaTree)


@dataclass
class TlbUbc:
    """`tlbflush_unmap_batch` of a task."""

    cpumask: int = 0
    flush_required: bool = False
    writable: bool = False


@dataclass(eq=False)
class Task:
    """A thread. `mm` is an mm's id."""

    id: int
    mm: int
    cpu: int
    running: bool = False
    ubc: TlbUbc = field(default_factory=TlbUbc)


@dataclass
class AsidSlot:
    """`tlb_context`: which mm a PCID slot holds, and up to which generation."""

    ctx_id: int = 0
    tlb_gen: int = 0


@dataclass(eq=False)
class Cpu:
    """`cpu_tlbstate`. `curr` is a task's id, `loaded_mm` an mm's."""

    id: int
    ctxs: list[AsidSlot]
    curr: int | None = None
    loaded_mm: int = 0
    slot: int = 0
    next_asid: int = 1
    is_lazy: bool = False
