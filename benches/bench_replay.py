"""Events replayed per second, with all TLB bookkeeping and without, beside the time that the recorded program took.

    python benches/bench_replay.py [--kernel K] [--repeats N] [--json OUT]

Each recording of `data/recordings` is imported once and replayed `--repeats` times, with and without TLB contents in
turn, by CPU time; medians are printed. What is compared with is the recording itself: how long the real program ran for the same
events.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from tlbcore import build_profile, machines, recordings
from tlbcore.replay import replay

DATA = Path(__file__).parent.parent / "data" / "recordings"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", default="linux-6.18")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="OUT", type=Path)
    args = parser.parse_args()
    config = machines.get("default").config()
    rows = []
    for path in sorted(DATA.glob("*.zst")):
        begin = time.perf_counter()
        recording = recordings.load(path)
        import_s = time.perf_counter() - begin
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(args.repeats):
            for tlb_enabled, taken in times.items():
                begin = time.process_time()
                replay(recording, args.kernel, {**config, "tlb_enabled": tlb_enabled})
                taken.append(time.process_time() - begin)
        clock = recording.column("time_ns")
        rows.append(
            {
                "recording": path.name,
                "nr_events": recording.nr_events,
                "program_s": float(clock.max() - clock.min()) / 1e9,
                "import_s": import_s,
                "replay_s": statistics.median(times[True]),
                "replay_min_s": min(times[True]),
                "replay_max_s": max(times[True]),
                "replay_without_tlb_s": statistics.median(times[False]),
            },
        )
    print(f"kernel {args.kernel}, {build_profile()} build, median of {args.repeats}")
    print(f"{'recording':24} {'events':>8} {'program s':>10} {'replay s':>9} {'M events/s':>11} {'without TLB':>12}")
    for row in rows:
        rate, bare = (row["nr_events"] / row[key] / 1e6 for key in ("replay_s", "replay_without_tlb_s"))
        print(
            f"{row['recording']:24} {row['nr_events']:8} {row['program_s']:10.3f} {row['replay_s']:9.4f}"
            f" {rate:11.2f} {bare:12.2f}",
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
