"""The arrows between the modules of the Rust core, checked in the text.

A file belongs to the part that its first path component names (``tlb/array.rs`` to ``tlb``) and may name, through
``crate::`` or through enough ``super::``, only its own part and those that the table allows. The crate's root is
exempt as a file and forbidden as a way round: ``crate::Name`` and ``crate::*`` do not say which part they mean.

Not seen: paths that a macro puts together.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PARTS: Final = frozenset({"addr", "cpumask", "error", "flush", "page_table", "tlb"})

ALLOWED: Final[dict[str, frozenset[str]]] = {
    # the parts of a machine, from the plainest up
    "error": frozenset(),
    "addr": frozenset({"error"}),
    "wide": frozenset(),
    "cpumask": frozenset({"error", "wide"}),
    "page_table": frozenset({"addr", "error", "wide"}),
    "tlb": frozenset({"addr", "error", "page_table"}),
    "flush": frozenset({"addr", "cpumask", "error", "page_table", "tlb"}),
    # programs, the machine that gives them their meaning
    "program": _PARTS,
    "machine": _PARTS | {"program"},
    # address traces through the TLBs of a machine; no page tables, no kernel
    "tlb_trace": frozenset({"addr", "error", "tlb"}),
    # recordings know nothing of what is done with them
    "trace": frozenset({"addr", "cpumask", "error"}),
    # the two drivers do not know each other
    "replay": _PARTS | {"machine", "program", "trace"},
    "explore": _PARTS | {"machine", "program", "wide"},
}
"""What each part may name besides itself. A new part needs an entry."""

FORBIDDEN_CRATES: Final = frozenset({"numpy", "pyo3"})
"""No Python is known in the core."""

_NOISE: Final = re.compile(
    r"""//[^\n]*                                        # comments: documentation may link to everything
      | /\*.*?\*/
      | b?r(?P<hashes>\#*)".*?"(?P=hashes)              # strings
      | b?"(?:\\.|[^"\\])*"
      | b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])'           # characters, not lifetimes
    """,
    re.DOTALL | re.VERBOSE,
)
_TOKEN: Final = re.compile(r"[A-Za-z_]\w*|::|\S")


def check(crate: Path) -> list[str]:
    """Check the crate whose ``Cargo.toml`` stands in ``crate``; return one line for each violation."""
    violations = _check_manifest(crate / "Cargo.toml")
    source = crate / "src"
    for path in sorted(source.rglob("*.rs")):
        relative = path.relative_to(source)
        module = relative.parts[:-1] if path.stem in {"mod", "lib"} else (*relative.parts[:-1], path.stem)
        place = f"{crate.name}/{relative.as_posix()}"
        violations += _check_file(place, module, path.read_text(encoding="utf-8"))
    return violations


def _check_manifest(path: Path) -> list[str]:
    with path.open("rb") as file:
        dependencies = tomllib.load(file).get("dependencies", {})
    return [
        f"{path.parent.name}/Cargo.toml: depends on {name}" for name in sorted(FORBIDDEN_CRATES & set(dependencies))
    ]


def _check_file(place: str, module: tuple[str, ...], text: str) -> list[str]:
    text = _NOISE.sub(lambda noise: "\n" * noise[0].count("\n") + " ", text)
    tokens = [(token[0], number) for number, line in enumerate(text.splitlines(), 1) for token in _TOKEN.finditer(line)]
    violations = [f"{place}:{line}: {token} in the core" for token, line in tokens if token in FORBIDDEN_CRATES]
    if not module:  # the crate's root declares the parts
        return violations
    part = module[0]
    if part not in ALLOWED:
        return [*violations, f"{place}:1: the part {part} has no rule"]
    for name, line in _names_in_root(tokens, len(module)):
        if name not in ALLOWED:
            violations.append(f"{place}:{line}: crate::{name} does not say which part it means")
        elif name != part and name not in ALLOWED[part]:
            violations.append(f"{place}:{line}: {part} must not use {name}")
    return violations


def _names_in_root(tokens: list[tuple[str, int]], depth: int) -> Iterator[tuple[str, int]]:
    """Yield every name looked up in the crate's root, with its line.

    Args:
        tokens: The tokens of a file, with their lines.
        depth: How many ``super`` lead from the file's module to the root.
    """
    inline_modules: list[bool] = []  # for every open brace, whether it opens an inline module
    words = [word for word, _ in tokens] + [""] * 3
    for i, (word, _) in enumerate(tokens):
        if word == "{":
            inline_modules.append(i >= 2 and words[i - 2] == "mod")  # noqa: PLR2004  # `mod`, name, brace
        elif word == "}" and inline_modules:
            inline_modules.pop()
        elif word == "crate" and words[i + 1] == "::":
            if words[i - 1] != "in":  # `pub(in crate::part)` is a visibility
                yield from _first_names(tokens, i + 2)
        elif word == "super" and (words[i - 1] != "::" or words[i - 2] == "self"):
            steps, after = 1, i + 1
            while words[after] == "::" and words[after + 1] == "super":
                steps, after = steps + 1, after + 2
            if words[after] == "::" and steps == depth + sum(inline_modules):
                # Unlike `crate::`, a glob of the parent is common in tests, and there it is the part itself.
                yield from (found for found in _first_names(tokens, after + 1) if found[0] in ALLOWED)


def _first_names(tokens: list[tuple[str, int]], start: int) -> Iterator[tuple[str, int]]:
    """Yield the name at ``start``, or, of a group in braces, the first name of every element."""
    if start >= len(tokens):
        return
    if tokens[start][0] != "{":
        yield tokens[start]
        return
    nesting = 0
    for i in range(start, len(tokens)):
        word = tokens[i][0]
        if nesting == 1 and tokens[i - 1][0] in {"{", ","} and word != "}":
            yield tokens[i]
        nesting += {"{": 1, "}": -1}.get(word, 0)
        if nesting == 0:
            return
