"""Leaf steps about entries, pages and VMAs (steps.md, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import pte as p
from tlbcore.reference import vma as v
from tlbcore.reference.conditions import pte_accessible
from tlbcore.reference.config import PAGE_SHIFT, PMD_SIZE, PTRS_PER_TABLE, page_align
from tlbcore.reference.errors import ModelError
from tlbcore.reference.pages import HUGE_ORDER, ZERO_PFN
from tlbcore.reference.pte import NONE, Pte

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlbcore.reference.control import Handler
    from tlbcore.reference.frame import Frame, Plain
    from tlbcore.reference.page_table import Table

# --- VMAs -----------------------------------------------------------------------------------------------------------


def _select_range(f: Frame, step: Plain) -> None:
    f.range, f.detached = f.args["ranges"][step["range"]], None


def _select_range_at(f: Frame, step: Plain) -> None:
    """Other arguments for the rest of a program that is run by hand."""
    span = (step["addr"], step["addr"] + page_align(step["len"]))
    f.args = {**f.args, "ranges": {**f.args["ranges"], "args": span}, "prot": step["prot"]}
    f.range, f.detached = span, None


def _vms_gather_munmap_vmas(f: Frame, _step: Plain) -> None:
    """Split at the ends of the range, take what lies inside out of the tree."""
    start, end = f.range
    for addr in (start, end):
        f.machine.split_vma_at(f.by, f.mm, addr)
    tree = f.mm.vmas
    f.detached = tree.overlapping(start, end)
    for vma in f.detached:
        tree.remove(vma)
    before = [vma.end for vma in tree if vma.end <= start]
    if f.detached:
        f.machine.lru_drain_unmapping(f.by.cpu)
    after = tree.find(end - 1)
    f.floor = before[-1] if before else 0
    f.ceiling = 0 if after is None else after.start


def _mmap_region(f: Frame, _step: Plain) -> None:
    vma = v.Vma(*f.range, f.args["vm_flags"], f.args["file"], f.args["pgoff"], shmem=f.args["shmem"])
    f.mm.vmas.insert(vma)
    f.vma = f.mm.vmas.merge(vma, either_way=f.machine.constants.anon_vma_merges_either_way)


def _mprotect_fixup(f: Frame, _step: Plain) -> None:
    if f.args["prot"] is None:  # a program run by hand, without new rights
        return
    vma = f.the_vma
    flags = vma.flags & ~v.VM_ACCESS | f.args["prot"]
    if flags != vma.flags:
        if flags & v.VM_WRITE:
            flags = v.accounted(flags)
        elif f.machine.constants.mprotect_unaccounts and vma.file is None and vma.anon_vma is None:
            flags &= ~v.VM_ACCOUNT
        f.vma = f.machine.change_vma_flags(f.by, f.mm, f.vma_range, flags)


def _clear_vma_soft_dirty(f: Frame, _step: Plain) -> None:
    f.the_vma.flags &= ~v.VM_SOFTDIRTY


# --- entries --------------------------------------------------------------------------------------------------------


def _take(f: Frame, level: int | None = None) -> None:
    pte = f.mm.page_table.get(f.addr)[0]
    f.pte = f.new_pte = pte
    f.write(NONE, level=level)


def _pte_clear(f: Frame, _step: Plain) -> None:
    old = f.mm.page_table.get(f.addr)[0]
    f.write(NONE)
    if old.kind == "swap":
        f.machine.memory.swap_put(old.slot)


def _pte_modify(f: Frame, step: Plain) -> None:
    prot = f.the_vma.page_prot if step["prot"] == "vma" else p.PAGE_NONE
    f.new_pte = f.new_pte.modify(prot)


def can_change_pte_writable(f: Frame, pte: Pte) -> bool:
    """`can_change_pte_writable()` of mm/mprotect.c."""
    vma = f.the_vma
    if not vma.has(v.VM_WRITE) or pte.has(p.PROTNONE) or pte.has(p.UFFD):
        return False
    if not vma.has(v.VM_SOFTDIRTY) and not pte.has(p.SD):
        return False
    if vma.has(v.VM_SHARED):
        return pte.has(p.D)
    page = f.machine.page_of(pte)
    return page is not None and page.exclusive and page.mapcount == 1 and not page.ksm


def _dirty_accountable(f: Frame, pte: Pte) -> bool:
    vma = f.the_vma
    accounted = vma.has(v.VM_SHARED) and vma.has(v.VM_WRITE) and vma.file is not None and not vma.shmem
    return accounted and pte.has(p.D) and (pte.has(p.SD) or vma.has(v.VM_SOFTDIRTY))


def _pte_mkwrite(f: Frame, step: Plain) -> None:
    tests: dict[str, Callable[[Frame, Pte], bool]] = {
        "always": lambda _f, _pte: True,
        "can_change_pte_writable": can_change_pte_writable,
        "dirty_accountable": _dirty_accountable,
    }
    if tests[step["only_if"]](f, f.new_pte):
        f.new_pte = f.new_pte.add(p.W)


def _without(flags: int) -> Handler:
    def change(f: Frame, _step: Plain) -> None:
        f.new_pte = f.new_pte.drop(flags)

    return change


def _in_place(flags: int) -> Handler:
    def change(f: Frame, _step: Plain) -> None:
        f.new_pte = f.mm.page_table.get(f.addr)[0].drop(flags)
        f.write(f.new_pte)

    return change


def _set_pte_at(f: Frame, _step: Plain) -> None:
    f.write(f.new_pte)


def _ptep_clear_flush(f: Frame, _step: Plain) -> None:
    _take(f)
    if pte_accessible(f):
        f.machine.engine.flush_tlb_page(f.by, f.mm, f.addr)


def _count_changed(f: Frame, _step: Plain) -> None:
    f.nr_changed += 1


def _set_force_flush(f: Frame, _step: Plain) -> None:
    f.force_flush = True


def _set_delay_rmap(f: Frame, _step: Plain) -> None:
    f.delay_rmap = f.the_gather.delayed_rmap = True


# --- pages ----------------------------------------------------------------------------------------------------------


def _page_remove_rmap(f: Frame, _step: Plain) -> None:
    page, mapping = f.the_page, (f.mm.id, f.addr)
    if f.delay_rmap and not page.is_zero:
        f.the_gather.delayed_rmaps.append((page, mapping))
    else:
        f.machine.memory.remove_rmap(page, *mapping)


def _put_page(f: Frame, _step: Plain) -> None:
    f.machine.memory.put_mapping(f.the_page)


def _set_page_dirty(f: Frame, _step: Plain) -> None:
    if not f.the_page.is_zero:
        f.the_page.dirty = True


def _clear_page_dirty(f: Frame, _step: Plain) -> None:
    f.the_page.dirty = False


def _isolate_folio(f: Frame, _step: Plain) -> None:
    page = f.page
    if page is None or page.is_zero or page in f.page_list:
        return
    if page.mapcount != 1 or page.lru_cpu is not None:
        return
    f.machine.add_to_page_list(f, page)


def _add_to_swap(f: Frame, _step: Plain) -> None:
    page = f.the_page
    if page.swap_slot is None and f.machine.config.swap:
        f.machine.memory.add_to_swap_cache(page)
        page.dirty = True


def _set_swap_pte(f: Frame, _step: Plain) -> None:
    slot = f.the_page.swap_slot
    if slot is None:
        msg = f"pfn {f.the_page.pfn:#x} has no swap slot for its entry"
        raise ModelError(msg)
    f.write(Pte("swap", f.pte.flags & (p.SD | p.UFFD), 0, slot))
    f.machine.memory.swap_get(slot)


def _remove_mapping_and_free(f: Frame, _step: Plain) -> None:
    page, memory = f.the_page, f.machine.memory
    if page.mapcount or page.dirty:
        return
    if page.swap_slot is not None:
        memory.drop_from_swap_cache(page)
    if page.in_page_cache:
        memory.drop_from_page_cache(page)


def _mark_lazyfree(f: Frame, _step: Plain) -> None:
    if not f.the_page.is_zero:
        f.the_page.lazyfree, f.the_page.dirty = True, False


# --- migration ------------------------------------------------------------------------------------------------------


def _set_migration_entry(f: Frame, _step: Plain) -> None:
    kept = f.pte.flags & (p.W | p.A | p.D | p.SD | p.UFFD)
    f.write(Pte("migration", kept, f.pte.pfn))
    f.migrations.setdefault(f.the_page.pfn, []).append((f.mm, f.addr))


def _migrate_copy(f: Frame, _step: Plain) -> None:
    """The new page takes the old one's place everywhere but in the entries."""
    old, memory = f.the_page, f.machine.memory
    new = memory.alloc(old.kind, order=old.order, file=old.file, index=old.index)
    new.dirty, new.lazyfree, new.ksm, new.exclusive = old.dirty, old.lazyfree, old.ksm, old.exclusive
    new.zero_parts, old.zero_parts = old.zero_parts, set()
    if old.swap_slot is not None:
        slot, old.swap_slot = old.swap_slot, None
        old.refcount -= 1
        memory.add_to_swap_cache(new, slot)
    if old.in_page_cache:
        assert old.file is not None
        assert old.index is not None
        memory.files[old.file].pages[old.index] = new
        old.in_page_cache, new.in_page_cache = False, True
        old.refcount -= 1
        new.refcount += 1
    f.new_page = new


