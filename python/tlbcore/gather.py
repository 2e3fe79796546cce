"""The `mmu_gather` driven by hand: what one operation takes away, one flush, then what it frees.

This is the consolidated interface of the series of 2021 (`include/asm-generic/tlb.h` as it could be): every operation
that changes page-table entries opens a gather, records its changes, and ends it. Here each call of it becomes steps;
the ``with`` statement ends by running them all as one program on the machine (operation ``run``), so that nothing
happens before its end, and nothing at all if its body raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from tlbcore.errors import InputError
from tlbcore.steps import (
    Block,
    Step,
    flatten,
    for_each_vma,
    mmap_unlock,
    mmap_write_lock,
    select_range_at,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
)
from tlbcore.units import PAGE, prot_bits

if TYPE_CHECKING:
    from types import TracebackType

    from tlbcore.schemes.mmu_gather import MmuGather

__all__ = ["Gather"]


class Run(Protocol):
    """Runs a program on a range of the address space."""

    def __call__(self, steps: Block, addr: int, length: int) -> None:
        """Run it."""


@dataclass(frozen=True)
class _Range:
    addr: int
    length: int


class Gather:
    """A gather to be filled; made by ``gather()`` of a process or thread.

    with p.gather() as tlb:
        tlb.remove(addr, 16)
        tlb.protect(addr + 16 * PAGE, 4, "r")

    flushes once for both, frees the sixteen pages after that, and ends with `tlb_finish_mmu()`. The calls make a
    program, which runs as one operation when the block ends: inside it nothing has happened yet.
    """

    def __init__(self, run: Run, scheme: MmuGather) -> None:
        self._run = run
        self._scheme = scheme
        self._steps: list[Step] = []
        self._ranges: list[_Range] = []
        self._state = "new"

    def remove(self, addr: int, nr_pages: int = 1) -> None:
        """Take pages out of their mappings: entries cleared, pages queued until after the flush (`zap_pte_range()`).

        The VMAs stay: a later access brings a new page.

        Args:
            addr: Address of the first page, in bytes.
            nr_pages: How many pages of 4 KiB.

        """
        self._take(addr, nr_pages, None, self._scheme.zap())

    def protect(self, addr: int, nr_pages: int, prot: str | int) -> None:
        """Change rights (`change_protection()`): records the entries whose change needs a flush.

        Args:
            addr: Address of the first page, in bytes.
            nr_pages: How many pages of 4 KiB.
            prot: The new rights, as ``"r"``.

        """
        self._take(addr, nr_pages, prot_bits(prot), self._scheme.change_protection())

    def flush(self) -> None:
        """Flush at this point of the program and free the pages (`tlb_flush_mmu()`); the gather goes on."""
        self._check_open()
        self._steps.append(tlb_flush_mmu())

    def flush_tlb_only(self) -> None:
        """Flush what is gathered so far and keep its pages queued (`tlb_flush_mmu_tlbonly()`)."""
        self._check_open()
        self._steps.append(tlb_flush_mmu_tlbonly())

    @property
    def program(self) -> tuple[Step, ...]:
        """The program that runs at the end of the ``with`` statement."""
        return flatten(
            [
                mmap_write_lock(),
                self._scheme.open_gather(),
                self._steps,
                self._scheme.close_gather(),
                mmap_unlock(),
            ],
        )

    def __enter__(self) -> Self:
        """Begin."""
        if self._state != "new":
            raise InputError(f"gather: found one that is {self._state}, expected a new one for each with statement")
        self._state = "open"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Run what was gathered, unless the body raised or gathered nothing."""
        self._state = "finished"
        if kind is None and self._ranges:
            first = self._ranges[0]
            self._run(self.program, first.addr, first.length)

    def _take(self, addr: int, nr_pages: int, prot: int | None, body: Block) -> None:
        self._check_open()
        if addr < 0 or addr % PAGE:
            raise InputError(f"gather: addr is {addr:#x}, expected a multiple of {PAGE}")
        if nr_pages < 1:
            raise InputError(f"gather: nr_pages is {nr_pages}, expected at least 1")
        self._ranges.append(_Range(addr, nr_pages * PAGE))
        self._steps += [select_range_at(addr, nr_pages * PAGE, prot), *flatten([for_each_vma(body)])]

    def _check_open(self) -> None:
        if self._state != "open":
            raise InputError(f"gather: found one that is {self._state}, expected to stand inside its with statement")
