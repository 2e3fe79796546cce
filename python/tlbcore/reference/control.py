"""The control steps (steps.md, section 3): a recursive walk over the plain structure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tlbcore.reference.conditions import asks_for_flush, evaluate
from tlbcore.reference.config import PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PUD_SIZE
from tlbcore.reference.frame import Frame, Plain
from tlbcore.reference.page_table import Table, index
from tlbcore.reference.vma import VM_SHARED

Handler = Callable[[Frame, Plain], None]


def run(f: Frame, block: Sequence[Plain]) -> None:
    """The steps of a block, one after the other."""
    handlers = f.machine.handlers
    for step in block:
        handlers[step["step"]](f, step)


def when(f: Frame, step: Plain) -> None:
    """As it reads; a flush that a question about the change made unnecessary is counted."""
    condition = step["if"]
    if evaluate(f, condition):
        run(f, step["then"])
        return
    if asks_for_flush(condition) and f.pte.hw_present and f.pte != f.new_pte:
        f.machine.tallies["nr_flush_avoided"] += 1
    run(f, step.get("else", ()))


def for_each_vma(f: Frame, step: Plain) -> None:
    """The detached VMAs, or those of the tree that overlap the range; the next one is found after the body."""
    at = f.range[0]
    detached = iter(f.detached or ())
    while True:
        vma = next(detached, None) if f.detached is not None else f.mm.vmas.find(at)
        if vma is None or (f.detached is None and (vma.start >= f.range[1] or f.range[0] == f.range[1])):
            return
        f.vma, f.nr_changed = vma, 0
        f.vma_range = (max(vma.start, f.range[0]), min(vma.end, f.range[1]))
        run(f, step["body"])
        at = f.the_vma.end


@contextmanager
def _registers_come_back(f: Frame) -> Iterator[None]:
    names = ("mm", "vma", "vma_range", "range", "table", "table_range", "addr", "pte", "new_pte")
    kept = {name: getattr(f, name) for name in names}
    yield
    for name, value in kept.items():
        setattr(f, name, value)


def for_each_rmap_vma(f: Frame, step: Plain) -> None:
    """The VMAs, of any mm, that map a page of the operation's file range, as the file's interval tree has them."""
    first, last = f.args["from_page"], f.args["to_page"]
    with _registers_come_back(f):
        areas = [(mm, vma) for mm in f.machine.live_mms() for vma in mm.vmas if vma.file == f.args["file"]]
        for mm, vma in sorted(areas, key=lambda area: (area[1].pgoff, area[1].born_of_file)):
            start = max(vma.start, vma.start + (first - vma.pgoff) * PAGE_SIZE)
            end = vma.end if last is None else min(vma.end, vma.start + (last - vma.pgoff) * PAGE_SIZE)
            if start < end:
                f.mm, f.vma, f.nr_changed, f.tracked = mm, vma, 0, None
                f.vma_range = f.range = (start, end)
                run(f, step["body"])


def for_each_table(f: Frame, step: Plain) -> None:
    """The page tables of `vma_range`; at a huge PMD `on_huge_pmd`; at one cut by the range then the table, if it was split."""
    at, end = f.vma_range
    while at < end:
        following = min(f.mm.page_table.end_of_pmd_or_hole(at), end)
        is_done = False
        if f.mm.page_table.huge(at) is not None:
            visit_huge_pmd(f, step, (at, following))
            is_done = following - at == PMD_SIZE
        table = None if is_done else f.mm.page_table.table(at, 0)
        if table is not None:
            visit_table(f, step, table, (at, following))
        at = following


def visit_huge_pmd(f: Frame, step: Plain, span: tuple[int, int]) -> None:
    """Run `on_huge_pmd` with the registers of the huge entry."""
    f.read(span[0] & ~(PMD_SIZE - 1))
    f.table = f.mm.page_table.table(span[0], 1)
    f.table_range = span
    f.force_flush = f.delay_rmap = False
    run(f, step.get("on_huge_pmd", ()))


def visit_table(f: Frame, step: Plain, table: Table, span: tuple[int, int]) -> None:
    """Run `body`, again and again while a for_each_pte was left early and entries remain."""
    f.table, f.table_range, f.reached = table, span, span[0]
    while True:
        f.force_flush = f.delay_rmap = False
        f.left_early = False
        run(f, step["body"])
        if not f.left_early or f.reached >= span[1]:
            return


def _is_spared(f: Frame) -> bool:
    """Whether a hole in a file spares the entry: one of a copy (`even_cows` of `unmap_mapping_range()`)."""
    if not f.args.get("spares_cows"):
        return False
    if f.pte.kind == "swap":
        return True
    return f.machine.memory.page(f.pte.pfn).kind == "anon"


def for_each_pte(f: Frame, step: Plain) -> None:
    """The entries of the table, from the point reached on, that fit the filter."""
    at, end = f.reached, f.table_range[1]
    only_present = step["filter"] == "present"
    while at < end:
        table = f.mm.page_table.table(at, 0)
        if table is not None and index(at, 0) in table.entries:
            f.read(at)
            fits = f.pte.present if only_present else f.pte.kind != "none" and not _is_spared(f)
            if fits:
                f.delay_rmap, f.leave_ptes = False, False
                run(f, step["body"])
                left, f.leave_ptes = f.leave_ptes, None
                if left:
                    f.left_early = True
                    f.reached = at + PAGE_SIZE
                    return
        at += PAGE_SIZE


def for_each_page(f: Frame, step: Plain) -> None:
    """The pages of the list, which holds a reference of each; `keep` leaves it for a later pass."""
    for page in list(f.page_list):
        f.page = page
        run(f, step["body"])
    if not step.get("keep", False):
        f.machine.drop_page_list(f)


def for_each_mapping(f: Frame, step: Plain) -> None:
    """A snapshot of the page's rmap in the order of a walk, without the mappings gone meanwhile."""
    page = f.the_page

    def order(mapping: tuple[int, int]) -> tuple[int, tuple[int, int, int], int, int]:
        number, addr = mapping
        vma = f.machine.engine.mms[number].vmas.lookup(addr)
        if vma is None:
            return 1 << 64, (0, 0, 0), number, addr
        return vma.pgoff, (vma.born_of_anon, 0, 0) if page.kind == "anon" else vma.born_of_file, number, addr

    todo = deque(sorted(page.rmap, key=order))
    with _registers_come_back(f):
        while todo:
            number, addr = todo.popleft()
            if (number, addr) not in page.rmap:
                continue
            f.mm = f.machine.engine.mms[number]
            f.vma = f.mm.vmas.lookup(addr)
            if f.vma is None or (step.get("shared_only", False) and not f.vma.has(VM_SHARED)):
                continue
            f.read(addr)
            f.page = page
            huge = f.mm.page_table.get(addr)[1] == PMD_SHIFT
            f.table = f.mm.page_table.table(addr, 1 if huge else 0)
            f.table_range = (addr, addr + (PMD_SIZE if huge else PAGE_SIZE))
            run(f, step.get("on_huge_pmd", ()) if huge else step["body"])
            f.page = page
            mm = f.machine.engine.mms[number]
            if huge and mm.page_table.table(addr, 0) is not None:  # split: page_vma_mapped_walk() goes on with the PTEs
                split = [mapping for mapping in page.rmap if mapping[0] == number and 0 <= mapping[1] - addr < PMD_SIZE]
                todo.extendleft(reversed(split))


