"""The states of a counterexample in words: page table, TLBs, CPUs, locks, masks, pages, and what each thread knows.

The explorer names its variables as its model does; `tlbcore.report.trace.names` says what each is called here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlbcore import _core
from tlbcore.report.trace.names import BY_ACTIVE_MM, GROUPS, HIDDEN, HIDDEN_LOCALS, LOCALS, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbcore.check import Event, Verdict
    from tlbcore.report.trace.names import Label

__all__ = ["GROUPS", "INVARIANTS", "Entry", "changes", "states"]

INVARIANTS: Final[dict[str, str]] = {name: says for name, _, says in _core.invariants()}
"""What a violation of each means."""

_VARIABLE: Final = re.compile(r"(\w+)(?:\((.*)\))?")
_WAY: Final = re.compile(r"\[cache the way to the (.*)\]")
_MMS: Final = ("other mm", "mm", "LOADED_MM_SWITCHING")
#: Sets with a bit for each.
_SETS: Final = {"entries": "entry", "frames": "frame", "tables": "page table"}


@dataclass(frozen=True)
class Entry:
    """One thing that a state says."""

    group: str
    name: str
    value: str


def states(verdict: Verdict) -> list[list[Entry]]:
    """What each state of a counterexample says, the first one before any step; a lock is shown with who took it.

    Raises:
        KeyError: A kind of variable has no label.

    """
    told = _Told(verdict)
    found = []
    before: dict[str, int] = {}
    for at, snapshot in enumerate(verdict.snapshots):
        variables = {name: int(value) for name, value in snapshot["variables"]}
        if at:
            told.note(verdict.counterexample[at - 1], [n for n, value in variables.items() if value > before.get(n, 0)])
        before = variables
        found.append(told.entries(snapshot, variables))
    return found


class _Told:
    """What the numbers of a counterexample's variables mean, and what its steps have told of them so far."""

    def __init__(self, verdict: Verdict) -> None:
        names = {name for snapshot in verdict.snapshots for name, _ in snapshot["variables"]}
        self._cpus = verdict.cpus
        self._nr_threads = sum(not cpu.startswith("user ") for cpu in verdict.cpus)
        self._pages = [page for snapshot in verdict.snapshots[:1] for page, _ in snapshot["ptes"]]
        self._labels = VARIABLES
        self._always: dict[str, int] = {}
        if any(name.startswith("LoadedMm(") for name in names):
            # 0, which a snapshot leaves out, is another address space.
            users = range(len(verdict.cpus) - self._nr_threads)
            self._always = {f"{kind}({user})": 0 for kind in ("LoadedMm", "Cr3") for user in users}
            if "TlbGen(0)" not in names:
                self._labels = VARIABLES | BY_ACTIVE_MM
        self._holders: dict[str, int] = {}
        self._ways: dict[str, str] = {}
        self._tlb_gen = 0

    def note(self, event: Event, raised: list[str]) -> None:
        """A step has raised these variables."""
        self._holders |= dict.fromkeys(raised, event.cpu)
        if way := _WAY.fullmatch(event.text):
            self._ways |= {name: way[1] for name in raised if name.startswith("Psc(")}

    def entries(self, snapshot: Mapping[str, Any], variables: Mapping[str, int]) -> list[Entry]:
        """What a state says."""
        found = [Entry("page table", page, text) for page, text in snapshot["ptes"]]
        cached: dict[int, list[str]] = {cpu: [] for cpu in range(self._nr_threads, len(self._cpus))}
        for cpu, page, text in snapshot["tlbs"]:
            cached.setdefault(self._nr_threads + cpu, []).append(f"{page}: {text}")
        found += [Entry("TLBs", f"CPU{cpu}", "; ".join(texts) or "empty") for cpu, texts in sorted(cached.items())]
        self._tlb_gen = variables.get("TlbGen(0)", 0)
        # What has a variable for each CPU, or for each way, is shown in one line.
        lines: dict[tuple[str, str], list[str]] = {}
        for variable, value in (self._always | dict(variables)).items():
            match = _VARIABLE.fullmatch(variable)
            kind, inside = (match[1], match[2] or "") if match else (variable, "")
            if kind not in HIDDEN:
                label, name, number = self._named(kind, inside)
                if label is not None:
                    lines.setdefault((label.group, name), []).append(self._value(variable, label, number, value))
        found += [
            Entry(group, name, ", ".join(sorted(values, key=_numbered))) for (group, name), values in lines.items()
        ]
        return sorted(found, key=lambda entry: GROUPS.index(entry.group))

    def _named(self, kind: str, inside: str) -> tuple[Label | None, str, int]:
        """The label of a variable, what it is called with its numbers, and the first of these; no label: it is not shown."""
        if kind != "Thread":
            return self._filled(self._labels[kind], inside)
        thread, _, local = inside.partition(", ")
        match = _VARIABLE.fullmatch(local)
        kind, inside = (match[1], match[2] or "") if match else (local, "")
        if kind in HIDDEN_LOCALS:
            return None, "", 0
        label, name, number = self._filled(LOCALS[kind], inside)
        return label, f"{self._cpu(int(thread))} {name}", number

    def _filled(self, label: Label, inside: str) -> tuple[Label, str, int]:
        number = int(inside.partition(",")[0] or 0)
        text = label.text.format(
            number=number,
            page=self._pages[number] if number < len(self._pages) else f"page {number}",
            cpu=self._cpu(self._nr_threads + number) if "{cpu}" in label.text else "",
            mm=" of the other mm" if number else "",
            elsewhere=" of the CPU that it went to" if number else "",
        )
        return label, text, number

    def _cpu(self, cpu: int) -> str:
        return f"CPU{cpu} ({self._cpus[cpu]})"

    def _value(self, variable: str, label: Label, number: int, value: int) -> str:  # noqa: PLR0911  # one for each kind
        """A value in words, where these depend on the counterexample."""
        match label.value:
            case "lock":
                by = self._cpu(self._holders[variable]) if variable in self._holders else "held"
                return by if value == 1 else f"{value}, last {by}"
            case "pages":
                return ", ".join(self._pages[bit] for bit in _bits(value))
            case "CPUs":
                return f"CPU{self._nr_threads + number}"
            case "thread + 1":
                return self._cpu(value - 1)
            case "generation":
                return str(value) if value <= self._tlb_gen else "none yet"
            case "way":
                return self._ways.get(variable, variable.removeprefix("Psc"))
            case kind:
                return _plain(kind, value)


