"""Address traces through TLBs: the counts of other simulators, to the last one; laws; what is refused."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlb_traces import NR_ACCESSES, REAL, SYNTHETIC, reference, trace
from tlbcore import InputError, machines, tlb
from tlbcore.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

TRACES = (*REAL, *SYNTHETIC)
CONFIGS = {config[0]: config for config in reference()["configs"] if config[1] == ":"}
"""The configurations by their letter."""

SHAPES = {
    "A": ("64x4", "1536x12"),
    "B": ("64x64", "1536x12"),
    "C": ("64x4", "2048x8"),
    "D": ("32x4", "1536x12"),
    "E": ("96x6", "2048x8"),
    "F": ("64x1", "1536x3"),
}

NO_CACHES = "pde_cache=0x0,pdpte_cache=0x0,pml4e_cache=0x0"
REFERENCE_CACHES = "pde_cache=32x4,pdpte_cache=4x4,pml4e_cache=2x2"


def machine(config: str = "A", replacement: str = "lru", caches: str = NO_CACHES) -> machines.Machine:
    """The arrays of a configuration."""
    first, second = SHAPES[config]
    level = "l1_2m" if config == "D" else "l1_4k"
    return machines.get(f"skylake_sp:levels=4,{level}={first},stlb={second},replacement={replacement},{caches}")


def misses(result: tlb.Counts) -> dict[str, int]:
    """The two numbers that the reference has."""
    return {"l1_misses": result.nr_l1_misses, "l2_misses": result.nr_walks}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_counts_of_other_simulators(config: str, name: str, threads: int) -> None:
    expected = reference()["configs"][CONFIGS[config]][name]
    size = "2M" if config == "D" else "4K"
    result = tlb.simulate(trace(name), machine(config), page_size=size, threads=threads)
    assert misses(result) == {key: expected[key] for key in ("l1_misses", "l2_misses")}
    assert result.nr_accesses == NR_ACCESSES
    first = tlb.simulate(trace(name)[:1_000_000], machine(config), page_size=size, threads=threads)
    assert [first.nr_l1_misses, first.nr_walks] == expected["first_1M"]


@pytest.mark.parametrize("name", TRACES)
def test_fifo(name: str) -> None:
    expected = reference()["configs"]["A-fifo: as A with FIFO in both levels"][name]
    assert misses(tlb.simulate(trace(name), machine(replacement="fifo"))) == expected


@pytest.mark.parametrize("name", TRACES)
def test_flushes_and_invalidations(name: str) -> None:
    addresses = trace(name)
    flushes = tlb.flush_all(np.arange(100_000, NR_ACCESSES, 100_000))
    key = f"{name}: full flush of both levels before access 100000, 200000, ..."
    assert misses(tlb.simulate(addresses, machine(), events=flushes)) == reference()["extra"][key]
    places = np.arange(1000, NR_ACCESSES, 1000)
    key = f"{name}: before access 1000, 2000, ... invalidate that access's own page in both levels"
    own = tlb.invalidate(places, addresses[places])
    assert misses(tlb.simulate(addresses, machine(), events=own)) == reference()["extra"][key]


@pytest.mark.parametrize("name", TRACES)
def test_paging_structure_caches(name: str) -> None:
    expected = reference()["extra"][f"{name}: config A with paging-structure caches"]
    result = tlb.simulate(trace(name), machine(caches=REFERENCE_CACHES))
    assert list(result.walks_by_loads) == [*(expected["walks_by_loads"][str(n)] for n in range(1, 5)), 0]
    assert result.nr_walk_loads == expected["walk_loads"]


def alternating() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two programs that run 1000 accesses each in turn, and the PCID of each access."""
    both = np.stack([trace("python").reshape(-1, 1000), trace("zipf64k").reshape(-1, 1000)], axis=1)
    pcids = np.broadcast_to(np.array([1, 2], np.uint16)[None, :, None], both.shape)
    return both.ravel(), np.ascontiguousarray(pcids).ravel()


def test_pcids() -> None:
    addresses, pcids = alternating()
    title = "python+zipf64k alternating every 1000 accesses"
    expected = reference()["extra"][f"{title}: pcid_tagged"]
    result = tlb.simulate(addresses, machine(), pcids=pcids)
    assert {**misses(result), "accesses": result.nr_accesses} == expected
    expected = reference()["extra"][f"{title}: no_pcid_full_flush_at_every_switch"]
    flushes = tlb.flush_all(np.arange(1000, len(addresses), 1000))
    result = tlb.simulate(addresses, machine(), events=flushes)
    assert {**misses(result), "accesses": result.nr_accesses} == expected


