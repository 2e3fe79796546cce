"""The text of `strace -f` in the form of `perf script`, for the one importer.

What strace does not tell is put in the way that the text says it was ("assumed"): a thread runs on a CPU of its own while
there are enough; what is mapped is touched at once, up to `TOUCHED_PAGES` a mapping; flushes are not known at all.

Understood are lines of `strace -f` with any of `-t -tt -ttt -T`, constants as numbers or names:
``[PID] [TIME] call(args) = result [<seconds>]``, ``<unfinished ...>`` and ``<... call resumed>``, signals and ends.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.strace.arguments import flags_of, numbers
from tlbcore.syscalls import SYSCALLS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

__all__ = ["TOUCHED_PAGES", "as_perf_text", "is_strace"]

TOUCHED_PAGES: Final = 512
"""Pages of a mapping that are taken as touched: one page table's."""

_PAGE: Final = 4096
_PEEK: Final = 4096
_LINE: Final = re.compile(
    r"^(?:\[?(?:pid\s+)?(?P<tid>\d+)\]?\s+)?(?:(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?|\d+\.\d+|\d{6,})\s+)?(?P<rest>\S.*)$"
)
_CALL: Final = re.compile(r"^(?P<name>\w+)\((?P<args>.*)\)\s+= (?P<result>\?|-?\w+)(?P<more>.*)$")
_UNFINISHED: Final = re.compile(r"^(?P<name>\w+)\((?P<args>.*?),?\s*<unfinished \.\.\.>$")
_RESUMED: Final = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_SPENT: Final = re.compile(r"<(\d+\.\d+)>\s*$")
_END: Final = re.compile(r"^\+\+\+ (?:exited with \d+|killed by \w+.*) \+\+\+$")
_OTHER: Final = re.compile(r"^(?:--- .* ---|\+\+\+ .* \+\+\+|strace: .*|\?\?\?\? .*)$")
_PROT_WRITE, _PROT_ANY = 2, 7
_CLONE_THREAD = 0x10000
_FORKS: Final = ("clone", "clone3", "fork", "vfork")
_NOT_PRESENT_READ, _NOT_PRESENT_WRITE = 4, 6
_EXPECTED: Final = "`[PID] [TIME] call(arguments) = result` (strace -f)"


def is_strace(path: str | os.PathLike[str]) -> bool:
    """Whether the first line of a file that says something is one of strace; a pipe is not looked into, it is read once.

    Raises:
        OSError: It cannot be read.

    """
    if Path(path).is_fifo():
        return False
    with open(path, "rb") as file:  # noqa: PTH123  # whatever a path may be
        return begins_as_strace(file.read(_PEEK))


def begins_as_strace(head: bytes) -> bool:
    """Whether what begins with these bytes is a text of strace."""
    begin = head[:_PEEK].decode("utf-8", "replace")
    first = next((line for line in begin.splitlines() if line.strip()), "")
    found = _LINE.match(first)
    return found is not None and any(
        pattern.match(found["rest"]) for pattern in (_CALL, _UNFINISHED, _RESUMED, _END, _OTHER)
    )


@dataclass
class _Thread:
    tid: int
    pid: int
    comm: str
    cpu: int
    #: The fork that made it is in the text. Its first calls can stand before the line that tells of it.
    is_known: bool = False
    #: When its last call and what is assumed after it are over.
    free_ns: int = 0
    #: A call that has begun: its name, arguments and time.
    open: tuple[str, str, int] | None = None


