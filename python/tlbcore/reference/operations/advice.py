"""Advice of the caller, and what the kernel does to a range on its own: hints, merged and huge pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import vma as v
from tlbcore.reference.config import PAGE_SIZE, PMD_SIZE
from tlbcore.reference.errors import ErrnoError
from tlbcore.reference.operations.fault import populate_page
from tlbcore.reference.operations.lookup import Args, Operation, range_of, running
from tlbcore.reference.pte import A, Pte

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.page_table import Table

_FLAG_ADVICE = {
    "normal": (0, v.VM_RAND_READ | v.VM_SEQ_READ),
    "random": (v.VM_RAND_READ, v.VM_SEQ_READ),
    "sequential": (v.VM_SEQ_READ, v.VM_RAND_READ),
    "mergeable": (v.VM_MERGEABLE, 0),
    "unmergeable": (0, v.VM_MERGEABLE),
    "dontdump": (v.VM_DONTDUMP, 0),
    "dodump": (0, v.VM_DONTDUMP),
    "wipeonfork": (v.VM_WIPEONFORK, 0),
    "keeponfork": (0, v.VM_WIPEONFORK),
    "hugepage": (v.VM_HUGEPAGE, v.VM_NOHUGEPAGE),
    "nohugepage": (v.VM_NOHUGEPAGE, v.VM_HUGEPAGE),
    "dontfork": (v.VM_DONTCOPY, 0),
    "dofork": (0, v.VM_DONTCOPY),
}
_PROGRAM_ADVICE = {name: f"madvise_{name}" for name in ("dontneed", "free", "cold", "pageout")} | {
    "dontneed_locked": "madvise_dontneed",
}
_POPULATE_ADVICE = {"populate_read": "read", "populate_write": "write"}


def _madvise(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    start, end = range_of(m, a["addr"], a["len"])
    advice = a["advice"]
    if advice in _POPULATE_ADVICE:
        for va in range(start, end, PAGE_SIZE):
            if mm.vmas.lookup(va) is None:  # a stack does not grow here: gup_vma_lookup() of mm/gup.c
                raise ErrnoError("ENOMEM")
            try:
                populate_page(m, task, mm, va, _POPULATE_ADVICE[advice])
            except ErrnoError:
                raise ErrnoError("EFAULT") from None
        return
    if start == end or (advice not in _FLAG_ADVICE and advice not in _PROGRAM_ADVICE):
        return
    hole = mm.vmas.first_hole(start, end)
    if advice in _FLAG_ADVICE:
        gained, lost = _FLAG_ADVICE[advice]
        frame = m.frame(task, mm, {}, (start, end))
        at = start
        while (vma := mm.vmas.find(at)) is not None and vma.start < end:
            if _refuses(vma, advice):
                raise ErrnoError("EINVAL")
            spared = advice == "mergeable" and vma.has(v.VM_SHARED)  # ksm_madvise() passes over it
            flags = vma.flags if spared else vma.flags & ~lost | gained
            at = min(vma.end, end)
            if flags != vma.flags:
                m.change_vma_flags(frame.by, mm, (max(vma.start, start), at), flags)
            if at >= end:
                break
    else:
        bad = [vma for vma in mm.vmas.overlapping(start, end) if _refuses(vma, advice)]
        stop = max(bad[0].start, start) if bad else end
        if start < stop and mm.vmas.overlapping(start, stop):
            if advice in ("dontneed", "dontneed_locked"):
                m.lru_drain_unmapping(task.cpu)
            else:
                m.memory.lru_drain(task.cpu)
        m.run_program(_PROGRAM_ADVICE[advice], m.frame(task, mm, {}, (start, stop)))
        if bad:
            raise ErrnoError("EINVAL")
    if hole is not None:
        raise ErrnoError("ENOMEM")


def _refuses(vma: v.Vma, advice: str) -> bool:
    private = vma.file is None and not vma.has(v.VM_SHARED)
    if advice in _FLAG_ADVICE:
        return advice == "wipeonfork" and not private
    if advice == "dontneed_locked":
        return False
    return vma.has(v.VM_LOCKED) or (advice == "free" and vma.file is not None)


def _clear_refs(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    frame = m.frame(task, mm, {}, (0, m.config.user_end))
    if a["kind"] == 4:
        m.run_program("clear_refs_soft_dirty", frame)
        return
    if a["kind"] != 1:
        raise ErrnoError("EINVAL")
    for addr, _, pte in list(mm.page_table.leaves()):
        if pte.present and pte.has(A):
            frame.write(pte.drop(A), addr=addr)


def _numa_hint(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    span = range_of(m, a["addr"], a["len"])
    if span[0] < span[1]:
        m.run_program("change_prot_numa", m.frame(task, mm, {}, span))


def _ksm_merge(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    start, end = range_of(m, a["addr"], a["len"])
    m.lru_drain_all()
    frame = m.frame(task, mm, {}, (start, end))
    for addr, _, pte in mm.page_table.leaves():
        page = m.page_of(pte) if start <= addr < end else None
        if page is None or page.kind != "anon" or page.order or page.mapcount != 1 or page in frame.page_list:
            continue
        m.add_to_page_list(frame, page)
    if frame.page_list:
        m.run_program("ksm_merge", frame)


def _collapse(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    m.lru_drain_all()
    start = a["addr"] & ~(PMD_SIZE - 1)
    vma, table = mm.vmas.lookup(start), mm.page_table.table(start, 0)
    if vma is None or vma.end < start + PMD_SIZE or vma.file is not None or vma.has(v.VM_SHARED):
        raise ErrnoError("EINVAL")
    if vma.anon_vma is None or not _collapsible(table):
        raise ErrnoError("EINVAL")
    frame = m.frame(task, mm, {}, (start, start + PMD_SIZE))
    frame.vma, frame.vma_range, frame.addr = vma, (start, start + PMD_SIZE), start
    m.run_program("collapse_huge_page", frame)


def _collapsible(table: Table | None) -> bool:
    if table is None or not table.entries:
        return False
    return all(isinstance(pte, Pte) and pte.present for pte in table.entries.values())


OPERATIONS: dict[str, Operation] = {
    "madvise": _madvise,
    "clear_refs": _clear_refs,
    "numa_hint": _numa_hint,
    "ksm_merge": _ksm_merge,
    "collapse": _collapse,
}