def test_cpu_column_is_one_stream_for_each_cpu() -> None:
    addresses = trace("sort")[:200_000]
    cpus = np.arange(len(addresses)) // 50 % 3
    pcids = np.arange(len(addresses)) // 7000 % 2
    events = [tlb.flush_all(np.arange(0, 200_000, 9000), cpu=1), tlb.invalidate([5, 77_000], [addresses[0]] * 2)]
    together = tlb.simulate(addresses, "skylake_sp", cpus=cpus, pcids=pcids, events=events, threads=2)
    for cpu, counts in enumerate(together.cpus):
        where = np.flatnonzero(cpus == cpu)
        mine = [table[(table["cpu"] == cpu) | (table["cpu"] == -1)] for table in events]
        for table in mine:
            table["at"] = np.searchsorted(where, table["at"])
            table["cpu"] = 0
        alone = tlb.simulate(addresses[where], "skylake_sp", pcids=pcids[where], events=mine)
        assert alone.cpus[0] == counts
    assert tlb.simulate([addresses, addresses], "skylake_sp").cpus[1] == tlb.simulate(addresses, "skylake_sp").cpus[0]


PAGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=200)
KINDS = st.sampled_from(["switch", "flush", "all", "invalidate"])


@given(PAGES, st.lists(st.tuples(st.integers(0, 100), KINDS, st.integers(0, 3)), max_size=12), st.booleans())
def test_fast_is_plain(runs: list[tuple[int, int]], happened: list[tuple[int, str, int]], mixed: bool) -> None:  # noqa: FBT001
    addresses = np.repeat(
        np.array([page * 4096 for page, _ in runs], np.uint64), np.array([times for _, times in runs], np.int64)
    )
    events = []
    for share, kind, number in happened:
        at = [share * len(addresses) // 100]
        if kind == "switch":
            events.append(tlb.switch_pcid(at, number))
        elif kind == "flush":
            events.append(tlb.flush_pcid(at, number))
        elif kind == "all":
            events.append(tlb.flush_all(at))
        else:
            events.append(tlb.invalidate(at, number * 4096))
    events.sort(key=lambda table: int(table["at"][0]))
    ranges = [(0, 1 << 21, "2M")] if mixed else []
    small = machines.get("skylake_sp:l1_4k=8x4,stlb=32x2")
    fast, plain = (
        tlb.simulate(addresses, small, events=events, page_ranges=ranges, plain=engine) for engine in (False, True)
    )
    assert fast == plain


def test_contiguous_arrays_are_not_copied() -> None:
    addresses = np.zeros(1 << 24, np.uint64)  # 128 MiB that are never touched: a copy would touch them
    before = _resident_bytes()
    tlb.simulate(addresses[:1], "skylake_sp")
    tlb.simulate(np.broadcast_to(addresses[:1], (1000,)), "skylake_sp")
    assert _resident_bytes() - before < 1 << 24
    small = np.arange(0, 1 << 20, 4096, dtype=np.uint64)
    for other in (small[::-1], small.astype(np.int64), small.astype(np.uint32), list(small)):
        assert tlb.simulate(other, "skylake_sp").nr_walks == len(small)  # type: ignore[arg-type]  # converted


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # of the system
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_it(threads: int) -> None:
    addresses = np.tile(trace("zipf64k"), 3)
    sent = []

    def interrupt() -> None:
        time.sleep(0.2)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        tlb.simulate([addresses] * 2, "skylake_sp", plain=True, threads=threads)
    assert time.monotonic() - sent[0] < 5  # far less on a machine that is not busy; it would take ten times that
    sender.join()


BAD: list[tuple[Any, str]] = [
    (lambda a: tlb.simulate(a.reshape(2, -1)), "addresses: found 2 dimensions, expected 1"),
    (lambda a: tlb.simulate(a.astype(float)), "addresses: found elements of type float64, expected integers"),
    (lambda a: tlb.simulate(-a.astype(np.int64) - 1), "addresses: found values from -4 to -1, expected 0 to "),
    (lambda a: tlb.simulate(a + np.uint64(1 << 57)), "access 0 of CPU 0: found address 0x200000000000000, expected"),
    (lambda a: tlb.simulate(a, page_size="8K"), "found page size '8K', expected one of 4K, 2M, 1G"),
    (lambda a: tlb.simulate(a, page_ranges=[(0, 4096, "2M")]), "page range 0x0-0x1000: found a border that is not"),
    (lambda a: tlb.simulate(a, cpus=a[:2]), "cpus: found shape (2,), expected that of addresses, (4,)"),
    (lambda a: tlb.simulate(a, pcids=a[:2]), "pcids: found shape (2,), expected that of addresses, (4,)"),
    (lambda a: tlb.simulate(a, pcids=a + np.uint64(4096)), "found Switch(4096), expected a PCID below 4096"),
    (lambda a: tlb.simulate(a, events=tlb.flush_all([5])), "event 0 of CPU 0: found place 5, expected one from 0 to 4"),
    (lambda a: tlb.simulate(a, events=tlb.flush_all([0], cpu=1)), "events: found CPU 1, expected less than 1"),
    (
        lambda a: tlb.simulate(a, events=cast("Any", [3])),
        "events: found int, expected arrays of type tlbcore.tlb.EVENT",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_cannot_be_is_refused_in_one_line(call: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError) as error:
        call(np.arange(4, dtype=np.uint64))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_result_is_like_all_results() -> None:
    result = tlb.simulate([trace("sort")[:1000], trace("sort")[:10]], "skylake_sp")
    assert [row["nr_accesses"] for row in result.to_rows()] == [1000, 10]
    assert repr(result).startswith("<Result skylake_sp: 1010 accesses, ")
    assert "nr_walks" in result._repr_html_()


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    path = "data/traces/sort.delta.zst"
    assert main(["tlb", path, "--machine", "skylake_sp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["traces"][0]["format"] == "delta"
    assert (found["nr_l1_misses"], found["nr_walks"]) == (220_173, 3_790)
    huge = "0x0-0x7f0000000000:2M"
    assert main(["tlb", path, path, "--pages", huge, "--flush-every", "1000000", "--threads", "2"]) == 0
    assert "page walks" in capsys.readouterr().out
    assert main(["tlb", path, "--pages", "1-2"]) == 2
    assert main(["tlb", "README.md"]) == 2
    assert "README.md: byte 0: found `" in capsys.readouterr().err


def test_an_address_that_cannot_be_is_told_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (tmp_path / name for name in ("good.npy", "bad.npy"))
    np.save(good, np.arange(4, dtype=np.uint64))
    np.save(bad, np.array([0, 1 << 63], dtype=np.uint64))
    assert main(["tlb", str(good), str(bad), "--machine", "skylake_sp"]) == 2
    message = f"tlbcore: error: {bad}: access 1: found address 0x8000000000000000, expected at most 57 bits\n"
    assert capsys.readouterr().err == message


def test_an_access_that_cannot_be_says_which_it_is() -> None:
    good, bad = np.zeros(1 << 21, dtype=np.uint64), np.zeros(1 << 21, dtype=np.uint64)
    bad[[1_500_000, 1_600_000]] = 1 << 57, 1 << 60
    for threads in (1, 2):
        with pytest.raises(tlb.AccessError) as error:  # of the first CPU, in the core as here
            tlb.simulate([good, bad, bad[1_550_000:]], threads=threads)
        assert (error.value.cpu, error.value.access, error.value.address) == (1, 1_500_000, 1 << 57)
        message = "access 1500000 of CPU 1: found address 0x200000000000000, expected at most 57 bits"
        assert str(error.value) == message
        assert str(pickle.loads(pickle.dumps(error.value))) == message  # noqa: S301 - our own


def test_another_error_is_not_taken_for_that_of_an_access() -> None:
    bad = np.array([1 << 57], dtype=np.uint64)
    with pytest.raises(InputError, match="event 0 of CPU 0: found place 5") as error:
        tlb.simulate(bad, events=tlb.flush_all([5]))
    assert not isinstance(error.value, tlb.AccessError)


def test_an_address_of_a_thread_is_told_with_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CPU is a thread then, of any of them."""
    good, bad = (tmp_path / name for name in ("good.npy", "bad.npy"))
    np.save(good, np.arange(4, dtype=np.uint64))
    np.save(bad, np.array([0, 1 << 63], dtype=np.uint64))
    assert main(["tlb", "--by-thread", str(good), str(bad)]) == 2
    found = "access 1 of CPU 1: found address 0x8000000000000000, expected at most 57 bits"
    assert capsys.readouterr().err == f"tlbcore: error: {good}, {bad}: {found}\n"


def test_a_text_without_an_access_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.txt").write_text("hello world\nand more\n")
    assert main(["tlb", str(tmp_path / "some.txt"), "--format", "memref"]) == 2
    assert "some.txt: found 2 lines without an access, expected accesses" in capsys.readouterr().err
