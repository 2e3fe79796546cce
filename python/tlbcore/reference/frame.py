"""What a running program knows (steps.md, section 2), and the services of the machine that its steps use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tlbcore.reference.config import PMD_SIZE
from tlbcore.reference.errors import ModelError
from tlbcore.reference.pte import NONE, Pte

if TYPE_CHECKING:
    from tlbcore.reference.flush import Initiator
    from tlbcore.reference.gather import MmuGather
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.mm import Mm, Task
    from tlbcore.reference.page_table import Table
    from tlbcore.reference.pages import Page
    from tlbcore.reference.vma import Vma

T = TypeVar("T")
#: A step or a condition of the resolved structure.
Plain = Mapping[str, Any]


@dataclass(eq=False)
class Frame:
    """The registers of one program."""

    machine: ReferenceMachine
    by: Initiator
    task: Task
    mm: Mm
    args: Mapping[str, Any]
    range: tuple[int, int] = (0, 0)
    detached: list[Vma] | None = None
    floor: int = 0
    ceiling: int = 0
    vma: Vma | None = None
    vma_range: tuple[int, int] = (0, 0)
    table: Table | None = None
    table_range: tuple[int, int] = (0, 0)
    addr: int = 0
    pte: Pte = NONE
    new_pte: Pte = NONE
    page: Page | None = None
    new_page: Page | None = None
    page_list: list[Page] = field(default_factory=list)
    gather: MmuGather | None = None
    force_flush: bool = False
    delay_rmap: bool = False
    nr_changed: int = 0
    #: The innermost for_each_pte ends after this entry; None while none runs.
    leave_ptes: bool | None = None
    left_early: bool = False
    #: Where for_each_pte goes on when the body of the table runs again.
    reached: int = 0
    #: mremap: new minus old address of the current extent's entries.
    move_delta: int = 0
    extent_level: int = 0
    child: Mm | None = None
    child_vma: Vma | None = None
    new_vma: Vma | None = None
    #: Migration entries made, by pfn of the old page.
    migrations: dict[int, list[tuple[Mm, int]]] = field(default_factory=dict)
    tracked: tuple[int, int] | None = None
    collapsed: Table | None = None

    # --- registers that a step cannot do without -------------------------------------------------------------------

    @property
    def the_vma(self) -> Vma:
        """The current VMA."""
        return _needed(self.vma, "VMA")

    @property
    def the_page(self) -> Page:
        """The current page."""
        return _needed(self.page, "page")

    @property
    def the_new_page(self) -> Page:
        """The page that was allocated."""
        return _needed(self.new_page, "new page")

    @property
    def the_gather(self) -> MmuGather:
        """The open gather."""
        return _needed(self.gather, "gather")

    @property
    def pmd_start(self) -> int:
        """The 2 MiB of addr."""
        return self.addr & ~(PMD_SIZE - 1)

    # --- entries ---------------------------------------------------------------------------------------------------

    def read(self, addr: int) -> None:
        """Take the entry at addr into the registers."""
        self.addr = addr
        self.pte, _ = self.mm.page_table.get(addr)
        self.new_pte = self.pte
        self.page = self.machine.page_of(self.pte)

    def write(self, pte: Pte, *, addr: int | None = None, mm: Mm | None = None, level: int | None = None) -> None:
        """Change the entry of `mm` at addr, as the kernel does: a lazy MMU hears of it."""
        self.machine.write_entry(self.by, mm or self.mm, self.addr if addr is None else addr, pte, level)

    # --- flushes ---------------------------------------------------------------------------------------------------

    def flush_tlb_range(self, start: int, end: int) -> None:
        """Flush a range of the current mm."""
        self.machine.engine.flush_tlb_range(self.by, self.mm, start, end)

    def flush_tlb_mm(self) -> None:
        """Flush all of the current mm."""
        self.machine.engine.flush_tlb_mm(self.by, self.mm)


def _needed(value: T | None, what: str) -> T:
    if value is None:
        msg = f"a step needs a current {what}, and there is none"
        raise ModelError(msg)
    return value