def _remove_migration_ptes(f: Frame, _step: Plain) -> None:
    old, new, memory = f.the_page, f.the_new_page, f.machine.memory
    for mm, addr in f.migrations.pop(old.pfn, []):
        entry = mm.page_table.get(addr)[0]
        vma = mm.vmas.lookup(addr)
        if entry.kind != "migration" or vma is None:
            msg = f"mm {mm.id} has no migration entry at {addr:#x}"
            raise ModelError(msg)
        flags = vma.page_prot | (entry.flags & (p.W | p.SD | p.UFFD))
        if not entry.has(p.A):
            flags &= ~p.A
        pte = Pte("present", flags, new.pfn + entry.pfn - old.pfn)
        f.write(pte.mkdirty() if entry.has(p.D) else pte, addr=addr, mm=mm)
        memory.add_rmap(new, mm.id, addr)
        memory.get(new)


# --- huge entries ---------------------------------------------------------------------------------------------------


def _pmdp_invalidate_ad(f: Frame, _step: Plain) -> None:
    f.machine.pmdp_invalidate_ad(f)


def _pmdp_invalidate(f: Frame, _step: Plain) -> None:
    f.machine.pmdp_invalidate_ad(f)
    f.flush_tlb_range(f.pmd_start, f.pmd_start + PMD_SIZE)


