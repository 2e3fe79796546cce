"""Address traces through the TLBs of a machine: hits and misses of each level, page walks, what the walks load.

>>> import numpy as np
>>> from tlbcore import tlb
>>> pages = np.arange(100, dtype=np.uint64) % 80
>>> result = tlb.simulate(pages * 4096, "skylake_sp")
>>> result.nr_l1_misses, result.nr_stlb_hits, result.nr_walks
(100, 20, 80)

An access touches one page, whatever its size. A miss fills both levels; the second is looked up on first-level misses
only, and what it evicts stays in the first; nothing is prefetched; CPUs start empty and share nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from tlbcore import machines, results
from tlbcore._core import AddressTrace, simulate_tlb
from tlbcore.errors import InputError
from tlbcore.given import whole_number, wrong_kind
from tlbcore.lookup import find, with_nearest
from tlbcore.piped import as_file
from tlbcore.report.table import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Addresses = npt.NDArray[np.uint64]
    Events = npt.NDArray[np.void]

__all__ = [
    "EVENT",
    "FORMATS",
    "PAGE_SIZES",
    "AccessError",
    "AddressTrace",
    "Counts",
    "Result",
    "flush_all",
    "flush_pcid",
    "invalidate",
    "open_trace",
    "simulate",
    "switch_pcid",
]

PAGE_SIZES: Final = ("4K", "2M", "1G")
"""The page sizes, by the names that everything here takes."""

FORMATS: Final = tuple(AddressTrace.formats())
"""The formats of `open_trace`."""

EVENT: Final = np.dtype([("at", "<u8"), ("kind", "u1"), ("cpu", "<i4"), ("pcid", "<u2"), ("address", "<u8")])
"""A row of events, as `switch_pcid`, `flush_pcid`, `flush_all` and `invalidate` make them."""

_SWITCH, _FLUSH_PCID, _FLUSH_CURRENT, _FLUSH_ALL, _INVALIDATE, _INVALIDATE_CURRENT = range(6)
_ALL_CPUS: Final = -1


_ADDRESS_BITS: Final = 57
_SEARCHED_AT_ONCE: Final = 1 << 20


class AccessError(InputError):
    """An access to an address that no machine has."""

    def __init__(self, cpu: int, access: int, address: int) -> None:
        super().__init__(cpu, access, address)
        #: Whose access it is.
        self.cpu = cpu
        #: Which one of that CPU's, counted from 0.
        self.access = access
        self.address = address

    @property
    def found(self) -> str:
        """What was found and expected, without the place."""
        return f"found address {self.address:#x}, expected at most {_ADDRESS_BITS} bits"

    def __str__(self) -> str:
        """One line, as all errors are."""
        return f"access {self.access} of CPU {self.cpu}: {self.found}"


@dataclass(frozen=True)
class Counts:
    """What the accesses of one CPU, or of all, came to."""

    nr_accesses: int
    #: Accesses that the first level did not answer.
    nr_l1_misses: int
    #: Accesses that neither level answered.
    nr_walks: int
    #: Walks by how many page-table entries they read: the first number is those that read one.
    walks_by_loads: tuple[int, ...]
    #: Walks by the size of the page found, in the order of `PAGE_SIZES`.
    walks_by_size: tuple[int, ...]

    @property
    def nr_l1_hits(self) -> int:
        """Accesses that the first level answered."""
        return self.nr_accesses - self.nr_l1_misses

    @property
    def nr_stlb_hits(self) -> int:
        """Accesses that the second level answered."""
        return self.nr_l1_misses - self.nr_walks

    @property
    def nr_walk_loads(self) -> int:
        """Page-table entries that all walks read."""
        return sum(loads * walks for loads, walks in enumerate(self.walks_by_loads, start=1))

    def __add__(self, other: Counts) -> Counts:
        """The counts of both."""
        return Counts(
            self.nr_accesses + other.nr_accesses,
            self.nr_l1_misses + other.nr_l1_misses,
            self.nr_walks + other.nr_walks,
            tuple(a + b for a, b in zip(self.walks_by_loads, other.walks_by_loads, strict=True)),
            tuple(a + b for a, b in zip(self.walks_by_size, other.walks_by_size, strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain structure, with what follows from the counts."""
        return {
            "nr_accesses": self.nr_accesses,
            "nr_l1_hits": self.nr_l1_hits,
            "nr_l1_misses": self.nr_l1_misses,
            "nr_stlb_hits": self.nr_stlb_hits,
            "nr_walks": self.nr_walks,
            "nr_walk_loads": self.nr_walk_loads,
            "walks_by_loads": list(self.walks_by_loads),
            "walks_by_size": dict(zip(PAGE_SIZES, self.walks_by_size, strict=True)),
        }


