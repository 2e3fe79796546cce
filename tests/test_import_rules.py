"""The import rules hold for this tree, and a planted violation of each rule is caught."""

import subprocess
import sys
from pathlib import Path

import pytest

import check_imports
import import_rules_python
import import_rules_rust

ROOT = Path(__file__).parent.parent


def write_crate(root: Path, sources: dict[str, str], dependencies: str = "") -> Path:
    crate = root / "core"
    for name, text in {"lib.rs": "pub mod addr;\n", **sources}.items():
        path = crate / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (crate / "Cargo.toml").write_text(f"[dependencies]\n{dependencies}", encoding="utf-8")
    return crate


def write_package(root: Path, sources: dict[str, str]) -> Path:
    for name, text in {"__init__.py": "from tlbcore import _core\n", **sources}.items():
        path = root / "tlbcore" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_this_tree_keeps_the_rules() -> None:
    assert check_imports.check(ROOT) == []


def test_every_module_of_the_core_has_a_rule() -> None:
    declared = {
        line.removeprefix("pub mod ").rstrip(";")
        for line in (ROOT / "rust/core/src/lib.rs").read_text(encoding="utf-8").splitlines()
        if line.startswith("pub mod ")
    }
    assert declared
    assert declared <= set(import_rules_rust.ALLOWED)


def test_rust_rules_have_no_cycle() -> None:
    left = dict(import_rules_rust.ALLOWED)
    while left:
        plain = [part for part, allowed in left.items() if not allowed & set(left)]
        assert plain, f"a cycle among {sorted(left)}"
        for part in plain:
            del left[part]


@pytest.mark.parametrize(
    ("file", "text", "violation"),
    [
        ("replay/mod.rs", "use crate::explore::State;\n", "replay/mod.rs:1: replay must not use explore"),
        ("explore.rs", "\n\nfn f() { crate::replay::run() }\n", "explore.rs:3: explore must not use replay"),
        ("trace/a/b.rs", "use crate::{addr::Vpn, machine};\n", "trace/a/b.rs:1: trace must not use machine"),
        ("trace/mod.rs", "use crate::program::Step;\n", "trace/mod.rs:1: trace must not use program"),
        ("page_table/mod.rs", "use super::tlb::Tlb;\n", "page_table/mod.rs:1: page_table must not use tlb"),
        ("tlb/array.rs", "use super::super::flush::F;\n", "tlb/array.rs:1: tlb must not use flush"),
        ("tlb.rs", "mod tests { use super::super::flush::F; }\n", "tlb.rs:1: tlb must not use flush"),
        ("addr.rs", "use crate::{\n  error::{Error, Result},\n  tlb,\n};\n", "addr.rs:3: addr must not use tlb"),
        ("machine/mod.rs", "use crate::replay as r;\n", "machine/mod.rs:1: machine must not use replay"),
        ("flush/mod.rs", "use crate::*;\n", "flush/mod.rs:1: crate::* does not say which part it means"),
        ("flush/mod.rs", "use crate::Tlb;\n", "flush/mod.rs:1: crate::Tlb does not say which part it means"),
        ("extra.rs", "\n", "extra.rs:1: the part extra has no rule"),
        ("addr.rs", "use pyo3::prelude::*;\n", "addr.rs:1: pyo3 in the core"),
    ],
)
def test_rust_violation_is_caught(tmp_path: Path, file: str, text: str, violation: str) -> None:
    assert import_rules_rust.check(write_crate(tmp_path, {file: text})) == [f"core/{violation}"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("addr.rs", '//! [`crate::machine`] and crate::replay\n/* crate::tlb */ const A: &str = "crate::tlb";\n'),
        ("addr.rs", 'const A: &str = r#"a "crate::tlb" b"#; const B: char = \'"\'; // "\n'),
        ("addr.rs", "fn f<'a>(x: &'a str) -> crate::error::Result<&'a str> { Ok(x) }\n"),
        ("trace/mod.rs", "use crate::{addr::{Vpn, VaRange}, error::Error, trace::column};\n"),
        ("tlb/array.rs", "use super::flush; // a function of tlb's own\n"),
        ("tlb.rs", "fn flush() {}\nmod tests { use super::*; fn t() { super::flush() } }\n"),
        ("tlb.rs", "mod tests { use super::super::addr::Vpn; }\n"),
        ("tlb/array.rs", "pub(in crate::tlb) fn f() {}\n"),
        ("replay/mod.rs", "use crate::{machine, program, trace, tlb};\n"),
    ],
)
def test_rust_file_that_keeps_the_rules(tmp_path: Path, file: str, text: str) -> None:
    assert import_rules_rust.check(write_crate(tmp_path, {file: text})) == []


