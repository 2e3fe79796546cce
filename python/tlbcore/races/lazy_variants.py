"""A scheme that uses lazy-MMU sections as they must not be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbcore.schemes.lazy_mmu import LazyMmu
from tlbcore.schemes.mmu_gather import MmuGather
from tlbcore.steps import (
    Block,
    for_each_pte,
    for_each_table,
    mprotect_fixup,
    prot_changed,
    pte_modify,
    pte_unmap_unlock,
    set_pte_at,
    tlb_flush_pte_range,
    when,
    write,
)

if TYPE_CHECKING:
    from tlbcore.scheme import Scheme


@dataclass(frozen=True)
class ReadBackGather(MmuGather):
    """mprotect that looks at entries again, after it stored them, to see what has to be flushed."""

    #: Leave lazy-MMU mode before the second look: only then stands in memory what was stored.
    drains: bool = True

    def change_protection(self) -> Block:
        """change_pte_range in two passes."""
        store = for_each_pte(pte_modify(), set_pte_at())
        look = for_each_pte(when(~write, self.record(tlb_flush_pte_range())))
        both = [LazyMmu.section(store), LazyMmu.section(look)] if self.drains else [LazyMmu.section(store, look)]
        walk = for_each_table(self.lock_table(), *both, pte_unmap_unlock())
        return [when(prot_changed, mprotect_fixup(), walk)]


#: The schemes of this file by class name.
SCHEMES: dict[str, type[Scheme]] = {ReadBackGather.__name__: ReadBackGather}