@dataclass(frozen=True, repr=False)
class Result(results.Result, Counts):
    """The counts over all CPUs, and those of each."""

    cpus: tuple[Counts, ...] = field(default=())
    #: The machine's name.
    machine: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A plain structure."""
        return {"machine": self.machine, **Counts.to_dict(self), "cpus": [cpu.to_dict() for cpu in self.cpus]}

    def to_rows(self) -> list[dict[str, results.Cell]]:
        """A row for each CPU."""
        rows: list[dict[str, results.Cell]] = []
        for number, cpu in enumerate(self.cpus):
            counts = {name: value for name, value in cpu.to_dict().items() if isinstance(value, int)}
            row: dict[str, results.Cell] = {"cpu": number, **counts}
            row |= {f"nr_walks_with_{loads}_loads": walks for loads, walks in enumerate(cpu.walks_by_loads, start=1)}
            row |= {f"nr_walks_{size}": walks for size, walks in zip(PAGE_SIZES, cpu.walks_by_size, strict=True)}
            rows.append(row)
        return rows

    def headline(self) -> str:
        """One line."""
        return (
            f"{self.machine}: {counted(self.nr_accesses, 'access', group='')}, {self.nr_l1_misses} first-level misses,"
            f" {self.nr_walks} walks, {self.nr_walk_loads} loads of walks"
        )


#: What somebody may have wanted who gave something else than addresses.
_HINTS: Final[dict[type | tuple[type, ...], str]] = {
    (str, os.PathLike): "tlbcore.tlb.open_trace(PATH).addresses",
    AddressTrace: "its addresses",
}


def open_trace(path: str | os.PathLike[str], format: str | None = None) -> AddressTrace:  # noqa: A002  # the usual word
    """A file with the addresses of a program's accesses: ``.addresses`` is a read-only array.

    Raw 64-bit words and ``.npy`` files are mapped, not read; differences in byte planes, ChampSim's records, lackey's text
    and that of DynamoRIO's view tool are read, and may be compressed with gzip, xz or zstd.

    Args:
        path: The file.
        format: One of `FORMATS`; without, the content tells.

    Raises:
        InputError: The file is nothing of this, or damaged; the message names file, place, found and expected.
        OSError: It cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        raise wrong_kind("trace", path, "the name of a file")
    try:
        with as_file(path, lambda head: b"\0" in head or not head.isascii()) as file:  # what is mapped, or not of text
            return AddressTrace.open(file, format)
    except FileNotFoundError as error:
        raise with_nearest(error) from None


