"""Processes and threads: made, put on CPUs, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference.errors import ModelError, UsageError
from tlbcore.reference.mm import Mm, Task
from tlbcore.reference.operations.lookup import Args, Operation, running, task_of

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine


def _new_task(m: ReferenceMachine, mm: Mm, cpu: int) -> int:
    task = Task(m.nr_tasks_made, mm.id, cpu)
    m.nr_tasks_made += 1
    m.tasks[task.id] = task
    mm.mm_users += 1
    return task.id


def _create_process(m: ReferenceMachine, _a: Args) -> int:
    return _new_task(m, m.engine.new_mm(), 0)


def _clone_thread(m: ReferenceMachine, a: Args) -> int:
    task = task_of(m, a["task"])
    return _new_task(m, m.engine.mms[task.mm], task.cpu)


def _fork(m: ReferenceMachine, a: Args) -> int:
    task, mm = running(m, a)
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
    task = task_of(m, a["task"])
    old, new = m.engine.mms[task.mm], m.engine.new_mm()
    m.memory.lru_drain(task.cpu)
    task.mm = new.id
    new.mm_users = 1
    if task.running:
        m.engine.switch_mm(m.engine.cpus[task.cpu], new)
    _mm_put(m, task, old)


def _exit(m: ReferenceMachine, a: Args) -> None:
    task = task_of(m, a["task"])
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
    task = None if following is None else task_of(m, following)
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


OPERATIONS: dict[str, Operation] = {
    "create_process": _create_process,
    "clone_thread": _clone_thread,
    "fork": _fork,
    "exec": _exec,
    "exit": _exit,
    "schedule": _schedule,
}