def _extent_end(size: int, old: int, old_end: int, new: int) -> int:
    """`get_extent()` of mm/mremap.c, as an end."""
    extent = min((old + size & ~(size - 1)) - old, old_end - old, (new + size & ~(size - 1)) - new)
    return old + extent


def for_each_extent(f: Frame, step: Plain) -> None:
    """`move_page_tables()`: whole tables where it may, else entry by entry."""
    rules, tree = f.machine.constants, f.mm.page_table
    old, old_end = f.range
    f.move_delta = f.args["new"] - f.args["old"]
    while old < old_end:
        if tree.table(old, 1) is None:
            old = tree.end_of_pmd_or_hole(old)
            continue
        new = old + f.move_delta
        end = _extent_end(PUD_SIZE, old, old_end, new)
        movable = rules.pud_move and end - old == PUD_SIZE and step.get("on_pmd")
        if movable and tree.table(old, 1) is not None and tree.table(new, 1) is None:
            _begin_extent(f, old, end, 1)
            run(f, step["on_pmd"])
            old = end
            continue
        end = _extent_end(PMD_SIZE, old, old_end, new)
        if not tree.pmd_none(old):
            _move_extent(f, step, old, end)
        old = end


def _begin_extent(f: Frame, old: int, end: int, level: int) -> None:
    f.addr, f.extent_level = old, level
    f.table_range, f.reached = (old, end), old
    f.force_flush = f.delay_rmap = False


def _move_extent(f: Frame, step: Plain, old: int, end: int) -> None:
    tree, new = f.mm.page_table, old + f.move_delta
    tree.ensure(new, 1)
    whole = end - old == PMD_SIZE and f.machine.constants.pmd_move and tree.pmd_none(new)
    _begin_extent(f, old, end, 0)
    huge = tree.huge(old)
    if huge is not None:
        f.read(old & ~(PMD_SIZE - 1))
        if whole and step.get("on_huge_pmd"):
            f.table = tree.table(old, 1)
            run(f, step["on_huge_pmd"])
            return
        f.machine.split_huge_pmd(f.by, f.mm, f.addr)
    elif whole and step.get("on_pmd"):
        f.table = tree.table(old, 0)
        run(f, step["on_pmd"])
        return
    tree.ensure(new, 0)
    f.table = tree.table(old, 0)
    _begin_extent(f, old, end, 0)
    run(f, step["body"])


CONTROL_HANDLERS: dict[str, Handler] = {
    "when": when,
    "for_each_vma": for_each_vma,
    "for_each_rmap_vma": for_each_rmap_vma,
    "for_each_table": for_each_table,
    "for_each_pte": for_each_pte,
    "for_each_page": for_each_page,
    "for_each_mapping": for_each_mapping,
    "for_each_extent": for_each_extent,
}