def simulate(  # noqa: PLR0913  # each has a default, and a meaning of its own
    addresses: Addresses | Sequence[Addresses],
    machine: str | machines.Machine = machines.DEFAULT,
    *,
    page_size: str = "4K",
    page_ranges: Iterable[tuple[int, int, str]] = (),
    cpus: npt.NDArray[np.integer[Any]] | None = None,
    pcids: npt.NDArray[np.integer[Any]] | Sequence[npt.NDArray[np.integer[Any]]] | None = None,
    events: Events | Iterable[Events] = (),
    threads: int = 1,
    plain: bool = False,
    progress: Callable[[], None] | None = None,
) -> Result:
    """Run accesses through the TLBs of a machine.

    Args:
        addresses: Virtual addresses in bytes, below 2**57: an array of shape (n,), or a list of them, one for each CPU. A
            contiguous uint64 array is used where it lies.
        machine: A machine, or what `tlbcore.machines.get` takes.
        page_size: The size of pages outside of `page_ranges`, one of `PAGE_SIZES`.
        page_ranges: (start, end, size) with other sizes: bytes, end excluded, aligned to the size and to 2 MiB.
        cpus: For one array of addresses, the CPU of each access; CPUs are numbered from 0.
        pcids: The PCID of each access, below 4096: one array, or one for each CPU. Without, the PCID is 0 until a
            `switch_pcid`.
        events: What happens between accesses; places are indices into `addresses`.
        threads: How many threads may work; no count depends on it.
        plain: Use the plain engine, which is many times slower and has the same counts.
        progress: Called now and then; what it raises ends the work, as Ctrl-C does.

    Raises:
        AccessError: An address has more than 57 bits.
        InputError: An argument cannot be what it should be; the message names it, with what was found and expected.

    >>> a = np.array([0x1000, 0x1000, 0x2000, 0x1000], np.uint64)
    >>> simulate(a, "skylake_sp", events=flush_all(at=[3])).nr_walks
    3
    >>> simulate([a, a[:2]], "skylake_sp").cpus[1].nr_l1_hits
    1
    """
    chosen = machines.get(machine)
    whole_number("threads", threads, least=1, most=2**32 - 1)
    _check_kind(addresses)
    streams, places = _streams(addresses, cpus)
    rows = _event_rows(events, streams, places, _pcids(pcids, streams, places))
    options = {
        "page_size": _size_index(page_size),
        "page_ranges": [
            (whole_number("page range", start), whole_number("page range", end), _size_index(size))
            for start, end, size in map(_page_range, page_ranges)
        ],
        "threads": threads,
        "plain": plain,
    }
    columns = [
        (
            stream,
            np.require(table["at"], requirements=("C", "A")),
            np.require(table["kind"], requirements=("C", "A")),
            np.require(table["pcid"], requirements=("C", "A")),
            np.require(table["address"], requirements=("C", "A")),
        )
        for stream, table in zip(streams, rows, strict=True)
    ]
    try:
        counted = json.loads(simulate_tlb(chosen.to_json(), json.dumps(options), columns, progress))
    except InputError as error:
        bad = _first_bad_access(streams)
        if bad is None or str(bad) != str(error):  # the core found something else before it came to the accesses
            raise
        raise bad from None
    each = tuple(
        Counts(
            cpu["nr_accesses"],
            cpu["nr_l1_misses"],
            cpu["nr_walks"],
            tuple(cpu["walks_by_loads"]),
            tuple(cpu["walks_by_size"]),
        )
        for cpu in counted
    )
    total = sum(each[1:], start=each[0])
    return Result(**vars(total), cpus=each, machine=chosen.name)


def _first_bad_access(streams: list[Addresses]) -> AccessError | None:
    """The one that the core tells: of the first CPU that has one. Searched for only after an error, as it takes a while."""
    for cpu, stream in enumerate(streams):
        for begin in range(0, len(stream), _SEARCHED_AT_ONCE):
            bad = np.flatnonzero(stream[begin : begin + _SEARCHED_AT_ONCE] >> np.uint64(_ADDRESS_BITS))
            if len(bad):
                access = begin + int(bad[0])
                return AccessError(cpu, access, int(stream[access]))
    return None


def switch_pcid(at: npt.ArrayLike, pcid: npt.ArrayLike, *, cpu: int = _ALL_CPUS) -> Events:
    """Switches before the accesses `at`: later accesses are those of `pcid`; nothing is dropped."""
    return _events(at, _SWITCH, cpu, pcid=pcid)


