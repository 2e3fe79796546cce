"""A kernel written by hand, small enough to follow with a pencil: the programs of steps.md, section 7."""

from __future__ import annotations

from typing import Any

from tlbcore.reference import ReferenceMachine
from tlbcore.reference.machine import PROGRAMS

Step = dict[str, Any]

CONSTANTS: dict[str, Any] = {
    "tlb_single_page_flush_ceiling": 33,
    "tlb_nr_dyn_asids": 6,
    "gather_bundle": 8,
    "gather_batch": 510,
    "gather_batches_folios": False,
    "gather_batch_count": 19,
    "mm_cpumask_rule": "lazy",
    "should_flush_tlb": "loaded_mm",
    "trim_cpumask_interval_ns": 10**9,
    "flush_skips_old_gen": True,
    "flush_tlb_range_freed_tables": True,
    "local_flush_first": False,
    "batched_pending": "counter",
    "pending_tracking": "mm",
    "lazy_mmu": "none",
    "lazy_mmu_batch": 0,
    "fault_around_pages": 16,
    "swap_cluster_max": 32,
    "cow_reuse": "exclusive",
    "read_fault_keeps_dirty": True,
    "lru_add_batch": 2,
    "unmapping_drains_lru": True,
    "swap_in_mkwrite": "exclusive",
    "mprotect_unaccounts": True,
    "split_maps_zero_pages": True,
    "anon_vma_merges_either_way": True,
    "pmd_move": True,
    "pud_move": True,
    "thp": "never",
}


def s(name: str, **arguments: Any) -> Step:
    """A step."""
    return {"step": name, **arguments}


def when(condition: Any, then: list[Step], otherwise: list[Step] | None = None) -> Step:
    """A step with a condition."""
    return {"step": "when", "if": condition, "then": then, "else": otherwise or []}


ZAP = s(
    "for_each_table",
    on_huge_pmd=[
        when(
            "whole_pmd",
            [
                s("pmdp_huge_get_and_clear"),
                s("tlb_remove_pmd_tlb_entry"),
                s("page_remove_rmap"),
                s("tlb_remove_page"),
            ],
            [s("split_huge_pmd")],
        )
    ],
    body=[
        s("flush_tlb_batched_pending"),
        s(
            "for_each_pte",
            filter="not_none",
            body=[
                when(
                    "present",
                    [
                        s("ptep_get_and_clear"),
                        when(
                            {"all": ["file_backed", "dirty"]},
                            [s("set_page_dirty"), s("set_delay_rmap"), s("set_force_flush")],
                        ),
                        s("tlb_remove_tlb_entry"),
                        s("page_remove_rmap"),
                        s("tlb_remove_page"),
                    ],
                    [s("pte_clear")],
                )
            ],
        ),
        when("force_flush", [s("tlb_flush_mmu_tlbonly"), s("tlb_flush_rmaps")]),
        when("force_flush", [s("tlb_flush_mmu")]),
    ],
)
UNMAP = [
    s("vms_gather_munmap_vmas"),
    when(
        "have_vmas",
        [
            s("tlb_gather_mmu"),
            s("for_each_vma", body=[ZAP]),
            s("free_pgtables"),
            s("tlb_finish_mmu"),
        ],
    ),
]
COPY = [
    s("folio_get"),
    s("alloc_anon_page"),
    s("copy_user_page"),
    s("ptep_clear_flush"),
    s("set_pte_anon"),
    s("page_remove_rmap"),
    s("put_old_page"),
    s("folio_put"),
]

