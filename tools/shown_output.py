"""The commands and programs that the documentation shows, and the output that it shows for them.

In a ```` ```console ```` block a line that begins with ``$ `` is a command (of ``tlbcore``, or ``python FILE``), what
follows its output; a ```` ```python ```` block is a program of its own, a ```` ```text ```` block right after it its
output; a ```` ```toml ```` block that begins with a comment with its name is a file that the commands after it find. A line
``...`` stands for any lines, ``...`` inside a line for any text.

A ```` ```console recorded ```` (or ``python recorded``) block records what happens on this very machine, or reads what was
recorded so: its numbers are others each time, and any number there stands for any. It is run where `perf` may record.

``tests/test_docs.py`` holds what is shown against what comes out; ``python tools/shown_output.py [--again] [PAGE...]`` writes
what comes out into the pages (``--again``: new recordings too).
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tlbcore.record import lacks

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (
    "README.md",
    *(
        page.relative_to(ROOT).as_posix()
        for folder in ("docs", "docs/schemes")
        for page in sorted((ROOT / folder).glob("*.md"))
    ),
)
WILDCARD: Final = "..."
_TIME: Final = re.compile(r"(\(.* states, )\d+\.\d+ s\)")
"""How long a search took: another number each time."""

_BLOCK: Final = re.compile(r"^```(console|python|text|toml)( recorded)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER: Final = re.compile(r"-?\d+(?:[ ,.]\d+)*")
#: What is counted: one of it, or several.
_COUNTED: Final = re.compile(r"\b0 (\w+?)s?\b")
_GAP: Final = re.compile(r"[ -]+")
#: `sudo` has a path of its own, on which no environment of Python is.
_AS_ROOT: Final = "sudo $(which tlbcore)"
_FILE_NAME: Final = re.compile(r"# (\w+\.toml)\b")


@dataclass(frozen=True)
class Example:
    """Something that is run, and the output that its page shows."""

    page: str
    line: int
    #: The command, or the program's text.
    source: str
    is_program: bool
    shown: tuple[str, ...]
    #: Where in the page's text the output stands; None for a program that shows none.
    span: tuple[int, int] | None
    #: Its numbers are others each time.
    is_recorded: bool = False
    #: Files that it finds: name -> text.
    files: tuple[tuple[str, str], ...] = ()

    def run(self, folder: Path) -> str:
        """Run it in a folder; return what it prints, errors too.

        Raises:
            ValueError: A command of another program.
        """
        for name, text in self.files:
            (folder / name).write_text(text, encoding="utf-8")
        if self.is_program:
            command = [sys.executable, "-c", self.source]
        else:
            name, *rest = shlex.split(self.source.replace(_AS_ROOT, "tlbcore"))
            if name == "tlbcore":
                command = [sys.executable, "-m", "tlbcore", *rest]
            elif name == "python":
                command = [sys.executable, *rest]
            else:
                raise ValueError(f"{self.page}:{self.line}: found the command {name}, expected tlbcore or python")
        environment = {**os.environ, "COLUMNS": "80", "PYTHONWARNINGS": "error"}
        done = subprocess.run(  # noqa: S603  # commands of our own pages
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())

    def matches(self, output: str) -> bool:
        """Whether the output is what is shown."""
        pattern = ""
        for line in self.shown:
            if line == WILDCARD:
                pattern += r"(?:.*\n)*?"
            else:
                pattern += ".*".join(re.escape(part) for part in self._told(line).split(WILDCARD)) + r"\n"
        return re.fullmatch(pattern, "".join(f"{self._told(line)}\n" for line in output.splitlines())) is not None

    def _told(self, line: str) -> str:
        """What of a line has to be the same each time: of what was recorded here no number, and no width of a column."""
        if not self.is_recorded:
            return line
        return _GAP.sub(" ", _COUNTED.sub(r"0 \1", _NUMBER.sub("0", line))).strip()

    def refreshed(self, output: str) -> list[str]:
        """What to show instead: as many lines at both ends as were shown, those between by their first words.

        A part between two wildcards begins where a line begins with the same word.
        """
        lines = [_TIME.sub(r"\1... s)", line) for line in output.splitlines()]
        parts: list[list[str]] = [[]]
        for line in self.shown:
            if line == WILDCARD:
                parts.append([])
            else:
                parts[-1].append(line)
        if len(parts) == 1:
            return lines
        at = len(parts[0])
        result = lines[:at]
        for part in parts[1:-1]:
            word = part[0].split()[0]
            at = next((row for row in range(at, len(lines)) if lines[row].split()[:1] == [word]), at)
            result += [WILDCARD, *lines[at : at + len(part)]]
            at += len(part)
        return [*result, WILDCARD, *lines[len(lines) - len(parts[-1]) :]]


def examples(page: str) -> list[Example]:
    """What a page shows, in its order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Example] = []
    files: list[tuple[str, str]] = []
    end_of_program = -1
    for block in _BLOCK.finditer(text):
        kind, is_recorded, body, start = block[1], block[2] is not None, block[3], block.start(3)
        line = text.count("\n", 0, start) + 1
        if kind == "python":
            found.append(Example(page, line, body, is_program=True, shown=(), span=None, is_recorded=is_recorded))
            end_of_program = block.end()
        elif kind == "text" and not text[end_of_program : block.start()].strip() and end_of_program >= 0:
            found[-1] = replace(found[-1], shown=tuple(body.splitlines()), span=(start, block.end(3)))
        elif kind == "toml" and (name := _FILE_NAME.match(body)):
            files.append((name[1], body))
        elif kind == "console":
            found += _commands(page, body, start, line, is_recorded=is_recorded, files=tuple(files))
    return found


def _commands(  # noqa: PLR0913  # where it stands and what it is
    page: str, body: str, start: int, line: int, *, is_recorded: bool, files: tuple[tuple[str, str], ...]
) -> list[Example]:
    found = []
    for command in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
        number = line + body.count("\n", 0, command.start())
        shown = tuple(command[2].splitlines())
        span = (start + command.start(2), start + command.end(2))
        found.append(Example(page, number, command[1], False, shown, span, is_recorded, files))  # noqa: FBT003
    return found


def can_record() -> bool:
    """Whether `perf` may record here."""
    return not any(lack.stops for lack in lacks())


def workplace(folder: Path) -> Path:
    """A folder in which the shown paths exist and what is written harms nobody."""
    for name in ("data", "examples", "litmus"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def refresh(page: str, *, again: bool = False) -> int:
    """Write the outputs of today into a page; return how many differed.

    Args:
        page: The page.
        again: Write the numbers of today's recordings too, where nothing else differs.

    """
    text = (ROOT / page).read_text(encoding="utf-8")
    changes: list[tuple[tuple[int, int], str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = workplace(Path(name))
        for example in examples(page):
            if example.is_recorded and not can_record():
                print(f"{page}:{example.line}: not run, no perf may record here")
                continue
            output = example.run(folder)
            anew = again and example.is_recorded
            if example.span is not None and (anew or not example.matches(output)):
                changes.append((example.span, "".join(f"{line}\n" for line in example.refreshed(output))))
    for (start, end), output in reversed(changes):
        text = text[:start] + output + text[end:]
    if changes:
        (ROOT / page).write_text(text, encoding="utf-8")
    return len(changes)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--again"]
    for name in names or PAGES:
        print(f"{name}: {refresh(name, again='--again' in sys.argv)} outputs changed")