def flush_pcid(at: npt.ArrayLike, pcid: npt.ArrayLike | None = None, *, cpu: int = _ALL_CPUS) -> Events:
    """Flushes before the accesses `at` of all that belongs to `pcid`, without one to the current PCID."""
    return _events(at, _FLUSH_CURRENT, cpu) if pcid is None else _events(at, _FLUSH_PCID, cpu, pcid=pcid)


def flush_all(at: npt.ArrayLike, *, cpu: int = _ALL_CPUS) -> Events:
    """Flushes of everything before the accesses `at`."""
    return _events(at, _FLUSH_ALL, cpu)


def invalidate(
    at: npt.ArrayLike, address: npt.ArrayLike, pcid: npt.ArrayLike | None = None, *, cpu: int = _ALL_CPUS
) -> Events:
    """Invalidations before the accesses `at` of the pages that hold `address`, as `pcid`, or the current one, maps them.

    Which paging-structure entries go with a page is the machine's to say.
    """
    if pcid is None:
        return _events(at, _INVALIDATE_CURRENT, cpu, address=address)
    return _events(at, _INVALIDATE, cpu, pcid=pcid, address=address)


def _events(at: npt.ArrayLike, kind: int, cpu: int, pcid: npt.ArrayLike = 0, address: npt.ArrayLike = 0) -> Events:
    places, pcids, addresses = np.broadcast_arrays(np.atleast_1d(at), pcid, address)
    table = np.zeros(len(places), EVENT)
    table["at"] = _checked("at", places, np.uint64)
    table["kind"] = kind
    table["cpu"] = cpu
    table["pcid"] = _checked("pcid", pcids, np.uint16)
    table["address"] = _checked("address", addresses, np.uint64)
    return table


def _checked(name: str, values: npt.NDArray[Any], dtype: type[np.unsignedinteger[Any]]) -> npt.NDArray[Any]:
    """The values in another type, if they all fit."""
    if values.dtype.kind not in "iu" and values.size:
        raise InputError(f"{name}: found elements of type {values.dtype}, expected integers")
    bound = np.iinfo(dtype).max
    # A look at all of a long trace would take as long as half of its simulation.
    fits = values.dtype.kind == "u" and values.dtype.itemsize <= np.dtype(dtype).itemsize
    if not fits and values.size and (int(values.min()) < 0 or int(values.max()) > bound):
        raise InputError(f"{name}: found values from {values.min()} to {values.max()}, expected 0 to {bound}")
    return values.astype(dtype, copy=False)


def _size_index(name: str) -> int:
    return PAGE_SIZES.index(find("page size", name, PAGE_SIZES))


def _check_kind(addresses: object) -> None:
    if addresses is None or isinstance(addresses, str | os.PathLike | AddressTrace):
        raise wrong_kind("addresses", addresses, "an array, or a list of arrays", _HINTS)


def _page_range(given: object) -> Sequence[Any]:
    parts = 3
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != parts:
        raise InputError(f"page_ranges: found {given!r}, expected (start, end, size) for each")
    return given


