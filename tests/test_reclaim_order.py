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


def differences(path: Path, where: tuple[Path, int], records: list[Record]) -> list[Record]:
    """How the step differs if it had these records, times as they stand."""
    before, real = records_of(where)
    end = {**real[-1], "t": records[-1]["t"] + 100}
    lines = [json.dumps(record) + "\n" for record in [*before, *records, end, {**end, "t": end["t"] + 1, "k": "END"}]]
    path.write_text("".join(lines), encoding="utf-8")
    found: list[Record] = validate(path).plain["lab"]["differences"]
    return [entry for entry in found if entry["step"] == where[1]]


def differs(path: Path, where: tuple[Path, int], records: list[Record]) -> list[str]:
    """In which columns it does."""
    return [column for entry in differences(path, where, records) for column in entry["columns"]]


def causes(path: Path, where: tuple[Path, int], records: list[Record]) -> list[str]:
    """Why it does."""
    return [reason["cause"] for entry in differences(path, where, records) for reason in entry["reasons"]]


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
    return [*real[: woken + 1], *visit_of(t, BOARD), {"t": t + 20, **OWN, "k": "unmap_flush"}, *flush_at(t + 21)]


OWN: Record = {"c": 0, "a": "T0"}


def visit_of(t: int, addr: str) -> list[Record]:
    """A page is taken that is dirty in memory."""
    visit = {"t": t, **OWN, "k": "unmap_one", "mm": "mm0", "addr": addr, "n": 1}
    return [visit, {"t": t + 10, **OWN, "k": "unmap_flush_dirty"}]


def flush_at(t: int) -> list[Record]:
    """A deferred flush, which all three CPUs execute."""
    flush = {"start": "0x0", "end": "0xffffffffffffffff", "gen": 0, "icpu": 0, "stride": 0, "freed": 0, "pages": -1}
    return [
        {"t": t, **OWN, "k": "batch_flush", "mask": [0, 1, 2]},
        {"t": t + 1, **OWN, "k": "multi", "mask": [0, 1, 2], **flush},
        {"t": t + 2, **OWN, "k": "func", **flush, "reason": 2},
        {"t": t + 3, "c": 1, "a": "T1", "k": "func", **flush, "reason": 1},
        {"t": t + 4, "c": 2, "a": "T2", "k": "func", **flush, "reason": 1},
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


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "did not flush"])
def test_a_switch_that_flushed_late_is_the_cause_of_nothing_left(
    tmp_path: Path, dirty: list[Record], *, flushed: bool
) -> None:
    records = with_switch(dirty, 1, index(dirty, "unmap_one"), before=True, nothing_left=True)
    if flushed:
        records[index(records, "sw", next="T1")]["flush"] = -1
    expected = ["a CPU switched tasks between the records of a request"] if flushed else []
    assert causes(tmp_path / "a.jsonl", SPINNING, records) == expected


@pytest.mark.parametrize("is_read", [True, False], ids=["read back", "not read back"])
def test_a_write_without_a_fault_is_the_cause_of_a_dirty_page(
    tmp_path: Path, reread: list[Record], *, is_read: bool
) -> None:
    """The first page is flushed at once, although the model has it clean and puts it off to the next one."""
    visit = len(reread) - 8
    t = reread[visit]["t"]
    second = visit_of(t + 100, "0x7fd000")
    end = {"t": t + 200, **OWN, "k": "unmap_flush"}
    records = [*reread[: visit + 2], *flush_at(t + 20), *second, *flush_at(t + 120), end]
    if not is_read:
        records = [record for record in records if record["k"] != "fault"]
    found = differences(tmp_path / "a.jsonl", SPINNING, records)
    reasons = [reason["cause"] for entry in found for reason in entry["reasons"]]
    assert reasons == (["a page that was only read back from swap was written, without a fault"] if is_read else [])


def test_a_page_in_the_lru_batch_of_another_cpu_is_the_cause_of_a_copy() -> None:
    """Process P4 made them on CPU 0 and copies them on CPU 2, though its child has copied them before."""
    path = DATA / "lab-6.18" / "6.18-c4_random_huge_222.jsonl.gz"
    (entry,) = validate(path).plain["lab"]["differences"]
    assert (entry["step"], entry["recorded"]["ptep_clear_flush"]) == (67, "5")
    assert [reason["cause"] for reason in entry["reasons"]] == [
        "a page is copied that another CPU made and may still have in its LRU batch"
    ]
