"""The scenario language: read, check and write `.scn` files.

Contract: `parse` accepts what the runner in the guest (`runner/tlbw.c`) and `tlbcore import` accept, and names the line
of a mistake; a mistake found here costs no boot. What an operation does to memory is not known here (`mappings.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

REGION_BASE = 0x1000_0000_0000
REGION_BYTES = 1 << 32
PAGE_BYTES = 4096
NR_REGION_PAGES = REGION_BYTES // PAGE_BYTES
NR_REGIONS = 26

# Limits of the runner, whose tables are static (runner/tlbw.c).
MAX_STEPS = 4000
MAX_ENTRIES = 8
MAX_ACTORS = 40
# As many as a recorded mask has bits.
MAX_CPUS = 64

PROTECTIONS = ("none", "r", "rw", "rx", "rwx")
ADVICE = (
    "dontneed",
    "free",
    "remove",
    "dontfork",
    "hugepage",
    "nohugepage",
    "cold",
    "pageout",
    "populate",
    "collapse",
)
SETTINGS = {"thp": ("always", "madvise", "never"), "memcg": ("0", "1")}

# The arguments of each operation; those in brackets may be left out.
OPERATIONS = {
    "thread": "new-actor cpu mode",
    "fork": "new-actor cpu mode",
    "exit": "",
    "wait": "actor",
    "mode": "mode",
    "cpu": "cpu",
    "getpid": "",
    "nop": "",
    "nap": "number",
    "mmap": "region page pages protection backing [page]",
    "touch": "region page pages access [stride]",
    "munmap": "region page pages",
    "mprotect": "region page pages protection",
    "madvise": "region page pages advice",
    "mremap": "region page pages region page [pages]",
    "mresize": "region page pages pages",
    "msync": "region page pages",
    "mkfile": "file pages",
    "fsync": "file",
    "ftrunc": "file pages",
    "fpunch": "file page pages",
    "clearrefs": "number",
    "creclaim": "pages",
}


class ScenarioError(LabError):
    """A scenario that cannot be run, in one line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one actor does in a step: an operation, so many times."""

    actor: str
    op: str
    args: tuple[str, ...] = ()
    repetitions: int = 1

    @property
    def text(self) -> str:
        """The operation and its arguments, as the markers in the trace have them."""
        return " ".join((self.op, *self.args))

    def __str__(self) -> str:
        """As it stands in a step."""
        repeat = f"rep {self.repetitions} " if self.repetitions != 1 else ""
        return f"{self.actor} {repeat}{self.text}"


@dataclass(slots=True)
class Scenario:
    """Settings and steps; the entries of a step run at the same time."""

    settings: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[Entry, ...]] = field(default_factory=list)

    def __str__(self) -> str:
        """As it stands in a file."""
        lines = [f"#! {name}={value}" for name, value in self.settings.items()]
        lines += [" | ".join(map(str, step)) for step in self.steps]
        return "".join(line + "\n" for line in lines)

    @property
    def nr_cpus(self) -> int:
        """How many CPUs it needs."""
        cpus = [0]
        for step in self.steps:
            for entry in step:
                words = OPERATIONS[entry.op].split()
                cpus += [int(arg) for word, arg in zip(words, entry.args, strict=False) if word == "cpu"]
        return max(cpus) + 1


def _one_of(choices: Iterable[str]) -> Callable[[str], bool]:
    return frozenset(choices).__contains__


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _is_pages(word: str) -> bool:
    return _is_number(word) and int(word) <= NR_REGION_PAGES


def _is_backing(word: str) -> bool:
    kind, colon, name = word.partition(":")
    return word in {"anon", "shared"} or (kind in {"file", "sfile"} and bool(colon and name))


_ARGUMENTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "access": ("r or w", _one_of("rw")),
    "actor": ("an actor's name", str.isalnum),
    "advice": (f"an advice ({', '.join(ADVICE)})", _one_of(ADVICE)),
    "backing": ("anon, shared, file:NAME or sfile:NAME", _is_backing),
    "cpu": ("a CPU's number", _is_number),
    "file": ("a file's name", lambda word: word.replace("_", "").isalnum()),
    "mode": ("spin or sleep", _one_of(("spin", "sleep"))),
    "new-actor": ("a new actor's name", str.isalnum),
    "number": ("a number", _is_number),
    "page": (f"a page, 0 to {NR_REGION_PAGES}", _is_pages),
    "pages": (f"a number of pages, at most {NR_REGION_PAGES}", _is_pages),
    "protection": (f"a protection ({', '.join(PROTECTIONS)})", _one_of(PROTECTIONS)),
    "region": ("a region's letter, A to Z", lambda word: len(word) == 1 and "A" <= word <= "Z"),
    "stride": ("a stride of at least 1 page", lambda word: _is_pages(word) and int(word) > 0),
}


class _Parser:
    def __init__(self, name: str) -> None:
        self.name = name
        self.nr_line = 0
        self.actors = {"T0"}
        self.scenario = Scenario()

    def wrong(self, found: str, expected: str) -> ScenarioError:
        return ScenarioError(f"{self.name}: line {self.nr_line}: found {found}, expected {expected}")

    def line(self, line: str) -> None:
        self.nr_line += 1
        if line.strip().startswith("#!"):
            self.setting(line.strip()[2:].strip())
            return
        line = line.partition("#")[0].strip()
        if not line:
            return
        step = tuple(self.entry(part.split()) for part in line.split("|"))
        if len(step) > MAX_ENTRIES:
            raise self.wrong(f"{len(step)} entries", f"at most {MAX_ENTRIES} in a step")
        if len({entry.actor for entry in step}) != len(step):
            raise self.wrong("an actor twice in a step", "one entry for each actor")
        self.scenario.steps.append(step)
        if len(self.scenario.steps) > MAX_STEPS:
            raise self.wrong("one more step", f"at most {MAX_STEPS}")

    def setting(self, text: str) -> None:
        name, _, value = text.partition("=")
        if value not in SETTINGS.get(name, ()):
            raise self.wrong(f"`{text}`", "thp=always, thp=madvise, thp=never, memcg=0 or memcg=1")
        self.scenario.settings[name] = value

    def entry(self, words: list[str]) -> Entry:
        actor = words.pop(0) if words else ""
        if actor not in self.actors:
            raise self.wrong(f"actor `{actor}`", "T0 or one that an earlier thread or fork made")
        repetitions = 1
        if words[:1] == ["rep"]:
            if len(words) == 1 or not _is_number(words[1]) or int(words[1]) == 0:
                raise self.wrong(f"`{' '.join(words[:2])}`", "rep and a number of at least 1")
            repetitions = int(words[1])
            del words[:2]
        op = words.pop(0) if words else ""
        if op not in OPERATIONS:
            raise self.wrong(f"`{op}`", f"one of {', '.join(OPERATIONS)}")
        self.arguments(OPERATIONS[op].split(), words)
        return Entry(actor, op, tuple(words), repetitions)

    def arguments(self, kinds: list[str], words: list[str]) -> None:
        for position, kind in enumerate(kinds):
            expected, accepts = _ARGUMENTS[kind.strip("[]")]
            if position == len(words):
                if kind.startswith("["):
                    return
                raise self.wrong("the end of the entry", expected)
            word = words[position]
            if not accepts(word) or (kind == "actor" and word not in self.actors):
                raise self.wrong(f"`{word}`", expected)
            if kind == "new-actor":
                self.actors.add(word)
                if len(self.actors) > MAX_ACTORS:
                    raise self.wrong(f"actor `{word}`", f"at most {MAX_ACTORS} actors")
        if len(words) > len(kinds):
            raise self.wrong(f"`{words[len(kinds)]}`", "the end of the entry")


def parse(text: str, name: str) -> Scenario:
    """Reads a scenario; `name` stands in messages.

    Raises:
        ScenarioError: file, line, what was found, what was expected.
    """
    parser = _Parser(name)
    for line in text.splitlines():
        parser.line(line)
    if not parser.scenario.steps:
        raise parser.wrong("no step", "at least one line ACTOR OPERATION")
    return parser.scenario


def load(path: Path) -> Scenario:
    """Reads a scenario's file.

    Raises:
        ScenarioError: as `parse`, or the file cannot be read.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: found byte {error.start} that is no UTF-8, expected text") from error
