"""Errors planted in the reference are found against the compiled machine, and told so that they can be understood."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from differential.campaign import SPECS, kernel_of
from differential.compare import random_run, report, shrink
from tlbcore.reference import ReferenceMachine
from tlbcore.reference.machine import STEP_HANDLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlbcore.reference.frame import Frame, Plain

#: Rounds of all kernels till an error has to be found.
NR_ROUNDS = 4


def instead(name: str, handler: Callable[[ReferenceMachine, Frame, Plain], None]) -> Callable[[ReferenceMachine], None]:
    """Plant another handler of a step."""

    def plant(machine: ReferenceMachine) -> None:
        machine.handlers = {**machine.handlers, name: lambda f, step: handler(machine, f, step)}

    return plant


def nothing(_machine: ReferenceMachine, _f: Frame, _step: Plain) -> None:
    """Forget the step."""


def ceiling_is_off_by_one(machine: ReferenceMachine) -> None:
    rules = machine.engine.constants
    ceiling = rules.tlb_single_page_flush_ceiling - 1
    machine.engine.constants = replace(rules, tlb_single_page_flush_ceiling=ceiling)


def flush_without_generation(machine: ReferenceMachine) -> None:
    flush = machine.engine.flush_tlb_mm_range

    def forgetful(by: Any, mm: Any, *span: Any, **how: Any) -> None:
        flush(by, mm, *span, **how)
        mm.tlb_gen -= machine.constants.lazy_mmu != "per_pte"

    machine.engine.flush_tlb_mm_range = forgetful  # type: ignore[method-assign]


def lazy_cpus_are_forgotten(machine: ReferenceMachine) -> None:
    flushes = machine.flushes
    machine.flushes = lambda: [{**row, "lazy_skipped": ""} for row in flushes()]  # type: ignore[method-assign]


def another_mapping(_machine: ReferenceMachine, f: Frame, step: Plain) -> None:
    """Take the oldest mapping of the page out, whichever is gone."""
    if f.page is not None and f.page.rmap and not f.delay_rmap:
        f.page.rmap.pop(0)
    else:
        STEP_HANDLERS["page_remove_rmap"](f, step)


@dataclass(frozen=True)
class Planted:
    """An error, and where it has to show."""

    plant: Callable[[ReferenceMachine], None]
    path: str


PLANTED = {
    "flush without a generation": Planted(flush_without_generation, r"flushes\[\d+\]\.gen|state\.mms\[\d+\]\.tlb_gen"),
    "ceiling off by one": Planted(ceiling_is_off_by_one, r"flushes\[\d+\]\.(start|end)|tlb_events\[\d+\]\.pages"),
    "lazy CPUs not mentioned": Planted(lazy_cpus_are_forgotten, r"flushes\[\d+\]\.lazy_skipped"),
    "page tables not freed": Planted(
        instead("free_pgtables", nothing), r"flushes\[\d+\].*|state\.mms\[\d+\].nr_tables|counters\.nr_table_frees"
    ),
    "deferred flush not noted": Planted(
        instead("set_tlb_ubc_flush_pending", nothing), r"flushes.*|tlb_events.*|state.*"
    ),
    "outstanding flush ignored": Planted(
        instead("flush_tlb_batched_pending", nothing), r"flushes\[\d+\].*|state.*|counters\.nr_batched_pending_flushes"
    ),
    "dirty page lost": Planted(instead("set_page_dirty", nothing), r"state\.pages\[\d+\]\.dirty"),
    "wrong mapping removed": Planted(instead("page_remove_rmap", another_mapping), r"state\.pages.*|result|flushes.*"),
    "soft-dirty kept": Planted(instead("pte_clear_soft_dirty", nothing), r"state\.mms\[\d+\]\.ptes.*|flushes.*"),
    "stale young bit": Planted(instead("ptep_clear_young", nothing), r"state\.mms\[\d+\]\.ptes.*|flushes.*"),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found_and_told(name: str) -> None:
    planted = PLANTED[name]

    def wrong(config: Mapping[str, Any], kernel: Mapping[str, Any]) -> ReferenceMachine:
        machine = ReferenceMachine(config, kernel)
        planted.plant(machine)
        return machine

    for seed in range(NR_ROUNDS * len(SPECS)):
        spec, kernel = kernel_of(seed)
        run = random_run(Random(seed), kernel, 100, make_reference=wrong)
        if run.difference is not None:
            break
    else:
        pytest.fail(f"{name}: not found in {NR_ROUNDS} rounds of all kernels")
    short = shrink(run, kernel, make_reference=wrong)
    text = report(short, spec)
    assert short.difference is not None
    assert re.fullmatch(planted.path, short.difference.path), text
    assert len(short.operations) <= 20, text
    lines = text.splitlines()
    assert lines[0].startswith(f'kernel {spec}, machine {{"nr_cpus": ')
    assert lines[1] == "operations:"
    assert lines[2] == '  0: {"op": "create_process"}'
    last = len(short.operations) - 1
    assert lines[-4].startswith(f'operation {last} {{"op": "')
    assert lines[-3:] == [
        f"  at {short.difference.path}",
        *(line for line in lines[-2:] if line.startswith(("  reference: ", "  subject:   "))),
    ]
    # What is told is enough to see it again.
    again = random_run(Random(seed), kernel, 100, make_reference=wrong)
    assert again.difference == run.difference


def test_without_an_error_nothing_is_found() -> None:
    assert all(random_run(Random(seed), kernel_of(seed)[1], 40).difference is None for seed in range(len(SPECS)))
