"""Litmus files: a question about a kernel as plain text, after those of `tools/memory-model/litmus-tests` in Linux.

`litmus/README.md` is the reference of the format; `tlbcore.litmus_check` answers. `parse` and `Litmus.text` are inverse
to each other, but for spaces and for what a file leaves to its default.

>>> litmus = parse('''
... tlbcore example
... kernel linux-6.18
... { p0: file; }
...  P0             | P1                   | P2   ;
...  munmap(p0..p0) | page_mkclean(p0..p0) | user ;
... exists (I4)
... Result: Never
... ''')
>>> litmus.kernel, litmus.users, litmus.exists
('linux-6.18', 1, ('I4',))
>>> parse(litmus.text()) == litmus
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, TypeAlias

from tlbcore.errors import InputError

__all__ = ["Call", "Litmus", "Page", "SchemeCall", "parse"]

#: A constant of a kernel, an option of a scheme.
Value: TypeAlias = bool | int | str

RESULTS: Final = ("Sometimes", "Never")
KINDS: Final = ("file", "anon")
MAPPED: Final = ("none", "read", "write", "dirty")
PAGE_FLAGS: Final = ("huge", "exec", "pfn")
FLAGS: Final = ("write", "none", "other_table")
#: What a CPU without an operation does: whatever it likes.
USER, FAULTS = "user", "faults"
#: The largest number that a file may have anywhere; no bound of the explorer is as large.
LARGEST: Final = 255

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_ACCESS: Final = re.compile(r"(?:[A-Za-z]\w*\s*=\s*)?(?:load|store)\b.*", re.DOTALL)


@dataclass(frozen=True)
class SchemeCall:
    """A scheme by its class, and its options."""

    scheme: str
    options: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        """As in a file."""
        inside = ", ".join(f"{name}={_value_text(value)}" for name, value in self.options)
        return f"{self.scheme}({inside})" if inside else self.scheme


@dataclass(frozen=True)
class Page:
    """A virtual page and its entry at the start."""

    kind: str = "file"
    #: The entry: none, read (read-only), write (writable, clean), dirty (writable, dirty).
    mapped: str = "write"
    table: int = 0
    vma: int = 0
    #: The page frame; None: one of its own.
    frame: int | None = None
    #: One huge page, alone in its table.
    huge: bool = False
    #: Executable.
    exec: bool = False
    #: A driver's memory, mapped without references.
    pfn: bool = False

    def __str__(self) -> str:
        """As in a file."""
        text = f"{self.kind}, {self.mapped}, table {self.table}, vma {self.vma}"
        text = text if self.frame is None else f"{text}, frame {self.frame}"
        return "".join([text, *(f", {word}" for word in PAGE_FLAGS if getattr(self, word))])


@dataclass(frozen=True)
class Call:
    """The program of a kernel thread: one operation on the pages `first` to `last`."""

    operation: str
    first: int
    last: int
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As in a file."""
        return f"{self.operation}({', '.join((f'p{self.first}..p{self.last}', *self.flags))})"


@dataclass(frozen=True)
class Litmus:
    """A question: can these operations of this kernel violate this?"""

    name: str
    question: str
    #: As `kernels.get` takes it.
    kernel: str
    #: Operations that other schemes serve than the kernel's.
    schemes: tuple[tuple[str, SchemeCall], ...]
    constants: tuple[tuple[str, Value], ...]
    #: Bugs of the flush engine.
    engine: tuple[str, ...]
    pages: tuple[Page, ...]
    spare_frames: int | None
    #: Page tables are freed, and move, as a whole.
    whole_tables: bool
    #: Another process maps the pages by the same tables.
    shared_tables: bool
    #: CPUs with an operation, then those that take faults, then those of the user.
    threads: tuple[Call, ...]
    faults: int
    users: int
    #: Invariants, of which one is violated if the answer is Sometimes.
    exists: tuple[str, ...]
    result: str
    #: Where it was read.
    source: str = field(default="litmus", compare=False)

    @property
    def changed_kernel(self) -> str:
        """The kernel and what is changed in it, in a few words."""
        changes = [str(call) for _, call in self.schemes]
        changes += [f"{name}={_value_text(value)}" for name, value in self.constants]
        changes = list(dict.fromkeys([*changes, *self.engine]))
        return f"{self.kernel} with {', '.join(changes)}" if changes else self.kernel

    def text(self) -> str:
        """The file."""
        lines = [f"tlbcore {self.name}", ""]
        if self.question:
            lines += ["(*", *(f" * {line}".rstrip() for line in self.question.split("\n")), " *)", ""]
        lines.append(f"kernel {self.kernel}")
        lines += [f"scheme {operation} = {call}" for operation, call in self.schemes]
        lines += [f"constant {name} = {_value_text(value)}" for name, value in self.constants]
        lines += [f"engine {name}" for name in self.engine]
        lines += ["", "{", *(f"  p{number}: {page};" for number, page in enumerate(self.pages))]
        lines += [] if self.spare_frames is None else [f"  spare frames {self.spare_frames};"]
        lines += ["  whole tables;"] if self.whole_tables else []
        lines += ["  shared tables;"] if self.shared_tables else []
        programs = [*map(str, self.threads), *[FAULTS] * self.faults, *[USER] * self.users]
        widths = [max(len(program), len(f"P{number}")) for number, program in enumerate(programs)]
        rows = ([f"P{number}" for number in range(len(programs))], programs)
        lines += ["}", ""]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(f" {' | '.join(cells)} ;")
        exists = " \\/ ".join(self.exists)
        return "\n".join([*lines, "", f"exists ({exists})", f"Result: {self.result}", ""])


