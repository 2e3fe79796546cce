"""``PageTable`` against a dict of pages."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import InputError, PageTable

PAGE = 4096
BASE = 0x7F00_0000_0000 - 3 * PAGE  # three pages before a table's border
NR_PAGES = 1100
PRESENT, WRITE, USER, YOUNG, DIRTY, PROTNONE, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 8, 1 << 63
RIGHTS = {
    "none": PROTNONE | YOUNG,
    "r": PRESENT | USER | YOUNG | NX,
    "rx": PRESENT | USER | YOUNG,
    "rw": PRESENT | WRITE | USER | YOUNG | NX,
    "rwx": PRESENT | WRITE | USER | YOUNG,
}
KEPT = ((1 << 52) - 1) & ~(PAGE - 1) | YOUNG | DIRTY
"""What mprotect keeps of an entry: the frame, accessed and dirty."""

Op: TypeAlias = tuple[str, int, int, str]

operations = st.lists(
    st.tuples(
        st.sampled_from(["map", "protect", "clear", "mkclean"]),
        st.integers(0, NR_PAGES - 1),
        st.integers(0, NR_PAGES),
        st.sampled_from(sorted(RIGHTS)),
    ),
    max_size=12,
)


def changed_entry(op: str, old: int, place: int, prot: str) -> int:
    """What an operation makes of one entry."""
    if op == "clear":
        return 0
    if op == "map":
        return (place + 5) * PAGE | RIGHTS[prot]
    if not old:
        return 0
    return old & ~DIRTY if op == "mkclean" else old & KEPT | RIGHTS[prot] & ~KEPT


@given(operations)
def test_ranges_agree_with_pages_one_by_one(ops: list[Op]) -> None:
    table = PageTable()
    model = [0] * NR_PAGES
    for op, first, length, prot in ops:
        nr_pages = min(length, NR_PAGES - first)
        start = BASE + first * PAGE
        if op == "map":
            summary = table.map(start, nr_pages, 5, prot)
        elif op == "protect":
            summary = table.protect(start, nr_pages, prot)
        else:
            summary = getattr(table, op)(start, nr_pages)
        old = model[first : first + nr_pages]
        new = [changed_entry(op, entry, at, prot) for at, entry in enumerate(old)]
        model[first : first + nr_pages] = new
        changed = [at for at in range(nr_pages) if old[at] != new[at]]
        assert summary.nr_present == sum(entry != 0 for entry in old)
        assert summary.nr_young == sum(bool(entry & YOUNG) for entry in old)
        assert summary.nr_dirty == sum(bool(entry & DIRTY) for entry in old)
        assert summary.nr_changed == len(changed)
        if changed:
            assert summary.changed_start == start + changed[0] * PAGE
            assert summary.changed_end == start + (changed[-1] + 1) * PAGE
        else:
            assert summary.changed_start == summary.changed_end
    assert table.entries(BASE, NR_PAGES).tolist() == model


def test_a_move_takes_entries_as_they_are() -> None:
    table = PageTable(levels=5)
    table.map(BASE, NR_PAGES, 100)
    table.clear(BASE + 7 * PAGE, 2)
    before = table.entries(BASE, NR_PAGES).tolist()
    to = BASE + (1 << 40) + 11 * PAGE
    table.move(BASE, to, NR_PAGES)
    assert table.entries(to, NR_PAGES).tolist() == before
    assert not table.entries(BASE, NR_PAGES).any()
    with pytest.raises(InputError, match="found a page mapped, expected a free place to move to"):
        table.move(BASE, to, 8)


def test_absent_tables_are_passed_over() -> None:
    table = PageTable()
    table.map(0, 1, 1)
    nr_tables = table.nr_tables
    summary = table.protect(0, 1 << 34, "r")  # 64 TiB, nearly all of it absent
    assert (summary.nr_present, summary.nr_changed, summary.changed_end) == (1, 1, PAGE)
    assert table.nr_tables == nr_tables


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PageTable(3), "levels: found 3, expected 4 or 5"),
        (lambda: PageTable().map(1, 1, 0), "expected a multiple of 0x1000"),
        (lambda: PageTable().clear(0, 1 << 60), "address 0x"),
        (lambda: PageTable().protect(0, 1, "w"), "prot: found `w`, expected none, r, rw, rx or rwx"),
    ],
)
def test_bad_input_is_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
