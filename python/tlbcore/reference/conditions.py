"""The conditions of `when` (steps.md, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlbcore.reference import pte as p
from tlbcore.reference import vma as v
from tlbcore.reference.config import PMD_SIZE
from tlbcore.reference.cpumask import bit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlbcore.reference.frame import Frame
    from tlbcore.reference.vma import Vma

FLUSH_QUESTIONS = frozenset({"pte_needs_flush", "pte_demoted"})


def pte_accessible(f: Frame) -> bool:
    """x86 `pte_accessible()`."""
    return f.pte.hw_present or (f.pte.has(p.PROTNONE) and f.pte.present and f.mm.tlb_flush_pending > 0)


def huge_allowed(f: Frame, vma: Vma) -> bool:
    """Whether a fault may map a huge page here."""
    thp = f.machine.constants.thp
    wanted = thp == "always" or (thp == "madvise" and vma.has(v.VM_HUGEPAGE))
    return wanted and not vma.has(v.VM_NOHUGEPAGE) and vma.file is None and not vma.has(v.VM_SHARED)


def _huge_fault_fits(f: Frame) -> bool:
    vma, start = f.the_vma, f.pmd_start
    fits = vma.start <= start and start + PMD_SIZE <= vma.end
    return fits and f.mm.page_table.pmd_none(start) and huge_allowed(f, vma)


def _whole_pmd(f: Frame) -> bool:
    start, end = f.table_range
    return start % PMD_SIZE == 0 and end - start == PMD_SIZE


def _on_page(test: Callable[[Any], bool]) -> Callable[[Frame], bool]:
    return lambda f: f.page is not None and test(f.page)


def _is_swap_shared(f: Frame) -> bool:
    slot = None if f.page is None else f.page.swap_slot
    return slot is not None and f.machine.memory.swap.get(slot, 0) > 0


def _is_held(f: Frame) -> bool:
    """Whether the reference of a batch on its way to the LRU makes `do_wp_page()` copy."""
    if f.page is None or f.page.lru_cpu is None:
        return False
    if f.machine.constants.cow_reuse == "page_count":
        return True
    return not f.page.exclusive and f.page.lru_cpu != f.by.cpu


CONDITION_HANDLERS: dict[str, Callable[[Frame], bool]] = {
    "present": lambda f: f.pte.present,
    "none": lambda f: f.pte.kind == "none",
    "swap": lambda f: f.pte.kind == "swap",
    "migration": lambda f: f.pte.kind == "migration",
    "protnone": lambda f: f.pte.present and f.pte.has(p.PROTNONE),
    "dirty": lambda f: f.pte.has(p.D),
    "young": lambda f: f.pte.has(p.A),
    "write": lambda f: f.pte.has(p.W),
    "uffd_wp": lambda f: f.pte.has(p.UFFD),
    "pte_accessible": pte_accessible,
    "pte_needs_flush": lambda f: p.needs_flush(f.pte, f.new_pte),
    "pte_demoted": lambda f: p.demoted(f.pte, f.new_pte),
    "pte_changed": lambda f: f.pte != f.new_pte,
    "anon": _on_page(lambda page: page.kind == "anon"),
    "file_backed": _on_page(lambda page: page.kind in ("file", "shmem")),
    "zero_page": _on_page(lambda page: page.is_zero),
    "page_mapped": _on_page(lambda page: page.mapcount > 0),
    "page_dirty": _on_page(lambda page: page.dirty),
    "page_lazyfree": _on_page(lambda page: page.lazyfree),
    "page_in_swap_cache": _on_page(lambda page: page.swap_slot is not None),
    "page_swap_shared": _is_swap_shared,
    "page_huge": _on_page(lambda page: page.order > 0),
    "page_shared": _on_page(lambda page: page.mapcount > 1),
    "page_ksm": _on_page(lambda page: page.ksm),
    "page_lru": _on_page(lambda page: page.lru_cpu is None),
    "page_exclusive": _on_page(lambda page: page.exclusive),
    "page_held": _is_held,
    "page_shmem": _on_page(lambda page: page.kind == "shmem"),
    "vma_shared": lambda f: f.the_vma.has(v.VM_SHARED),
    "vma_anonymous": lambda f: f.the_vma.file is None,
    "vma_writable": lambda f: f.the_vma.has(v.VM_WRITE),
    "vma_dontcopy": lambda f: f.the_vma.has(v.VM_DONTCOPY),
    "vma_needs_copy": lambda f: (
        (f.the_vma.anon_vma is not None or f.the_vma.has(v.VM_PFNMAP)) and not f.the_vma.has(v.VM_WIPEONFORK)
    ),
    "prot_changed": lambda f: f.args["prot"] not in (None, f.the_vma.flags & v.VM_ACCESS),
    "cow_mapping": lambda f: not f.the_vma.has(v.VM_SHARED),
    "vma_huge_allowed": lambda f: huge_allowed(f, f.the_vma),
    "have_vmas": lambda f: bool(f.detached),
    "whole_pmd": _whole_pmd,
    "force_flush": lambda f: f.force_flush,
    "delay_rmap": lambda f: f.delay_rmap,
    "any_changed": lambda f: f.nr_changed > 0,
    "write_fault": lambda f: f.args.get("kind") == "write",
    "exec_fault": lambda f: f.args.get("kind") == "exec",
    "huge_fault_fits": _huge_fault_fits,
    "pmd_is_huge": lambda f: f.mm.page_table.huge(f.addr) is not None,
    "pmd_shared": lambda _f: False,  # the machine has no hugetlb
    "pmd_present": lambda f: f.mm.page_table.huge(f.addr) is not None or f.mm.page_table.table(f.addr, 0) is not None,
    "should_defer_flush": lambda f: f.mm.mm_cpumask & ~bit(f.by.cpu) != 0,
    "mm_tlb_flush_nested": lambda f: f.mm.tlb_flush_pending > 1,
    "mm_tlb_flush_pending": lambda f: f.mm.tlb_flush_pending > 0,
    "moves": lambda f: bool(f.args.get("moves")),
    "shrinks": lambda f: bool(f.args.get("shrinks")),
    "grows_in_place": lambda f: bool(f.args.get("grows_in_place")),
    "unmaps_new": lambda f: bool(f.args.get("unmaps_new")),
    "copies_dontunmap": lambda f: bool(f.args.get("dontunmap")),
    "populates": lambda f: bool(f.args.get("populate")),
    "proactive": lambda f: bool(f.args.get("proactive")),
}


def evaluate(f: Frame, condition: Any) -> bool:
    """A name, or not/all/any of conditions; the first part that decides ends it."""
    if isinstance(condition, str):
        return CONDITION_HANDLERS[condition](f)
    if "not" in condition:
        return not evaluate(f, condition["not"])
    if "all" in condition:
        return all(evaluate(f, part) for part in condition["all"])
    return any(evaluate(f, part) for part in condition["any"])


def asks_for_flush(condition: Any) -> bool:
    """Whether the condition names one of the two questions outside a `not`."""
    if isinstance(condition, str):
        return condition in FLUSH_QUESTIONS
    parts = condition.get("all", condition.get("any", []))
    return any(asks_for_flush(part) for part in parts)