def _value_text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class _Reader:
    """The lines of a file, and how far they are read."""

    source: str
    lines: list[str]
    at: int = 0

    def bad(self, found: str, expected: str, line: int | None = None) -> NoReturn:
        """Give up.

        Raises:
            InputError: Always.
        """
        shown = " ".join(found.split())
        shown = f"{shown[:60]}..." if len(shown) > 60 else shown  # noqa: PLR2004  # a line is a line
        where = self.at if line is None else line
        raise InputError(f"{self.source}:{where}: found {shown or 'the end of the line'}, expected {expected}")

    def peek(self) -> str:
        """The next line that is not empty, without spaces around; empty at the end of the file."""
        while self.at < len(self.lines) and not self.lines[self.at].strip():
            self.at += 1
        return self.lines[self.at].strip() if self.at < len(self.lines) else ""

    def next(self, expected: str) -> str:
        """The same, and go on."""
        line = self.peek()
        if not line:
            nr_lines = len(self.lines) - (self.lines[-1:] == [""])  # nothing stands behind the last newline
            raise InputError(f"{self.source}:{max(nr_lines, 1)}: found the end of the file, expected {expected}")
        self.at += 1
        return line

    def number(self, text: str, what: str) -> int:
        """A number of 0 to `LARGEST`."""
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > LARGEST:
            self.bad(text, f"{what}, a number of 0 to {LARGEST}")
        return int(text)

    def value(self, text: str) -> Value:
        """A constant's value."""
        if text in ("true", "false"):
            return text == "true"
        if re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        if not re.fullmatch(_NAME, text):
            self.bad(text, "a value: true, false, a number or a word")
        return text


def parse(text: str, source: str = "litmus") -> Litmus:
    """Read a litmus file.

    Args:
        text: What stands in it.
        source: Its name, for errors.

    Raises:
        InputError: One line: file and line, what was found and what was expected.

    """
    reader = _Reader(source, text.split("\n"))
    head = re.fullmatch(r"tlbcore\s+([A-Za-z0-9][\w.+-]*)", reader.next("tlbcore NAME"), re.ASCII)
    if head is None:
        reader.bad(reader.lines[reader.at - 1], "tlbcore NAME with letters, digits and . + - _")
    question = _question(reader)
    litmus = replace(_kernel(reader), name=head[1], question=question)
    litmus = _state(reader, litmus)
    litmus = _programs(reader, litmus)
    exists = _exists(reader)
    result = reader.next("Result: Sometimes or Result: Never")
    found = re.fullmatch(r"Result:\s*(\w+)", result)
    if found is None or found[1] not in RESULTS:
        reader.bad(result, "Result: Sometimes or Result: Never")
    if reader.peek():
        reader.bad(reader.peek(), "nothing after the result", reader.at + 1)
    return replace(litmus, exists=exists, result=found[1])


