"""Instructions of an import and of a replay, as valgrind counts them: the same on every run, however busy the machine.

Needs ``valgrind`` and ``cargo``. Counts are of the benchmark ``recordings`` of the core, built as it is released.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import side_by_side

from tlbcore import recordings

REPOSITORY = Path(__file__).parent.parent
DATA = REPOSITORY / "data" / "recordings"


def binary() -> str:
    """Builds the benchmark; its path."""
    command = [
        "cargo",
        "bench",
        "-p",
        "tlbcore",
        "--bench",
        "recordings",
        "--no-run",
        "--locked",
        "--message-format=json",
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout  # noqa: S603
    messages = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    made = [message["executable"] for message in messages if message.get("executable")]
    return str(made[-1])


def count(program: str, part: str, function: str, name: str) -> int:
    """Instructions that `function` and what it calls take in one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder}/out",
            f"--toggle-collect=*{function}*",
        ]
        done = subprocess.run([*command, program, part, "once", name], check=True, capture_output=True, text=True)  # noqa: S603
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found:
        raise SystemExit(f"bench_instructions: valgrind said something else than expected:\n{done.stderr}")
    return int(found[1])


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    side_by_side.add_arguments(parser, 1)
    parser.add_argument("names", nargs="*", default=["micro", "redis"], help="recordings (default micro redis)")
    options = parser.parse_args()
    if not shutil.which("valgrind") or not shutil.which("cargo"):
        print("instructions are not counted: it needs valgrind and cargo (Debian: apt install valgrind)")
        return
    program = binary()
    rows: list[dict[str, Any]] = []
    print(f"{'recording':<12} {'events':>8} {'instructions/event':>19}")
    for name in options.names:
        nr_events = recordings.load(DATA / f"{name}.perf.txt.zst").nr_events
        replayed = count(program, "replay", "replay::driver::run", name)
        rows.append({"recording": name, "events": nr_events, "replay_instructions_per_event": replayed / nr_events})
        print(f"{name:<12} {nr_events:>8} {replayed / nr_events:>19.0f}")
    side_by_side.write(options.json, rows)


if __name__ == "__main__":
    main()
