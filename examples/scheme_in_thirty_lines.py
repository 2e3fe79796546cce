"""A batching scheme of one's own in thirty lines, beside Linux 6.18's, on the same work done by hand.

`Eager` is what munmap and mprotect would do without any batching: each entry is flushed by itself as it changes.
Run it with ``python examples/scheme_in_thirty_lines.py``.
"""

from itertools import zip_longest

from tlbcore import kernels
from tlbcore.schemes import MmuGather
from tlbcore.simulator import Simulator
from tlbcore.steps import (
    Block,
    flush_tlb_page,
    for_each_pte,
    for_each_table,
    mprotect_fixup,
    page_remove_rmap,
    present,
    prot_changed,
    pte_clear,
    pte_modify,
    pte_needs_flush,
    pte_offset_map_lock,
    pte_unmap_unlock,
    ptep_clear_flush,
    ptep_get_and_clear,
    put_page,
    set_pte_at,
    when,
)
from tlbcore.units import PAGE


class Eager(MmuGather):
    """Flush each entry as it changes; the gather is left with the page tables."""

    def zap(self) -> Block:
        """Serve munmap and MADV_DONTNEED: flush a page, then free it."""
        entry = when(present, ptep_clear_flush(), page_remove_rmap(), put_page(), otherwise=[pte_clear()])
        return [
            for_each_table(pte_offset_map_lock(), for_each_pte(entry, filter="not_none"), pte_unmap_unlock()),
        ]

    def change_protection(self) -> Block:
        """Serve mprotect: change an entry, flush it."""
        return [
            when(
                prot_changed,
                mprotect_fixup(),
                for_each_table(
                    pte_offset_map_lock(),
                    for_each_pte(
                        ptep_get_and_clear(),
                        pte_modify(),
                        set_pte_at(),
                        when(pte_needs_flush, flush_tlb_page()),
                    ),
                    pte_unmap_unlock(),
                ),
            ),
        ]


LINUX = kernels.get("linux-6.18")
KERNEL = LINUX.derive("eager", munmap=Eager(), mprotect=Eager(), madvise_dontneed=Eager())


def work(sim: Simulator) -> list[str]:
    """Do the same work on any kernel; return its flushes."""
    process = sim.process(cpu=0)
    process.thread(cpu=1)
    addr = process.mmap(16 * PAGE)
    process.touch(addr, 8, write=True)
    process.mprotect(addr, 3 * PAGE, "r")
    process.munmap(addr, 4 * PAGE)
    with process.gather() as tlb:  # the kernel's own gather, driven by hand
        tlb.remove(addr + 4 * PAGE, 2)
        tlb.protect(addr + 6 * PAGE, 2, "r")
    return [str(flush) for flush in sim.flushes]


def main(backend: str = "core") -> None:
    """Print both lists side by side."""
    columns = [work(Simulator(kernel=kernel, backend=backend)) for kernel in (LINUX, KERNEL)]
    width = max(map(len, columns[0]))
    print(f"{LINUX.name:{width}}   {KERNEL.name}")
    for left, right in zip_longest(*columns, fillvalue=""):
        print(f"{left:{width}}   {right}".rstrip())


if __name__ == "__main__":
    main()
