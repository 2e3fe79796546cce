"""The arrows between the modules of the Python package, checked in their syntax trees.

Not seen: a module's name that is put together while the program runs. An import of ``tlbcore.a.b`` also counts as one
of ``tlbcore.a``, which it executes; the package ``tlbcore`` itself counts only if it is named, since every module
executes it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = "tlbcore"
CORE: Final = "tlbcore._core"
CLI: Final = "tlbcore.cli"
STEP_LANGUAGE: Final = ("tlbcore.steps", "tlbcore.scheme")
SCHEME_LOOKUP: Final = "tlbcore.scheme_lookup"
"""How a scheme is found by its name; the front of the schemes offers it, no scheme needs it."""
WITHOUT_CORE: Final = (*STEP_LANGUAGE, "tlbcore.kernel", "tlbcore.kernels", "tlbcore.reference")
"""What describes a kernel (schemes are held shorter), and the reference, which would prove nothing if it asked."""


class Import(NamedTuple):
    """One module that another names, and where."""

    target: str
    place: str


def check(source: Path) -> list[str]:
    """Check the package below ``source``; return one line for each violation."""
    imports = {name: list(_imports(name, path, source)) for name, path in _modules(source).items()}
    violations = []
    for name, found in imports.items():
        for target, place in found:
            if _within(target, "argparse") and not _within(name, CLI):
                violations.append(f"{place}: only {CLI} parses arguments, {name} imports argparse")
            if _within(target, CLI) and not _within(name, CLI) and name != f"{PACKAGE}.__main__":
                violations.append(f"{place}: {name} imports {target}, the command line is nobody's library")
            if (
                _within(name, "tlbcore.schemes")
                and _within(target, PACKAGE)
                and not any(_within(target, allowed) for allowed in (*STEP_LANGUAGE, "tlbcore.schemes"))
                and (name, target) != ("tlbcore.schemes", SCHEME_LOOKUP)
            ):
                violations.append(f"{place}: {name} imports {target}, a scheme knows only the step language")
    for name in imports:
        if any(_within(name, package) for package in WITHOUT_CORE):
            chain = _chain(imports, name, CORE)
            if len(chain) > 0:
                violations.append(f"{chain[0].place}: {' -> '.join([name, *(link.target for link in chain)])}")
    return violations


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _modules(source: Path) -> dict[str, Path]:
    modules = {}
    for path in sorted(source.glob(f"{PACKAGE}/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def _imports(name: str, path: Path, source: Path) -> Iterator[Import]:
    """Yield every module that the file names, each with its line; ``from a import b`` as ``a.b`` if that is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package=path.stem == "__init__")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                targets.append(full if full == CORE or _is_module(full, source) else base)
        elif isinstance(node, ast.Call):
            targets = list(_dynamic(node))
        place = f"{path.relative_to(source).as_posix()}:{getattr(node, 'lineno', 1)}"
        for target in dict.fromkeys(targets):
            yield Import(target, place)


def _base(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = name.split(".")
    kept = len(parts) - node.level + (1 if is_package else 0)
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def _is_module(name: str, source: Path) -> bool:
    path = source.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def _dynamic(node: ast.Call) -> Iterator[str]:
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called in {"__import__", "import_module"} and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _chain(imports: dict[str, list[Import]], start: str, goal: str) -> list[Import]:
    """Return the shortest chain of imports from ``start`` to ``goal``; empty if there is none."""
    queue: list[tuple[str, list[Import]]] = [(start, [])]
    seen = {start}
    for name, chain in queue:  # grows while it is read: breadth first
        for target, place in imports.get(name, []):
            parents = [".".join(target.split(".")[:length]) for length in range(2, target.count(".") + 1)]
            for reached in [target, *parents]:
                link = [*chain, Import(reached, place)]
                if reached == goal:
                    return link
                if reached not in seen:
                    seen.add(reached)
                    queue.append((reached, link))
    return []
