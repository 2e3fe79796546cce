"""What is mapped where, with which rights: mmap, munmap, brk, mprotect, mremap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import vma as v
from tlbcore.reference.config import ALL, PAGE_SHIFT, PAGE_SIZE, START_BRK, page_align
from tlbcore.reference.errors import ErrnoError
from tlbcore.reference.operations.fault import populate_page
from tlbcore.reference.operations.lookup import Args, Operation, file_of, range_of, running

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Mm


def _mmap(m: ReferenceMachine, a: Args) -> int:
    task, mm = running(m, a)
    addr, length, prot = int(a["addr"]), page_align(a["len"]), a["prot"] & v.VM_ACCESS
    file = None if a["file"] is None else file_of(m, a["file"])
    if addr % PAGE_SIZE or not length or (a["shared"] and a["growsdown"]):
        raise ErrnoError("EINVAL")
    if a["pgoff"] + (length >> PAGE_SHIFT) > ALL:
        raise ErrnoError("EOVERFLOW")
    fits = addr + length <= m.config.user_end
    free = fits and mm.vmas.is_free(addr, addr + length)
    if addr and (a["fixed"] or a["noreplace"]):
        if not fits:
            raise ErrnoError("ENOMEM")
        if a["noreplace"] and not free:
            raise ErrnoError("EEXIST")
    elif not addr or not free:
        addr = _gap(mm, length)
    pgoff = a["pgoff"]
    if file is None:
        pgoff = 0 if a["shared"] else addr >> PAGE_SHIFT
        if a["shared"]:
            file = m.memory.create_file(shmem=True, nr_pages=length >> PAGE_SHIFT)
    flags = prot | v.VM_SOFTDIRTY
    flags |= (v.VM_SHARED if a["shared"] else 0) | (v.VM_GROWSDOWN if a["growsdown"] else 0)
    args = {
        "vm_flags": v.accounted(flags),
        "file": None if file is None else file.id,
        "shmem": file is not None and file.shmem,
        "pgoff": pgoff,
        "populate": a["populate"],
    }
    m.run_program("mmap", m.frame(task, mm, args, (addr, addr + length)))
    if a["populate"]:
        kind = "write" if prot & v.VM_WRITE and not a["shared"] else "read"
        for va in range(addr, addr + length, PAGE_SIZE):
            try:
                populate_page(m, task, mm, va, kind)
            except ErrnoError:
                break
    return int(addr)


def _gap(mm: Mm, length: int) -> int:
    addr = mm.vmas.unmapped_area(length)
    if addr is None:
        raise ErrnoError("ENOMEM")
    return int(addr)


def _munmap(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    span = range_of(m, a["addr"], a["len"], outside="EINVAL")
    if span[0] == span[1]:
        raise ErrnoError("EINVAL")
    m.run_program("munmap", m.frame(task, mm, {}, span))


def _brk(m: ReferenceMachine, a: Args) -> int:
    task, mm = running(m, a)
    wanted = a["addr"]
    if wanted < START_BRK or page_align(wanted) > m.config.user_end:
        return mm.brk
    old, new = page_align(mm.brk), page_align(wanted)
    if new < old:
        m.run_program("munmap", m.frame(task, mm, {}, (new, old)))
    elif new > old:
        if not mm.vmas.is_free(old, new):
            return mm.brk
        vma = v.Vma(old, new, v.accounted(v.VM_READ | v.VM_WRITE | v.VM_SOFTDIRTY), None, old >> PAGE_SHIFT)
        mm.vmas.insert(vma)
        mm.vmas.merge(vma, either_way=m.constants.anon_vma_merges_either_way)
    mm.brk = int(wanted)
    return mm.brk


def _mprotect(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    start, end = range_of(m, a["addr"], a["len"])
    hole = mm.vmas.first_hole(start, end)
    end = end if hole is None else hole
    if start < end:
        m.run_program("mprotect", m.frame(task, mm, {"prot": a["prot"] & v.VM_ACCESS}, (start, end)))
    if hole is not None:
        raise ErrnoError("ENOMEM")


def _mremap(m: ReferenceMachine, a: Args) -> int:
    task, mm = running(m, a)
    old, new = a["old"], a["new"]
    old_len, new_len = page_align(a["old_len"]), page_align(a["new_len"])
    fixed, dontunmap = a["fixed"], a["dontunmap"]
    if old % PAGE_SIZE or not old_len or not new_len or new_len > m.config.user_end:
        raise ErrnoError("EINVAL")
    if dontunmap and old_len != new_len:
        raise ErrnoError("EINVAL")
    if fixed or dontunmap:  # vrm_implies_new_addr()
        overlaps = old < new + new_len and new < old + old_len
        if not a["maymove"] or new % PAGE_SIZE or new + new_len > m.config.user_end or overlaps:
            raise ErrnoError("EINVAL")
    vma = mm.vmas.lookup(old)
    if vma is None or old + old_len > vma.end:
        raise ErrnoError("EFAULT")
    if new_len > old_len and vma.index_of(old) + (new_len >> PAGE_SHIFT) > ALL:
        raise ErrnoError("EINVAL")
    kept = min(old_len, new_len)
    end, wanted = old + old_len, old + new_len
    grows = new_len > old_len and not fixed
    room = end == vma.end and wanted <= m.config.user_end and mm.vmas.is_free(end, wanted)
    in_place = grows and room
    moves = fixed or dontunmap or (grows and not in_place)
    if moves and not a["maymove"]:
        raise ErrnoError("ENOMEM")
    if moves and not fixed and not (dontunmap and new and mm.vmas.is_free(new, new + new_len)):
        new = _gap(mm, new_len)
    args = {
        "old": old,
        "old_len": old_len,
        "new": new,
        "new_len": new_len,
        "moves": moves,
        "shrinks": new_len < old_len,
        "grows_in_place": in_place,
        "unmaps_new": fixed and not mm.vmas.is_free(new, new + new_len),
        "dontunmap": dontunmap,
        "ranges": {
            "args": (old, end),
            "tail": (old + kept, end),
            "new": (new, new + new_len),
            "old": (old, old + kept),
        },
    }
    m.run_program("mremap", m.frame(task, mm, args, (old, old + kept)))
    return int(new if moves else old)


OPERATIONS: dict[str, Operation] = {
    "mmap": _mmap,
    "munmap": _munmap,
    "brk": _brk,
    "mprotect": _mprotect,
    "mremap": _mremap,
}