def _split_huge_pmd(f: Frame, _step: Plain) -> None:
    f.pte = f.new_pte = f.machine.split_huge_pmd(f.by, f.mm, f.addr)


def _split_folio(f: Frame, _step: Plain) -> None:
    """Small pages for a huge one that only the current entry maps and nobody holds besides (`can_split_folio()`)."""
    old, memory = f.the_page, f.machine.memory
    if old.refcount != 1:
        return
    start = f.pmd_start
    zero = old.zero_parts if f.machine.constants.split_maps_zero_pages else set()
    f.machine.split_huge_pmd(f.by, f.mm, start)
    for number in range(PTRS_PER_TABLE):
        addr = start + (number << PAGE_SHIFT)
        pte = f.mm.page_table.get(addr)[0]
        if number in zero:
            kept = f.the_vma.page_prot & ~p.W | p.SPECIAL | pte.flags & p.SD
            f.mm.page_table.put(addr, Pte("present", kept, ZERO_PFN))
            memory.remove_rmap(old, f.mm.id, addr)
            memory.put(old)
            continue
        part = memory.alloc(old.kind)
        part.dirty, part.exclusive, part.lazyfree = old.dirty, old.exclusive, old.lazyfree and not pte.has(p.D)
        memory.get(part)
        memory.add_rmap(part, f.mm.id, addr)
        f.mm.page_table.put(addr, pte._replace(pfn=part.pfn))
        memory.remove_rmap(old, f.mm.id, addr)
        memory.put(old)
    f.read(start)


def _pmdp_collapse_flush(f: Frame, _step: Plain) -> None:
    start = f.pmd_start
    pmds, table = f.mm.page_table.table(start, 1), f.mm.page_table.table(start, 0)
    if table is None or pmds is None:
        msg = f"there is no page table to collapse at {start:#x}"
        raise ModelError(msg)
    del pmds.entries[(start >> 21) & (PTRS_PER_TABLE - 1)]
    f.collapsed = table
    f.flush_tlb_range(start, start + PMD_SIZE)


