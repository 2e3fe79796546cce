"""Pages that the kernel takes away or moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.reference.config import INIT_MM
from tlbcore.reference.operations.lookup import Args, Operation, running

if TYPE_CHECKING:
    from tlbcore.reference.machine import ReferenceMachine
    from tlbcore.reference.pages import Page


def _pages_at(m: ReferenceMachine, places: list[list[int]]) -> list[Page]:
    """The pages mapped at (mm, address) now, each once."""
    found: list[Page] = []
    for number, addr in places:
        mm = m.engine.mms.get(number)
        if mm is None or not mm.live or number == INIT_MM or addr >= m.config.user_end:
            continue
        page = m.page_of(mm.page_table.get(addr)[0])
        if page is not None and not page.is_zero and page not in found:
            found.append(page)
    return found


def _can_reclaim(m: ReferenceMachine, page: Page) -> bool:
    """`can_reclaim_anon_pages()`: anonymous memory needs swap, unless its content may be lost."""
    return m.config.swap or page.kind != "anon" or page.lazyfree


def _reclaim(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    places, size, goes_on = a["pages"], m.constants.swap_cluster_max, a.get("goes_on", False)
    if places:
        m.memory.lru_drain(task.cpu)
    for first in range(0, len(places), size):
        frame = m.frame(task, mm, {"proactive": a["proactive"], "goes_on": goes_on}, (0, m.config.user_end))
        for page in _pages_at(m, places[first : first + size]):
            if page.lru_cpu is not None and _can_reclaim(m, page):
                m.memory.lru_drain(page.lru_cpu)
            m.add_to_page_list(frame, page)
        if frame.page_list:
            m.run_program("shrink_folio_list", frame)
    if not goes_on and task.ubc.flush_required:  # the end of a list whose pages came before
        frame = m.frame(task, mm, {"proactive": a["proactive"], "goes_on": False}, (0, m.config.user_end))
        m.run_program("shrink_folio_list", frame)


def _migrate(m: ReferenceMachine, a: Args) -> None:
    task, mm = running(m, a)
    frame = m.frame(task, mm, {}, (0, m.config.user_end))
    for page in _pages_at(m, a["pages"]):
        m.add_to_page_list(frame, page)
    if frame.page_list:
        m.run_program("migrate_pages", frame)


OPERATIONS: dict[str, Operation] = {
    "reclaim": _reclaim,
    "migrate": _migrate,
}
