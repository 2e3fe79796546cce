"""The API reference, read out of the sources: nothing is imported, so that nothing has to be compiled.

What a module names in ``__all__`` is public; its signature and docstring are shown as they stand.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent.parent / "python" / "tlbcore"

MODULES: Final = (
    "recordings",
    "record",
    "kernels",
    "kernel",
    "machines",
    "replay",
    "compare",
    "validate",
    "sweep",
    "profile",
    "export",
    "check",
    "hunt",
    "mutate",
    "litmus_check",
    "races",
    "results",
    "plot",
    "tlb",
    "simulator",
    "process",
    "scheme",
    "scheme_lookup",
    "program",
    "costs",
    "errors",
)
"""In the order in which a reader meets them; the step language and the schemes have pages of their own."""

_SECTION: Final = re.compile(r"^(Args|Returns|Raises|Yields):$")
_ITEM: Final = re.compile(r"^(\*{0,2}\w+): (.*)$")


def reference() -> str:
    """All of it, as MyST."""
    return "\n".join(line for module in MODULES for line in _module(module))


def _module(name: str) -> Iterator[str]:
    package = SOURCE / name / "__init__.py"
    path = package if package.exists() else SOURCE / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from ("", f"## tlbcore.{name}", "", *_prose(ast.get_docstring(tree) or ""))
    public = _public(tree)
    for found in public:
        node, where = _find(found, tree, path)
        if isinstance(node, ast.FunctionDef):
            yield from ("", f"### {name}.{found}()", "", *_function(node, where))
        elif isinstance(node, ast.ClassDef):
            yield from ("", f"### {name}.{found}", "", *_prose(ast.get_docstring(node) or ""))
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield from ("", f"#### {found}.{part.name}", "", *_function(part, where))
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield from ("", f"- `{part.target.id}: {ast.unparse(part.annotation)}`")


def _public(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def _find(name: str, tree: ast.Module, path: Path) -> tuple[ast.stmt | None, Path]:
    """What a name stands for, here or in the module that it is imported from."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, path
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            module = (node.module or "").removeprefix("tlbcore.").replace(".", "/")
            other = SOURCE / f"{module}.py"
            if (node.module or "").startswith("tlbcore.") and other.exists():
                return _find(name, ast.parse(other.read_text(encoding="utf-8")), other)
    return None, path


def _function(node: ast.FunctionDef, _where: Path) -> Iterator[str]:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    signature = f"{node.name}{returns}" if is_property else f"{node.name}({ast.unparse(node.args)}){returns}"
    yield from ("```text", signature, "```", "", *_prose(ast.get_docstring(node) or ""))


def _prose(docstring: str) -> Iterator[str]:
    """A docstring as MyST: sections as lists, doctests as code, the rest as it stands."""
    in_section = in_code = False
    for line in inspect.cleandoc(docstring).splitlines():
        stripped = line.strip()
        if in_code and not stripped:
            in_code = False
            yield "```"
        if stripped.startswith(">>>") and not in_code:
            in_code = True
            yield from ("", "```pycon")
        if in_code:
            yield stripped
            continue
        if _SECTION.match(line):
            in_section = True
            yield from ("", f"**{line.rstrip(':')}**", "")
        elif in_section and (item := _ITEM.match(stripped)):
            yield f"- `{item[1]}`: {item[2]}"
        elif in_section and stripped:
            yield f"  {stripped}"
        else:
            in_section = in_section and not stripped
            yield line
    if in_code:
        yield "```"
