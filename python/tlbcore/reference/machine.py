"""The reference machine: operations in, results, flushes and states out; and the services that steps share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tlbcore.reference import pte as p
from tlbcore.reference.conditions import CONDITION_HANDLERS
from tlbcore.reference.config import (
    INIT_MM,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    PTRS_PER_TABLE,
    Config,
    Constants,
)
from tlbcore.reference.control import CONTROL_HANDLERS, Handler, run
from tlbcore.reference.dump import dump
from tlbcore.reference.errors import ErrnoError, ModelError, StepError, UsageError
from tlbcore.reference.flush import Engine, Initiator
from tlbcore.reference.frame import Frame
from tlbcore.reference.operations import OPERATIONS
from tlbcore.reference.page_table import Table, index
from tlbcore.reference.pages import HUGE_ZERO_PFN, ZERO_PFN, Memory, Page
from tlbcore.reference.pte import NONE, Pte
from tlbcore.reference.steps_flush import FLUSH_HANDLERS
from tlbcore.reference.steps_ops import OPERATION_HANDLERS
from tlbcore.reference.steps_pte import PTE_HANDLERS
from tlbcore.scheme import OPERATIONS as PROGRAM_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tlbcore.reference.mm import Mm, Task
    from tlbcore.reference.vma import Vma

STEP_HANDLERS: dict[str, Handler] = CONTROL_HANDLERS | FLUSH_HANDLERS | PTE_HANDLERS | OPERATION_HANDLERS

#: The programs that a kernel must have.
PROGRAMS = list(PROGRAM_NAMES)

#: Steps of operations that have arguments of their own, and so no meaning in a program that is run by hand.
NOT_CUSTOM_STEPS = frozenset(
    [
        "mmap_region",
        "set_migration_entry",
        "migrate_copy",
        "remove_migration_ptes",
        "pmdp_collapse_flush",
        "collapse_copy",
        "set_pmd_huge",
        "pte_alloc",
        "do_huge_pmd_anonymous_page",
        "alloc_anon_page",
        "copy_user_page",
        "folio_get",
        "folio_put",
        "find_get_page",
        "set_pte_anon",
        "set_pte_zero",
        "map_around",
        "wp_page_reuse",
        "ptep_set_access_flags",
        "swap_in",
        "set_pte_swap_in",
        "set_pte_numa",
        "set_pte_file",
        "put_old_page",
        "dup_mm",
        "dup_vma",
        "pte_alloc_child",
        "page_dup_rmap",
        "set_pte_at_child",
        "swap_duplicate",
        "set_pmd_at_child",
        "vma_expand",
        "copy_vma",
        "vma_dontunmap",
        "move_normal_pmd",
        "set_pte_at_new",
        "move_huge_pmd",
        "track_flush_range",
        "flush_tracked_range",
        "for_each_extent",
        "for_each_rmap_vma",
    ],
)

COUNTERS = [
    "nr_flush_requests",
    "nr_flush_full",
    "nr_flush_ranged",
    "nr_flush_pages",
    "nr_flush_remote",
    "nr_ipis",
    "nr_told_lazy",
    "nr_told_gone",
    "nr_told_nothing_cached",
    "nr_lazy_skipped",
    "nr_flush_avoided",
    "nr_local_flushes",
    "nr_lazy_mmu_drains",
    "nr_lazy_mmu_entries",
    "nr_tlb_fills",
    "nr_faults",
    "nr_batched_pending_flushes",
    "nr_gathers",
    "nr_light_gathers",
    "nr_nested_finishes",
    "nr_tlb_batch_flushes",
    "nr_page_frees",
    "nr_table_frees",
]


class ReferenceMachine:
    """A machine under one kernel. Every call to `apply` has an index, also one that fails."""

    def __init__(self, config: Mapping[str, Any], kernel: Mapping[str, Any]) -> None:
        """Build an idle machine; UsageError tells what is wrong with the arguments."""
        self.config = Config.from_json(config)
        self.constants = Constants.from_json(kernel["constants"], self.config.thp)
        self.programs: Mapping[str, Sequence[Mapping[str, Any]]] = kernel["programs"]
        _check_programs(self.programs)
        self.handlers = STEP_HANDLERS
        self.tallies: Counter[str] = Counter()
        self.engine = Engine(self.config, self.constants, self.tallies)
        self.memory = Memory()
        self.tasks: dict[int, Task] = {}
        self.nr_tasks_made = 0
        self.op_index = -1

    # --- the interface ----------------------------------------------------------------------------------------------

    def apply(self, op: Mapping[str, Any]) -> dict[str, Any]:
        """Run one operation: ``{"value": ...}`` or ``{"errno": ...}``; UsageError if it makes no sense."""
        self.op_index += 1
        arguments = dict(op)
        name = arguments.pop("op", None)
        if name not in OPERATIONS:
            msg = f"op: found {name!r}, expected one of {', '.join(OPERATIONS)}"
            raise UsageError(msg)
        try:
            return {"value": OPERATIONS[name](self, arguments)}
        except ErrnoError as error:
            return {"errno": error.name}

    def state(self) -> dict[str, Any]:
        """All there is, as JSON values."""
        return dump(self)

    def flushes(self) -> list[dict[str, Any]]:
        """The log of flush requests so far."""
        return self.engine.log

    def tlb_events(self) -> list[dict[str, int]]:
        """The log of the tlb_flush tracepoint so far."""
        return self.engine.events

    def counters(self) -> dict[str, int]:
        """What was counted so far."""
        self.tallies["nr_page_frees"] = self.memory.nr_page_frees
        return {name: self.tallies[name] for name in COUNTERS}

    # --- programs ---------------------------------------------------------------------------------------------------

    def frame(self, task: Task, mm: Mm, args: Mapping[str, Any], span: tuple[int, int]) -> Frame:
        """The registers of a program that is about to start."""
        by = Initiator(self.op_index, task.id, task.cpu)
        return Frame(self, by, task, mm, {"ranges": {"args": span}, **args}, range=span)

    def run_program(self, name: str, frame: Frame) -> None:
        """One program, to its end; what its page list still holds is let go."""
        self.run_steps(self.programs[name], frame)

    def run_steps(self, steps: Sequence[Mapping[str, Any]], frame: Frame) -> None:
        """The same for steps that are nobody's program."""
        run(frame, steps)
        self.drop_page_list(frame)

    def check_custom_program(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """A StepError for what the operation `run` cannot do; whether locks pair is not looked at here."""
        _check_block(steps, "custom", frozenset(STEP_HANDLERS) - NOT_CUSTOM_STEPS)

    def add_to_page_list(self, f: Frame, page: Page) -> None:
        """The list takes a reference."""
        f.page_list.append(page)
        self.memory.get(page)

    def drop_page_list(self, f: Frame) -> None:
        """The list lets go of its pages."""
        pages, f.page_list = f.page_list, []
        for page in pages:
            self.memory.put(page)

    # --- pages on their way to the LRU ------------------------------------------------------------------------------

    def lru_add(self, cpu: int, page: Page) -> None:
        """A page that was made on a CPU."""
        self.memory.lru_add(cpu, page, self.constants.lru_add_batch)

    def lru_drain_unmapping(self, cpu: int) -> None:
        """What the CPU's batch holds goes to the LRU, in kernels that do so when something is unmapped."""
        if self.constants.unmapping_drains_lru:
            self.memory.lru_drain(cpu)

    def lru_drain_all(self) -> None:
        """`lru_add_drain_all()`."""
        for cpu in self.engine.cpus:
            self.memory.lru_drain(cpu.id)

    # --- services ---------------------------------------------------------------------------------------------------

    def live_mms(self) -> Iterator[Mm]:
        """The address spaces of processes, by id."""
        return (mm for mm in list(self.engine.mms.values()) if mm.live and mm.id != INIT_MM)

    def page_of(self, pte: Pte) -> Page | None:
        """The page that a present entry maps."""
        return self.memory.page(pte.pfn) if pte.present else None

    def write_entry(self, by: Initiator, mm: Mm, addr: int, pte: Pte, level: int | None = None) -> None:
        """The kernel changes an entry; `level` 1 names the PMD entry whatever stands there."""
        tree = mm.page_table
        huge = tree.huge(addr)
        if level is None:
            level = 0 if huge is None else 1
        old = (huge or NONE) if level == 1 else tree.get(addr)[0]
        tree.put_at(addr, level, pte)
        if old != pte:
            at = addr & ~(PMD_SIZE - 1) if level == 1 else addr
            self.engine.entry_changed(by, mm, at, was_hw_present=old.hw_present)

    def pmdp_invalidate_ad(self, f: Frame) -> None:
        """The huge entry at addr is hidden from the hardware, with all that it says."""
        old = f.mm.page_table.huge(f.addr)
        if old is None:
            msg = f"there is no huge entry at {f.addr:#x}"
            raise ModelError(msg)
        f.pte = f.new_pte = old
        f.write(old.drop(p.P).add(p.PROTNONE), level=1)

    def note_write(self, mm: Mm, addr: int) -> None:
        """A part of a huge page is not zero any more."""
        pte, size = mm.page_table.get(addr)
        page = self.page_of(pte)
        if page is not None and page.order:
            part = addr >> PAGE_SHIFT if size == PMD_SHIFT else pte.pfn
            page.zero_parts.discard(part % PTRS_PER_TABLE)

    def split_huge_pmd(self, by: Initiator, mm: Mm, addr: int) -> Pte:
        """512 entries instead of the huge one, which is returned."""
        start = addr & ~(PMD_SIZE - 1)
        old = mm.page_table.huge(start)
        if old is None:
            msg = f"there is no huge entry to split at {start:#x}"
            raise ModelError(msg)
        self.write_entry(by, mm, start, old.drop(p.P).add(p.PROTNONE), 1)
        self.engine.flush_tlb_range(by, mm, start, start + PMD_SIZE)
        table = Table(0)
        small = old.drop(p.PSE)
        for number in range(PTRS_PER_TABLE):
            if old.pfn == HUGE_ZERO_PFN:
                table.entries[number] = small.add(p.SPECIAL)._replace(pfn=ZERO_PFN)
            else:
                table.entries[number] = small._replace(pfn=old.pfn + number)
        mm.page_table.ensure(start, 1).entries[index(start, 1)] = table
        page = self.memory.page(old.pfn)
        if not page.is_zero:
            at = page.rmap.index((mm.id, start))
            page.rmap[at : at + 1] = [(mm.id, start + (n << PAGE_SHIFT)) for n in range(PTRS_PER_TABLE)]
            self.memory.get(page, PTRS_PER_TABLE - 1)
        return old

    def split_vma_at(self, by: Initiator, mm: Mm, addr: int) -> None:
        """Cut the VMA that spans addr, and a huge entry there first (`vma_adjust_trans_huge()`)."""
        vma = mm.vmas.lookup(addr)
        if vma is None or vma.start == addr:
            return
        if addr % PMD_SIZE and mm.page_table.get(addr)[1] == PMD_SHIFT:
            self.split_huge_pmd(by, mm, addr)
        mm.vmas.split(vma, addr)

    def change_vma_flags(self, by: Initiator, mm: Mm, span: tuple[int, int], flags: int) -> Vma:
        """Split the VMA of the span at its ends, give the part its flags and merge it."""
        self.split_vma_at(by, mm, span[0])
        self.split_vma_at(by, mm, span[1])
        vma = mm.vmas.lookup(span[0])
        assert vma is not None
        vma.flags = flags
        return mm.vmas.merge(vma, either_way=self.constants.anon_vma_merges_either_way)


def _check_programs(programs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name in PROGRAMS:
        if name not in programs:
            msg = f"kernel: program {name} is missing"
            raise UsageError(msg)
        _check_block(programs[name], name, frozenset(STEP_HANDLERS) - {"select_range_at"})


def _check_block(block: Sequence[Mapping[str, Any]], path: str, allowed: frozenset[str]) -> None:
    for number, step in enumerate(block):
        at = f"{path}[{number}]"
        if step["step"] not in allowed:
            known = "expected one that may stand there" if step["step"] in STEP_HANDLERS else "expected a known one"
            msg = f"{at}: found step {step['step']}, {known}"
            raise StepError(msg)
        if step["step"] == "select_range_at" and (step["addr"] % PAGE_SIZE or step["len"] <= 0):
            msg = f"{at}: found {step['addr']:#x} + {step['len']}, expected a page-aligned address and a length"
            raise StepError(msg)
        if "if" in step:
            _check_condition(step["if"], at)
        for part in ("body", "then", "else", "on_huge_pmd", "on_pmd"):
            _check_block(step.get(part, ()), f"{at}.{part}", allowed)


def _check_condition(condition: Any, path: str) -> None:
    if isinstance(condition, str):
        if condition not in CONDITION_HANDLERS:
            msg = f"{path}: found condition {condition}, expected a known one"
            raise StepError(msg)
    else:
        for parts in condition.values():
            for part in parts if isinstance(parts, list) else [parts]:
                _check_condition(part, path)
