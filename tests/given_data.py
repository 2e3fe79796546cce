"""The recordings that come with the project. Shared by several tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tlbcore import machines, recordings

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
RECORDINGS = sorted((DATA / "recordings").glob("*.perf.txt.zst"))
LAB = sorted((DATA / "lab").glob("*.jsonl.gz"))
LAB_NEWER = sorted((DATA / "lab-6.18").glob("*.jsonl.gz"))
LAB_LATER = sorted(path for folder in ("lab-found", "lab-held") for path in (DATA / folder).glob("*.jsonl.gz"))
SCENARIOS = sorted((DATA / "lab" / "scenarios").glob("*/*.scn"))


def short(path: Path) -> str:
    """The name of a given file without what all have in common."""
    return path.name.split(".")[0]


@functools.cache
def load(path: Path) -> recordings.Recording:
    """A given file, read once per process."""
    return recordings.load(path)


def machine() -> dict[str, Any]:
    """The default machine."""
    return machines.get("default").config()
