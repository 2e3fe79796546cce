"""The records of the kernel lab as they were written, for checks that trust no importer."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from given_data import LAB, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Record = dict[str, Any]

PAGE_SHIFT = 12
ALL = (1 << 64) - 1
#: The scenario's regions: letter X begins at ``REGIONS + (X - 'A') * REGION_SIZE``.
REGIONS, REGION_SIZE = 0x100000000000, 1 << 32


class Flush(NamedTuple):
    """One flush request of an operation."""

    #: ``A+10`` for page 10 of region A; ``ALL`` for a full flush.
    at: str
    #: -1 for a full flush.
    nr_pages: int
    stride_shift: int
    freed_tables: bool


@dataclass
class Operation:
    """One step of a scenario as one actor did it."""

    words: list[str]
    parallel: bool
    place: str
    succeeded: bool = False
    #: Requests in a region, and full ones; others concern the runner's own stack and data.
    flushes: list[Flush] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One file: what ran, and its records in order."""

    config: str
    scenario: str
    ceiling: int
    actors: frozenset[str]
    parallel_steps: frozenset[int]
    records: list[Record]

    def place(self, record: Record) -> str:
        """Where a record stands, for the list of those that disagree."""
        return f"{self.config}_{self.scenario} at {record['t']} us"

    def next(self, index: int, within: int, wanted: Callable[[Record], bool]) -> Record | None:
        """The first wanted one of the records after `index`."""
        return next(filter(wanted, self.records[index + 1 : index + within]), None)

    def next_of(
        self, index: int, within: int, actor: str | None, kinds: tuple[str, ...] = ("mm_range",)
    ) -> Record | None:
        """The first of the records after `index` that is the actor's and of one of these kinds."""
        return self.next(index, within, lambda r: r.get("a") == actor and r["k"] in kinds)

    def operations(self) -> list[Operation]:
        """The steps, each with the flushes that its actor asked for meanwhile."""
        done: list[Operation] = []
        running: dict[str, Operation] = {}
        for record in self.records:
            actor = record.get("a", "")
            if record["k"] == "B":
                place = f"{self.config}_{self.scenario} step {record['step']}"
                running[actor] = Operation(record["op"].split(), record["step"] in self.parallel_steps, place)
                done.append(running[actor])
            elif record["k"] == "E" and actor in running:
                running.pop(actor).succeeded = record["rc"] == 0
            elif record["k"] == "mm_range" and actor in running:
                running[actor].flushes += _flush(record)
        return done


def _flush(request: Record) -> Iterator[Flush]:
    start, end = bounds(request)
    stride, freed = request["stride"], bool(request["freed"])
    if end == ALL:
        yield Flush("ALL", -1, stride, freed)
    elif REGIONS <= start < REGIONS + 26 * REGION_SIZE:
        letter, offset = divmod(start - REGIONS, REGION_SIZE)
        yield Flush(f"{chr(ord('A') + letter)}+{offset >> PAGE_SHIFT}", (end - start) >> PAGE_SHIFT, stride, freed)


def bounds(record: Record) -> tuple[int, int]:
    """Where the record's range starts and ends."""
    return int(record["start"], 16), int(record["end"], 16)


def is_full(record: Record) -> bool:
    """Whether everything is flushed."""
    return bounds(record)[1] == ALL


@functools.cache
def runs() -> tuple[Run, ...]:
    """All files."""
    return tuple(_read(path) for path in LAB)


def _read(path: Path) -> Run:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        meta = json.loads(next(lines))["meta"]
        records = [json.loads(line) for line in lines]
    config, _, scenario = short(path).partition("_")
    return Run(
        config=config,
        scenario=scenario,
        ceiling=meta["ceiling"],
        actors=frozenset(meta["actors"]),
        parallel_steps=frozenset(i for i, step in enumerate(meta["steps"]) if "|" in step),
        records=records,
    )
