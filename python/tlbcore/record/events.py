"""What is recorded: the kernel's tracepoints, the calls among them only those that touch an address space."""

from __future__ import annotations

from typing import Final

from tlbcore.syscalls import SYSCALLS

__all__ = ["CALLERS", "CALLS", "CAUSES", "HELPFUL", "NEEDED", "TRUTH", "perf_events"]

CALLS: Final = ("raw_syscalls:sys_enter", "raw_syscalls:sys_exit")
"""The events that are filtered to `SYSCALLS`."""

NEEDED: Final = (
    *CALLS,
    "exceptions:page_fault_user",
    "exceptions:page_fault_kernel",
    "sched:sched_switch",
    "sched:sched_process_fork",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
)
"""Without one of these there is no recording."""

HELPFUL: Final = ("sched:sched_migrate_task",)
"""Recorded where the kernel has them."""

TRUTH: Final = "tlb:tlb_flush"
"""The flushes that the kernel did: what a model is held against."""


CAUSES: Final = ("raw_syscalls:sys_enter", "exceptions:page_fault_user", "exceptions:page_fault_kernel")
"""The events with the callers of which a flush can be traced to a place in the program."""

CALLERS: Final = ("fp", "dwarf", "lbr")
"""How callers can be found: along frame pointers (cheap; programs and libraries must keep them), by debugging information
(copies of the stack: large recordings), by the CPU's branch records (Intel's).
"""


def perf_events(names: tuple[str, ...], callers: str | None = None) -> list[str]:
    """The arguments of `perf record` for these events.

    Args:
        names: The events.
        callers: One of `CALLERS`, or none are recorded.

    """
    wanted = " || ".join(f"id == {number}" for number in SYSCALLS.values())
    arguments = []
    for name in names:
        how = f"{name}/call-graph={callers}/" if callers and name in CAUSES else name
        arguments += ["-e", how, *(["--filter", wanted] if name in CALLS else [])]
    return arguments
