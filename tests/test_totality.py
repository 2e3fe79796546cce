"""Nothing is forgotten.

Every step, condition, operation and constant is known to the compiled machine, to the reference, to the Python package
and to the documentation, and a kernel uses it or the list here says why none does.

That each step is executed is a test of its own (`tests/differential/test_differential.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import pytest

from differential.campaign import SPECS
from differential.coverage import conditions_of, steps_of
from tlbcore import InputError, _core, kernels, steps
from tlbcore.reference.conditions import CONDITION_HANDLERS
from tlbcore.reference.config import Constants
from tlbcore.reference.machine import COUNTERS, PROGRAMS, STEP_HANDLERS
from tlbcore.reference.operations import OPERATIONS

DOCS = Path(__file__).parents[1] / "docs"

UNUSED_STEPS = {
    "clear_young_dirty": "for schemes of one's own: the kernels' MADV_FREE takes the entry out and writes it back",
    "ptdesc_pmd_pts_dec": "of hugetlb: no kernel has its operations here, the races R16, R17 and R37 do",
    "ptep_clear_young": "for schemes of one's own: no modelled operation has a program that ages entries",
    "pud_clear": "as ptdesc_pmd_pts_dec",
    "select_range_at": "only a program that is run by hand changes its arguments",
    "tlb_flush_pud_range": "as ptdesc_pmd_pts_dec",
}
UNUSED_CONDITIONS = {
    "delay_rmap": "what a kernel decides at the entry is known where the entry is handled",
    "exec_fault": "no kernel's fault differs by fetch",
    "migration": "no other operation runs while pages migrate",
    "mm_tlb_flush_nested": "asked inside flush_tlb_tracked_range and tlb_finish_mmu",
    "page_huge": "huge entries have blocks of their own",
    "pmd_shared": "of hugetlb, as the steps ptdesc_pmd_pts_dec and pud_clear",
    "populates": "populating is done by accesses after the program",
    "proactive": "reclaim flushes alike, whoever wants it",
    "pte_accessible": "asked inside ptep_clear_flush and set_tlb_ubc_flush_pending",
    "pte_changed": "kernels ask what changed",
    "uffd_wp": "no operation sets it",
    "vma_huge_allowed": "asked inside huge_fault_fits",
    "vma_writable": "write access is checked before the program",
}


def programs() -> list[Any]:
    """Every program of every kernel under every switch."""
    resolved = [cast("dict[str, Any]", kernels.get(spec).resolve()) for spec in SPECS]
    return [program for kernel in resolved for program in kernel["programs"].values()]


def words_of(page: str) -> set[str]:
    """Every word that a page sets as code."""
    code = re.findall(r"`([^`]+)`", (DOCS / page).read_text(encoding="utf-8"))
    return {word for text in code for word in re.findall(r"[a-z_0-9]+", text)}


def test_every_step_is_known_everywhere() -> None:
    known = set(_core.step_names())
    assert set(STEP_HANDLERS) == known
    assert known - words_of("steps.md") == set()
    assert {name for name in known if callable(getattr(steps, name, None))} == known - {"downgrade"}
    assert steps.mmap_write_downgrade().name == "downgrade"


def test_every_condition_is_known_everywhere() -> None:
    known = set(_core.condition_names())
    assert set(CONDITION_HANDLERS) == known == set(steps.CONDITIONS)
    assert known - words_of("steps.md") == set()


def test_every_step_is_used_by_a_kernel_or_not_for_a_reason() -> None:
    used = {step for program in programs() for step in steps_of(program)}
    assert set(_core.step_names()) - used == set(UNUSED_STEPS)


def test_every_condition_is_used_by_a_kernel_or_not_for_a_reason() -> None:
    used = {name for program in programs() for name in conditions_of(program)}
    assert set(_core.condition_names()) - used == set(UNUSED_CONDITIONS)


def test_every_operation_is_known_to_both_machines() -> None:
    kernel = kernels.get("linux-6.18").resolve()
    machine = _core.Machine(json.dumps({"nr_cpus": 1, "levels": 4}), json.dumps(kernel))
    with pytest.raises(InputError, match="expected one of") as caught:
        machine.apply('{"op": "nothing"}')
    assert set(re.findall(r"`([a-z_]+)`", str(caught.value).split("expected one of")[1])) == set(OPERATIONS)
    assert set(OPERATIONS) - words_of("machine.md") == set()


def test_every_program_constant_and_counter_is_known_to_both_machines() -> None:
    kernel = kernels.get("linux-6.18").resolve()
    assert _core.program_names() == PROGRAMS
    names = {field.name for field in fields(Constants)}
    assert set(cast("dict[str, Any]", kernel["constants"])) == names
    assert names - words_of("machine.md") == set()
    machine = _core.Machine(json.dumps({"nr_cpus": 1, "levels": 4}), json.dumps(kernel))
    assert set(json.loads(machine.counters())) == set(COUNTERS)