@dataclass
class _Reader:
    file: str
    nr_cpus: int
    threads: dict[int, _Thread] = field(default_factory=dict)
    brk: dict[int, int] = field(default_factory=dict)
    assumed: Counter[str] = field(default_factory=Counter)
    #: (time, order, thread, event, payload)
    out: list[tuple[int, int, _Thread, str, str]] = field(default_factory=list)
    #: Threads that no fork in the text has made.
    strangers: list[_Thread] = field(default_factory=list)
    last_ns: int = 0
    #: The process that a line without a number is of.
    main: int = 1

    def put(self, thread: _Thread, time_ns: int, event: str, payload: str) -> None:
        self.out.append((time_ns, len(self.out), thread, event, payload))

    def thread(self, tid: int) -> _Thread:
        """The thread; one that was not seen to begin is a process of its own."""
        if tid not in self.threads:
            self.threads[tid] = self.begin(tid, tid, "?")
            self.strangers.append(self.threads[tid])
        return self.threads[tid]

    def begin(self, tid: int, pid: int, comm: str) -> _Thread:
        busy = Counter(thread.cpu for thread in self.threads.values())
        cpu = min(range(self.nr_cpus), key=lambda cpu: (busy[cpu], cpu))
        if busy[cpu]:
            self.assumed["threads_on_a_cpu_that_has_one"] += 1
        return _Thread(tid, pid, comm, cpu)

    def line(self, text: str, place: int) -> None:
        found = _LINE.match(text)
        if found is None:
            raise self.error(place, text)
        rest = found["rest"]
        self.last_ns = max(self.last_ns + 1, _nanoseconds(found["time"]) if found["time"] else 0)
        thread = self.thread(int(found["tid"]) if found["tid"] else self.main)
        if _END.match(rest):
            self.end(thread)
        elif _OTHER.match(rest):
            self.assumed["signals_and_messages_passed_over"] += 1
        elif resumed := _RESUMED.match(rest):
            if thread.open is None or thread.open[0] != resumed["name"]:
                self.assumed["calls_whose_begin_is_not_in_the_text"] += 1
                return
            name, args, began = thread.open
            thread.open = None
            call = _CALL.match(f"{name}({args}{resumed['rest']}")
            if call is None:
                raise self.error(place, text)
            self.call(thread, call, began, place)
        elif unfinished := _UNFINISHED.match(rest):
            thread.open = unfinished["name"], unfinished["args"], self.last_ns
        elif call := _CALL.match(rest):
            self.call(thread, call, self.last_ns, place)
        else:
            raise self.error(place, text)

    def error(self, place: int, text: str, expected: str = _EXPECTED) -> InputError:
        shown = text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004  # a line of a terminal
        return InputError(f"{self.file}: line {place}: found `{shown}`, expected {expected}")

    def call(self, thread: _Thread, call: re.Match[str], began: int, place: int) -> None:
        name = {"execveat": "execve", "pkey_mprotect": "mprotect"}.get(call["name"], call["name"])
        number = SYSCALLS.get(name)
        if number is None:
            self.assumed["other_calls_passed_over"] += 1
            return
        began = max(began, thread.free_ns)
        spent = _SPENT.search(call["more"])
        ended = began + 1 + (round(float(spent[1]) * 1e9) if spent else 0)
        try:
            args = numbers(name, call["args"])
        except ValueError as error:
            raise self.error(place, call[0], str(error)) from error
        shown = ", ".join(f"{value & 2**64 - 1:x}" for value in args)
        self.put(thread, began, "raw_syscalls:sys_enter", f"NR {number} ({shown})")
        if call["result"] == "?":
            return
        result = _result(call["result"], call["more"])
        if name in _FORKS and result > 0:
            self.fork(thread, name, call["args"], result, began + 1)
        elif name == "execve" and result == 0:
            path = re.search(r'"((?:[^"\\]|\\.)*)"', call["args"])
            thread.comm = path[1].rpartition("/")[2] if path else thread.comm
            self.put(
                thread,
                began + 1,
                "sched:sched_process_exec",
                f"filename={thread.comm} pid={thread.tid} old_pid={thread.tid}",
            )
            self.brk.pop(thread.pid, None)
        self.put(thread, ended, "raw_syscalls:sys_exit", f"NR {number} = {result}")
        self.touch(thread, name, args, result, ended)
        thread.free_ns = ended + 2

    def fork(self, parent: _Thread, name: str, args: str, tid: int, time_ns: int) -> None:
        flags = flags_of(args) if name.startswith("clone") else 0
        pid = parent.pid if flags & _CLONE_THREAD else tid
        child = self.threads.get(tid)
        if child is None:
            child = self.threads[tid] = self.begin(tid, pid, parent.comm)
        child.pid, child.is_known = pid, True
        if child.comm == "?":
            child.comm = parent.comm
        payload = f"comm={parent.comm[:15]} pid={parent.tid} child_comm={parent.comm[:15]} child_pid={tid}"
        self.put(parent, time_ns, "sched:sched_process_fork", payload)
        if pid in self.brk or parent.pid in self.brk:
            self.brk[pid] = self.brk.get(parent.pid, 0)

    def touch(self, thread: _Thread, name: str, args: list[int], result: int, time_ns: int) -> None:
        """Faults on what was mapped: nothing says which pages were used."""
        if name == "mmap" and result > 0 and args[2] & _PROT_ANY:
            begin, size, write = result, args[1], bool(args[2] & _PROT_WRITE)
        elif name == "brk" and result > 0:
            before = self.brk.get(thread.pid, result)
            self.brk[thread.pid] = result
            begin, size, write = -(-before // _PAGE) * _PAGE, result - before, True
        else:
            return
        nr_pages = -(-max(size, 0) // _PAGE)
        for page in range(min(nr_pages, TOUCHED_PAGES)):
            code = _NOT_PRESENT_WRITE if write else _NOT_PRESENT_READ
            payload = f"address=0x{begin + page * _PAGE:x} ip=0x0 error_code=0x{code:x}"
            self.put(thread, time_ns + 1, "exceptions:page_fault_user", payload)
        self.assumed["pages_taken_as_touched"] += min(nr_pages, TOUCHED_PAGES)
        self.assumed["pages_taken_as_not_touched"] += max(nr_pages - TOUCHED_PAGES, 0)

    def end(self, thread: _Thread) -> None:
        self.threads.pop(thread.tid, None)
        last = not any(other.pid == thread.pid for other in self.threads.values())
        payload = f"comm={thread.comm[:15]} pid={thread.tid} prio=120 group_dead={str(last).lower()}"
        self.put(thread, self.last_ns, "sched:sched_process_exit", payload)


def as_perf_text(lines: Iterable[str], file: str, nr_cpus: int) -> Iterator[str]:
    """The same as `perf script` would have it, in the order of time.

    Args:
        lines: The text of strace.
        file: Its name, for errors.
        nr_cpus: CPUs that threads are spread over.

    Raises:
        InputError: A line that is none of strace's, or arguments that are not understood; with file and line.

    """
    reader = _Reader(file, nr_cpus)
    for place, line in enumerate(lines, 1):
        if line.strip():
            reader.line(line.rstrip("\n"), place)
    unknown = sum(not thread.is_known for thread in reader.strangers[1:])
    reader.assumed["threads_not_seen_to_begin_are_processes"] += unknown
    yield "# recorded by : strace\n"
    yield f"# nrcpus online : {max((thread.cpu + 1 for _, _, thread, _, _ in reader.out), default=1)}\n"
    for what, count in sorted(reader.assumed.items()):
        if count:
            yield f"# assumed : {what} : {count}\n"
    for time_ns, _, thread, event, payload in sorted(reader.out, key=lambda entry: entry[:2]):
        head = f"{thread.comm[:15]:>16} {thread.pid}/{thread.tid} [{thread.cpu:03}]"
        yield f"{head} {time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09}: {event}: {payload}\n"


def _nanoseconds(text: str) -> int:
    if ":" in text:
        hours, minutes, seconds = text.split(":")
        whole, _, fraction = seconds.partition(".")
        whole_seconds = int(hours) * 3600 + int(minutes) * 60 + int(whole)
    else:
        before, _, fraction = text.partition(".")
        whole_seconds = int(before)
    return whole_seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


def _result(text: str, more: str) -> int:
    """What a call returned; an error as the kernel has it, negative."""
    value = int(text, 0)
    if value == -1:
        name = more.split(maxsplit=1)[0] if more.strip() else ""
        return -getattr(errno, name, 1)
    return value
