"""What the Python benchmarks share: peers measured in turn in one process, by CPU time, with medians and spread."""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbcore import build_profile

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import ModuleType

LEAST_SECONDS = 0.005
"""How long one timing runs at least, so that the clock's own cost is nothing."""


@dataclass(frozen=True)
class Timing:
    """CPU nanoseconds of one call."""

    median_ns: float
    min_ns: float
    max_ns: float


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Times each call once a round, in turn, so that noise of the machine falls on all alike."""
    numbers = {name: _calls_per_timing(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            number = numbers[name]
            begin = time.process_time_ns()
            for _ in range(number):
                call()
            times[name].append((time.process_time_ns() - begin) / number)
    return {name: Timing(statistics.median(taken), min(taken), max(taken)) for name, taken in times.items()}


def _calls_per_timing(call: Callable[[], object]) -> int:
    number = 1
    while True:
        begin = time.process_time()
        for _ in range(number):
            call()
        taken = time.process_time() - begin
        if taken >= LEAST_SECONDS:
            return number
        number *= 2 if taken < LEAST_SECONDS / 8 else 1 + int(LEAST_SECONDS / max(taken, 1e-9))


def peer(name: str) -> ModuleType | None:
    """A module of somebody else's, or none, and that is said."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed and left out (pip install {name})")
        return None


def about_this_run() -> dict[str, object]:
    """What figures of this run hang on."""
    return {
        "build": build_profile(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def add_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options that all benchmarks have."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timings of each (default {rounds})")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file too")


def write(path: str | Path | None, rows: list[dict[str, Any]]) -> None:
    """Writes what was measured, if a file is named."""
    if path:
        text = json.dumps({"run": about_this_run(), "rows": rows}, indent=2) + "\n"
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  # a str or a Path
            file.write(text)
