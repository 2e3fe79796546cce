"""What must hold of a reference machine between operations: everything that is stored twice agrees."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlbcore.reference import ReferenceMachine


def check_invariants(machine: ReferenceMachine) -> None:
    """Recompute rmaps, references and swap counts from the page tables, caches and queues."""
    memory = machine.memory
    rmaps: dict[int, list[tuple[int, int]]] = {}
    slots: Counter[int] = Counter()
    for mm in machine.live_mms():
        assert mm.tlb_flush_pending == 0, f"mm {mm.id}: a flush is still pending"
        ends = [0]
        for vma in mm.vmas:
            assert ends[-1] <= vma.start < vma.end, f"mm {mm.id}: VMAs overlap at {vma.start:#x}"
            ends.append(vma.end)
        for addr, shift, pte in mm.page_table.leaves():
            vma_here = mm.vmas.lookup(addr)
            assert vma_here is not None, f"mm {mm.id}: {addr:#x} is mapped outside every VMA"
            assert addr + (1 << shift) <= vma_here.end, f"mm {mm.id}: the entry at {addr:#x} spans two VMAs"
            assert pte.kind != "migration", f"mm {mm.id}: a migration entry stayed at {addr:#x}"
            if pte.kind == "swap":
                slots[pte.slot] += 1
            elif not (page := memory.page(pte.pfn)).is_zero:
                rmaps.setdefault(page.pfn, []).append((mm.id, addr))
    for pfn, page in memory.pages.items():
        assert sorted(page.rmap) == sorted(rmaps.get(pfn, [])), f"pfn {pfn:#x}: rmap and entries differ"
        expected = page.mapcount + page.in_page_cache + (page.swap_slot is not None)
        assert page.refcount == expected, f"pfn {pfn:#x}: refcount {page.refcount}, expected {expected}"
        assert page.refcount > 0, f"pfn {pfn:#x}: allocated without a reference"
        if page.in_page_cache:
            assert page.file is not None
            assert page.index is not None
            assert memory.files[page.file].pages[page.index] is page
        if page.swap_slot is not None:
            assert memory.swap_cache[page.swap_slot] is page
    for slot, count in memory.swap.items():
        assert count == slots[slot], f"swap slot {slot}: count {count}, expected {slots[slot]}"
        assert count or slot in memory.swap_cache, f"swap slot {slot}: in use for nothing"
    assert not set(slots) - set(memory.swap), "a swap entry names a free slot"


def check_no_leaks(machine: ReferenceMachine) -> None:
    """After every process is gone, only page caches hold pages, and no swap slot is in use."""
    assert not list(machine.live_mms())
    assert all(page.in_page_cache for page in machine.memory.pages.values())
    assert not any(page.kind == "anon" for page in machine.memory.pages.values())
    used = {slot for slot, page in machine.memory.swap_cache.items() if not page.in_page_cache}
    assert not used
