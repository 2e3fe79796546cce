"""The recordings that come with the project, and what a model of them must reach. Shared by several tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tlbcore import machines, recordings

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = sorted((DATA / "recordings").glob("*.perf.txt.zst"))
LAB = sorted((DATA / "lab").glob("*.jsonl.gz"))
SCENARIOS = sorted((DATA / "lab" / "scenarios").glob("*/*.scn"))

#: The least score of each recording by perf, and of all lab files together whose steps are never joined by ``|``.
FLOORS = {
    "apache": 0.80,
    "gcc": 0.80,
    "java_g1": 0.80,
    "micro": 0.80,
    "py_threads": 0.80,
    "redis": 0.80,
    "stress": 0.80,
    "lab": 0.90,
}


def short(path: Path) -> str:
    """The name of a given file without what all have in common."""
    return path.name.split(".")[0]


def scenario_of(path: Path) -> Path:
    """The scenario that a lab file is the run of."""
    prefix, _, name = short(path).partition("_")
    return DATA / "lab" / "scenarios" / prefix / f"{name}.scn"


def has_parallel_steps(path: Path) -> bool:
    """Whether any steps of a lab file are joined, so that another run may differ."""
    return "|" in scenario_of(path).read_text(encoding="utf-8")


@functools.cache
def load(path: Path) -> recordings.Recording:
    """A given file, read once per process."""
    return recordings.load(path)


def machine() -> dict[str, Any]:
    """The default machine."""
    return machines.get("default").config()
