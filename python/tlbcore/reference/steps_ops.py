"""Leaf steps that belong to one operation: fault, fork, mremap (steps.md, section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlbcore.reference import pte as p
from tlbcore.reference import vma as v
from tlbcore.reference.config import PAGE_SHIFT, PMD_SIZE, PTRS_PER_TABLE
from tlbcore.reference.errors import ModelError
from tlbcore.reference.page_table import index
from tlbcore.reference.pages import HUGE_ORDER, HUGE_ZERO_PFN, ZERO_PFN, Page
from tlbcore.reference.pte import NONE, Pte
from tlbcore.reference.steps_pte import can_change_pte_writable

if TYPE_CHECKING:
    from tlbcore.reference.control import Handler
    from tlbcore.reference.frame import Frame, Plain
    from tlbcore.reference.pages import File

# --- fault ----------------------------------------------------------------------------------------------------------


def _is_write(f: Frame) -> bool:
    return bool(f.args["kind"] == "write")


def _map(f: Frame, page: Page, flags: int, *, addr: int | None = None, dirty: bool = False) -> None:
    """A present entry for a page, with rmap and a reference."""
    at = f.addr if addr is None else addr
    pte = Pte("present", flags, page.pfn)
    f.write(pte.mkdirty() if dirty else pte, addr=at)
    f.machine.memory.get(page)
    f.machine.memory.add_rmap(page, f.mm.id, at)


def _pte_alloc(f: Frame, _step: Plain) -> None:
    if f.mm.page_table.huge(f.addr) is None:
        f.mm.page_table.ensure(f.addr, 0)
    f.read(f.addr)


def _drain_before_copy(f: Frame) -> None:
    """The CPU's batch is emptied when its reference could be the one that is too many (`wp_can_reuse_anon_folio()`)."""
    page = f.page
    if f.args.get("kind") is None or not f.pte.present or page is None or f.machine.constants.cow_reuse != "exclusive":
        return
    may_be_own = page.kind == "anon" and not page.ksm and not page.exclusive and page.lru_cpu == f.by.cpu
    if may_be_own and page.mapcount + (page.swap_slot is not None) <= 2:
        f.machine.memory.lru_drain(f.by.cpu)


def _cached(f: Frame, file: File, number: int) -> Page:
    """A page of the page cache; what is new of shared memory waits for the LRU."""
    is_new = file.shmem and number not in file.pages
    page = f.machine.memory.cached(file, number)
    if is_new:
        f.machine.lru_add(f.by.cpu, page)
    return page


def _do_huge_pmd_anonymous_page(f: Frame, _step: Plain) -> None:
    vma, memory = f.the_vma, f.machine.memory
    flags = vma.page_prot | p.PSE | p.A
    f.mm.vmas.prepare_anon_vma(vma)
    if not _is_write(f):
        f.write(Pte("present", flags, HUGE_ZERO_PFN), addr=f.pmd_start, level=1)
        return
    page = memory.alloc("anon", order=HUGE_ORDER)
    if f.args.get("tells_writes"):
        page.zero_parts = set(range(PTRS_PER_TABLE))
    memory.get(page)
    if vma.has(v.VM_WRITE):
        flags |= p.W
    f.write(Pte("present", flags, page.pfn).mkdirty(), addr=f.pmd_start, level=1)
    memory.add_rmap(page, f.mm.id, f.pmd_start)
    memory.lru_drain(f.by.cpu)


def _alloc_anon_page(f: Frame, _step: Plain) -> None:
    _drain_before_copy(f)
    f.new_page = f.machine.memory.alloc("anon")
    f.machine.memory.get(f.new_page)
    f.mm.vmas.prepare_anon_vma(f.the_vma)


def _copy_user_page(f: Frame, _step: Plain) -> None:
    """The contents of pages are not modelled."""


def _folio_get(f: Frame, _step: Plain) -> None:
    f.machine.memory.get(f.the_page)


def _folio_put(f: Frame, _step: Plain) -> None:
    f.machine.memory.put(f.the_page)