def _collapse_copy(f: Frame, _step: Plain) -> None:
    memory, table = f.machine.memory, _collapsed(f)
    f.new_page = memory.alloc("anon", order=HUGE_ORDER)
    f.new_page.zero_parts = set(range(PTRS_PER_TABLE))
    for position in sorted(table.entries):
        pte = table.entries[position]
        page = f.machine.page_of(pte) if isinstance(pte, Pte) else None
        if page is not None and isinstance(pte, Pte):
            if not page.is_zero and pte.pfn - page.pfn not in page.zero_parts:
                f.new_page.zero_parts.discard(position)
            memory.remove_rmap(page, f.mm.id, f.pmd_start + (position << PAGE_SHIFT))
            memory.put_mapping(page)


def _set_pmd_huge(f: Frame, _step: Plain) -> None:
    vma, page, memory = f.the_vma, f.the_new_page, f.machine.memory
    flags = vma.page_prot | p.PSE | p.A | (p.W if vma.has(v.VM_WRITE) else 0)
    _collapsed(f)
    f.write(Pte("present", flags, page.pfn).mkdirty(), addr=f.pmd_start, level=1)
    memory.get(page)
    memory.add_rmap(page, f.mm.id, f.pmd_start)
    _free_collapsed(f)


def _free_collapsed(f: Frame) -> None:
    if f.collapsed is not None:
        f.collapsed = None
        f.machine.tallies["nr_table_frees"] += 1


def _collapsed(f: Frame) -> Table:
    if f.collapsed is None:
        msg = "no page table was set aside by pmdp_collapse_flush"
        raise ModelError(msg)
    return f.collapsed


def _pageout(f: Frame, _step: Plain) -> None:
    """Write the page out; anonymous and shared memory has nowhere to go without swap."""
    page = f.the_page
    if f.machine.config.swap or page.kind == "file":
        page.dirty = False
        if page.kind == "shmem" and page.in_page_cache and page.file is not None and page.index is not None:
            f.machine.memory.files[page.file].swapped.add(page.index)


PTE_HANDLERS: dict[str, Handler] = {
    "select_range": _select_range,
    "select_range_at": _select_range_at,
    "vms_gather_munmap_vmas": _vms_gather_munmap_vmas,
    "mmap_region": _mmap_region,
    "mprotect_fixup": _mprotect_fixup,
    "clear_vma_soft_dirty": _clear_vma_soft_dirty,
    "ptep_get_and_clear": lambda f, _step: _take(f),
    "pte_clear": _pte_clear,
    "pte_modify": _pte_modify,
    "pte_mkwrite": _pte_mkwrite,
    "pte_wrprotect": _without(p.W),
    "pte_mkclean": _without(p.D),
    "pte_mkold": _without(p.A),
    "pte_clear_soft_dirty": _without(p.SD),
    "set_pte_at": _set_pte_at,
    "ptep_set_wrprotect": _in_place(p.W),
    "ptep_clear_young": _in_place(p.A),
    "clear_young_dirty": _in_place(p.A | p.D),
    "ptep_clear_flush": _ptep_clear_flush,
    "count_changed": _count_changed,
    "set_force_flush": _set_force_flush,
    "set_delay_rmap": _set_delay_rmap,
    "page_remove_rmap": _page_remove_rmap,
    "put_page": _put_page,
    "put_old_page": _put_page,
    "set_page_dirty": _set_page_dirty,
    "clear_page_dirty": _clear_page_dirty,
    "isolate_folio": _isolate_folio,
    "add_to_swap": _add_to_swap,
    "set_swap_pte": _set_swap_pte,
    "pageout": _pageout,
    "remove_mapping_and_free": _remove_mapping_and_free,
    "mark_lazyfree": _mark_lazyfree,
    "set_migration_entry": _set_migration_entry,
    "migrate_copy": _migrate_copy,
    "remove_migration_ptes": _remove_migration_ptes,
    "pmdp_huge_get_and_clear": lambda f, _step: _take(f, level=1),
    "pmdp_invalidate": _pmdp_invalidate,
    "pmdp_invalidate_ad": _pmdp_invalidate_ad,
    "set_pmd_at": lambda f, _step: f.write(f.new_pte, level=1),
    "split_huge_pmd": _split_huge_pmd,
    "split_folio": _split_folio,
    "pmdp_collapse_flush": _pmdp_collapse_flush,
    "pud_clear": lambda _f, _step: None,
    "ptdesc_pmd_pts_dec": lambda _f, _step: None,
    "tlb_remove_table_sync_one": lambda _f, _step: None,
    "pte_free_defer": lambda f, _step: _free_collapsed(f),
    "collapse_copy": _collapse_copy,
    "set_pmd_huge": _set_pmd_huge,
}
