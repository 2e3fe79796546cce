"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import tlbcore
from given_data import ROOT

MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(tlbcore.__path__, "tlbcore.") if not name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # they read the recordings that are there
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert found > 10