def _find_get_page(f: Frame, _step: Plain) -> None:
    vma, memory = f.the_vma, f.machine.memory
    if vma.file is None:
        msg = "find_get_page needs a VMA with a file"
        raise ModelError(msg)
    f.page = _cached(f, memory.files[vma.file], vma.index_of(f.addr))


def _set_pte_anon(f: Frame, _step: Plain) -> None:
    vma, page = f.the_vma, f.the_new_page
    pte = Pte("present", vma.page_prot | p.A | p.SD, page.pfn)
    f.write(pte.mkdirty().add(p.W) if vma.has(v.VM_WRITE) else pte)
    f.machine.memory.add_rmap(page, f.mm.id, f.addr)
    f.machine.lru_add(f.by.cpu, page)


def _set_pte_zero(f: Frame, _step: Plain) -> None:
    f.write(Pte("present", f.the_vma.page_prot & ~p.W | p.SPECIAL, ZERO_PFN))


def _keeps_dirty(f: Frame, page: Page) -> bool:
    """Whether an entry that maps a page to be read is dirty as the page is (`set_pte_range()`)."""
    return f.machine.constants.read_fault_keeps_dirty and page.dirty and bool(f.the_vma.page_prot & p.W)


def _set_pte_file(f: Frame, step: Plain) -> None:
    write = step.get("write", False)
    flags = f.the_vma.page_prot | p.A | (p.W if write else 0)
    _map(f, f.the_page, flags, dirty=write or _keeps_dirty(f, f.the_page))


def _map_around(f: Frame, _step: Plain) -> None:
    """`do_fault_around()`: the resident pages of a window that stays within the VMA and the page table."""
    vma, memory, window = f.the_vma, f.machine.memory, f.machine.constants.fault_around_pages
    if vma.file is None:
        msg = "map_around needs a VMA with a file"
        raise ModelError(msg)
    file = memory.files[vma.file]
    file.read_around(vma.index_of(f.addr))
    pte_off, vma_off = index(f.addr, 0), (f.addr - vma.start) >> PAGE_SHIFT
    first = max(pte_off - pte_off % window, pte_off - min(pte_off, vma_off))
    last = min(first + window, PTRS_PER_TABLE, pte_off + ((vma.end - vma.start) >> PAGE_SHIFT) - vma_off)
    for offset in range(first, last):
        addr = f.addr + ((offset - pte_off) << PAGE_SHIFT)
        number = vma.index_of(addr)
        if file.is_resident(number) and f.mm.page_table.get(addr)[0].kind == "none":
            page = _cached(f, file, number)
            _map(f, page, vma.page_prot | p.A, addr=addr, dirty=_keeps_dirty(f, page))


def _wp_page_reuse(f: Frame, _step: Plain) -> None:
    _drain_before_copy(f)
    if f.page is not None:
        f.page.exclusive = f.page.kind == "anon"
    f.new_pte = f.mm.page_table.get(f.addr)[0].add(p.W | p.A).mkdirty()
    f.write(f.new_pte)


def _ptep_set_access_flags(f: Frame, _step: Plain) -> None:
    pte = f.mm.page_table.get(f.addr)[0].add(p.A)
    f.new_pte = pte.mkdirty() if _is_write(f) and pte.has(p.W) else pte
    f.write(f.new_pte)


def _swap_in(f: Frame, _step: Plain) -> None:
    memory, slot = f.machine.memory, f.pte.slot
    page = memory.swap_cache.get(slot)
    if page is None:
        page = memory.alloc("anon")
        memory.add_to_swap_cache(page, slot)
        f.machine.lru_add(f.by.cpu, page)
    f.page = page
    f.mm.vmas.prepare_anon_vma(f.the_vma)


def _set_pte_swap_in(f: Frame, _step: Plain) -> None:
    vma, page, memory, slot = f.the_vma, f.the_page, f.machine.memory, f.pte.slot
    page.exclusive = exclusive = memory.swap[slot] == 1 and page.mapcount == 0 and not page.ksm
    flags = vma.page_prot | p.A | (f.pte.flags & (p.SD | p.UFFD))
    mkwrite = _is_write(f) or f.machine.constants.swap_in_mkwrite == "exclusive"
    if exclusive and mkwrite and vma.has(v.VM_WRITE) and not f.pte.has(p.UFFD):
        flags |= p.W
    _map(f, page, flags, dirty=bool(flags & p.W) and _is_write(f))
    memory.swap_put(slot)
    if _is_write(f) and memory.swap.get(slot) == 0 and page.swap_slot is not None:
        memory.drop_from_swap_cache(page)
    f.read(f.addr)


