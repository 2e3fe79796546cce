"""The kernel's write to `struct rseq` in recordings of the lab: done by a thread that lost its CPU, and by no other."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from given_data import DATA
from tlbcore.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

FORK = DATA / "lab" / "c4_fork_alone.jsonl.gz"
STEP = 2
#: The heap of the runner in this recording begins with the first thread's own block, `struct rseq` in it.
BLOCK = 0x7FD000

LOSES_ITS_CPU: list[dict[str, Any]] = [
    {"t": 3500, "c": 0, "k": "sw", "prev": "T0", "state": "R", "next": "kworker/0:1"},
    {"t": 3600, "c": 0, "k": "sw", "prev": "kworker/0:1", "state": "I", "next": "T0"},
]
_PAGE = {"mm": "mm0", "start": hex(BLOCK), "end": hex(BLOCK + 4096), "stride": 12, "freed": 0}
COPIES_THE_PAGE: list[dict[str, Any]] = [
    {"t": 3700, "c": 0, "a": "T0", "k": "ptep_clear_flush", "mm": "mm0", "addr": hex(BLOCK)},
    {"t": 3710, "c": 0, "a": "T0", "k": "mm_range", **_PAGE, "mask": [0], "pend": 0},
    {"t": 3720, "c": 0, "a": "T0", "k": "func", **_PAGE, "gen": 11, "icpu": 0, "pages": 1, "reason": 3},
]


def fork_then(path: Path, records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Write a real fork with other records after its call; return how the entry differs, if it does."""
    with gzip.open(FORK, "rt", encoding="utf-8") as file:
        real = [json.loads(line) for line in file]
    returned = next(at for at, record in enumerate(real) if record.get("k") == "ret" and record["name"] == "clone")
    end = [
        {"t": 4000, "c": 0, "a": "T0", "k": "E", "step": STEP, "it": 0, "rc": 0},
        {"t": 4100, "c": 0, "a": "T0", "k": "END"},
    ]
    lines = [json.dumps(record) + "\n" for record in [*real[: returned + 1], *records, *end]]
    path.write_text("".join(lines), encoding="utf-8")
    plain = validate(path).plain["lab"]
    found = [entry for entry in plain["differences"] if entry["step"] == STEP]
    assert plain["single"]["nr_entries"] == STEP + 1
    return found[0] if found else None


def test_a_thread_that_lost_its_cpu_copies_the_page_of_its_block(tmp_path: Path) -> None:
    assert fork_then(tmp_path / "a.jsonl", [*LOSES_ITS_CPU, *COPIES_THE_PAGE]) is None


@pytest.mark.parametrize(
    ("records", "kernel", "model"),
    [(COPIES_THE_PAGE, "1", "0"), (LOSES_ITS_CPU, "0", "1")],
    ids=["no switch", "no copy"],
)
def test_without_either_the_two_sides_differ(
    tmp_path: Path, records: list[dict[str, Any]], kernel: str, model: str
) -> None:
    entry = fork_then(tmp_path / "a.jsonl", records)
    assert entry is not None
    for column in ("noise_flushes", "ptep_clear_flush"):
        assert (entry["recorded"][column], entry["model"][column]) == (kernel, model)