def _one(name: str, values: npt.ArrayLike) -> Addresses:
    """An array of addresses as the core takes it; copied only if it is not contiguous or not uint64."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name}: found {array.ndim} dimensions, expected 1")
    return cast("Addresses", np.require(_checked(name, array, np.uint64), requirements=("C", "A")))


def _streams(
    addresses: Addresses | Sequence[Addresses], cpus: npt.NDArray[np.integer[Any]] | None
) -> tuple[list[Addresses], list[npt.NDArray[np.intp]] | None]:
    """The addresses of each CPU, and, of those that were one array, the places that they had in it."""
    if isinstance(addresses, (list, tuple)) and not all(np.isscalar(item) for item in addresses):
        if cpus is not None:
            raise InputError("cpus: found a column for a list of arrays, expected one array of addresses")
        return [_one(f"addresses[{index}]", stream) for index, stream in enumerate(addresses)], None
    stream = _one("addresses", cast("Addresses", addresses))
    if cpus is None:
        return [stream], None
    column = _checked("cpus", np.asarray(cpus), np.uint16)
    if column.shape != stream.shape:
        raise InputError(f"cpus: found shape {column.shape}, expected that of addresses, {stream.shape}")
    nr_cpus = int(column.max()) + 1 if column.size else 1
    if nr_cpus > machines.NR_CPUS_MAX:
        raise InputError(f"cpus: found CPU {nr_cpus - 1}, expected less than {machines.NR_CPUS_MAX}")
    places = [np.flatnonzero(column == cpu) for cpu in range(nr_cpus)]
    return [stream[where] for where in places], places


def _pcids(
    pcids: npt.NDArray[np.integer[Any]] | Sequence[npt.NDArray[np.integer[Any]]] | None,
    streams: list[Addresses],
    places: list[npt.NDArray[np.intp]] | None,
) -> list[Events]:
    """For each CPU a switch wherever the PCID of its accesses changes."""
    if pcids is None:
        return [np.zeros(0, EVENT) for _ in streams]
    if places is not None:
        column = np.asarray(pcids)
        nr_accesses = sum(map(len, streams))
        if column.shape != (nr_accesses,):
            raise InputError(f"pcids: found shape {column.shape}, expected that of addresses, ({nr_accesses},)")
        columns = [column[where] for where in places]
    else:
        columns = [np.asarray(pcids)] if len(streams) == 1 and np.ndim(pcids) == 1 else [np.asarray(c) for c in pcids]
    if len(columns) != len(streams):
        raise InputError(f"pcids: found {len(columns)} columns, expected one for each of {len(streams)} CPUs")
    switches = []
    for column, stream in zip(columns, streams, strict=True):
        if column.shape != stream.shape:
            raise InputError(f"pcids: found shape {column.shape}, expected that of addresses, {stream.shape}")
        values = _checked("pcids", column, np.uint16)
        changes = np.flatnonzero(np.diff(values, prepend=values[:1] + np.uint16(1)))
        switches.append(switch_pcid(changes, values[changes]))
    return switches


def _event_rows(
    events: Events | Iterable[Events],
    streams: list[Addresses],
    places: list[npt.NDArray[np.intp]] | None,
    switches: list[Events],
) -> list[Events]:
    """The events of each CPU, sorted by place; at one place a switch of PCID comes last, those given keep their order."""
    if not isinstance(events, Iterable):
        raise wrong_kind("events", events, "arrays of type tlbcore.tlb.EVENT, such as flush_all(at=[3])")
    tables: list[Any] = [events] if isinstance(events, np.ndarray) else list(events)
    for table in tables:
        if not isinstance(table, np.ndarray) or table.dtype != EVENT:
            raise InputError(f"events: found {type(table).__name__}, expected arrays of type tlbcore.tlb.EVENT")
    given = np.concatenate([np.zeros(0, EVENT), *tables])
    if given.size and int(given["cpu"].max()) >= len(streams):
        raise InputError(f"events: found CPU {given['cpu'].max()}, expected less than {len(streams)}")
    rows = []
    for cpu, stream in enumerate(streams):
        mine = given[(given["cpu"] == cpu) | (given["cpu"] == _ALL_CPUS)]
        if places is not None:
            nr_accesses = sum(map(len, streams))
            if mine.size and int(mine["at"].max()) > nr_accesses:
                raise InputError(f"events: found place {mine['at'].max()}, expected at most {nr_accesses}")
            mine["at"] = np.searchsorted(places[cpu], mine["at"])
        elif len(streams) > 1:
            mine["at"] = np.minimum(mine["at"], len(stream))
        both = np.concatenate([mine, switches[cpu]])
        rows.append(both[np.argsort(both["at"], kind="stable")])
    return rows
