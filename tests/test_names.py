"""The names of the package, which are imported when they are asked for."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore

SOURCE = Path(tlbcore.__file__).read_text(encoding="utf-8")


def test_checkers_see_what_is_imported() -> None:
    seen = {
        name.name: node.module
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("tlbcore.")
        for name in node.names
        if node.module != "tlbcore._core"
    }
    assert seen == {name: f"tlbcore.{home}" for name, home in tlbcore._HOMES.items()}  # noqa: SLF001
    assert set(seen) < set(tlbcore.__all__)


@pytest.mark.parametrize("name", sorted(tlbcore._HOMES))  # noqa: SLF001
def test_a_name_is_that_of_its_module(name: str) -> None:
    home = importlib.import_module(f"tlbcore.{tlbcore._HOMES[name]}")  # noqa: SLF001
    assert getattr(tlbcore, name) is getattr(home, name)


@pytest.mark.parametrize("name", ["check", "compare", "hunt", "mutate", "replay", "sweep", "validate"])
def test_a_function_keeps_its_place(name: str) -> None:
    """Python puts a module that it imports into its package, here in the place of a function, if nobody keeps it."""
    is_there = f"tlbcore.{name}.__code__; from tlbcore import {name}; {name}.__code__"
    for before in ("", f"tlbcore.{name}; "):
        script = f"import tlbcore; {before}import tlbcore.{name}; {is_there}"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_all_names_are_listed_and_come_with_a_star() -> None:
    modules = {name for _, name, _ in pkgutil.iter_modules(tlbcore.__path__) if not name.startswith("_")}
    assert modules | set(tlbcore.__all__) <= set(dir(tlbcore))
    script = "from tlbcore import *; import tlbcore, sys; sys.exit(not set(tlbcore.__all__) <= set(globals()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_modules_come_when_they_are_asked_for() -> None:
    script = "import tlbcore, sys; assert 'tlbcore.tlb' not in sys.modules; tlbcore.tlb.simulate; tlbcore.kernels.get"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("name", ["chek", "_private", "__wrapped__"])
def test_a_name_that_is_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'tlbcore' has no attribute '{name}'"):
        getattr(tlbcore, name)