def _question(reader: _Reader) -> str:
    """The comment, its lines without what decorates them."""
    if not reader.peek().startswith("(*"):
        return ""
    start = reader.at
    text = "\n".join(reader.lines[start:]).lstrip()
    inside, end, after = text[2:].partition("*)")
    if not end:
        reader.bad("a comment without end", "*)", start + 1)
    reader.at = start + inside.count("\n") + 1
    if after.partition("\n")[0].strip():
        reader.bad(after.partition("\n")[0], "nothing after the end of the comment")
    lines = [line.strip() for line in inside.split("\n")]
    lines = [line[1:].removeprefix(" ") if line.startswith("*") else line for line in lines]
    while lines and not lines[0].strip():
        del lines[0]
    while lines and not lines[-1].strip():
        del lines[-1]
    return "\n".join(lines)


def _kernel(reader: _Reader) -> Litmus:
    """The kernel, and what is changed in it."""
    line = reader.next("kernel NAME")
    words = line.split(None, 1)
    if words[0] != "kernel" or len(words) == 1:
        reader.bad(line, "kernel NAME, after one comment at most")
    schemes: dict[str, SchemeCall] = {}
    constants: dict[str, Value] = {}
    engine: list[str] = []
    while not reader.peek().startswith("{"):
        line = reader.next("{, then the pages")
        if found := re.fullmatch(rf"scheme\s+({_NAME})\s*=\s*({_NAME})\s*(?:\((.*)\))?", line):
            if found[1] in schemes:
                reader.bad(f"a second scheme of {found[1]}", "one")
            schemes[found[1]] = SchemeCall(found[2], _options(reader, found[3] or ""))
        elif found := re.fullmatch(rf"constant\s+({_NAME})\s*=\s*(\S+)", line):
            if found[1] in constants:
                reader.bad(f"a second value of {found[1]}", "one")
            constants[found[1]] = reader.value(found[2])
        elif found := re.fullmatch(rf"engine\s+({_NAME})", line):
            engine.append(found[1])
        else:
            expected = "scheme OPERATION = SCHEME, constant NAME = VALUE, engine NAME or { and the pages"
            reader.bad(line, expected)
    return Litmus(
        name="",
        question="",
        kernel=words[1],
        schemes=tuple(schemes.items()),
        constants=tuple(constants.items()),
        engine=tuple(dict.fromkeys(engine)),
        pages=(),
        spare_frames=None,
        whole_tables=False,
        shared_tables=False,
        threads=(),
        faults=0,
        users=0,
        exists=(),
        result="",
        source=reader.source,
    )


def _options(reader: _Reader, text: str) -> tuple[tuple[str, Value], ...]:
    options: dict[str, Value] = {}
    for part in text.split(",") if text.strip() else ():
        found = re.fullmatch(rf"\s*({_NAME})\s*=\s*(\S+)\s*", part)
        if found is None:
            reader.bad(part, "OPTION=VALUE")
        options[found[1]] = reader.value(found[2])
    return tuple(options.items())


def _state(reader: _Reader, litmus: Litmus) -> Litmus:
    """The pages, in their order."""
    inside = ""
    first = True
    pages: list[Page] = []
    spare_frames = None
    tables: set[str] = set()
    while True:
        line = reader.next("} after the pages")
        inside += (line.removeprefix("{") if first else line) + " "
        first = False
        text, end, after = inside.partition("}")
        *statements, inside = text.split(";")
        for statement in map(str.strip, statements):
            if found := re.fullmatch(r"spare\s+frames\s+(\S+)", statement):
                spare_frames = reader.number(found[1], "spare frames")
            elif found := re.fullmatch(r"(whole|shared)\s+tables", statement):
                tables.add(found[1])
            else:
                pages.append(_page(reader, statement, len(pages)))
        if end:
            break
    if inside.strip():
        reader.bad(inside, "; after each page")
    if after.strip():
        reader.bad(after, "nothing after }")
    if not pages:
        reader.bad("no page", "p0: KIND;")
    return replace(
        litmus,
        pages=tuple(pages),
        spare_frames=spare_frames,
        whole_tables="whole" in tables,
        shared_tables="shared" in tables,
    )


