"""A large recording, replayed for its sums on one thread and on several: events per second and anonymous memory.

The recording is generated (``large_recording.py``) into a temporary folder: 75 bytes an event. The processes in it share
nothing, so that threads can help.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import side_by_side
from large_recording import PeakOfAnonymousMemory, write_large

from tlbcore import machines, recordings
from tlbcore.replay import replay


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    side_by_side.add_arguments(parser, 3)
    parser.add_argument("--events", type=int, default=4_000_000, help="of the largest recording (default 4 million)")
    parser.add_argument("--kernel", default="linux-6.18")
    options = parser.parse_args()
    config = machines.get("default").config()
    rows: list[dict[str, Any]] = []
    print(side_by_side.about_this_run())
    print(f"{'events':>10} {'threads':>7} {'M events/s':>10} {'CPU s':>8} {'grew by MiB':>12} {'opened in ms':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for nr_wanted in (options.events // 10, options.events):
            path = Path(folder) / "large.tlbr"
            nr_events = write_large(path, nr_wanted)
            begin = time.perf_counter()
            recording = recordings.load(path)
            open_ms = (time.perf_counter() - begin) * 1e3
            counters = {}
            for _ in range(options.rounds if nr_events < 10_000_000 else 1):  # noqa: PLR2004  # long enough alone
                for threads in (1, os.cpu_count() or 1):
                    wall, cpu = time.perf_counter(), time.process_time()
                    with PeakOfAnonymousMemory() as memory:
                        found = replay(recording, options.kernel, config, keep_flushes=False, threads=threads)
                    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                    counters[threads] = found.counters
                    row = {
                        "events": nr_events,
                        "threads": threads,
                        "events_per_s": nr_events / wall,
                        "cpu_s": cpu,
                        "grew_by_bytes": memory.peak - memory.start,
                        "open_ms": open_ms,
                    }
                    rows.append(row)
                    print(
                        f"{nr_events:>10} {threads:>7} {nr_events / wall / 1e6:10.2f} {cpu:8.2f}"
                        f" {(memory.peak - memory.start) / 2**20:12.1f} {open_ms:12.1f}"
                    )
            if len({str(sums) for sums in counters.values()}) != 1:
                raise SystemExit("bench_large_replay: the sums hang on the number of threads")
            del recording
            path.unlink()
    side_by_side.write(options.json, rows)


if __name__ == "__main__":
    main()
