"""Every block of code that a page shows is run by a test, or stands here with the reason why it cannot be.

Which test runs what: commands and programs `test_docs.py`, pieces of programs the program that they are taken from, files
what reads them. A block that nothing runs fails here, and so does a reason whose block is gone.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shown_output import PAGES, ROOT, can_record, examples
from tlbcore import kernels
from tlbcore.cli.describe import describe
from tlbcore.cli.main import build_parser
from tlbcore.litmus import parse

#: What stands first in a block, and why no test runs it.
NOT_RUN = {
    ("README.md", "pip install ."): "`make release` does it, into a fresh environment",
    ("docs/first-recording.md", "git clone"): "compiles a clone; `make release` does, from a source distribution",
    ("docs/explorer-hunt.md", "none (consolidated:none) violates:"): "seven minutes; smaller sizes are run above it",
    ("lab/README.md", "apt-get install"): "changes the system",
    (
        "lab/README.md",
        "python3 -m lab run",
    ): "boots kernels in an emulator; tests/test_lab_tools.py has what needs none",
    ("lab/README.md", "tlbcore import build/"): "reads what the emulator left",
    ("docs/address-traces.md", "make -C tools/qemu-tracer"): "needs a header that no package of Debian 12 has",
    ("docs/machine.md", "make test"): "are the tests themselves, in three sizes",
    ("BENCHMARKING.md", "make bench"): "takes many minutes, and a machine that does nothing else",
}
#: Pages that another test compares whole with what makes them.
MADE = {"docs/differences.md"}
#: Drawings, grammars and formulas: nothing that could be run.
NO_CODE = {
    ("ARCHITECTURE.md", "MmuGather.munmap()"),
    ("ARCHITECTURE.md", "perf script, lab records"),
    ("docs/validate.md", "score = matched"),
}


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    kind: str
    text: str
    #: The kind of the block right before it, with nothing between; empty if there is none.
    after: str = ""

    def starts(self, known: dict[tuple[str, str], str] | set[tuple[str, str]]) -> tuple[str, str] | None:
        """The entry of a table that stands for it."""
        first = self.text.lstrip()
        return next((key for key in known if key[0] == self.page and first.startswith(key[1])), None)


def pages() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout  # noqa: S607
    found = listed.split() or [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")] + list(PAGES)
    return sorted({*found, *PAGES})


def blocks(page: str) -> Iterator[Block]:
    """Fenced blocks, and those that are set in by four spaces after an empty line."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    at, after, after_end = 0, "", -1
    while at < len(lines):
        line = lines[at]
        if re.fullmatch(r"```[^`]*", line):
            end = next(row for row in range(at + 1, len(lines)) if lines[row] == "```")
            gap = "".join(lines[after_end + 1 : at]).strip() if after_end >= 0 else "x"
            yield Block(page, at + 1, line[3:], "\n".join(lines[at + 1 : end]), "" if gap else after)
            at, after, after_end = end + 1, line[3:], end
        elif line.startswith("    ") and line.strip() and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield Block(page, at + 1, "", "\n".join(row[4:] for row in lines[at:end]))
            at = end
        else:
            at += 1


BLOCKS = [block for page in pages() for block in blocks(page)]
RUN_BY_TEST_DOCS = ("console", "console recorded", "python", "python recorded")


def is_run(block: Block) -> bool:
    """Whether a test runs or reads it."""
    if block.kind in RUN_BY_TEST_DOCS:
        return block.page in PAGES
    if block.kind == "py":
        return block.page in PAGES  # test_docs: a piece of a program of `examples/`, each of which a page runs: below
    if block.kind == "text":
        return block.after in {"python", "python recorded"} and block.page in PAGES
    if block.kind == "toml":
        return any(
            name and text == f"{block.text}\n" for example in examples(block.page) for name, text in example.files
        )
    if block.kind == "{toctree}":
        return True  # Sphinx reads it: `make docs`
    return any(check(block) for check in (is_of_make, is_perf, is_litmus, is_kernel, is_lab))


