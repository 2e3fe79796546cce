"""The system calls that touch an address space, on x86-64."""

from __future__ import annotations

from typing import Final

__all__ = ["SYSCALLS"]

SYSCALLS: Final[dict[str, int]] = {
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "mremap": 25,
    "msync": 26,
    "madvise": 28,
    "shmat": 30,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "exit": 60,
    "shmdt": 67,
    "mlock": 149,
    "munlock": 150,
    "mlockall": 151,
    "remap_file_pages": 216,
    "exit_group": 231,
    "mbind": 237,
    "migrate_pages": 256,
    "userfaultfd": 323,
    "membarrier": 324,
    "mlock2": 325,
    "clone3": 435,
    "process_madvise": 440,
    "process_mrelease": 448,
}
"""Their numbers by name (arch/x86/entry/syscalls/syscall_64.tbl)."""
