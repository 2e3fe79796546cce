"""A recording as arrays that are easy to ask: who ran when, what touched which range, and how an event reads."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from tlbcore.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    from tlbcore._core import Recording

    Rows = npt.NDArray[np.intp]
else:
    np = LazyModule("numpy")

PAGE: Final = 4096
FAULT_AROUND: Final = 16
"""Pages around a fault that a replay takes over with it (`docs/validate.md`)."""

#: Calls by what their arguments are: (number shown, index of the address, index of the length).
_RANGES: Final = {
    "mmap": (4, None, 1),
    "munmap": (2, 0, 1),
    "mprotect": (3, 0, 1),
    "mremap": (5, 0, 1),
    "madvise": (3, 0, 1),
    "msync": (3, 0, 1),
    "remap_file_pages": (3, 0, 1),
    "mlock": (2, 0, 1),
    "munlock": (2, 0, 1),
}
_NR_SHOWN: Final = {
    "brk": 1,
    "process_madvise": 5,
    "shmat": 3,
    "shmdt": 1,
    "exit_call": 1,
    "exit_group": 1,
    "fork": 1,
    "access": 4,
    "creclaim": 1,
}
#: Kinds that take entries or rights away, so that they gather or flush: what two operations have to be to overlap.
_TAKES_AWAY: Final = (
    *("munmap", "mprotect", "mremap", "brk", "process_madvise", "fork", "shmdt", "remap_file_pages"),
    *("clear_refs", "creclaim", "fpunch", "ftruncate", "fsync"),
)
#: The same of madvise, by advice (include/uapi/asm-generic/mman-common.h): DONTNEED, FREE, REMOVE, COLD, PAGEOUT,
#: DONTNEED_LOCKED, COLLAPSE.
_ADVICE_TAKES_AWAY: Final = (4, 8, 9, 20, 21, 24, 25)
_MAP_FIXED: Final = 0x10
REASONS: Final = (
    "task switch",
    "remote shootdown",
    "local shootdown",
    "local mm shootdown",
    "remote send IPI",
    "remote wrong CPU",
)
#: Reasons by which a CPU shows that it made a request itself, and that a request found it in another address space.
ASKED: Final = (2, 3, 4)
WRONG_CPU: Final = 5
#: The number of strides of a full flush.
FULL: Final = -1
_TASK_IDLE, _TASK_KTHREAD = 2**32 - 1, 2**32 - 2


class Timeline:
    """The columns of one recording, read once."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.tasks = recording.tasks
        self.names = recording.names
        kinds = dict(recording.event_kinds())
        self._kind_numbers = {name: number for number, name in kinds.items()}
        self._kinds = kinds
        self.time: npt.NDArray[np.int64] = recording.column("time_ns").astype(np.int64)
        self.end: npt.NDArray[np.int64] = recording.column("end_ns").astype(np.int64)
        self.kind = recording.column("kind")
        self.task = recording.column("task")
        self.cpu = recording.column("cpu")
        self.args = [recording.column(f"a{index}") for index in range(6)]
        self.ret = recording.column("ret")
        self.flush = {name: recording.flush_column(name) for name in recording.flush_columns}

    @cached_property
    def _pids(self) -> npt.NDArray[np.int64]:
        """The process of each task, -1 past the last."""
        return np.array([pid for _, pid, _ in self.tasks] + [-1], dtype=np.int64)

    def pid_of(self, tasks: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The process of each of these task indexes; -1 for idle and tasks outside the recording."""
        pids: npt.NDArray[np.int64] = self._pids[np.minimum(tasks, len(self.tasks)).astype(np.intp)]
        return pids

    @cached_property
    def pid(self) -> npt.NDArray[np.int64]:
        """The process of each event; of a switch the one that leaves."""
        return self.pid_of(self.task)

    @cached_property
    def pid_in(self) -> npt.NDArray[np.int64]:
        """The process that a switch brings in, -1 for other events."""
        arriving = self.pid_of(self.args[0])
        return np.where(self.is_kind("switch"), arriving, -1)

    def is_kind(self, *names: str) -> npt.NDArray[np.bool_]:
        """Which events are of one of these kinds."""
        numbers = [self._kind_numbers[name] for name in names if name in self._kind_numbers]
        return np.isin(self.kind, numbers)

    @cached_property
    def flush_pid(self) -> npt.NDArray[np.int64]:
        """The process whose operation each flush record belongs to, -1 unknown."""
        causes = self.flush["op_event"].astype(np.int64)
        if not len(self.pid):
            return np.full(len(causes), -1, dtype=np.int64)
        return np.where(causes >= 0, self.pid[np.maximum(causes, 0)], -1)

    @cached_property
    def takes_away(self) -> dict[int, Rows]:
        """Rows of the operations that take entries or rights away, by process."""
        advice = self.is_kind("madvise") & np.isin(self.args[2], _ADVICE_TAKES_AWAY)
        over_mapping = self.is_kind("mmap") & (self.args[3] & _MAP_FIXED != 0)
        return self._by_process(self.is_kind(*_TAKES_AWAY) | advice | over_mapping)

    @cached_property
    def faults(self) -> dict[int, Rows]:
        """Rows of faults, by process."""
        return self._by_process(self.is_kind("fault"))

    @cached_property
    def switches(self) -> Rows:
        """Rows of context switches."""
        return np.flatnonzero(self.is_kind("switch"))

    @cached_property
    def _switches_of_cpu(self) -> dict[int, Rows]:
        cpus = self.cpu[self.switches]
        return {int(cpu): self.switches[cpus == cpu] for cpu in np.unique(cpus)}

    def runs_on(self, cpu: int) -> Rows:
        """Rows of the switches of a CPU."""
        return self._switches_of_cpu.get(cpu, np.array([], dtype=np.intp))

    @cached_property
    def _cpus_of_process(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for pid, cpu in {*zip(self.pid.tolist(), self.cpu.tolist(), strict=True)}:
            found.setdefault(pid, set()).add(cpu)
        return found

    def cpus_of(self, pid: int) -> set[int]:
        """The CPUs on which a process was ever seen."""
        return self._cpus_of_process.get(pid, set())

    def _by_process(self, chosen: npt.NDArray[np.bool_]) -> dict[int, Rows]:
        rows = np.flatnonzero(chosen)
        pids = self.pid[rows]
        return {int(pid): rows[pids == pid] for pid in np.unique(pids)}

    def kind_name(self, row: int) -> str:
        """The kind of an event."""
        return self._kinds[int(self.kind[row])]

    def range_of(self, row: int) -> tuple[int, int] | None:
        """The bytes that an event is about, if its arguments tell."""
        kind = self.kind_name(row)
        if kind in {"fault", "reclaim_page"}:
            page = int(self.args[0][row]) & -PAGE
            return (page, page + PAGE) if page else None
        if kind == "mmap":
            start = int(self.ret[row])
            return (start, start + int(self.args[1][row])) if start > 0 else None
        shape = _RANGES.get(kind)
        if shape is None or shape[1] is None:
            return None
        start = int(self.args[shape[1]][row])
        return start, start + int(self.args[shape[2]][row])

    def thread(self, task: int) -> str:
        """A task as people know it: name and thread id."""
        if task < len(self.tasks):
            tid, _, comm = self.tasks[task]
            return f"{comm}/{tid}"
        return {_TASK_IDLE: "idle", _TASK_KTHREAD: "kernel thread"}.get(task, "another task")

    def event_text(self, row: int) -> str:
        """An event with its arguments."""
        kind = self.kind_name(row)
        first = int(self.args[0][row])
        match kind:
            case "step_begin":
                text = f"step: {self._name(int(self.args[2][row]))}"
            case "step_end":
                text = "end of step"
            case "switch":
                text = f"switch to {self.thread(first)}"
            case "exec":
                text = f"exec({self._name(int(self.args[5][row]))})"
            case "migrate_task":
                text = f"moves to CPU {first}"
            case "fault":
                code = int(self.args[1][row])
                access = "write" if code & 2 else "fetch" if code & 16 else "read"
                text = f"fault({first:#x}, {access}, {'present' if code & 1 else 'absent'})"
            case _:
                nr_shown = _RANGES[kind][0] if kind in _RANGES else _NR_SHOWN.get(kind, 0)
                text = f"{kind}({', '.join(hex(int(self.args[index][row])) for index in range(nr_shown))})"
        return text

    def _name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else ""

    def flush_text(self, row: int) -> str:
        """A record of the kernel's flush code."""
        flush = self.flush
        name = dict(self.recording.flush_kinds())[int(flush["kind"][row])]
        if name == "tlb_flush":
            return f"{REASONS[int(flush['reason'][row])]}: {pages_text(int(flush['pages'][row]))}"
        words = [name]
        start, end = int(flush["start"][row]), int(flush["end"][row])
        if end == 2**64 - 1:
            words.append("everything")
        elif end:
            words.append(f"{start:#x}-{end:#x}")
        if name == "mm_range":
            words.append(f"stride {int(flush['stride_shift'][row])}")
            if flush["freed_tables"][row]:
                words.append("freed_tables")
        if int(flush["mask"][row]) and name in {"mm_range", "multi", "batch_flush"}:
            words.append(f"mask {cpulist(int(flush['mask'][row]))}")
        if name in {"gather", "gather_full", "finish", "flush_mmu", "batch_pending"}:
            words.append(f"pending {int(flush['pending'][row])}")
        if name == "func":
            words.append(f"for CPU {int(flush['icpu'][row])}")
        return " ".join(words)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes as ranges that neither overlap nor touch, sorted."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def pages_text(pages: int) -> str:
    """A count of strides: ``full``, ``nothing`` or so many."""
    if pages == -1:
        return "full"
    return "nothing" if pages < 0 else f"{pages} stride{'' if pages == 1 else 's'}"


def cpulist(mask: int) -> str:
    """CPUs as a kernel list: ``0-2,5``."""
    cpus = [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]
    parts: list[str] = []
    while cpus:
        length = next((i for i in range(1, len(cpus)) if cpus[i] != cpus[0] + i), len(cpus))
        parts.append(str(cpus[0]) if length == 1 else f"{cpus[0]}-{cpus[length - 1]}")
        cpus = cpus[length:]
    return ",".join(parts) or "none"