def is_of_make(block: Block) -> bool:
    """Targets of the Makefile, each of which make knows; tests and continuous integration run what they do."""
    if not block.text or not all(re.match(r"make\b", line) for line in block.text.splitlines()):
        return False
    commands = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    targets = set(re.findall(r"^(\w+):.*?## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return all(len(command) <= 2 and set(command[1:]) <= targets for command in commands)


def is_perf(block: Block) -> bool:
    return block.page == "docs/recordings.md" and block.text.startswith("ids=")  # run below


def is_litmus(block: Block) -> bool:
    """A litmus file, and one that there is."""
    if not block.text.startswith("tlbcore R"):
        return False
    shown = parse(block.text, block.page)
    there = parse((ROOT / "litmus" / "races" / f"{shown.name}.litmus").read_text(encoding="utf-8"), shown.name)
    return shown.kernel == there.kernel and shown.threads == there.threads and shown.pages == there.pages


def is_kernel(block: Block) -> bool:
    """The form of a resolved kernel, with the parts that one has."""
    if block.page != "docs/steps.md":
        return False
    shown, there = json.loads(block.text), kernels.get("linux-6.18").resolve()
    return set(shown) == set(there) and shown["format"] == there["format"] and shown["version"] == there["version"]


def is_lab(block: Block) -> bool:
    """Random scenarios: made, not run, which needs an emulator."""
    first, *rest = block.text.splitlines()
    if not first.startswith("python3 -m lab generate") or any("-m lab run" not in line for line in rest):
        return False
    words = shlex.split(first)[1:]
    with tempfile.TemporaryDirectory() as folder:
        words[words.index("--out") + 1] = folder
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
        return len(list(Path(folder).rglob("*.scn"))) == int(words[words.index("--number") + 1])


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS} - MADE))
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    left = [
        f"{block.page}:{block.line}: {block.text.splitlines()[0] if block.text else ''}"
        for block in BLOCKS
        if block.page == page and not block.starts(NO_CODE) and not block.starts(NOT_RUN) and not is_run(block)
    ]
    assert left == [], "no test runs these"


def test_no_reason_has_outlived_its_block() -> None:
    used = {block.starts(NOT_RUN) for block in BLOCKS} | {block.starts(NO_CODE) for block in BLOCKS}
    assert {*NOT_RUN, *NO_CODE} <= used


def test_a_page_runs_every_program_of_the_examples() -> None:
    shown = [example for page in PAGES for example in examples(page)]
    words = {word for example in shown if not example.is_program for word in shlex.split(example.source)}
    programs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.py")}
    assert programs <= {word.partition(":")[0] for word in words}


def test_what_is_set_in_is_found() -> None:
    """The twin: a page could not hide a block by another form."""
    assert [(block.page, block.kind) for block in BLOCKS if block.page == "docs/steps.md"] == [("docs/steps.md", "")]
    assert any(block.after == "python" for block in BLOCKS)


@pytest.mark.skipif(not can_record(), reason="no perf that may record here (`tlbcore record --check`)")
def test_the_recording_by_hand_works(tmp_path: Path) -> None:
    # `tlbcore` is that of the interpreter that runs the tests.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (block,) = [block for block in BLOCKS if is_perf(block)]
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec true\n", encoding="utf-8")
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block.text],  # noqa: S607
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "flush records" in done.stdout
    assert (tmp_path / "program.tlbr").is_file()


_COMMAND = re.compile(r"`(?:sudo )?(tlbcore [a-z][^`]*)`")


@pytest.mark.parametrize("page", pages())
def test_a_command_in_a_sentence_is_one(page: str) -> None:
    known = {
        command.name: {flag for option in command.options for flag in option.flags}
        for command in describe(build_parser()).walk()
    }
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = []
    for found in _COMMAND.findall(text):
        words = [word.strip("[]|(),.") for word in found.replace("...", " ").split()]
        name = " ".join(words[:2])
        if name not in known:
            wrong.append(found)
            continue
        until = words.index("--") if "--" in words else len(words)
        options = {word.partition("=")[0] for word in words[2:until] if word.startswith("--")}
        flags = known[name].union(*(known[deeper] for deeper in known if deeper.startswith(f"{name} ")))
        if not options <= flags | {"--help"}:
            wrong.append(found)
    assert wrong == []
