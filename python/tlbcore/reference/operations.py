"""The operations (machine.md, section 4): what is checked and prepared before a program runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tlbcore.reference import vma as v
from tlbcore.reference.config import (
    ALL,
    INIT_MM,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SIZE,
    START_BRK,
    page_align,
)
from tlbcore.reference.errors import ErrnoError, ModelError, UsageError
from tlbcore.reference.hardware import drop_faulting, try_access
from tlbcore.reference.mm import Mm, Task
from tlbcore.reference.pages import MAX_ABSENT
from tlbcore.reference.pte import A, Pte, W

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.page_table import Table
    from tlbcore.reference.pages import File, Page

Args = Mapping[str, Any]
Operation = Callable[["ReferenceMachine", Args], int | None]

_MAX_FAULTS = 8


# --- looking things up ----------------------------------------------------------------------------------------------


def _task(m: ReferenceMachine, number: int) -> Task:
    task = m.tasks.get(number)
    if task is None:
        msg = f"task {number} does not exist"
        raise UsageError(msg)
    return task


def _running(m: ReferenceMachine, a: Args) -> tuple[Task, Mm]:
    task = _task(m, a["task"])
    if m.engine.cpus[task.cpu].curr != task.id:
        msg = f"task {task.id} is not running"
        raise UsageError(msg)
    return task, m.engine.mms[task.mm]


def _file(m: ReferenceMachine, number: int) -> File:
    file = m.memory.files.get(number)
    if file is None:
        msg = f"file {number} does not exist"
        raise UsageError(msg)
    return file


def _range(m: ReferenceMachine, addr: int, length: int, *, outside: str = "ENOMEM") -> tuple[int, int]:
    """Start and end of a range of whole pages in user space."""
    if addr % PAGE_SIZE:
        raise ErrnoError("EINVAL")
    end = addr + page_align(length)
    if end > m.config.user_end:
        raise ErrnoError(outside)
    return addr, end


# --- processes ------------------------------------------------------------------------------------------------------


def _new_task(m: ReferenceMachine, mm: Mm, cpu: int) -> int:
    task = Task(m.nr_tasks_made, mm.id, cpu)
    m.nr_tasks_made += 1
    m.tasks[task.id] = task
    mm.mm_users += 1
    return task.id


def _create_process(m: ReferenceMachine, _a: Args) -> int:
    return _new_task(m, m.engine.new_mm(), 0)


def _create_file(m: ReferenceMachine, a: Args) -> int:
    return m.memory.create_file(shmem=a["shmem"], nr_pages=a["nr_pages"]).id


def _clone_thread(m: ReferenceMachine, a: Args) -> int:
    task = _task(m, a["task"])
    return _new_task(m, m.engine.mms[task.mm], task.cpu)


def _fork(m: ReferenceMachine, a: Args) -> int:
    task, mm = _running(m, a)
    frame = m.frame(task, mm, {}, (0, m.config.user_end))
    m.run_program("fork", frame)
    if frame.child is None:
        msg = "the program fork made no child mm"
        raise ModelError(msg)
    return _new_task(m, frame.child, task.cpu)


def _mm_put(m: ReferenceMachine, task: Task, mm: Mm) -> None:
    """`mmput()`: the last user takes the address space down."""
    mm.mm_users -= 1
    if mm.mm_users:
        return
    frame = m.frame(task, mm, {}, (0, m.config.user_end))
    frame.detached, mm.vmas.vmas = mm.vmas.vmas, []
    m.lru_drain_unmapping(task.cpu)
    m.run_program("exit_mmap", frame)
    mm.live = False


def _exec(m: ReferenceMachine, a: Args) -> None:
    task = _task(m, a["task"])
    old, new = m.engine.mms[task.mm], m.engine.new_mm()
    m.memory.lru_drain(task.cpu)
    task.mm = new.id
    new.mm_users = 1
    if task.running:
        m.engine.switch_mm(m.engine.cpus[task.cpu], new)
    _mm_put(m, task, old)


def _exit(m: ReferenceMachine, a: Args) -> None:
    task = _task(m, a["task"])
    cpu = m.engine.cpus[task.cpu]
    if task.running:
        m.engine.enter_lazy_tlb(cpu)
    _mm_put(m, task, m.engine.mms[task.mm])
    if task.running:
        cpu.curr = None
    del m.tasks[task.id]


def _schedule(m: ReferenceMachine, a: Args) -> None:
    number, following = a["cpu"], a["task"]
    if not 0 <= number < m.config.nr_cpus:
        msg = f"cpu: found {number}, expected less than {m.config.nr_cpus}"
        raise UsageError(msg)
    cpu = m.engine.cpus[number]
    task = None if following is None else _task(m, following)
    if task is not None and task.running and task.cpu != number:
        msg = f"task {task.id} runs on CPU {task.cpu}"
        raise UsageError(msg)
    if cpu.curr is not None:
        m.tasks[cpu.curr].running = False
    if task is None:
        cpu.curr = None
        m.engine.enter_lazy_tlb(cpu)
        return
    cpu.curr, task.cpu, task.running = task.id, number, True
    m.engine.switch_mm(cpu, m.engine.mms[task.mm])


# --- mapping --------------------------------------------------------------------------------------------------------


def _mmap(m: ReferenceMachine, a: Args) -> int:
    task, mm = _running(m, a)
    addr, length, prot = int(a["addr"]), page_align(a["len"]), a["prot"] & v.VM_ACCESS
    file = None if a["file"] is None else _file(m, a["file"])
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
                _populate_page(m, task, mm, va, kind)
            except ErrnoError:
                break
    return int(addr)


def _gap(mm: Mm, length: int) -> int:
    addr = mm.vmas.unmapped_area(length)
    if addr is None:
        raise ErrnoError("ENOMEM")
    return int(addr)


def _munmap(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    span = _range(m, a["addr"], a["len"], outside="EINVAL")
    if span[0] == span[1]:
        raise ErrnoError("EINVAL")
    m.run_program("munmap", m.frame(task, mm, {}, span))


def _brk(m: ReferenceMachine, a: Args) -> int:
    task, mm = _running(m, a)
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
    task, mm = _running(m, a)
    start, end = _range(m, a["addr"], a["len"])
    hole = mm.vmas.first_hole(start, end)
    end = end if hole is None else hole
    if start < end:
        m.run_program("mprotect", m.frame(task, mm, {"prot": a["prot"] & v.VM_ACCESS}, (start, end)))
    if hole is not None:
        raise ErrnoError("ENOMEM")


def _mremap(m: ReferenceMachine, a: Args) -> int:
    task, mm = _running(m, a)
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


# --- advice ---------------------------------------------------------------------------------------------------------

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
    task, mm = _running(m, a)
    start, end = _range(m, a["addr"], a["len"])
    advice = a["advice"]
    if advice in _POPULATE_ADVICE:
        for va in range(start, end, PAGE_SIZE):
            if mm.vmas.lookup(va) is None:  # a stack does not grow here: gup_vma_lookup() of mm/gup.c
                raise ErrnoError("ENOMEM")
            try:
                _populate_page(m, task, mm, va, _POPULATE_ADVICE[advice])
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
    task, mm = _running(m, a)
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
    task, mm = _running(m, a)
    span = _range(m, a["addr"], a["len"])
    if span[0] < span[1]:
        m.run_program("change_prot_numa", m.frame(task, mm, {}, span))


def _ksm_merge(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    start, end = _range(m, a["addr"], a["len"])
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
    task, mm = _running(m, a)
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


# --- files ----------------------------------------------------------------------------------------------------------


def _page_mkclean(m: ReferenceMachine, task: Task, mm: Mm, pages: list[Page]) -> None:
    if pages:
        m.memory.lru_drain(task.cpu)
        frame = m.frame(task, mm, {}, (0, m.config.user_end))
        for page in pages:
            m.add_to_page_list(frame, page)
        m.run_program("page_mkclean", frame)


def _dirty_pages(file: File, first: int = 0, last: int = ALL) -> list[Page]:
    return [file.pages[n] for n in sorted(file.pages) if first <= n < last and file.pages[n].dirty]


def _msync(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    start, end = _range(m, a["addr"], a["len"])
    hole = mm.vmas.first_hole(start, end)
    if a["sync"]:
        for vma in mm.vmas.overlapping(start, end):
            if vma.file is not None and not vma.shmem and vma.has(v.VM_SHARED):
                first, last = (vma.index_of(addr) for addr in (max(start, vma.start), min(end, vma.end)))
                _page_mkclean(m, task, mm, _dirty_pages(_file(m, vma.file), first, last))
    if hole is not None:
        raise ErrnoError("ENOMEM")


def _fsync(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    file = _file(m, a["file"])
    first, nr_pages = a.get("from_page", 0), a.get("nr_pages")
    if not file.shmem:
        _page_mkclean(m, task, mm, _dirty_pages(file, first, ALL if nr_pages is None else first + nr_pages))


def _file_args(a: Args) -> Args:
    to_page = None if a["nr_pages"] is None else a["from_page"] + a["nr_pages"]
    return {"file": a["file"], "from_page": a["from_page"], "to_page": to_page}


def _truncate(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    file, args = _file(m, a["file"]), _file_args(a)
    if args["to_page"] is None:
        file.resize(args["from_page"])
    hole = {**args, "spares_cows": args["to_page"] is not None}
    m.run_program("unmap_mapping_range", m.frame(task, mm, hole, (0, m.config.user_end)))
    last = ALL if args["to_page"] is None else args["to_page"]
    gone = [file.pages[n] for n in sorted(file.pages) if args["from_page"] <= n < last]
    has_content = not file.shmem and (args["to_page"] is None or file.reaches(args["from_page"]))
    if gone or has_content:
        m.memory.lru_drain(task.cpu)
    for page in gone:
        m.memory.drop_from_page_cache(page)
    file.swapped -= {n for n in file.swapped if args["from_page"] <= n < last}
    if file.nr_pages is not None and not file.shmem:
        first = args["from_page"]
        file.absent.update(range(first, min(last, file.nr_pages, first + MAX_ABSENT)))
    if args["to_page"] is None:
        m.run_program("unmap_mapping_range", m.frame(task, mm, args, (0, m.config.user_end)))


def _wp_shared_mapping_range(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    _file(m, a["file"])
    m.run_program("wp_shared_mapping_range", m.frame(task, mm, _file_args(a), (0, m.config.user_end)))


# --- pages ----------------------------------------------------------------------------------------------------------


def _pages_at(m: ReferenceMachine, places: list[list[int]]) -> list[Page]:
    """The pages mapped at (mm, address) now, each once."""
    found: list[Page] = []
    for number, addr in places:
        mm = m.engine.mms.get(number)
        if mm is None or not mm.live or number == INIT_MM or addr >= m.config.user_end:
            continue
        page = m.page_of(mm.page_table.get(addr)[0])
        if page is not None and not page.is_zero and page not in found:
            found.append(page)
    return found


def _can_reclaim(m: ReferenceMachine, page: Page) -> bool:
    """`can_reclaim_anon_pages()`: anonymous memory needs swap, unless its content may be lost."""
    return m.config.swap or page.kind != "anon" or page.lazyfree


def _reclaim(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    places, size, goes_on = a["pages"], m.constants.swap_cluster_max, a.get("goes_on", False)
    if places:
        m.memory.lru_drain(task.cpu)
    for first in range(0, len(places), size):
        frame = m.frame(task, mm, {"proactive": a["proactive"], "goes_on": goes_on}, (0, m.config.user_end))
        for page in _pages_at(m, places[first : first + size]):
            if page.lru_cpu is not None and _can_reclaim(m, page):
                m.memory.lru_drain(page.lru_cpu)
            m.add_to_page_list(frame, page)
        if frame.page_list:
            m.run_program("shrink_folio_list", frame)
    if not goes_on and task.ubc.flush_required:  # the end of a list whose pages came before
        frame = m.frame(task, mm, {"proactive": a["proactive"], "goes_on": False}, (0, m.config.user_end))
        m.run_program("shrink_folio_list", frame)


def _migrate(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    frame = m.frame(task, mm, {}, (0, m.config.user_end))
    for page in _pages_at(m, a["pages"]):
        m.add_to_page_list(frame, page)
    if frame.page_list:
        m.run_program("migrate_pages", frame)


# --- faults and accesses --------------------------------------------------------------------------------------------

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
    if vma.file is not None and not _file(m, vma.file).reaches(vma.index_of(page_start)):
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


def _populate_page(m: ReferenceMachine, task: Task, mm: Mm, addr: int, kind: str) -> None:
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
    task, mm = _running(m, a)
    _do_access(m, task, mm, a["addr"], _kind(a))


def _fault(m: ReferenceMachine, a: Args) -> None:
    task, mm = _running(m, a)
    if a["addr"] < m.config.user_end:
        drop_faulting(m.engine, m.engine.cpus[task.cpu], a["addr"])
    _do_fault(m, task, mm, a["addr"], _kind(a), tells_writes=False)


def _advance_time(m: ReferenceMachine, a: Args) -> None:
    m.engine.now_ns += a["ns"]


def _run(m: ReferenceMachine, a: Args) -> None:
    """A program of the caller's, on a range."""
    task, mm = _running(m, a)
    m.check_custom_program(a["steps"])
    span = _range(m, a["addr"], a["len"])
    if span[0] == span[1]:
        raise ErrnoError("EINVAL")
    ranges = {"args": span, "tail": (0, 0), "new": (0, 0), "old": (0, 0)}
    m.run_steps(a["steps"], m.frame(task, mm, {"prot": a["prot"], "ranges": ranges}, span))


OPERATIONS: dict[str, Operation] = {
    "create_process": _create_process,
    "create_file": _create_file,
    "clone_thread": _clone_thread,
    "fork": _fork,
    "exec": _exec,
    "exit": _exit,
    "schedule": _schedule,
    "mmap": _mmap,
    "munmap": _munmap,
    "brk": _brk,
    "mprotect": _mprotect,
    "mremap": _mremap,
    "madvise": _madvise,
    "clear_refs": _clear_refs,
    "numa_hint": _numa_hint,
    "ksm_merge": _ksm_merge,
    "collapse": _collapse,
    "msync": _msync,
    "fsync": _fsync,
    "truncate": _truncate,
    "wp_shared_mapping_range": _wp_shared_mapping_range,
    "reclaim": _reclaim,
    "migrate": _migrate,
    "access": _access,
    "fault": _fault,
    "run": _run,
    "advance_time": _advance_time,
}
