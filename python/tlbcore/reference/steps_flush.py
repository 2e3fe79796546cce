"""Leaf steps about flushes: locks, pending counts, gathers, table freeing, deferred unmapping (steps.md, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference.conditions import pte_accessible
from tlbcore.reference.config import ALL, PAGE_SIZE, PMD_SIZE
from tlbcore.reference.errors import ModelError
from tlbcore.reference.gather import MmuGather
from tlbcore.reference.page_table import index
from tlbcore.reference.pte import D

if TYPE_CHECKING:
    from tlbcore.reference.control import Handler
    from tlbcore.reference.frame import Frame, Plain
    from tlbcore.reference.page_table import Table
    from tlbcore.reference.pages import Page

#: `TLB_FLUSH_BATCH_PENDING_LARGE` of mm/rmap.c.
_PENDING_LARGE = 16383


def _nothing(f: Frame, step: Plain) -> None:
    """Locks order what runs at the same time; here one operation runs after the other."""


def _inc_pending(f: Frame, _step: Plain) -> None:
    f.mm.tlb_flush_pending += 1


def _dec_pending(f: Frame, _step: Plain) -> None:
    f.mm.tlb_flush_pending -= 1


def _arch_enter_lazy_mmu_mode(f: Frame, _step: Plain) -> None:
    f.machine.engine.lazy_mmu[f.by.cpu].active = True


def _arch_leave_lazy_mmu_mode(f: Frame, _step: Plain) -> None:
    f.machine.engine.lazy_mmu_drain(f.by)
    f.machine.engine.lazy_mmu[f.by.cpu].active = False


def _flush_tlb_batched_pending(f: Frame, _step: Plain) -> None:
    """Reclaim cleared entries of this mm and has not flushed yet."""
    mm, kind = f.mm, f.machine.constants.batched_pending
    if kind == "cpumask":
        pending, mm.batched_cpumask = bool(mm.mm_cpumask & mm.batched_cpumask), 0
    else:
        pending = mm.batched_pending != mm.batched_flushed
    if pending:
        f.machine.tallies["nr_batched_pending_flushes"] += 1
        f.flush_tlb_mm()
        if kind == "flag":
            mm.batched_pending = 0
        elif kind == "counter":
            mm.batched_flushed = mm.batched_pending


def _flush_tlb_range(f: Frame, step: Plain) -> None:
    name = step["range"]
    if name == "page":
        f.machine.engine.flush_tlb_page(f.by, f.mm, f.addr & ~(PAGE_SIZE - 1))
    elif name == "pmd":
        f.flush_tlb_range(f.pmd_start, f.pmd_start + PMD_SIZE)
    elif name == "entry":
        f.flush_tlb_range(f.addr & ~(PAGE_SIZE - 1), (f.addr & ~(PAGE_SIZE - 1)) + PAGE_SIZE)
    elif name == "vma":
        f.flush_tlb_range(*f.vma_range)
    else:  # table, extent
        f.flush_tlb_range(*f.table_range)


def _flush_tlb_mm(f: Frame, _step: Plain) -> None:
    f.flush_tlb_mm()


# --- mmu_gather ----------------------------------------------------------------------------------------------------


def _tlb_gather_mmu(f: Frame, step: Plain) -> None:
    light = step.get("light", False)
    f.gather = MmuGather(fullmm=step.get("fullmm", False), light=light)
    f.mm.tlb_flush_pending += 1
    f.machine.tallies["nr_light_gathers" if light else "nr_gathers"] += 1


def _record_pte(f: Frame, _step: Plain) -> None:
    f.the_gather.record_pte(f.addr & ~(PAGE_SIZE - 1))


def _record_pmd(f: Frame, _step: Plain) -> None:
    f.the_gather.record_pmd(f.addr)


def _record_pud(f: Frame, _step: Plain) -> None:
    f.the_gather.record_pud(f.table_range[0])


def _pages_in_a_row(f: Frame, page: Page) -> int:
    """How many entries from the current one on map pages of one huge page in a row (`folio_pte_batch()`)."""
    if not f.machine.constants.gather_batches_folios or not page.order or f.table is None or f.table.level:
        return 1
    at, nr = f.addr + PAGE_SIZE, 1
    while at < f.table_range[1]:
        pte = f.mm.page_table.get(at)[0]
        if not pte.hw_present or pte.pfn != f.pte.pfn + nr or f.machine.page_of(pte) is not page:
            break
        at, nr = at + PAGE_SIZE, nr + 1
    return nr


def _tlb_remove_page(f: Frame, _step: Plain) -> None:
    """Queue the page; the last place forces a flush, at once where no walk of entries can be left."""
    gather, page = f.the_gather, f.the_page
    if gather.light:
        msg = "a page is queued in a gather without a page list"
        raise ModelError(msg)
    if page.is_zero:
        return
    if gather.queue(page, _pages_in_a_row(f, page), f.machine.constants):
        if f.leave_ptes is None:
            tlb_flush_mmu(f)
        else:
            f.force_flush = f.leave_ptes = True


def tlb_flush_mmu_tlbonly(f: Frame) -> None:
    """Flush what was recorded."""
    gather, engine = f.the_gather, f.machine.engine
    engine.lazy_mmu_drain(f.by)
    if not gather.has_work:
        return
    everything = gather.fullmm or gather.need_flush_all
    start, end = (0, ALL) if everything else (gather.start, gather.end)
    engine.flush_tlb_mm_range(f.by, f.mm, start, end, gather.stride_shift, freed_tables=gather.freed_tables)
    gather.reset_range()


def tlb_flush_mmu(f: Frame) -> None:
    """Flush, then free the queued tables and pages."""
    tlb_flush_mmu_tlbonly(f)
    gather = f.the_gather
    if gather.delayed_rmaps:
        msg = "pages are freed while their rmap still waits for the flush"
        raise ModelError(msg)
    f.machine.tallies["nr_table_frees"] += gather.nr_tables
    gather.nr_tables = 0
    pages, gather.pages, gather.delayed_rmap = gather.pages, [], False
    gather.nr_taken = gather.nr_batch = 0
    if pages:
        f.machine.lru_drain_unmapping(f.by.cpu)
    for page in pages:
        f.machine.memory.put_mapping(page)


def _tlb_flush_rmaps(f: Frame, _step: Plain) -> None:
    gather = f.the_gather
    for page, mapping in gather.delayed_rmaps:
        f.machine.memory.remove_rmap(page, *mapping)
    gather.delayed_rmaps, gather.delayed_rmap = [], False


def _tlb_finish_mmu(f: Frame, _step: Plain) -> None:
    """Who is not alone cannot trust what it recorded: it flushes everything."""
    gather = f.the_gather
    if f.machine.constants.pending_tracking == "mm" and f.mm.tlb_flush_pending > 1:
        f.machine.tallies["nr_nested_finishes"] += 1
        gather.reset_range()
        gather.fullmm = gather.freed_tables = True
    tlb_flush_mmu(f)
    f.mm.tlb_flush_pending -= 1
    f.gather = None


def _free_pgtables(f: Frame, _step: Plain) -> None:
    """`free_pgtables()`: VMAs within 2 MiB of each other share one free_pgd_range()."""
    gather, tree = f.the_gather, f.mm.page_table

    def freed(table: Table | None, level: int, addr: int) -> None:
        gather.free_table(level, addr)
        gather.nr_tables += table is not None

    vmas = f.detached or []
    position = 0
    while position < len(vmas):
        first = last = vmas[position]
        position += 1
        while position < len(vmas) and vmas[position].start <= last.end + PMD_SIZE:
            last = vmas[position]
            position += 1
        ceiling = vmas[position].start if position < len(vmas) else f.ceiling
        tree.free_pgd_range(first.start, last.end, f.floor, ceiling, freed)


def _try_get_and_clear_pmd(f: Frame, _step: Plain) -> None:
    """Take a table out that the walk came to the end of and left empty; of a retry, what `try_to_free_pte()` does."""
    start, end = f.table_range
    pmds, table = f.mm.page_table.table(start, 1), f.table
    if (f.left_early and f.reached < end) or pmds is None or table is None or table.entries:
        return
    del pmds.entries[index(start, 1)]
    f.collapsed = table


def _free_pte(f: Frame, _step: Plain) -> None:
    if f.collapsed is not None:
        f.the_gather.free_table(0, f.table_range[0])
        f.the_gather.nr_tables += 1
        f.collapsed = None


# --- deferred flushes by generation (consolidated) ------------------------------------------------------------------


def _note_deferred_flush(f: Frame, _step: Plain) -> None:
    kind, gen = f.machine.constants.pending_tracking, f.mm.tlb_gen + 1
    if kind == "mm_gen":
        f.mm.defer_gen = gen
    elif kind == "vma":
        f.the_vma.defer_gen = gen
    elif kind == "table" and f.table is not None:
        f.table.defer_gen = gen


def _check_deferred_flush(f: Frame, _step: Plain) -> None:
    kind, gather, done = f.machine.constants.pending_tracking, f.the_gather, f.mm.tlb_gen_completed
    if kind == "mm_gen" and f.mm.defer_gen > done:
        gather.need_flush_all = gather.cleared_ptes = True
    elif kind == "vma" and f.the_vma.defer_gen > done:
        gather.take_in(*f.vma_range)
        gather.cleared_ptes = True
    elif kind == "table" and f.table is not None and f.table.defer_gen > done:
        gather.take_in(*f.table_range)
        gather.cleared_ptes = True


def _mark_tlb_gen_done(f: Frame, _step: Plain) -> None:
    f.mm.tlb_gen_completed = f.mm.tlb_gen


# --- deferred unmapping ---------------------------------------------------------------------------------------------


def _set_tlb_ubc_flush_pending(f: Frame, _step: Plain) -> None:
    if not pte_accessible(f):
        return
    mm, ubc, kind = f.mm, f.task.ubc, f.machine.constants.batched_pending
    mm.tlb_gen += 1
    ubc.cpumask |= mm.mm_cpumask
    ubc.flush_required = True
    ubc.writable = ubc.writable or f.pte.has(D)
    if kind == "flag":
        mm.batched_pending = 1
    elif kind == "cpumask":
        mm.batched_cpumask |= mm.mm_cpumask
    elif mm.batched_pending > _PENDING_LARGE:
        mm.batched_pending, mm.batched_flushed = 1, 0
    else:
        mm.batched_pending += 1


def _try_to_unmap_flush(f: Frame, _step: Plain) -> None:
    if not f.args.get("goes_on"):  # else the list is not at its end
        _flush_unmapped(f)


def _flush_unmapped(f: Frame) -> None:
    ubc = f.task.ubc
    if ubc.flush_required:
        f.machine.tallies["nr_tlb_batch_flushes"] += 1
        f.machine.engine.arch_tlbbatch_flush(f.by, f.task)
        ubc.flush_required = ubc.writable = False


def _try_to_unmap_flush_dirty(f: Frame, _step: Plain) -> None:
    if f.task.ubc.writable:
        _flush_unmapped(f)


# --- the tracked range of mapping_dirty_helpers ---------------------------------------------------------------------


def _track_flush_range(f: Frame, _step: Plain) -> None:
    end = f.addr + PAGE_SIZE
    f.tracked = (f.addr, end) if f.tracked is None else (min(f.tracked[0], f.addr), max(f.tracked[1], end))


def _flush_tracked_range(f: Frame, _step: Plain) -> None:
    if f.mm.tlb_flush_pending > 1:
        f.flush_tlb_range(*f.vma_range)
    elif f.tracked is not None:
        f.flush_tlb_range(*f.tracked)
    f.tracked = None


FLUSH_HANDLERS: dict[str, Handler] = {
    "lock": _nothing,
    "unlock": _nothing,
    "downgrade": _nothing,
    "inc_tlb_flush_pending": _inc_pending,
    "dec_tlb_flush_pending": _dec_pending,
    "arch_enter_lazy_mmu_mode": _arch_enter_lazy_mmu_mode,
    "arch_leave_lazy_mmu_mode": _arch_leave_lazy_mmu_mode,
    "flush_tlb_batched_pending": _flush_tlb_batched_pending,
    "flush_tlb_range": _flush_tlb_range,
    "flush_tlb_mm": _flush_tlb_mm,
    "tlb_gather_mmu": _tlb_gather_mmu,
    "tlb_remove_tlb_entry": _record_pte,
    "tlb_flush_pte_range": _record_pte,
    "tlb_remove_pmd_tlb_entry": _record_pmd,
    "tlb_flush_pmd_range": _record_pmd,
    "tlb_flush_pud_range": _record_pud,
    "tlb_remove_page": _tlb_remove_page,
    "tlb_flush_mmu_tlbonly": lambda f, _step: tlb_flush_mmu_tlbonly(f),
    "tlb_flush_rmaps": _tlb_flush_rmaps,
    "tlb_flush_mmu": lambda f, _step: tlb_flush_mmu(f),
    "tlb_finish_mmu": _tlb_finish_mmu,
    "free_pgtables": _free_pgtables,
    "try_get_and_clear_pmd": _try_get_and_clear_pmd,
    "free_pte": _free_pte,
    "note_deferred_flush": _note_deferred_flush,
    "check_deferred_flush": _check_deferred_flush,
    "mark_tlb_gen_done": _mark_tlb_gen_done,
    "set_tlb_ubc_flush_pending": _set_tlb_ubc_flush_pending,
    "try_to_unmap_flush": _try_to_unmap_flush,
    "try_to_unmap_flush_dirty": _try_to_unmap_flush_dirty,
    "track_flush_range": _track_flush_range,
    "flush_tracked_range": _flush_tracked_range,
}
