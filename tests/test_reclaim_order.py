"""Reclaim and switches of other CPUs in recordings of the lab: each page is done in its time.

From the visit to an area on a CPU that switches finds the generation raised, and flushes by itself: what is flushed later
finds nothing left there. So a record of that (`pages` 0) fits a switch after the visit, and none before it.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from given_data import DATA
from tlbcore.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

Record = dict[str, Any]

#: Threads of one process spin on CPUs 0 to 2; what CPU 0 reclaims first is dirty, and the others read it back.
SPINNING = DATA / "lab" / "m4_memcg_spin2.jsonl.gz", 27
#: Pages that four processes map; CPUs 0 to 3 run the first.
FORKED = DATA / "lab-found" / "k61_random_54001.jsonl.gz", 61
BOARD = "0x200000000000"


def records_of(where: tuple[Path, int]) -> tuple[list[Record], list[Record]]:
    """The records before a step, and those of the step."""
    path, step = where
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    first = next(at for at, record in enumerate(records) if record.get("k") == "B" and record["step"] == step)
    last = next(at for at, record in enumerate(records) if record.get("k") == "E" and record["step"] == step)
    return records[:first], records[first : last + 1]


def differs(path: Path, where: tuple[Path, int], records: list[Record]) -> list[str]:
    """In which columns the step does if it had these records, times as they stand; and why."""
    before, real = records_of(where)
    end = {**real[-1], "t": records[-1]["t"] + 100}
    lines = [json.dumps(record) + "\n" for record in [*before, *records, end, {**end, "t": end["t"] + 1, "k": "END"}]]
    path.write_text("".join(lines), encoding="utf-8")
    found = [entry for entry in validate(path).plain["lab"]["differences"] if entry["step"] == where[1]]
    return [column for entry in found for column in entry["columns"]]


def index(records: list[Record], kind: str, **wanted: object) -> int:
    """Where the first record of a kind stands that has these values."""
    return next(at for at, record in enumerate(records) if record["k"] == kind and wanted.items() <= record.items())


def with_switch(records: list[Record], cpu: int, visit: int, *, before: bool, nothing_left: bool) -> list[Record]:
    """The CPU idles before a visit, and switches back after it or before it; then it executes the next flush."""
    t = records[visit]["t"]
    idles = {"t": t - 4, "c": cpu, "k": "sw", "prev": f"T{cpu}", "state": "D", "next": "idle"}
    back = {"t": t - 2 if before else t + 2, "c": cpu, "k": "sw", "prev": "idle", "state": "R", "next": f"T{cpu}"}
    if not before:
        back["flush"] = -1
    batch = index(records[visit:], "batch_flush") + visit
    func = index(records[batch:], "func", c=cpu) + batch
    result = [dict(record) for record in records]
    result[func]["pages"] = 0 if nothing_left else -1
    switches = [(visit, idles), (visit if before else visit + 1, back)]
    for at, record in reversed(switches):
        result.insert(at, record)
    return result


@pytest.fixture(name="dirty")
def _dirty() -> list[Record]:
    """One dirty page that is flushed and written at once, and the end of its list."""
    real = records_of(SPINNING)[1]
    return real[: index(real, "unmap_flush") + 1]


@pytest.fixture(name="reread")
def _reread(dirty: list[Record]) -> list[Record]:
    """The same page once more, only read since: nothing to flush before the list's end."""
    real = records_of(SPINNING)[1]
    # CPU 2 had to wait for the page.
    woken = index(real[len(dirty) :], "sw", next="T2") + len(dirty)
    t = real[woken]["t"] + 50
    own = {"c": 0, "a": "T0"}
    flush = {"start": "0x0", "end": "0xffffffffffffffff", "gen": 0, "icpu": 0, "stride": 0, "freed": 0, "pages": -1}
    return [
        *real[: woken + 1],
        {"t": t, **own, "k": "unmap_one", "mm": "mm0", "addr": BOARD, "n": 1},
        {"t": t + 10, **own, "k": "unmap_flush_dirty"},
        {"t": t + 20, **own, "k": "unmap_flush"},
        {"t": t + 21, **own, "k": "batch_flush", "mask": [0, 1, 2]},
        {"t": t + 22, **own, "k": "multi", "mask": [0, 1, 2], **flush},
        {"t": t + 23, **own, "k": "func", **flush, "reason": 2},
        {"t": t + 24, "c": 1, "a": "T1", "k": "func", **flush, "reason": 1},
        {"t": t + 25, "c": 2, "a": "T2", "k": "func", **flush, "reason": 1},
    ]


ORDERS = pytest.mark.parametrize("order", ["before", "after"])


def check(path: Path, where: tuple[Path, int], records: list[Record], switch: tuple[int, int], order: str) -> None:
    """Hold the one outcome that fits a switch before or after a visit, and the one that does not, against the model."""
    is_before = order == "before"
    for nothing_left, columns in ((not is_before, []), (is_before, ["tlb_flush_list"])):
        changed = with_switch(records, *switch, before=is_before, nothing_left=nothing_left)
        assert differs(path, where, changed) == columns


@ORDERS
def test_a_switch_between_visit_and_flush_of_a_page(tmp_path: Path, dirty: list[Record], order: str) -> None:
    check(tmp_path / "a.jsonl", SPINNING, dirty, (1, index(dirty, "unmap_one")), order)


@ORDERS
def test_a_switch_between_the_last_visit_and_the_list_s_flush(tmp_path: Path, reread: list[Record], order: str) -> None:
    visit = len(reread) - 8
    assert reread[visit]["k"] == "unmap_one"
    check(tmp_path / "a.jsonl", SPINNING, reread, (1, visit), order)


@ORDERS
def test_a_switch_between_two_visits_to_areas_of_one_page(tmp_path: Path, order: str) -> None:
    """All areas are of one page still."""
    real = records_of(FORKED)[1]
    visits = [at for at, record in enumerate(real) if record["k"] == "unmap_one"]
    assert [real[at]["mm"] for at in visits[:4]] == ["mm0", "mm1", "mm2", "mm3"]
    assert len({real[at]["addr"] for at in visits[:4]}) == 1
    page = real[: index(real, "unmap_flush") + 1]
    check(tmp_path / "a.jsonl", FORKED, page, (2, visits[0]), order)