def _set_pte_numa(f: Frame, _step: Plain) -> None:
    pte = f.pte.modify(f.the_vma.page_prot).add(p.A)
    if can_change_pte_writable(f, pte):
        pte = pte.add(p.W)
    f.new_pte = pte
    f.write(pte)


# --- KSM ------------------------------------------------------------------------------------------------------------


def _folio_try_share_anon_rmap(f: Frame, _step: Plain) -> None:
    f.the_page.exclusive = False


def _stable_tree_search(f: Frame, _step: Plain) -> None:
    """The first page of the list that gets here is the one that the others are merged with."""
    if f.new_page is None:
        f.new_page, f.the_page.ksm = f.the_page, True


def _pages_identical(f: Frame, _step: Plain) -> None:
    """The contents of pages are not modelled."""


def _set_pte_ksm(f: Frame, _step: Plain) -> None:
    _map(f, f.the_new_page, (f.the_vma.page_prot | p.A) & ~p.W)


# --- fork -----------------------------------------------------------------------------------------------------------


def _dup_mm(f: Frame, _step: Plain) -> None:
    child = f.machine.engine.new_mm()
    child.brk = f.mm.brk
    # The structure is copied, and mm_init() does not reset what reclaim left unflushed.
    child.batched_pending, child.batched_flushed = f.mm.batched_pending, f.mm.batched_flushed
    f.child = child


def _dup_vma(f: Frame, _step: Plain) -> None:
    wiped = f.the_vma.has(v.VM_WIPEONFORK)
    anon_vma = None if wiped or f.the_vma.anon_vma is None else v.AnonVma(cloned=True)
    f.child_vma = replace(f.the_vma, anon_vma=anon_vma)
    assert f.child is not None
    f.child.vmas.insert_forked(f.child_vma)


def _pte_alloc_child(f: Frame, _step: Plain) -> None:
    assert f.child is not None
    f.child.page_table.ensure(f.table_range[0], 0)


def _page_dup_rmap(f: Frame, _step: Plain) -> None:
    assert f.child is not None
    f.machine.memory.get(f.the_page)
    f.machine.memory.add_rmap(f.the_page, f.child.id, f.addr)
    f.the_page.exclusive = False


def _child_value(f: Frame) -> Pte:
    return f.new_pte.drop(p.A | (p.D if f.the_vma.has(v.VM_SHARED) else 0))


def _set_pte_at_child(f: Frame, _step: Plain) -> None:
    f.write(_child_value(f), mm=f.child)


def _set_pmd_at_child(f: Frame, _step: Plain) -> None:
    f.write(_child_value(f), mm=f.child, level=1)


def _swap_duplicate(f: Frame, _step: Plain) -> None:
    if f.pte.kind == "migration" and f.pte.has(p.W):
        f.pte = f.pte.drop(p.W)
        f.write(f.pte)
    if f.pte.kind == "swap":
        f.machine.memory.swap_get(f.pte.slot)
    f.write(f.pte, mm=f.child)


# --- mremap ---------------------------------------------------------------------------------------------------------


def _old_vma(f: Frame) -> v.Vma:
    vma = f.mm.vmas.lookup(f.args["old"])
    if vma is None:
        msg = "mremap lost the VMA that it moves"
        raise ModelError(msg)
    return vma


def _vma_expand(f: Frame, _step: Plain) -> None:
    vma = _old_vma(f)
    vma.end = f.args["old"] + f.args["new_len"]
    vma.be_born()
    f.vma = f.mm.vmas.merge(vma, either_way=f.machine.constants.anon_vma_merges_either_way)


