"""How long each documented race takes to be found, and its mend to be proven, end to end from Python.

A time is that of one call: from kernel and scenario as objects to the verdict with its counterexample.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tlbcore import build_profile, races

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlbcore import Verdict


def median_ms(call: Callable[[], Verdict], runs: int) -> tuple[float, Verdict]:
    """The median of several runs in milliseconds, and the last verdict."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        verdict = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3, verdict


def rows(runs: int) -> list[dict[str, object]]:
    """Find and prove each; print and return the medians."""
    measured: list[dict[str, object]] = []
    print(f"{'race':<6}{'documented':>11}{'steps':>7}{'turns':>7}{'found ms':>10}{'states':>8}{'proven ms':>11}")
    for race in races.RACES.values():
        found_ms, found = median_ms(race.find, runs)
        proven_ms, proven = median_ms(race.prove, runs)
        if not found.violated or not proven.safe:
            raise RuntimeError(f"{race.id}: found {found}, {proven}, expected a race and a proof")
        measured.append(
            {
                "race": race.id,
                "documented_steps": race.documented_steps,
                "found_steps": len(found.path),
                "found_turns": found.turns,
                "found_ms": round(found_ms, 2),
                "found_states": found.states,
                "proven_ms": round(proven_ms, 2),
                "proven_states": proven.states,
            }
        )
        sizes = f"{race.documented_steps:>11}{len(found.path):>7}{found.turns:>7}"
        print(f"{race.id:<6}{sizes}{found_ms:>10.1f}{found.states:>8}{proven_ms:>11.1f}")
    return measured


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    print(
        f"{build_profile()} build, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, {arguments.runs} runs each"
    )
    measured = rows(arguments.runs)
    slowest = max(measured, key=lambda row: float(str(row["found_ms"])))
    print(f"slowest to be found: {slowest['race']}, {slowest['found_ms']} ms")
    if arguments.json:
        text = json.dumps({"profile": build_profile(), "races": measured}, indent=2)
        arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