def _page(reader: _Reader, statement: str, number: int) -> Page:
    found = re.fullmatch(r"p([0-9]+)\s*:\s*(.*)", statement)
    if found is None and "TLB" in statement.upper():
        reader.bad(statement, "no TLB entry: TLBs are empty at the start, and hardware fills them at any time")
    if found is None:
        reader.bad(
            statement or ";", f"p{number}: KIND, ENTRY, table N, vma N, frame N; spare frames N; or whole tables;"
        )
    if found[1] != str(number):
        reader.bad(f"p{found[1]}", f"p{number}: pages are numbered in order")
    text = found[2]
    given: dict[str, str | int | bool] = {}
    words_of = {**dict.fromkeys(KINDS, "kind"), **dict.fromkeys(MAPPED, "mapped"), **{w: w for w in PAGE_FLAGS}}
    for part in map(str.strip, text.split(",")):
        words = part.split()
        if part in words_of:
            key, value = words_of[part], part
        elif len(words) == 2 and words[0] in ("table", "vma", "frame"):  # noqa: PLR2004  # a word and its number
            key, value = words[0], ""
        else:
            reader.bad(part or "nothing", f"{', '.join((*KINDS, *MAPPED, *PAGE_FLAGS))}, table N, vma N or frame N")
        if key in given:
            reader.bad(f"a second {key}", "one")
        given[key] = key in PAGE_FLAGS or value or reader.number(words[1], key)
    if "kind" not in given:
        reader.bad(text, "file or anon for each page")
    return replace(Page(), **given)  # type: ignore[arg-type]  # each key has its type above


def _programs(reader: _Reader, litmus: Litmus) -> Litmus:
    """A row of names, and a row of programs below it."""
    names = _row(reader, "P0 | P1 ... ;")
    if names != [f"P{number}" for number in range(len(names))]:
        reader.bad(" | ".join(names), "P0 | P1 ... in order")
    programs = _row(reader, "a row of programs")
    if len(programs) != len(names):
        reader.bad(f"{len(programs)} columns", f"{len(names)}")
    threads: list[Call] = []
    others: list[str] = []
    for number, program in enumerate(programs):
        if program in (USER, FAULTS):
            if program == FAULTS and USER in others:
                reader.bad(f"P{number}: faults after user", "operations, then faults, then user")
            others.append(program)
            continue
        call = _call(reader, number, program, len(litmus.pages))
        if others:
            reader.bad(f"P{number}: {program} after {others[-1]}", "operations, then faults, then user")
        threads.append(call)
    return replace(litmus, threads=tuple(threads), faults=others.count(FAULTS), users=others.count(USER))


def _row(reader: _Reader, expected: str) -> list[str]:
    line = reader.next(expected)
    if not line.endswith(";") or line.count(";") > 1:
        reader.bad(line, f"{expected} with ; at its end")
    return [cell.strip() for cell in line[:-1].split("|")]


def _call(reader: _Reader, number: int, program: str, nr_pages: int) -> Call:
    if _ACCESS.fullmatch(program):
        reader.bad(
            f"P{number}: {program}", "user: a CPU that loads and stores what it likes; programs of accesses cannot run"
        )
    found = re.fullmatch(rf"({_NAME})\(\s*p([0-9]+)\s*\.\.\s*p([0-9]+)\s*((?:,\s*\w+\s*)*)\)", program)
    if found is None:
        reader.bad(f"P{number}: {program or 'no program'}", "OPERATION(pA..pB), faults or user")
    first, last = reader.number(found[2], "a page"), reader.number(found[3], "a page")
    if not first <= last < nr_pages:
        reader.bad(f"P{number}: p{first}..p{last}", f"pages within p0..p{nr_pages - 1}")
    flags = tuple(flag.strip() for flag in found[4].split(",")[1:])
    for flag in flags:
        if flag not in FLAGS or flags.count(flag) > 1:
            reader.bad(f"P{number}: {flag}", f"each of {', '.join(FLAGS)} once at most")
    return Call(found[1], first, last, tuple(flag for flag in FLAGS if flag in flags))


def _exists(reader: _Reader) -> tuple[str, ...]:
    line = reader.next("exists (INVARIANT ...)")
    if line.endswith(";"):
        reader.bad(line, "one row of programs: one operation for each CPU, then exists (...)")
    found = re.fullmatch(r"exists\s*\((.*)\)", line)
    names = [name.strip() for name in found[1].split("\\/")] if found else []
    if not names or not all(re.fullmatch(r"I[0-9]+", name, re.ASCII) for name in names):
        reader.bad(line, "exists (I1 \\/ I2 ...): invariants, of which one is violated; values read are not observed")
    if len(set(names)) < len(names):
        reader.bad(line, "each invariant once")
    return tuple(names)
