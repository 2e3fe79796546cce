"""Accesses, and the page faults that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import vma as v
from tlbcore.reference.config import PAGE_SHIFT, PAGE_SIZE
from tlbcore.reference.errors import ErrnoError, ModelError, UsageError
from tlbcore.reference.hardware import drop_faulting, try_access
from tlbcore.reference.operations.lookup import Args, Operation, file_of, running
from tlbcore.reference.pte import W

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Mm, Task

_MAX_FAULTS = 8
_RIGHT = {"write": v.VM_WRITE, "exec": v.VM_EXEC, "read": v.VM_ACCESS}


def _do_fault(m: ReferenceMachine, task: Task, mm: Mm, addr: int, kind: str, *, tells_writes: bool = True) -> None:
    if addr >= m.config.user_end:
        raise ErrnoError("SIGSEGV")
    vma, page_start = mm.vmas.find(addr), addr & ~(PAGE_SIZE - 1)
    if vma is None or not vma.flags & _RIGHT[kind]:
        raise ErrnoError("SIGSEGV")
    if vma.start > addr:
        grow = (vma.start - page_start) >> PAGE_SHIFT
        if not vma.has(v.VM_GROWSDOWN) or grow > vma.pgoff:
            raise ErrnoError("SIGSEGV")
        vma.start, vma.pgoff = page_start, vma.pgoff - grow
        vma.be_born()
    if vma.file is not None and not file_of(m, vma.file).reaches(vma.index_of(page_start)):
        raise ErrnoError("SIGBUS")
    m.tallies["nr_faults"] += 1
    frame = m.frame(task, mm, {"kind": kind, "tells_writes": tells_writes}, (page_start, page_start + PAGE_SIZE))
    frame.vma, frame.vma_range = vma, frame.range
    frame.read(page_start)
    m.run_program("fault", frame)


def _do_access(m: ReferenceMachine, task: Task, mm: Mm, addr: int, kind: str) -> None:
    cpu = m.engine.cpus[task.cpu]
    if addr >= m.config.user_end:
        raise ErrnoError("SIGSEGV")
    for _ in range(_MAX_FAULTS):
        if try_access(m.engine, cpu, mm, addr, kind):
            break
        _do_fault(m, task, mm, addr, kind)
    else:
        if not try_access(m.engine, cpu, mm, addr, kind):
            msg = f"{kind} at {addr:#x} still faults after {_MAX_FAULTS} faults"
            raise ModelError(msg)
    if kind == "write":
        m.note_write(mm, addr)


def populate_page(m: ReferenceMachine, task: Task, mm: Mm, addr: int, kind: str) -> None:
    """`__get_user_pages()`: faults till an entry allows it; no processor looks, so no TLB, A or D changes."""
    for _ in range(_MAX_FAULTS):
        pte, _size = mm.page_table.get(addr)
        if pte.hw_present and (kind != "write" or pte.has(W)):
            return
        _do_fault(m, task, mm, addr, kind)
    msg = f"populating {addr:#x} still faults after {_MAX_FAULTS} faults"
    raise ModelError(msg)


def _kind(a: Args) -> str:
    if a["kind"] not in _RIGHT:
        msg = f"kind: found {a['kind']!r}, expected read, write or exec"
        raise UsageError(msg)
    return str(a["kind"])


def _access(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    _do_access(m, task, mm, a["addr"], _kind(a))


def _fault(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    if a["addr"] < m.config.user_end:
        drop_faulting(m.engine, m.engine.cpus[task.cpu], a["addr"])
    _do_fault(m, task, mm, a["addr"], _kind(a), tells_writes=False)


OPERATIONS: dict[str, Operation] = {
    "access": _access,
    "fault": _fault,
}