PROGRAMS_BY_NAME: dict[str, list[Step]] = {
    "mmap": [s("select_range", range="args"), *UNMAP, s("mmap_region")],
    "munmap": [s("select_range", range="args"), *UNMAP],
    "exit_mmap": [
        s("tlb_gather_mmu", fullmm=True),
        s("for_each_vma", body=[ZAP]),
        s("free_pgtables"),
        s("tlb_finish_mmu"),
    ],
    "mprotect": [
        s("tlb_gather_mmu"),
        s(
            "for_each_vma",
            body=[
                when(
                    "prot_changed",
                    [
                        s("mprotect_fixup"),
                        s(
                            "for_each_table",
                            body=[
                                s(
                                    "for_each_pte",
                                    filter="present",
                                    body=[
                                        s("ptep_get_and_clear"),
                                        s("pte_modify", prot="vma"),
                                        s("pte_mkwrite", only_if="can_change_pte_writable"),
                                        s("set_pte_at"),
                                        when("pte_needs_flush", [s("tlb_flush_pte_range")]),
                                    ],
                                )
                            ],
                        ),
                    ],
                )
            ],
        ),
        s("tlb_finish_mmu"),
    ],
    "fork": [
        s("dup_mm"),
        s(
            "for_each_vma",
            body=[
                s("dup_vma"),
                s(
                    "for_each_table",
                    body=[
                        s(
                            "for_each_pte",
                            filter="present",
                            body=[
                                s("page_dup_rmap"),
                                when({"all": ["cow_mapping", "write"]}, [s("ptep_set_wrprotect")]),
                                s("set_pte_at_child"),
                            ],
                        )
                    ],
                ),
            ],
        ),
        s("flush_tlb_mm"),
    ],
    "mremap": [
        s("copy_vma"),
        s("select_range", range="old"),
        s(
            "for_each_extent",
            on_pmd=[s("move_normal_pmd"), s("flush_tlb_range", range="extent")],
            body=[
                s("for_each_pte", filter="not_none", body=[s("ptep_get_and_clear"), s("set_pte_at_new")]),
                s("flush_tlb_range", range="extent"),
            ],
        ),
        s("select_range", range="old"),
        *UNMAP,
    ],
    "fault": [
        s("pte_alloc"),
        when(
            "none",
            [
                when(
                    "vma_anonymous",
                    [when("write_fault", [s("alloc_anon_page"), s("set_pte_anon")], [s("set_pte_zero")])],
                    [
                        s("find_get_page"),
                        when(
                            {"all": ["write_fault", "vma_shared"]},
                            [s("set_page_dirty"), s("set_pte_file", write=True)],
                            [s("map_around")],
                        ),
                    ],
                )
            ],
            [
                when(
                    {"all": ["write_fault", {"not": "write"}]},
                    [
                        when(
                            {"any": ["vma_shared", {"all": ["anon", {"not": "page_shared"}]}]},
                            [s("wp_page_reuse")],
                            COPY,
                        )
                    ],
                    [s("ptep_set_access_flags")],
                )
            ],
        ),
    ],
}


def small_kernel(**constants: Any) -> dict[str, Any]:
    """The kernel, with some constants changed."""
    programs = {name: PROGRAMS_BY_NAME.get(name, []) for name in PROGRAMS}
    return {"name": "small", "constants": {**CONSTANTS, **constants}, "programs": programs}


class Bench:
    """A machine with one process that runs on CPU 0, and short ways to say what it does."""

    def __init__(self, config: dict[str, Any] | None = None, **constants: Any) -> None:
        """Start the process."""
        self.machine = ReferenceMachine({"nr_cpus": 4, "levels": 4, **(config or {})}, small_kernel(**constants))
        self.do("create_process")
        self.do("schedule", cpu=0, task=0)

    def do(self, op: str, **arguments: Any) -> Any:
        """Apply an operation (of task 0 unless said otherwise) that must succeed."""
        if op not in ("create_process", "schedule", "create_file", "advance_time"):
            arguments = {"task": 0, **arguments}
        result = self.machine.apply({"op": op, **arguments})
        assert "errno" not in result, result
        return result["value"]

    def mmap(self, addr: int, pages: int, **other: Any) -> int:
        """An anonymous, private, readable and writable mapping unless said otherwise."""
        arguments: dict[str, Any] = {
            "prot": 3,
            "shared": False,
            "fixed": True,
            "noreplace": False,
            "populate": False,
            "growsdown": False,
            "file": None,
            "pgoff": 0,
        }
        return int(self.do("mmap", addr=addr, len=pages << 12, **(arguments | other)))

    def write(self, *addresses: int, task: int = 0) -> None:
        """A store at each address."""
        for addr in addresses:
            self.do("access", task=task, addr=addr, kind="write")

    def read(self, *addresses: int, task: int = 0) -> None:
        """A load at each address."""
        for addr in addresses:
            self.do("access", task=task, addr=addr, kind="read")

    def flushes(self, *names: str) -> list[tuple[Any, ...]]:
        """Some columns of the log."""
        return [tuple(row[name] for name in names) for row in self.machine.flushes()]
