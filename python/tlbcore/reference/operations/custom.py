"""What is no call of a kernel: a program of the caller's, and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference.errors import ErrnoError
from tlbcore.reference.operations.lookup import Args, Operation, range_of, running

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine


def _run(m: ReferenceMachine, a: Args) -> None:
    """A program of the caller's, on a range."""
    task, mm = running(m, a)
    m.check_custom_program(a["steps"])
    span = range_of(m, a["addr"], a["len"])
    if span[0] == span[1]:
        raise ErrnoError("EINVAL")
    ranges = {"args": span, "tail": (0, 0), "new": (0, 0), "old": (0, 0)}
    m.run_steps(a["steps"], m.frame(task, mm, {"prot": a["prot"], "ranges": ranges}, span))


def _advance_time(m: ReferenceMachine, a: Args) -> None:
    m.engine.now_ns += a["ns"]


OPERATIONS: dict[str, Operation] = {
    "run": _run,
    "advance_time": _advance_time,
}