def _copy_vma(f: Frame, _step: Plain) -> None:
    vma, old, new = _old_vma(f), f.args["old"], f.args["new"]
    pgoff = vma.index_of(old)
    if vma.file is None and vma.anon_vma is None:
        pgoff = new >> PAGE_SHIFT
    f.new_vma = replace(vma, start=new, end=new + f.args["new_len"], pgoff=pgoff, flags=vma.flags | v.VM_SOFTDIRTY)
    f.mm.vmas.insert(f.new_vma)
    f.vma, f.vma_range = vma, f.args["ranges"]["old"]


def _vma_dontunmap(f: Frame, _step: Plain) -> None:
    """The old VMA stays in the tree, with nothing in it."""


def _move_rmaps(f: Frame, pages: list[tuple[int, Pte]]) -> None:
    for addr, pte in pages:
        page = f.machine.page_of(pte)
        if page is not None:
            f.machine.memory.move_rmap(page, (f.mm.id, addr), (f.mm.id, addr + f.move_delta))


def _move_normal_pmd(f: Frame, _step: Plain) -> None:
    """The table (with pud_move: the PMD table) changes its place in the tree; its entries do not change."""
    tree, level = f.mm.page_table, f.extent_level
    start, end = f.table_range
    pages = [(va, pte) for va, _, pte in tree.leaves() if start <= va < end]
    above, table = tree.table(start, level + 1), tree.table(start, level)
    if above is None or table is None:
        msg = f"there is no table to move at {start:#x}"
        raise ModelError(msg)
    del above.entries[index(start, level + 1)]
    tree.ensure(start + f.move_delta, level + 1).entries[index(start + f.move_delta, level + 1)] = table
    _move_rmaps(f, pages)


def _set_pte_at_new(f: Frame, _step: Plain) -> None:
    pte = f.pte.add(p.SD) if f.pte.present else f.pte
    f.write(pte, addr=f.addr + f.move_delta)
    _move_rmaps(f, [(f.addr, f.pte)])


def _move_huge_pmd(f: Frame, _step: Plain) -> None:
    pte = f.mm.page_table.huge(f.addr)
    if pte is None:
        msg = f"there is no huge entry to move at {f.addr:#x}"
        raise ModelError(msg)
    assert f.addr % PMD_SIZE == 0
    f.pte = f.new_pte = pte
    f.write(NONE, level=1)
    f.write(pte.add(p.SD), addr=f.addr + f.move_delta, level=1)
    _move_rmaps(f, [(f.addr, pte)])


OPERATION_HANDLERS: dict[str, Handler] = {
    "pte_alloc": _pte_alloc,
    "do_huge_pmd_anonymous_page": _do_huge_pmd_anonymous_page,
    "alloc_anon_page": _alloc_anon_page,
    "folio_try_share_anon_rmap": _folio_try_share_anon_rmap,
    "stable_tree_search": _stable_tree_search,
    "pages_identical": _pages_identical,
    "set_pte_ksm": _set_pte_ksm,
    "copy_user_page": _copy_user_page,
    "folio_get": _folio_get,
    "folio_put": _folio_put,
    "find_get_page": _find_get_page,
    "set_pte_anon": _set_pte_anon,
    "set_pte_zero": _set_pte_zero,
    "set_pte_file": _set_pte_file,
    "map_around": _map_around,
    "wp_page_reuse": _wp_page_reuse,
    "ptep_set_access_flags": _ptep_set_access_flags,
    "swap_in": _swap_in,
    "set_pte_swap_in": _set_pte_swap_in,
    "set_pte_numa": _set_pte_numa,
    "dup_mm": _dup_mm,
    "dup_vma": _dup_vma,
    "pte_alloc_child": _pte_alloc_child,
    "page_dup_rmap": _page_dup_rmap,
    "set_pte_at_child": _set_pte_at_child,
    "swap_duplicate": _swap_duplicate,
    "set_pmd_at_child": _set_pmd_at_child,
    "vma_expand": _vma_expand,
    "copy_vma": _copy_vma,
    "vma_dontunmap": _vma_dontunmap,
    "move_normal_pmd": _move_normal_pmd,
    "set_pte_at_new": _set_pte_at_new,
    "move_huge_pmd": _move_huge_pmd,
}
