"""What is recorded: the kernel's tracepoints, the calls among them only those that touch an address space."""

from __future__ import annotations

from typing import Final

from tlbcore.syscalls import SYSCALLS

__all__ = ["CALLS", "HELPFUL", "NEEDED", "TRUTH", "perf_events"]

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


def perf_events(names: tuple[str, ...]) -> list[str]:
    """The arguments of `perf record` for these events."""
    wanted = " || ".join(f"id == {number}" for number in SYSCALLS.values())
    arguments = []
    for name in names:
        arguments += ["-e", name, *(["--filter", wanted] if name in CALLS else [])]
    return arguments
