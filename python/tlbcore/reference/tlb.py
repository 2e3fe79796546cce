"""The TLB of one CPU: exact LRU sets as dictionaries in recency order (the last key is the most recently used).

Contracts: the set of a page is its number, in units of its own size, modulo the number of sets; PCIDs share sets. A
second-level hit is copied into the first level; a first-level hit is no use of the second-level copy; a fill goes to
both; what the second level evicts stays in the first. Paging-structure caches are one array per level, the deepest looked up
first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from tlbcore.reference import pte as p
from tlbcore.reference.config import PAGE_SHIFT, PMD_SHIFT, ArrayGeometry, Geometry
from tlbcore.reference.page_table import Table, entry_shift

SIZES = (PAGE_SHIFT, PMD_SHIFT)
Value = TypeVar("Value")


class Key(NamedTuple):
    """What a look-up compares: PCID, size shift, number of the region of that size."""

    pcid: int
    shift: int
    number: int


@dataclass(frozen=True)
class TlbEntry:
    """A cached translation; `pfn` is that of its first small page, `flags` are W, D, NX, G."""

    pfn: int
    flags: int

    def has(self, flag: int) -> bool:
        """Whether the flag is set."""
        return bool(self.flags & flag)

    def text(self) -> str:
        """The flags as a dump prints them."""
        return " ".join(name for name, flag in (("W", p.W), ("D", p.D), ("NX", p.NX), ("G", p.G)) if self.flags & flag)


class LruArray(Generic[Value]):
    """One set-associative array."""

    def __init__(self, geometry: ArrayGeometry) -> None:
        """Make an empty array."""
        self.ways, self.nr_sets = geometry.ways, geometry.nr_sets
        self.sets: dict[int, dict[Key, Value]] = {}

    def peek(self, key: Key) -> Value | None:
        """What the key holds, without a trace."""
        return self.sets.get(key.number % self.nr_sets, {}).get(key) if self.nr_sets else None

    def hit(self, key: Key) -> Value | None:
        """What the key holds, which counts as a use."""
        value = self.peek(key)
        if value is not None:
            self.insert(key, value)
        return value

    def insert(self, key: Key, value: Value) -> None:
        """Put it in as the most recently used; a full set loses the one used longest ago."""
        if not self.nr_sets:
            return
        ways = self.sets.setdefault(key.number % self.nr_sets, {})
        ways.pop(key, None)
        if len(ways) == self.ways:
            del ways[next(iter(ways))]
        ways[key] = value

    def update(self, key: Key, value: Value) -> None:
        """Replace what the key holds, which is no use of it."""
        if self.peek(key) is not None:
            self.sets[key.number % self.nr_sets][key] = value

    def drop(self, key: Key) -> None:
        """Forget the key."""
        if self.nr_sets:
            self.sets.get(key.number % self.nr_sets, {}).pop(key, None)

    def drop_pcid(self, pcid: int) -> None:
        """Forget all of a PCID."""
        for number in list(self.sets):
            kept = {key: value for key, value in self.sets[number].items() if key.pcid != pcid}
            if kept:
                self.sets[number] = kept
            else:
                del self.sets[number]

    def all_keys(self) -> list[Key]:
        """All keys, in no order that means anything."""
        return [key for ways in self.sets.values() for key in ways]


class CpuTlb:
    """Both levels and the paging-structure caches of one CPU."""

    def __init__(self, geometry: Geometry) -> None:
        """Make empty arrays."""
        self.l1: dict[int, LruArray[TlbEntry]] = {
            PAGE_SHIFT: LruArray(geometry.l1_4k),
            PMD_SHIFT: LruArray(geometry.l1_2m),
        }
        self.stlb: LruArray[TlbEntry] = LruArray(geometry.stlb)
        self.stlb_holds = geometry.stlb_holds
        #: By level of the table that an entry points to.
        self.psc: list[LruArray[Table]] = [LruArray(array) for array in geometry.psc]
        self.psc_scope = geometry.invlpg_drops_psc

    def lookup(self, pcid: int, va: int) -> tuple[Key, TlbEntry] | None:
        """A look-up by an access, with its effect on recency."""
        keys = [Key(pcid, shift, va >> shift) for shift in SIZES]
        for key in keys:
            entry = self.l1[key.shift].hit(key)
            if entry is not None:
                return key, entry
        for key in keys:
            entry = self.stlb.hit(key)
            if entry is not None:
                self.l1[key.shift].insert(key, entry)
                return key, entry
        return None

    def insert(self, pcid: int, va: int, shift: int, entry: TlbEntry) -> None:
        """The end of a page walk."""
        key = Key(pcid, shift, va >> shift)
        self.l1[shift].insert(key, entry)
        if self.stlb_holds[shift]:
            self.stlb.insert(key, entry)

    def mark_dirty(self, key: Key) -> None:
        """Set D (and W, which a dirty translation has) in all copies."""
        for array in (self.l1[key.shift], self.stlb):
            entry = array.peek(key)
            if entry is not None:
                array.update(key, replace(entry, flags=entry.flags | p.W | p.D))

    def psc_lookup(self, pcid: int, va: int) -> Table | None:
        """The deepest cached table on the way to `va`."""
        for level, array in enumerate(self.psc):
            shift = entry_shift(level + 1)
            table = array.hit(Key(pcid, shift, va >> shift))
            if table is not None:
                return table
        return None

    def psc_insert(self, pcid: int, va: int, table: Table) -> None:
        """A walk used `table`."""
        shift = entry_shift(table.level + 1)
        self.psc[table.level].insert(Key(pcid, shift, va >> shift), table)

    def drop_translations(self, pcid: int, va: int) -> None:
        """Forget the translations of `va`, of any size."""
        for shift in SIZES:
            key = Key(pcid, shift, va >> shift)
            self.l1[shift].drop(key)
            self.stlb.drop(key)

    def invlpg(self, pcid: int, va: int) -> None:
        """INVLPG: translations of `va`, and of the paging-structure entries what the geometry says."""
        self.drop_translations(pcid, va)
        for level, array in enumerate(self.psc):
            if self.psc_scope == "all":
                array.drop_pcid(pcid)
            elif self.psc_scope == "covering":
                shift = entry_shift(level + 1)
                array.drop(Key(pcid, shift, va >> shift))

    def flush_pcid(self, pcid: int) -> None:
        """Forget all of a PCID."""
        for array in (*self.l1.values(), self.stlb):
            array.drop_pcid(pcid)
        for tables in self.psc:
            tables.drop_pcid(pcid)

    def caches_any(self, pcid: int, start: int, end: int) -> bool:
        """Whether a translation of the PCID shares a byte with start..end."""
        return any(
            key.pcid == pcid and key.number << key.shift < end and (key.number + 1) << key.shift > start
            for array in (*self.l1.values(), self.stlb)
            for key in array.all_keys()
        )

    def dump(self) -> dict[str, list[list[object]]]:
        """What it holds, in the form of `state()`."""
        entries: list[list[object]] = []
        in_l1 = {key for array in self.l1.values() for key in array.all_keys()}
        in_stlb = set(self.stlb.all_keys())
        for key in sorted(in_l1 | in_stlb, key=lambda k: (k.pcid, k.number << k.shift, k.shift)):
            entry = self.l1[key.shift].peek(key) or self.stlb.peek(key)
            assert entry is not None
            where = "+".join(name for name, keys in (("L1", in_l1), ("STLB", in_stlb)) if key in keys)
            vpn = key.number << (key.shift - PAGE_SHIFT)
            entries.append([key.pcid, vpn, key.shift, entry.pfn, entry.text(), where])
        psc = [
            [key.pcid, level, key.number << key.shift]
            for level, array in enumerate(self.psc)
            for key in array.all_keys()
        ]
        return {"entries": entries, "psc": [list(row) for row in sorted(psc)]}