def test_python_in_the_dependencies_of_the_core_is_caught(tmp_path: Path) -> None:
    crate = write_crate(tmp_path, {}, 'pyo3 = "0.30"\n')
    assert import_rules_rust.check(crate) == ["core/Cargo.toml: depends on pyo3"]


@pytest.mark.parametrize(
    ("sources", "violation"),
    [
        (
            {"schemes/a.py": "from tlbcore.compare import x\n", "compare.py": ""},
            "tlbcore/schemes/a.py:1: tlbcore.schemes.a imports tlbcore.compare, a scheme knows only the step language",
        ),
        (
            {"schemes/a.py": "\nfrom .. import errors\n", "errors.py": ""},
            "tlbcore/schemes/a.py:2: tlbcore.schemes.a imports tlbcore.errors, a scheme knows only the step language",
        ),
        (
            {"schemes/a.py": "from tlbcore import __version__\n"},
            "tlbcore/schemes/a.py:1: tlbcore.schemes.a imports tlbcore, a scheme knows only the step language",
        ),
        (
            {"reference/m.py": "def f():\n    from tlbcore import _core\n"},
            "tlbcore/reference/m.py:2: tlbcore.reference.m -> tlbcore._core",
        ),
        (
            {"reference/m.py": "import tlbcore.parts\n", "parts.py": "from ._core import parse\n"},
            "tlbcore/reference/m.py:1: tlbcore.reference.m -> tlbcore.parts -> tlbcore._core",
        ),
        (
            {"kernels/a.py": "from tlbcore.program import validate\n", "program.py": "import tlbcore._core\n"},
            "tlbcore/kernels/a.py:1: tlbcore.kernels.a -> tlbcore.program -> tlbcore._core",
        ),
        (
            {"reference/m.py": "from ..a import b\n", "a/__init__.py": "import tlbcore._core", "a/b.py": ""},
            "tlbcore/reference/m.py:1: tlbcore.reference.m -> tlbcore.a -> tlbcore._core",
        ),
        (
            {"reference/m.py": "import tlbcore\n"},
            "tlbcore/reference/m.py:1: tlbcore.reference.m -> tlbcore -> tlbcore._core",
        ),
        (
            {"reference/m.py": "import importlib\nimportlib.import_module('tlbcore._core')\n"},
            "tlbcore/reference/m.py:2: tlbcore.reference.m -> tlbcore._core",
        ),
        (
            {"report/a.py": "import argparse\n"},
            "tlbcore/report/a.py:1: only tlbcore.cli parses arguments, tlbcore.report.a imports argparse",
        ),
        (
            {"sweep.py": "from tlbcore.cli.main import main\n", "cli/main.py": ""},
            "tlbcore/sweep.py:1: tlbcore.sweep imports tlbcore.cli.main, the command line is nobody's library",
        ),
    ],
)
def test_python_violation_is_caught(tmp_path: Path, sources: dict[str, str], violation: str) -> None:
    assert import_rules_python.check(write_package(tmp_path, sources)) == [violation]


def test_python_package_that_keeps_the_rules(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        {
            "__main__.py": "from tlbcore.cli.main import main\n",
            "cli/__init__.py": "",
            "cli/main.py": "import argparse\nfrom tlbcore import _core\nfrom . import compare\n",
            "cli/compare.py": "import argparse\nfrom tlbcore.compare import compare\n",
            "compare.py": "import numpy\nfrom tlbcore._core import replay\n",
            "errors.py": "",
            "reference/__init__.py": "from . import machine\n",
            "reference/machine.py": "import dataclasses\nfrom tlbcore.steps import lock\n",
            "schemes/__init__.py": "from tlbcore.schemes.a import A\n",
            "schemes/a.py": "import enum\nfrom tlbcore.scheme import Scheme\nfrom ..steps import lock\n",
            "scheme.py": "from tlbcore.errors import ProgramError\n",
            "steps.py": "from .errors import ProgramError\n",
        },
    )
    assert import_rules_python.check(package) == []


def test_script_exits_1_and_names_the_place(tmp_path: Path) -> None:
    write_crate(tmp_path / "rust", {"addr.rs": "use crate::tlb::Tlb;\n"})
    write_package(tmp_path / "python", {})
    script = [sys.executable, str(ROOT / "tools" / "check_imports.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "core/addr.rs:1: addr must not use tlb\nimport rules: 1 violations\n"
