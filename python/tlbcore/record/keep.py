"""Keeps of a recording of everybody the events of one command and of all that it forked.

Of switches those in which such a task leaves or enters a CPU; of flushes those that such a task does, and those that other CPUs
do because one of its flushes told them. Files are cut to the last part of their names, in call chains too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Family", "Kept", "kept_lines"]

_LINE: Final = re.compile(r"^.*?\s(-?\d+)/(-?\d+)\s+\[\d+\]\s+\d+\.\d+:\s+(\S+?):\s(.*)$")
_SWITCH: Final = re.compile(
    r"prev_pid=(\d+) prev_prio=-?\d+ prev_state=(\S+) ==> next_comm=.* next_pid=(\d+) next_prio="
)
_FORK: Final = re.compile(r" pid=(\d+) child_comm=.* child_pid=(\d+)$")
_MIGRATE: Final = re.compile(r" pid=(\d+) prio=")
_FILE: Final = re.compile(r"filename=(.*) pid=(\d+) old_pid=(\d+)$")
#: With callers asked for, `perf script` prints where the kernel was at the end of the line of an event without a chain.
_PLACE: Final = re.compile(r" [0-9a-f]{8,16} \S+ \((?:\[[^()]*\]|/[^()]*)\)(?=\n$)")
_FOLDER: Final = re.compile(r"\(/[^()]*/")
#: Ends of the payload of `tlb:tlb_flush`, by reason.
_TASK_SWITCH, _SEND, _TOLD = "(0)", "(4)", ("(1)", "(5)")


@dataclass
class Kept:
    """What was kept and what not, counted."""

    nr_kept: int = 0
    nr_of_others: int = 0
    nr_lost: int = 0


@dataclass
class Family:
    """The tasks of a command while its recording is read; None as root is everybody."""

    root: int | None
    tasks: set[int] = field(default_factory=set)
    #: Those that have exited and are still to leave their CPU for the last time.
    ending: set[int] = field(default_factory=set)
    #: Those whose latest event is a flush that tells others.
    sending: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """The first of them."""
        if self.root is not None:
            self.tasks.add(self.root)

    def has(self, tid: int, event: str, payload: str) -> bool:
        """Whether an event is one of theirs; it may add to them."""
        if self.root is None:
            return True
        if event == "tlb:tlb_flush":
            return self._flush(tid, payload)
        self.sending.discard(tid)
        special = {
            "sched:sched_switch": self._switch,
            "sched:sched_process_fork": self._fork,
            "sched:sched_process_exec": self._exec,
            "sched:sched_process_exit": self._exit,
            "sched:sched_migrate_task": self._migrate,
        }.get(event)
        return tid in self.tasks if special is None else special(tid, payload)

    def _flush(self, tid: int, payload: str) -> bool:
        if tid not in self.tasks:
            return bool(self.sending) and payload.endswith(_TOLD)
        if payload.endswith(_SEND):
            self.sending.add(tid)
        return True

    def _switch(self, tid: int, payload: str) -> bool:
        found = _SWITCH.search(payload)
        if found is None:
            return tid in self.tasks
        before, state, after = int(found[1]), found[2], int(found[3])
        belongs = before in self.tasks or after in self.tasks
        if before in self.ending and state[0] in "XZ":
            # The last that is seen of it; its number may be another's later.
            self.ending.discard(before)
            self.tasks.discard(before)
        return belongs

    def _fork(self, tid: int, payload: str) -> bool:
        found = _FORK.search(payload)
        if found is None:
            return tid in self.tasks
        parent, child = int(found[1]), int(found[2])
        self.ending.discard(child)
        belongs = parent in self.tasks
        if belongs:
            self.tasks.add(child)
        else:
            self.tasks.discard(child)
        return belongs

    def _exec(self, tid: int, payload: str) -> bool:
        found = _FILE.search(payload)
        if found is not None and int(found[3]) in self.tasks:
            # A thread that calls exec takes over the number of its process.
            self.tasks.add(int(found[2]))
            return True
        return tid in self.tasks

    def _exit(self, tid: int, _: str) -> bool:
        if tid in self.tasks:
            self.ending.add(tid)
        return tid in self.tasks

    def _migrate(self, _: int, payload: str) -> bool:
        found = _MIGRATE.search(payload)
        return found is not None and int(found[1]) in self.tasks


def kept_lines(lines: Iterable[str], root: int | None, kept: Kept) -> Iterator[str]:
    """The lines of `perf script` that belong to the command.

    Args:
        lines: The text, line by line, each with its newline.
        root: Process id of the command; None keeps everybody.
        kept: Counts.

    """
    family = Family(root)
    # By its first line a text is known for what it is, so those about losses come after an event.
    losses: list[str] = []
    is_kept = False
    for line in lines:
        if line[0] == "\t":
            # A line of a chain goes the way of its event.
            if is_kept:
                yield _FOLDER.sub("(", line)
        elif "PERF_RECORD_" in line:
            if "PERF_RECORD_LOST" in line:
                kept.nr_lost += int(re.findall(r"\d+", line)[-1])
                losses.append(line)
        elif line[0] != "#" and line.strip():
            shown = _kept_line(family, line, kept)
            is_kept = shown is not None
            if shown is not None:
                yield shown
                yield from losses
                losses.clear()
    yield from losses


def _kept_line(family: Family, line: str, kept: Kept) -> str | None:
    """An event's line as it is kept, or nothing."""
    if line.endswith(")\n"):
        line = _PLACE.sub("", line)
    match = _LINE.match(line)
    if match is None:
        # The importer names it, with its number.
        return line
    event, payload = match[3], match[4]
    if event == "tlb:tlb_flush" and payload.endswith(_TASK_SWITCH):
        return None
    if not family.has(int(match[2]), event, payload):
        kept.nr_of_others += 1
        return None
    kept.nr_kept += 1
    return _without_folder(line, payload) if event == "sched:sched_process_exec" else line


def _without_folder(line: str, payload: str) -> str:
    found = _FILE.search(payload)
    if found is None or "/" not in found[1]:
        return line
    return line.replace(f"filename={found[1]} ", f"filename={found[1].rpartition('/')[2]} ")
