"""What memory a replay and a large machine take: stated in BENCHMARKING.md, bounded here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.large_recording import write_large
from tlbcore import InputError, machines, recordings
from tlbcore.replay import replay

REPOSITORY = Path(__file__).parent.parent

REPLAY = """
import sys
from pathlib import Path
from benches.large_recording import PeakOfAnonymousMemory
from tlbcore import machines, recordings
from tlbcore.replay import replay
recording = recordings.load(Path(sys.argv[1]))
with PeakOfAnonymousMemory() as memory:
    found = replay(recording, "linux-6.18", machines.get("default").config(), keep_flushes=sys.argv[2] == "keep")
print(memory.peak - memory.start, found.result.nr_events, found.counters["nr_flush_requests"])
"""


def grown(path: Path, keep: str) -> tuple[int, int, int]:
    """By how many bytes a process grows that replays a recording; events, flushes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", REPLAY, str(path), keep]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=REPOSITORY).stdout
    nr_bytes, nr_events, nr_flushes = (int(word) for word in out.split())
    return nr_bytes, nr_events, nr_flushes


@pytest.mark.timeout(240)
def test_a_replay_streams_in_constant_memory(tmp_path: Path) -> None:
    sizes = (100_000, 800_000)
    found = {}
    for size in sizes:
        path = tmp_path / f"{size}.tlbr"
        nr_events = write_large(path, size)
        found[size] = grown(path, "sums")
        assert found[size][1] == nr_events
    small, large = (found[size] for size in sizes)
    assert large[2] == pytest.approx(8 * small[2], rel=0.01)
    assert large[0] - small[0] < 4 << 20, "eight times the events take no more memory"
    # The bound can be missed: each flush kept takes some hundred bytes.
    kept = grown(tmp_path / f"{sizes[1]}.tlbr", "keep")
    assert kept[0] - small[0] > 64 * kept[2]


def test_a_generated_recording_is_one(tmp_path: Path) -> None:
    path = tmp_path / "large.tlbr"
    nr_events = write_large(path, 5000)
    recording = recordings.load(path)
    recording.verify()
    type(recording).verify_file(path)
    assert recording.nr_events == nr_events
    config = machines.get("default").config()
    one = replay(recording, "linux-6.18", config)
    assert one.counters["nr_flush_remote"] > 0
    for threads in (2, 4):
        many = replay(recording, "linux-6.18", config, threads=threads)
        assert many.counters == one.counters
        assert many.by_operation == one.by_operation
        assert {name: column.tolist() for name, column in many.result.flushes().items()} == {
            name: column.tolist() for name, column in one.result.flushes().items()
        }
    sums = replay(recording, "linux-6.18", config, keep_flushes=False)
    assert json.dumps(sums.counters) == json.dumps(one.counters)
    with pytest.raises(InputError, match="found one that kept sums only, expected keep_flushes=True"):
        sums.result.flushes()
    with pytest.raises(InputError, match="threads: found 0, expected one or more"):
        replay(recording, "linux-6.18", config, threads=0)
