"""The whole state as plain JSON values, in the form that both machines share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlbcore.reference.config import INIT_MM
from tlbcore.reference.cpumask import cpulist

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Cpu, Mm, Task
    from tlbcore.reference.pages import File, Page
    from tlbcore.reference.vma import Vma

Json = dict[str, Any]


def dump(machine: ReferenceMachine) -> Json:
    """`state()`."""
    engine, memory = machine.engine, machine.memory
    return {
        "mms": [_mm(mm, machine.constants.batched_pending) for mm in engine.mms.values() if mm.live],
        "cpus": [_cpu(cpu) | {"lru_waiting": len(memory.lru_batches.get(cpu.id, []))} for cpu in engine.cpus],
        "tasks": [_task(task) for task in machine.tasks.values()],
        "pages": [_page(memory.pages[pfn]) for pfn in sorted(memory.pages)],
        "files": [_file(file) for file in memory.files.values()],
        "swap": [[slot, memory.swap[slot]] for slot in sorted(memory.swap)],
        "tlb": [tlb.dump() for tlb in engine.tlbs],
    }


def _mm(mm: Mm, batched: str) -> Json:
    head: Json = {"id": mm.id, "ctx_id": mm.ctx_id, "tlb_gen": mm.tlb_gen}
    if mm.id == INIT_MM:
        return head
    tables = list(mm.page_table.tables())
    return head | {
        "mm_cpumask": cpulist(mm.mm_cpumask),
        "tlb_flush_pending": mm.tlb_flush_pending,
        "tlb_flush_batched": [mm.batched_pending, 0 if batched == "flag" else mm.batched_flushed],
        "tlb_flush_batched_cpumask": cpulist(mm.batched_cpumask),
        "tlb_gen_completed": mm.tlb_gen_completed,
        "brk": mm.brk,
        "mm_users": mm.mm_users,
        "vmas": [_vma(vma) for vma in mm.vmas],
        "ptes": [[addr, shift, pte.text()] for addr, shift, pte in mm.page_table.leaves()],
        "nr_tables": len(tables),
    }


def _vma(vma: Vma) -> Json:
    names = ("start", "end", "flags", "file", "pgoff", "defer_gen")
    return {name: getattr(vma, name) for name in names} | {"anon_vma": vma.anon_vma is not None}


def _cpu(cpu: Cpu) -> Json:
    names = ("curr", "loaded_mm", "slot", "next_asid", "is_lazy")
    return {name: getattr(cpu, name) for name in names} | {"ctxs": [[s.ctx_id, s.tlb_gen] for s in cpu.ctxs]}


def _task(task: Task) -> Json:
    ubc = [cpulist(task.ubc.cpumask), task.ubc.flush_required, task.ubc.writable]
    return {"id": task.id, "mm": task.mm, "cpu": task.cpu, "running": task.running, "ubc": ubc}


def _page(page: Page) -> Json:
    own = ("pfn", "kind", "order", "refcount", "mapcount", "dirty", "swap_slot", "lazyfree", "ksm")
    names = (*own, "exclusive", "lru_cpu", "file", "index")
    return {name: getattr(page, name) for name in names} | {"rmap": [list(mapping) for mapping in page.rmap]}


def _file(file: File) -> Json:
    pages = [[index, file.pages[index].pfn] for index in sorted(file.pages)]
    own = {"id": file.id, "shmem": file.shmem, "nr_pages": file.nr_pages}
    return own | {"pages": pages, "swapped": sorted(file.swapped)}
