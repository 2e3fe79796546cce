"""Files: made, written back, cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import vma as v
from tlbcore.reference.config import ALL
from tlbcore.reference.errors import ErrnoError
from tlbcore.reference.operations.lookup import Args, Operation, file_of, range_of, running
from tlbcore.reference.pages import MAX_ABSENT

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Mm, Task
    from tlbcore.reference.pages import File, Page


def _create_file(m: ReferenceMachine, a: Args) -> int:
    return m.memory.create_file(shmem=a["shmem"], nr_pages=a["nr_pages"]).id


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
    task, mm = running(m, a)
    start, end = range_of(m, a["addr"], a["len"])
    hole = mm.vmas.first_hole(start, end)
    if a["sync"]:
        for vma in mm.vmas.overlapping(start, end):
            if vma.file is not None and not vma.shmem and vma.has(v.VM_SHARED):
                first, last = (vma.index_of(addr) for addr in (max(start, vma.start), min(end, vma.end)))
                _page_mkclean(m, task, mm, _dirty_pages(file_of(m, vma.file), first, last))
    if hole is not None:
        raise ErrnoError("ENOMEM")


def _fsync(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    file = file_of(m, a["file"])
    first, nr_pages = a.get("from_page", 0), a.get("nr_pages")
    if not file.shmem:
        _page_mkclean(m, task, mm, _dirty_pages(file, first, ALL if nr_pages is None else first + nr_pages))


def _file_args(a: Args) -> Args:
    to_page = None if a["nr_pages"] is None else a["from_page"] + a["nr_pages"]
    return {"file": a["file"], "from_page": a["from_page"], "to_page": to_page}


def _truncate(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    file, args = file_of(m, a["file"]), _file_args(a)
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
    task, mm = running(m, a)
    file_of(m, a["file"])
    m.run_program("wp_shared_mapping_range", m.frame(task, mm, _file_args(a), (0, m.config.user_end)))


OPERATIONS: dict[str, Operation] = {
    "create_file": _create_file,
    "msync": _msync,
    "fsync": _fsync,
    "truncate": _truncate,
    "wp_shared_mapping_range": _wp_shared_mapping_range,
}
