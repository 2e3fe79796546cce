"""The tree of page tables of one mm, with the tables themselves, so that their coming and going is modelled.

Level 0 is a PTE table; the root is level 3 or 4. A PMD table (level 1) holds tables and huge entries. An entry that is
none is not in the dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tlbcore.reference.config import ALL, PAGE_SHIFT, PMD_SHIFT, PMD_SIZE
from tlbcore.reference.errors import ModelError
from tlbcore.reference.pte import NONE, Pte

#: Told of each freed table: it (None for the folded P4D level of a 4-level tree), its level, its address.
Freed = Callable[["Table | None", int, int], None]


def entry_shift(level: int) -> int:
    """log2 of the bytes that one entry of a table of `level` maps."""
    return PAGE_SHIFT + 9 * level


def index(va: int, level: int) -> int:
    """Which entry of the table of `level` maps `va`."""
    return (va >> entry_shift(level)) & 511


class Table:
    """One page table."""

    __slots__ = ("defer_gen", "entries", "level")

    def __init__(self, level: int) -> None:
        """Make an empty table of `level`."""
        self.level = level
        self.entries: dict[int, Table | Pte] = {}
        self.defer_gen = 0


class PageTable:
    """The tree of one mm."""

    def __init__(self, levels: int) -> None:
        """Make a tree that has only its root."""
        self.root = Table(levels - 1)

    def table(self, va: int, level: int) -> Table | None:
        """The table of `level` on the way to `va`, if it is there."""
        table = self.root
        # index() spelled out: nothing is called as often.
        shift = entry_shift(table.level)
        for _ in range(table.level - level):
            child = table.entries.get((va >> shift) & 511)
            if not isinstance(child, Table):
                return None
            table = child
            shift -= 9
        return table

    def end_of_pmd_or_hole(self, va: int) -> int:
        """Where what one PMD entry maps ends, or what a missing table above it would map."""
        table = self.root
        while table.level > 1:
            child = table.entries.get(index(va, table.level))
            if not isinstance(child, Table):
                break
            table = child
        size = 1 << entry_shift(table.level)
        return (va & ~(size - 1)) + size

    def ensure(self, va: int, level: int) -> Table:
        """The table of `level` on the way to `va`; missing ones are made."""
        table = self.root
        while table.level > level:
            child = table.entries.get(index(va, table.level))
            if child is None:
                child = Table(table.level - 1)
                table.entries[index(va, table.level)] = child
            if not isinstance(child, Table):
                msg = f"a huge entry stands at {va:#x} where a table is to be"
                raise ModelError(msg)
            table = child
        return table

    def huge(self, va: int) -> Pte | None:
        """The huge PMD entry that maps `va`, if there is one."""
        table = self.table(va, 1)
        entry = None if table is None else table.entries.get(index(va, 1))
        return entry if isinstance(entry, Pte) else None

    def pmd_none(self, va: int) -> bool:
        """Whether there is neither a PTE table nor a huge entry at `va`."""
        table = self.table(va, 1)
        return table is None or index(va, 1) not in table.entries

    def get(self, va: int) -> tuple[Pte, int]:
        """The leaf entry of `va` and its size shift; an absent one is none."""
        table = self.table(va, 1)
        entry = None if table is None else table.entries.get(index(va, 1))
        if isinstance(entry, Pte):
            return entry, PMD_SHIFT
        if entry is None:
            return NONE, PAGE_SHIFT
        leaf = entry.entries.get(index(va, 0), NONE)
        assert isinstance(leaf, Pte)
        return leaf, PAGE_SHIFT

    def put(self, va: int, pte: Pte) -> None:
        """Write the leaf entry of `va`: the huge one if one stands there, else the PTE."""
        level = 1 if self.huge(va) is not None else 0
        self.put_at(va, level, pte)

    def put_at(self, va: int, level: int, pte: Pte) -> None:
        """Write the entry of the table of `level`."""
        if pte.kind == "none":
            table = self.table(va, level)
            if table is not None:
                table.entries.pop(index(va, level), None)
        else:
            self.ensure(va, level).entries[index(va, level)] = pte

    def leaves(self) -> Iterator[tuple[int, int, Pte]]:
        """(address, size shift, entry) of all entries that are not none, by address."""
        yield from _leaves(self.root, 0)

    def tables(self) -> Iterator[Table]:
        """All tables, the root first."""
        stack = [self.root]
        while stack:
            table = stack.pop()
            yield table
            stack.extend(child for child in table.entries.values() if isinstance(child, Table))

    def free_pgd_range(self, addr: int, end: int, floor: int, ceiling: int, freed: Freed) -> None:
        """`free_pgd_range()` of mm/memory.c, with the arithmetic of unsigned 64-bit numbers."""
        addr &= ~(PMD_SIZE - 1)
        if addr < floor:
            addr += PMD_SIZE
        if ceiling:
            ceiling &= ~(PMD_SIZE - 1)
            if not ceiling:
                return
        if end - 1 > (ceiling - 1) & ALL:
            end -= PMD_SIZE
        if addr > end - 1:
            return
        size = 1 << entry_shift(self.root.level)
        while addr != end:
            following = min((addr + size) & ~(size - 1), end)
            child = self.root.entries.get(index(addr, self.root.level))
            if isinstance(child, Table):
                _free_below(self.root, child, addr, following, floor, ceiling, freed)
            if self.root.level == 3 and _covers(addr, following, size, floor, ceiling):
                # The folded P4D level: nothing is freed, but p4d_free_tlb() records it, present or not.
                freed(None, 3, addr & ~(size - 1))
            addr = following


def _leaves(table: Table, base: int) -> Iterator[tuple[int, int, Pte]]:
    for position in sorted(table.entries):
        entry = table.entries[position]
        va = base + (position << entry_shift(table.level))
        if isinstance(entry, Table):
            yield from _leaves(entry, va)
        else:
            yield va, entry_shift(table.level), entry


def _covers(start: int, end: int, size: int, floor: int, ceiling: int) -> bool:
    """Whether nothing outside floor..ceiling can need the table that maps `size` bytes around `start`."""
    if start & ~(size - 1) < floor:
        return False
    if ceiling:
        ceiling &= ~(size - 1)
        if not ceiling:
            return False
    return end - 1 <= (ceiling - 1) & ALL


def _free_below(parent: Table, table: Table, addr: int, end: int, floor: int, ceiling: int, freed: Freed) -> None:
    """`free_p4d_range()`, `free_pud_range()`, `free_pmd_range()`: the tables below `table`, then perhaps `table`."""
    start, size = addr, 1 << entry_shift(table.level)
    while addr != end:
        following = min((addr + size) & ~(size - 1), end)
        position = index(addr, table.level)
        child = table.entries.get(position)
        if isinstance(child, Pte):
            msg = f"page tables are freed while a huge entry maps {addr:#x}"
            raise ModelError(msg)
        if child is not None and table.level == 1:
            if child.entries:
                msg = f"the page table at {addr:#x} is freed while it holds entries"
                raise ModelError(msg)
            del table.entries[position]
            freed(child, 0, addr)
        elif child is not None:
            _free_below(table, child, addr, following, floor, ceiling, freed)
        addr = following
    whole = 1 << entry_shift(parent.level)
    if _covers(start, end, whole, floor, ceiling):
        del parent.entries[index(start, parent.level)]
        freed(table, table.level, start & ~(whole - 1))
