"""The explorer's plain engine beside SPIN, on the common problem, alternating; then the reduced engine.

SPIN runs our own text of the problem, ``benches/spin/common_problem.pml``, at the same grain: both must store the same
states. It is left out, and that is said, where ``spin`` or a C compiler is not installed (``apt install spin gcc``).
Times are CPU seconds on one core, ours as the system counts them, SPIN's as it prints them (it counts its user time),
without the 1 to 2 seconds that SPIN's compiler takes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tlbcore import _core

PROMELA = Path(__file__).parent / "spin" / "common_problem.pml"
PROBLEMS = (("zap", "cleaner"), ("mprotect", "reclaim"), ("zap", "reclaim"))
USERS, PAGES = 2, 3
REDUCTIONS = ("saturate", "urgent", "symmetry", "retired", "dead", "eager_stores")
REDUCED_SIZES = ((2, 3), (3, 4), (4, 4), (6, 6))


def build_spin(spin: str, compiler: str, folder: Path, unmap: str, clean: str) -> Path:
    """Make SPIN's verifier of one problem."""
    defines = {"USERS": USERS, "PAGES": PAGES, "MPROTECT": int(unmap == "mprotect"), "RECLAIM": int(clean == "reclaim")}
    folder.mkdir()
    options = [f"-D{name}={value}" for name, value in defines.items()]
    subprocess.run([spin, "-a", *options, str(PROMELA.resolve())], cwd=folder, check=True)  # noqa: S603  # our own text
    verifier = folder / "pan"
    command = [compiler, "-O2", "-w", "-DNOREDUCE", "-DSAFETY", "-o", str(verifier), "pan.c"]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603  # what SPIN made of it
    return verifier


def run_spin(verifier: Path) -> tuple[int, float, int]:
    """One run: states, seconds, bytes of its table and stack."""
    command = [str(verifier), "-n", "-E", "-m100000", "-w24"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # built above
    found = {
        what: re.search(pattern, out)
        for what, pattern in {
            "states": r"(\d+) states, stored",
            "seconds": r"elapsed time ([\d.]+)",
            "mebibytes": r"([\d.]+)\s+total actual memory usage",
            "errors": r"errors: (\d+)",
        }.items()
    }
    values = {what: float(match[1]) for what, match in found.items() if match}
    if len(values) != len(found) or values["errors"]:
        msg = f"SPIN said something else than expected:\n{out}"
        raise RuntimeError(msg)
    return int(values["states"]), values["seconds"], int(values["mebibytes"] * 2**20)


def run_ours(unmap: str, clean: str, users: int, pages: int, reductions: tuple[str, ...] = ()) -> dict[str, Any]:
    """One run of ours, with its CPU seconds."""
    before = time.process_time()
    found = _core.explore_common_problem(unmap, clean, users, pages, reductions=reductions)
    return found | {"cpu_seconds": time.process_time() - before}


def plain_rows(runs: int) -> list[dict[str, object]]:
    """The plain engine and SPIN, alternating; print and return the medians.

    What is counted of either is a second run, right after its first: the memory that another process has just given back
    comes in small pages, and the kernel puts huge ones together again while we wait. `first` is ours with that.
    """
    spin, compiler = shutil.which("spin"), shutil.which("gcc") or shutil.which("cc")
    if not spin or not compiler:
        print("SPIN is not run: it needs spin and gcc (Debian: apt install spin gcc)")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for unmap, clean in PROBLEMS:
            verifier = None
            if spin and compiler:
                verifier = build_spin(spin, compiler, Path(folder) / f"{unmap}-{clean}", unmap, clean)
            firsts, ours, theirs = [], [], []
            for _ in range(runs):
                for into in (firsts, ours):
                    into.append(run_ours(unmap, clean, USERS, PAGES))
                if verifier:
                    run_spin(verifier)
                    theirs.append(run_spin(verifier))
            states, seconds = ours[0]["states"], statistics.median(run["cpu_seconds"] for run in ours)
            first = states / statistics.median(run["cpu_seconds"] for run in firsts)
            row: dict[str, object] = {
                "problem": f"{unmap} x {clean} {USERS} x {PAGES}",
                "states": states,
                "states_per_second": round(states / seconds),
                "first_states_per_second": round(first),
                "transitions_per_second": round(ours[0]["transitions"] / seconds),
                "bytes_per_state": round(max(run["memory_bytes"] for run in ours) / states, 1),
            }
            line = (
                f"{row['problem']:<26} {states:>9} states  {states / seconds / 1e6:5.2f} M states/s (first {first / 1e6:.2f})"
                f"  {ours[0]['transitions'] / seconds / 1e6:5.1f} M transitions/s  {row['bytes_per_state']} bytes/state"
            )
            if theirs:
                their_seconds = statistics.median(run[1] for run in theirs)
                if {run[0] for run in theirs} != {states}:
                    msg = f"SPIN stored {theirs[0][0]} states, the explorer {states}"
                    raise RuntimeError(msg)
                row["spin_states_per_second"] = round(states / their_seconds)
                row["times_faster_than_spin"] = round(their_seconds / seconds, 1)
                row["times_less_memory_than_spin"] = round(theirs[0][2] / max(run["memory_bytes"] for run in ours), 1)
                line += (
                    f"  SPIN {states / their_seconds / 1e6:.2f} M states/s:"
                    f" {row['times_faster_than_spin']} times faster,"
                    f" {row['times_less_memory_than_spin']} times less memory"
                )
            print(line)
            rows.append(row)
    return rows


def reduced_rows(runs: int) -> list[dict[str, object]]:
    """The saturating engine with every reduction; print and return the medians."""
    rows: list[dict[str, object]] = []
    for unmap, clean in PROBLEMS:
        for users, pages in REDUCED_SIZES:
            found = [run_ours(unmap, clean, users, pages, REDUCTIONS) for _ in range(runs)]
            seconds = statistics.median(run["cpu_seconds"] for run in found)
            row: dict[str, object] = {
                "problem": f"{unmap} x {clean} {users} x {pages}",
                "maximal": found[0]["maximal"],
                "seconds": seconds,
                "memory_bytes": found[0]["memory_bytes"],
            }
            mebibytes = found[0]["memory_bytes"] / 2**20
            print(f"{row['problem']:<26} {row['maximal']:>9} maximal {seconds * 1e3:9.2f} ms {mebibytes:7.1f} MiB")
            rows.append(row)
    return rows


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; medians of {arguments.runs} runs")
    result = {"plain": plain_rows(arguments.runs), "reduced": reduced_rows(arguments.runs)}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
