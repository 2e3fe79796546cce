"""Address traces: ``tlbcore.tlb.simulate`` beside what a Python user would take else, on the same arrays, alternating.

Two levels of TLB (64 entries in 4 ways, 1536 in 12, LRU, 4 KiB pages, no paging-structure caches), traces of 10 million
accesses. Peers, each left out and said so where it is not installed (``pip install numba pycachesim libcachesim``):

- numba, the loop of twenty lines below;
- pycachesim, its bulk call, on the first million accesses; it must count the same misses;
- libCacheSim, one fully associative level of 1536 entries (it has no sets and no second level).

Two limits of the machine stand beside them: one read of the addresses (NumPy's maximum of them), below which nothing that looks
at each of them gets, and two streams on a thread each, which is what a second thread can add at most.

Each round runs every form once, in turn; times are CPU seconds of the process, of several threads wall-clock seconds.
Medians over the rounds; the spread is that of our plain form, the slowest round over the fastest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore import build_profile, machines, tlb

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINE = "skylake_sp:l1_4k=64x4,l1_2m=32x4,stlb=1536x12,levels=4,pde_cache=0x0,pdpte_cache=0x0,pml4e_cache=0x0"
FOLDER = Path(__file__).parents[1] / "data" / "traces"
REAL = ("sort", "python", "bigpython")
NR_ACCESSES = 10_000_000
NR_SHORT = 1_000_000
BASE = np.uint64(0x7F0000000000)
SHA256 = {
    "uniform1g": "2fa568850a08283b738995ae5202af15189cc4c37352217aec696170598c29fc",
    "zipf64k": "9cd296b0b455a2448864cc2a0549f12bb510b8514de10ff19126cc3c608bc951",
}


def trace(name: str) -> np.ndarray:
    """The addresses, in memory that begins at a page as that of any large array."""
    if name in REAL:
        return np.array(tlb.open_trace(FOLDER / f"{name}.delta.zst").addresses)
    if name == "uniform1g":
        words = np.random.Generator(np.random.PCG64(1)).integers(0, 1 << 27, NR_ACCESSES, dtype=np.uint64)
        addresses = BASE + words * np.uint64(8)
    else:
        rng = np.random.Generator(np.random.PCG64(2))
        weights = np.cumsum(1.0 / np.arange(1, 65537) ** 0.99)
        ranks = np.searchsorted(weights / weights[-1], rng.random(NR_ACCESSES))
        pages = rng.permutation(65536).astype(np.uint64)[ranks]
        addresses = BASE + pages * np.uint64(4096) + rng.integers(0, 512, NR_ACCESSES, dtype=np.uint64) * np.uint64(8)
    assert hashlib.sha256(addresses.tobytes()).hexdigest() == SHA256[name], "this NumPy makes another trace"
    return addresses


def numba_loop() -> Callable[[np.ndarray], tuple[int, int]] | None:
    """The loop that a user writes: two levels, move to front."""
    try:
        import numba  # noqa: PLC0415  # a peer that may be missing
    except ImportError:
        return None

    @numba.njit  # type: ignore[untyped-decorator]  # numba has no types
    def loop(addresses):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        first = np.full((16, 4), np.uint64(0xFFFFFFFFFFFFFFFF))
        second = np.full((128, 12), np.uint64(0xFFFFFFFFFFFFFFFF))
        misses1 = misses2 = 0
        for i in range(addresses.size):
            page = addresses[i] >> np.uint64(12)
            s = page & np.uint64(15)
            way = 0
            while way < 3 and first[s, way] != page:  # noqa: PLR2004  # the last of 4 ways
                way += 1
            hit = first[s, way] == page
            for j in range(way, 0, -1):
                first[s, j] = first[s, j - 1]
            first[s, 0] = page
            if not hit:
                misses1 += 1
                s = page & np.uint64(127)
                way = 0
                while way < 11 and second[s, way] != page:  # noqa: PLR2004  # the last of 12 ways
                    way += 1
                if second[s, way] != page:
                    misses2 += 1
                for j in range(way, 0, -1):
                    second[s, j] = second[s, j - 1]
                second[s, 0] = page
        return misses1, misses2

    loop(np.zeros(4, np.uint64))
    return loop  # type: ignore[no-any-return]


def pycachesim_call() -> Callable[[np.ndarray], tuple[int, int]] | None:
    """Both levels in pycachesim; its lists of accesses are made before the clock starts."""
    try:
        import cachesim  # noqa: PLC0415  # a peer that may be missing
    except ImportError:
        return None
    prepared: dict[int, list[tuple[tuple[int, ...], None]]] = {}

    def run(addresses: np.ndarray) -> tuple[int, int]:
        memory = cachesim.MainMemory()
        second = cachesim.Cache("L2", 128, 12, 4096, "LRU")
        first = cachesim.Cache("L1", 16, 4, 4096, "LRU", store_to=second, load_from=second)
        memory.load_to(second)
        memory.store_from(second)
        simulator = cachesim.CacheSimulator(first, memory)
        simulator.loadstore(prepared[id(addresses)], length=1)
        return first.stats()["MISS_count"], second.stats()["MISS_count"]

    def prepare(addresses: np.ndarray) -> None:
        prepared[id(addresses)] = [((address,), None) for address in addresses.tolist()]

    run.prepare = prepare  # type: ignore[attr-defined]  # beside what is timed
    return run


def libcachesim_call() -> Any:  # noqa: ANN401  # a function that carries its preparation
    """One level of 1536 entries in libCacheSim, from a binary file of page numbers."""
    try:
        import libcachesim as lcs  # noqa: PLC0415  # a peer that may be missing
    except ImportError:
        return None
    folder = tempfile.mkdtemp()

    def path_of(addresses: np.ndarray) -> Path:
        return Path(folder) / f"{id(addresses)}.oracleGeneral.bin"

    def prepare(addresses: np.ndarray) -> None:
        table = np.zeros(len(addresses), np.dtype([("t", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]))
        table["id"], table["size"], table["next"] = addresses >> np.uint64(12), 1, -1
        table.tofile(path_of(addresses))

    def run(addresses: np.ndarray) -> None:
        parameters = lcs.ReaderInitParam(ignore_obj_size=True)
        reader = lcs.TraceReader(str(path_of(addresses)), lcs.TraceType.ORACLE_GENERAL_TRACE, parameters)
        lcs.LRU(cache_size=1536).process_trace(reader)

    run.prepare = prepare  # type: ignore[attr-defined]  # beside what is timed
    return run


def forms(name: str, addresses: np.ndarray) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is timed on a trace: how many accesses each form has, and the call."""
    machine = machines.get(MACHINE)
    nr = len(addresses)
    short = addresses[:NR_SHORT].copy()
    rows: dict[str, tuple[int, Callable[[], object]]] = {
        "tlbcore": (nr, lambda: tlb.simulate(addresses, machine)),
        "tlbcore, 2 threads": (nr, lambda: tlb.simulate(addresses, machine, threads=2)),
        "two streams, 2 threads": (2 * nr, lambda: tlb.simulate([addresses, addresses], machine, threads=2)),
        "one read": (nr, addresses.max),
    }
    places = np.arange(0, NR_ACCESSES, 10_000)
    events = np.concatenate(
        [
            tlb.switch_pcid(places, places // 10_000 % 4),
            tlb.flush_all(np.arange(100_000, NR_ACCESSES, 100_000)),
            tlb.invalidate(places + 5000, addresses[places + 5000]),
        ]
    )
    low, high = (int(bound) for bound in np.quantile(addresses[::97], [0.25, 0.75], method="nearest"))
    huge = (low >> 21 << 21, (high >> 21) + 1 << 21, "2M")
    rows["tlbcore, PCIDs, sizes, flushes"] = (
        nr,
        lambda: tlb.simulate(addresses, machine, events=events, page_ranges=[huge]),
    )
    loop = numba_loop()
    if loop is not None:
        rows["numba"] = (nr, lambda: loop(addresses))
        ours = tlb.simulate(addresses, machine)
        assert loop(addresses) == (ours.nr_l1_misses, ours.nr_walks)
    if name in REAL:
        pycachesim = pycachesim_call()
        if pycachesim is not None:
            pycachesim.prepare(short)  # type: ignore[attr-defined]
            rows["pycachesim"] = (NR_SHORT, lambda: pycachesim(short))
            ours = tlb.simulate(short, machine)
            assert pycachesim(short) == (ours.nr_l1_misses, ours.nr_walks)
        libcachesim = libcachesim_call()
        if libcachesim is not None:
            libcachesim.prepare(addresses)
            rows["libcachesim"] = (nr, lambda: libcachesim(addresses))
    return rows


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Millions of accesses a second of each form, medians of alternating rounds."""
    addresses = trace(name)
    table = forms(name, addresses)
    times: dict[str, list[float]] = {form: [] for form in table}
    for _ in range(rounds):
        for form, (_, call) in table.items():
            clock = time.perf_counter if "threads" in form else time.process_time
            start = clock()
            call()
            times[form].append(clock() - start)
        # Threads are compared with one thread by the same clock.
        start = time.perf_counter()
        table["tlbcore"][1]()
        times.setdefault("tlbcore, wall clock", []).append(time.perf_counter() - start)
    sizes = {form: nr for form, (nr, _) in table.items()} | {"tlbcore, wall clock": len(addresses)}
    rates = {form: sizes[form] / statistics.median(values) / 1e6 for form, values in times.items()}
    plain = rates["tlbcore"]
    ratios = {
        f"tlbcore / {peer}": plain / rates[peer] for peer in ("numba", "pycachesim", "libcachesim") if peer in rates
    }
    ratios["tlbcore / one read"] = plain / rates["one read"]
    ratios["2 threads / 1"] = rates["tlbcore, 2 threads"] / rates["tlbcore, wall clock"]
    ratios["two streams, 2 threads / 1"] = rates["two streams, 2 threads"] / rates["tlbcore, wall clock"]
    ratios["PCIDs, sizes, flushes / plain"] = rates["tlbcore, PCIDs, sizes, flushes"] / plain
    spread = max(times["tlbcore"]) / min(times["tlbcore"])
    return {"rates": rates, "ratios": ratios, "spread": spread}


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="write rates and ratios to this file too")
    parser.add_argument("--rounds", type=int, default=9, help="how often each form runs (default 9)")
    parser.add_argument("traces", nargs="*", default=[*REAL, *SHA256], help="which traces (default all)")
    options = parser.parse_args()
    if build_profile() != "release":
        print(f"this is a {build_profile()} build: figures mean nothing, `make bench` makes a release build")
    for peer, call in (("numba", numba_loop()), ("pycachesim", pycachesim_call()), ("libcachesim", libcachesim_call())):
        if call is None:
            print(f"{peer} is not installed and is left out")
    results = {name: measure(name, options.rounds) for name in options.traces}
    for what, unit in (("rates", "M accesses/s"), ("ratios", "times")):
        rows = list(dict.fromkeys(row for result in results.values() for row in result[what]))
        print(f"\n{unit:<32}" + "".join(f"{name:>12}" for name in results))
        for row in rows:
            cells = [result[what].get(row) for result in results.values()]
            print(f"{row:<32}" + "".join(f"{cell:12.2f}" if cell is not None else " " * 12 for cell in cells))
    print("\n" + f"{'spread':<32}" + "".join(f"{result['spread']:12.2f}" for result in results.values()))
    if options.json:
        options.json.write_text(json.dumps({"machine": MACHINE, "traces": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
