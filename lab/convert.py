"""From the guest's trace to a recording: one record for each event, in words of the scenario.

Contract: the records that `tlbcore import` reads (docs/recordings.md; README.md lists kinds and keys). Events of other
programs are left out, of other address spaces too. Consecutive faults at one stride, and calls of try_to_unmap_one()
for consecutive pages of one address space, become one record with their number. A TLB flush of the tracepoint belongs
to the probed function that its CPU entered last.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lab.raw_trace import MARKER, Line, place
from lab.scenario import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Record = dict[str, Any]

MARKER_FD: Final = 3
MAX_STRIDE_PAGES: Final = 1024
# A switch and the flush it does lie closer together than that, in microseconds of the emulator.
MAX_SWITCH_US: Final = 2000
NR_MASK_CPUS: Final = 64

# Reasons of the tracepoint tlb:tlb_flush (enum tlb_flush_reason, include/linux/mm_types.h).
REASON_TASK_SWITCH: Final = 0
REASON_REMOTE_SEND: Final = 4

# Of the system calls that a scenario's entry can make; others stay numbers (arch/x86/entry/syscalls/syscall_64.tbl).
SYSTEM_CALLS: Final = {
    0: "read",
    1: "write",
    2: "open",
    3: "close",
    5: "fstat",
    9: "mmap",
    10: "mprotect",
    11: "munmap",
    12: "brk",
    14: "rt_sigprocmask",
    17: "pread64",
    24: "sched_yield",
    25: "mremap",
    26: "msync",
    28: "madvise",
    34: "pause",
    35: "nanosleep",
    39: "getpid",
    56: "clone",
    60: "exit",
    61: "wait4",
    74: "fsync",
    77: "ftruncate",
    157: "prctl",
    186: "gettid",
    202: "futex",
    203: "sched_setaffinity",
    230: "clock_nanosleep",
    231: "exit_group",
    257: "openat",
    273: "set_robust_list",
    285: "fallocate",
    334: "rseq",
    435: "clone3",
}
#: Of these, those that gather in the caller's own address space; what cuts a file, or a hole into it, does so in all that map it.
OWN_CALLS: Final = frozenset({9, 10, 11, 12, 25, 28, 60, 231})
CLONES: Final = frozenset({56, 435})
MADVISE: Final = 28
MADV_REMOVE: Final = 9
WRITE: Final = 1
EXIT_GROUP: Final = 231

_SYS_ENTER = re.compile(r"NR (\d+) \((.*)\)")
_SYS_EXIT = re.compile(r"NR (-?\d+) = (-?\d+)")
_SWITCH = re.compile(r"prev_comm=(.*) prev_pid=(\d+) .*prev_state=(\S+) ==> next_comm=(.*) next_pid=(\d+)")
_TLB_FLUSH = re.compile(r"pages:(-?\d+) .*\((\d+)\)")

# A flush_tlb_func() for an address space that is none of the scenario's: the tracepoint after it is not ours either.
_FOREIGN: Final[dict[str, Any]] = {}


def _mask(text: str) -> list[int]:
    mask = int(text, 0)
    return [cpu for cpu in range(NR_MASK_CPUS) if mask >> cpu & 1]


class Converter:
    """Goes through a trace once."""

    def __init__(self, lines: list[Line], gather_flags: Mapping[str, int]) -> None:
        self.records: list[Record] = []
        # What the runner says of each actor, by its name.
        self.actors: dict[str, dict[str, int]] = {}
        # Events of kinds that nothing here knows.
        self.unknown: dict[str, int] = {}
        self._lines = lines
        self._gather_flags = gather_flags
        self._name_of: dict[int, str] = {}
        self._pid_of: dict[int, int] = {}
        self._in_entry: set[int] = set()
        # Address spaces: the structure of each process, their names in order of birth, those taken down.
        self._mm_of: dict[int, int] = {}
        self._mms: dict[int, str] = {}
        self._nr_mms = 0
        self._born: set[int] = set()
        self._gone: set[int] = set()
        # By CPU, what a tracepoint that follows belongs to.
        self._flushing: dict[int, Record] = {}
        self._sending: dict[int, Record] = {}
        self._switched: dict[int, Record] = {}
        self._handlers: dict[str, Callable[[Line, Record], None]] = {
            MARKER: self._marker,
            "sys_enter": self._sys_enter,
            "sys_exit": self._sys_exit,
            "page_fault_user": self._fault,
            "sched_switch": self._switch,
            "sched_process_exit": self._task_exit,
            "tlb_flush": self._tlb_flush,
            "func": self._func,
            "multi": self._multi,
            "mm_range": self._of_mm,
            "gather": self._of_mm,
            "gather_full": self._of_mm,
            "finish": self._of_mm,
            "flush_mmu": self._of_mm,
            "ptep_clear_flush": self._of_mm,
            "pmdp_clear_flush": self._of_mm,
            "pmdp_invalidate": self._of_mm,
            "exit_mmap": self._of_mm,
            "batch_pending": self._batch_pending,
            "unmap_one": self._unmap_one,
            "batch_flush": self._batch_flush,
            "unmap_flush": self._counted,
            "unmap_flush_dirty": self._counted,
            "free_pgtables": self._counted,
            "flush_all": self._counted,
            "flush_kernel": self._counted,
            "move_tables": self._move_tables,
            "leave_mm": self._leave_mm,
        }

    def run(self) -> None:
        """Makes the records."""
        self._meet_actors()
        begin = self._lines[0].seconds if self._lines else 0.0
        for line in self._lines:
            self._name_new_mm(line.tid)
            handler = self._handlers.get(line.event)
            if handler is None:
                self.unknown[line.event] = self.unknown.get(line.event, 0) + 1
                continue
            who = self._actor(line.tid, line.comm)
            handler(line, {"t": round((line.seconds - begin) * 1e6), "c": line.cpu, "a": who})

    def _meet_actors(self) -> None:
        """Learns all names beforehand: a thread is traced before its first marker."""
        for line in self._lines:
            if line.event == MARKER and line.text.startswith("A "):
                tid, pid = line.number("tid"), line.number("pid")
                self._name_of[tid], self._pid_of[tid] = line.words[1], pid
                self.actors[line.words[1]] = {"tid": tid, "pid": pid, "cpu": line.number("cpu")}
        inside: dict[int, int] = {}
        for line in self._lines:
            if line.tid not in self._pid_of:
                continue
            if matched := _SYS_ENTER.match(line.text) if line.event == "sys_enter" else None:
                nr = int(matched[1])
                is_removal = nr == MADVISE and int(matched[2].split(", ")[2], 16) == MADV_REMOVE
                inside[line.tid] = -1 if is_removal else nr
            elif line.event == "sys_exit":
                inside.pop(line.tid, None)
            elif self._is_about_own_mm(line.event, inside.get(line.tid)):
                self._mm_of.setdefault(self._pid_of[line.tid], line.number("mm"))

    @staticmethod
    def _is_about_own_mm(event: str, call: int | None) -> bool:
        """Whether what an actor does inside a system call, or outside of all, must be about its own address space."""
        return (
            event in {"gather_full", "exit_mmap"}
            or (event == "gather" and call in OWN_CALLS)
            or (event == "mm_range" and call in CLONES)
            or (event == "ptep_clear_flush" and call is None)  # a fault of user mode
        )

    def _name_new_mm(self, tid: int) -> None:
        pid = self._pid_of.get(tid)
        if pid is None or pid in self._born:
            return
        self._born.add(pid)
        if pid in self._mm_of:
            self._mms[self._mm_of[pid]] = f"mm{self._nr_mms}"
            self._nr_mms += 1
            self._gone.discard(self._mm_of[pid])

    def _actor(self, tid: int, comm: str) -> str:
        return self._name_of.get(tid) or ("idle" if tid == 0 else comm)

    def _is_ours(self, tid: int) -> bool:
        return tid in self._name_of or tid == 0

    def _add(self, head: Record, kind: str, **more: Any) -> Record:  # noqa: ANN401  # values of JSON
        record = {**head, "k": kind, **{name: value for name, value in more.items() if value is not None}}
        self.records.append(record)
        return record

    def _last(self, kind: str, actor: str) -> Record | None:
        """The latest record, if it is of this kind and actor."""
        last = self.records[-1] if self.records else {}
        return last if last.get("k") == kind and last.get("a") == actor else None

    def _marker(self, line: Line, head: Record) -> None:
        kind, *words = line.words
        if kind == "A":
            self._add(head, "actor", name=words[0], pid=line.number("pid"))
        elif kind == "B":
            self._in_entry.add(line.tid)
            self._add(head, "B", step=int(words[0]), it=int(words[2]), op=" ".join(words[3:]))
        elif kind == "E":
            self._in_entry.discard(line.tid)
            self._add(head, "E", step=int(words[0]), it=int(words[2]), rc=line.number("rc"))
        elif kind == "END":
            self._add(head, "END")
        else:
            self._add(head, "note", text=line.text)

    def _sys_enter(self, line: Line, head: Record) -> None:
        matched = _SYS_ENTER.match(line.text)
        if matched is None or not self._is_ours(line.tid):
            return
        nr, arguments = int(matched[1]), [int(word, 16) for word in matched[2].split(", ")]
        shown = [hex(argument) for argument in arguments]
        if line.tid in self._in_entry:
            if nr != WRITE or arguments[0] != MARKER_FD:
                self._add(head, "sys", name=SYSTEM_CALLS.get(nr, str(nr)), args=shown, at=place(arguments[0]))
        elif nr == EXIT_GROUP:
            self._add(head, "sys", name=SYSTEM_CALLS[nr], args=shown[:1])

    def _sys_exit(self, line: Line, head: Record) -> None:
        matched = _SYS_EXIT.match(line.text)
        # Of a write only the enter is recorded: most are markers, and which one is, only the enter says.
        if matched is not None and line.tid in self._in_entry and int(matched[1]) != WRITE:
            nr = int(matched[1])
            self._add(head, "ret", name=SYSTEM_CALLS.get(nr, str(nr)), rc=int(matched[2]))

    def _fault(self, line: Line, head: Record) -> None:
        if not self._is_ours(line.tid):
            return
        address, code = line.number("address"), line.number("error_code")
        page = address & -PAGE_BYTES
        last = self._last("fault", head["a"])
        if last is not None and last["code"] == code:
            stride = page - int(last["addr"], 16) - (last["n"] - 1) * last.get("st", 0) * PAGE_BYTES
            starts_run = last["n"] == 1 and 0 < stride <= MAX_STRIDE_PAGES * PAGE_BYTES
            if starts_run or (last["n"] > 1 and stride == last["st"] * PAGE_BYTES):
                last["st"] = stride // PAGE_BYTES
                last["n"] += 1
                return
        self._add(head, "fault", addr=hex(page), at=place(address), code=code, n=1)

    def _switch(self, line: Line, head: Record) -> None:
        matched = _SWITCH.match(line.text)
        if matched is None:
            return
        # A flush that comes now is that of the switch, not of a request that found nothing to do.
        self._flushing.pop(line.cpu, None)
        prev, next_ = self._actor(int(matched[2]), matched[1]), self._actor(int(matched[5]), matched[4])
        self._switched[line.cpu] = self._add(
            {"t": head["t"], "c": line.cpu}, "sw", prev=prev, state=matched[3], next=next_
        )

    def _task_exit(self, line: Line, head: Record) -> None:
        if self._is_ours(line.tid):
            self._in_entry.discard(line.tid)
            self._add(head, "task_exit")

    def _tlb_flush(self, line: Line, head: Record) -> None:
        matched = _TLB_FLUSH.match(line.text)
        if matched is None:
            return
        pages, reason = int(matched[1]), int(matched[2])
        if reason == REASON_REMOTE_SEND:
            sent = self._sending.pop(line.cpu, None)
            if sent is not None:
                sent["pages"] = pages
            return
        request = self._flushing.pop(line.cpu, None)
        if request is _FOREIGN:
            return
        if request is not None:
            request["pages"], request["reason"] = pages, reason
        elif reason != REASON_TASK_SWITCH:
            # A probe that fires inside another probe's handler is dropped by the kernel.
            self._add(head, "tlb_flush", pages=pages, reason=reason)
        else:
            switched = self._switched.get(line.cpu)
            if switched is not None and head["t"] - switched["t"] < MAX_SWITCH_US:
                switched.setdefault("flush", pages)

    def _request(self, line: Line) -> Record:
        start = line.number("start")
        return {
            "start": hex(start),
            "end": hex(line.number("end")),
            "at": place(start),
            "gen": line.number("gen"),
            "icpu": line.number("icpu"),
            "stride": line.number("stride"),
            "freed": line.number("freed"),
        }

    def _func(self, line: Line, head: Record) -> None:
        mm = line.number("mm")
        if mm and mm not in self._mms:
            self._flushing[line.cpu] = _FOREIGN
            return
        self._flushing[line.cpu] = self._add(head, "func", mm=self._mms.get(mm), **self._request(line))

    def _multi(self, line: Line, head: Record) -> None:
        mm = line.number("mm")
        if not mm or mm in self._mms:
            mask = _mask(line.values["mask"])
            self._sending[line.cpu] = self._add(head, "multi", mm=self._mms.get(mm), mask=mask, **self._request(line))

    def _mm(self, line: Line) -> str | None:
        """The name of the address space that an event is about; nothing if it is not one of the scenario's."""
        mm = line.number("mm")
        if mm in self._gone and line.tid not in self._pid_of:
            # The kernel has given the structure to another program.
            self._mms.pop(mm, None)
        return self._mms.get(mm)

    def _of_mm(self, line: Line, head: Record) -> None:
        mm = self._mm(line)
        if mm is None:
            return
        values = line.values
        more: Record = {}
        if "start" in values:
            start = line.number("start")
            more = {"start": hex(start), "end": hex(line.number("end")), "at": place(start)}
        if "stride" in values:
            more |= {"stride": line.number("stride"), "freed": line.number("freed")}
        if "mask" in values:
            more["mask"] = _mask(values["mask"])
        if "pend" in values:
            more["pend"] = line.number("pend")
        if "flags" in values:
            flags = line.number("flags")
            more["flags"] = [name for name, bit in self._gather_flags.items() if flags >> bit & 1]
            more["nbatch"] = line.number("nbatch")
        if "addr" in values:
            more |= {"addr": hex(line.number("addr")), "at": place(line.number("addr"))}
        self._add(head, line.event, mm=mm, **more)
        if line.event == "exit_mmap" and line.tid in self._pid_of:
            self._gone.add(line.number("mm"))
            self._in_entry.add(line.tid)

    def _batch_pending(self, line: Line, head: Record) -> None:
        mm = self._mm(line)
        if mm is None:
            return
        batched = line.number("batched")
        last = self._last(line.event, head["a"])
        if last is not None and last["batched"] == batched:
            last["n"] = last.get("n", 1) + 1
        else:
            self._add(head, line.event, mm=mm, batched=batched)

    def _unmap_one(self, line: Line, head: Record) -> None:
        mm = self._mm(line)
        if mm is None:
            return
        address = line.number("addr")
        last = self._last(line.event, head["a"])
        if last is not None and last["mm"] == mm and address == int(last["addr"], 16) + last["n"] * PAGE_BYTES:
            last["n"] += 1
        else:
            self._add(head, line.event, mm=mm, addr=hex(address), at=place(address), n=1)

    def _batch_flush(self, line: Line, head: Record) -> None:
        if self._is_ours(line.tid):
            self._add(head, line.event, mask=_mask(line.values["mask"]))

    def _counted(self, line: Line, head: Record) -> None:
        if not self._is_ours(line.tid):
            return
        last = self._last(line.event, head["a"])
        if last is not None:
            last["n"] = last.get("n", 1) + 1
        else:
            values = line.values
            self._add(head, line.event, start=values.get("start"), end=values.get("end"))

    def _move_tables(self, line: Line, head: Record) -> None:
        if self._is_ours(line.tid):
            values = line.values
            at = place(line.number("old"))
            self._add(head, line.event, old=values["old"], new=values["new"], len=values["len"], at=at)

    def _leave_mm(self, line: Line, head: Record) -> None:
        if self._is_ours(line.tid):
            self._add(head, line.event)


def missing_entries(records: Iterable[Record], steps: list[list[str]]) -> list[str]:
    """The entries of a scenario that did not end, as `step N of ACTOR`: somebody died of a signal or hung."""
    ended = {(record["step"], record["a"]) for record in records if record["k"] == "E"}
    wanted = [(number, actor) for number, actors in enumerate(steps) for actor in actors]
    return [f"step {number} of {actor}" for number, actor in wanted if (number, actor) not in ended]
