"""What operations need first: tasks, files and ranges by what the caller calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tlbcore.reference.config import PAGE_SIZE, page_align
from tlbcore.reference.errors import ErrnoError, UsageError

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Mm, Task
    from tlbcore.reference.pages import File

Args = Mapping[str, Any]
Operation = Callable[["ReferenceMachine", Args], int | None]


def task_of(m: ReferenceMachine, number: int) -> Task:
    """The task of a number."""
    task = m.tasks.get(number)
    if task is None:
        msg = f"task {number} does not exist"
        raise UsageError(msg)
    return task


def running(m: ReferenceMachine, a: Args) -> tuple[Task, Mm]:
    """The task that makes the call, which must be running, and its address space."""
    task = task_of(m, a["task"])
    if m.engine.cpus[task.cpu].curr != task.id:
        msg = f"task {task.id} is not running"
        raise UsageError(msg)
    return task, m.engine.mms[task.mm]


def file_of(m: ReferenceMachine, number: int) -> File:
    """The file of a number."""
    file = m.memory.files.get(number)
    if file is None:
        msg = f"file {number} does not exist"
        raise UsageError(msg)
    return file


def range_of(m: ReferenceMachine, addr: int, length: int, *, outside: str = "ENOMEM") -> tuple[int, int]:
    """Start and end of a range of whole pages in user space."""
    if addr % PAGE_SIZE:
        raise ErrnoError("EINVAL")
    end = addr + page_align(length)
    if end > m.config.user_end:
        raise ErrnoError(outside)
    return addr, end