def _numbered(text: str) -> tuple[int, str]:
    """CPU10 after CPU9."""
    return len(text), text


def _bits(value: int) -> list[int]:
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def _plain(kind: str, value: int) -> str:
    """A value in words that are the same in all counterexamples."""
    match kind:
        case "entries" | "frames" | "tables":
            return ", ".join(f"{_SETS[kind]} {bit}" for bit in _bits(value))
        case "number + 1":
            return str(value - 1)
        case "table + 1":
            return f"page table {value - 1}"
        case "mm":
            return _MMS[value]
        case "queued":
            return kind
    return str(value) if kind == "count" or value > 1 else "yes"


def changes(before: list[Entry], after: list[Entry]) -> list[str]:
    """What a step changed, in words."""
    old, new = ({(entry.group, entry.name): entry.value for entry in state} for state in (before, after))
    said = [
        f"{_where(key)}: {old[key]} \u2192 {value}" if key in old else f"{_where(key)}: {value}"
        for key, value in new.items()
        if old.get(key) != value
    ]
    return [*said, *(f"{_where(key)}: {_gone(key[0], value)}" for key, value in old.items() if key not in new)]


def _gone(group: str, value: str) -> str:
    """What became of something that a state does not tell any more."""
    if group == "locks":
        return "released"
    return "no" if value == "yes" else f"{value} \u2192 {0 if value.isdecimal() and group != 'threads' else 'none'}"


def _where(key: tuple[str, str]) -> str:
    group, name = key
    if " " in name:  # not the plain name of a page or a CPU
        return name
    return {"page table": f"PTE of {name}", "TLBs": f"TLB of {name}"}.get(group, name)
