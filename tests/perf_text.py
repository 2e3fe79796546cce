"""Small recordings by hand: the text of ``perf script`` for one process of two threads, on two CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
PID = 10
FIRST, SECOND = 10, 11
"""Threads; the first begins on CPU 0, the second on CPU 1."""
WRITE, WRITE_PRESENT, READ = 6, 7, 4
MMAP, MUNMAP, MADVISE, PROCESS_MADVISE, EXIT_GROUP = 9, 11, 28, 440, 231
DONTNEED = 4
REASONS = {1: "remote shootdown", 3: "local MM shootdown", 4: "remote IPI send", 5: "remote wrong CPU"}


@dataclass
class PerfText:
    """Lines, one microsecond after the other; each method adds some and gives the text itself back."""

    lines: list[str] = field(default_factory=list)
    cpu_of: dict[int, int] = field(default_factory=lambda: {FIRST: 0, SECOND: 1})

    def add(self, tid: int, what: str, *, pid: int = PID, cpu: int | None = None, comm: str = "m") -> Self:
        """One line, a microsecond after the last."""
        where = self.cpu_of.get(tid, 0) if cpu is None else cpu
        seconds = 1 + len(self.lines) / 1e6
        self.lines.append(f"{comm:>8} {pid}/{tid} [{where:03}] {seconds:.9f}: {what}")
        return self

    def enter(self, tid: int, nr: int, *args: int) -> Self:
        """A call begins."""
        six = [*args, *[0] * (6 - len(args))]
        return self.add(tid, f"raw_syscalls:sys_enter: NR {nr} ({', '.join(f'{arg:x}' for arg in six)})")

    def leave(self, tid: int, nr: int, ret: int = 0) -> Self:
        """A call returns."""
        return self.add(tid, f"raw_syscalls:sys_exit: NR {nr} = {ret}")

    def fault(self, tid: int, addr: int, code: int = WRITE) -> Self:
        """A page fault in user mode."""
        return self.add(tid, f"exceptions:page_fault_user: address=0x{addr:x} ip=0x400000 error_code=0x{code:x}")

    def flush(self, tid: int, pages: int, reason: int = 3) -> Self:
        """The tracepoint of a flush."""
        return self.add(tid, f"tlb:tlb_flush: pages:{pages} reason:{REASONS[reason]} ({reason})")

    def switch(self, cpu: int, before: int, after: int) -> Self:
        """A CPU goes from one thread to another (0 is idle)."""
        names = {0: f"swapper/{cpu}"}
        self.cpu_of[after] = cpu
        return self.add(
            before,
            f"sched:sched_switch: prev_comm={names.get(before, 'm')} prev_pid={before} prev_prio=120 prev_state=S"
            f" ==> next_comm={names.get(after, 'm')} next_pid={after} next_prio=120",
            pid=PID if before else 0,
            cpu=cpu,
            comm=names.get(before, "m").removesuffix(f"/{cpu}"),
        )

    def map(self, addr: int, nr_pages: int, *, touched: bool = True) -> Self:
        """The first thread maps pages and writes to each."""
        self.enter(FIRST, MMAP, 0, nr_pages * PAGE, 3, 0x22, 0xFFFFFFFF)
        self.leave(FIRST, MMAP, addr)
        for page in range(nr_pages if touched else 0):
            self.fault(FIRST, addr + page * PAGE)
        return self

    def unmap(self, addr: int, nr_pages: int, *flushes: tuple[int, int]) -> Self:
        """The first thread unmaps pages; `flushes` are what is recorded meanwhile: pages, reason."""
        self.enter(FIRST, MUNMAP, addr, nr_pages * PAGE)
        for pages, reason in flushes:
            self.flush(FIRST, pages, reason)
        return self.leave(FIRST, MUNMAP)

    def write(self, path: Path) -> Path:
        """The file."""
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
        return path
