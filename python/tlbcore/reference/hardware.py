"""What the processor does at an access: look-up, walk, A and D bits, fills (machine.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference import pte as p
from tlbcore.reference.config import PAGE_SHIFT, PMD_SHIFT
from tlbcore.reference.page_table import Table, index
from tlbcore.reference.tlb import TlbEntry

if TYPE_CHECKING:
    from tlbcore.reference.flush import Engine
    from tlbcore.reference.mm import Cpu, Mm
    from tlbcore.reference.pte import Pte


def try_access(engine: Engine, cpu: Cpu, mm: Mm, va: int, kind: str) -> bool:
    """One attempt of an access; False is a page fault, which also drops the page from this CPU's TLB."""
    done = _through_tlb(engine, cpu, mm, va, kind)
    if done is None:
        done = _through_walk(engine, cpu, mm, va, kind)
    if not done:
        drop_faulting(engine, cpu, va)
    return done


def drop_faulting(engine: Engine, cpu: Cpu, va: int) -> None:
    """A processor drops the translation that made it fault."""
    engine.tlbs[cpu.id].drop_translations(engine.pcid(cpu.slot), va)


def _through_tlb(engine: Engine, cpu: Cpu, mm: Mm, va: int, kind: str) -> bool | None:
    """What a cached translation decides; None without one."""
    if not engine.config.tlb_enabled:
        return None
    tlb = engine.tlbs[cpu.id]
    found = tlb.lookup(engine.pcid(cpu.slot), va)
    if found is None:
        return None
    key, entry = found
    if kind == "exec":
        return not entry.has(p.NX)
    if kind == "read" or (entry.has(p.W) and entry.has(p.D)):
        return True
    if not entry.has(p.W):
        return False
    # The first store through a clean translation: the processor sets D in the entry as it is in memory now.
    pte, _ = mm.page_table.get(va)
    if not (pte.hw_present and pte.has(p.W)):
        return False
    mm.page_table.put(va, pte.add(p.A | p.D))
    tlb.mark_dirty(key)
    return True


def _through_walk(engine: Engine, cpu: Cpu, mm: Mm, va: int, kind: str) -> bool:
    """Walk the tree, from the deepest table that the paging-structure caches know."""
    tlb, pcid = engine.tlbs[cpu.id], engine.pcid(cpu.slot)
    caches = engine.config.tlb_enabled
    keeps_psc = caches and engine.constants.lazy_mmu != "per_pte"
    table = (tlb.psc_lookup(pcid, va) if keeps_psc else None) or mm.page_table.root
    used: list[Table] = [] if table is mm.page_table.root else [table]
    while True:
        entry = table.entries.get(index(va, table.level))
        if not isinstance(entry, Table):
            break
        table = entry
        used.append(table)
    if entry is None or not entry.hw_present:
        return False
    if (kind == "write" and not entry.has(p.W)) or (kind == "exec" and entry.has(p.NX)):
        return False
    entry = entry.add(p.A | (p.D if kind == "write" else 0))
    table.entries[index(va, table.level)] = entry
    if keeps_psc:
        for walked in used:
            tlb.psc_insert(pcid, va, walked)
    if caches:
        _fill(engine, cpu, va, entry, PMD_SHIFT if table.level else PAGE_SHIFT)
    return True


def _fill(engine: Engine, cpu: Cpu, va: int, pte: Pte, shift: int) -> None:
    flags = pte.flags & (p.W | p.D | p.NX | p.G)
    engine.tlbs[cpu.id].insert(engine.pcid(cpu.slot), va, shift, TlbEntry(pte.pfn, flags))
    engine.counters["nr_tlb_fills"] += 1
