"""The compiled machine against the reference: the same operations, the same results, flushes, events and states.

`TLBCORE_DIFFERENTIAL_SEQUENCES` says how many random sequences all kernels together run (the default takes well under a
minute on two cores); `campaign.py` runs as many as one likes.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from differential.campaign import SPECS, kernel_of
from differential.compare import (
    ReferenceSubject,
    first_difference,
    random_run,
    report,
    shrink,
)
from differential.coverage import Watched
from differential.operations import WEIGHTS, Generator, random_machine
from tlbcore import _core
from tlbcore.reference import ReferenceMachine

NR_OPERATIONS = 100
SEQUENCES = int(os.environ.get("TLBCORE_DIFFERENTIAL_SEQUENCES", 8 * len(SPECS)))
#: As few as it takes to execute every step of the language.
NR_WATCHED = 90


@pytest.mark.timeout(120 + SEQUENCES)
@pytest.mark.parametrize("number", range(len(SPECS)), ids=SPECS)
def test_random_sequences_agree(number: int) -> None:
    """A kernel's share of the sequences."""
    for seed in range(number, SEQUENCES, len(SPECS)):
        spec, kernel = kernel_of(seed)
        run = random_run(Random(seed), kernel, NR_OPERATIONS)
        if run.difference is not None:
            pytest.fail(f"seed {seed}: {report(shrink(run, kernel), spec)}")


@pytest.mark.timeout(240)
def test_each_step_is_executed_on_both_machines() -> None:
    """A few of the sequences together execute whatever stands in a kernel's program, and what only stands by hand."""
    watched = Watched()
    for seed in range(NR_WATCHED):
        run = random_run(Random(seed), kernel_of(seed)[1], NR_OPERATIONS, make_reference=watched)
        assert run.difference is None
    assert set(_core.step_names()) - watched.executed == set()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False), number=st.integers(0, 2 * len(SPECS) - 1), length=st.integers(1, 60))
def test_drawn_sequences_agree(rng: Random, number: int, length: int) -> None:
    spec, kernel = kernel_of(number)
    run = random_run(rng, kernel, length)
    assert run.difference is None, report(run, spec)


def test_the_reference_agrees_with_itself() -> None:
    for seed in range(len(SPECS)):
        assert random_run(Random(seed), kernel_of(seed)[1], 60, ReferenceSubject).difference is None


def test_first_difference_names_the_place() -> None:
    left = {"a": [1, {"b": 2}], "c": 3}
    assert first_difference("x", left, {"a": [1, {"b": 2}], "c": 3}) is None
    assert first_difference("x", left, {"a": [1, {"b": 4}], "c": 5}) == ("x.a[1].b", 2, 4)
    assert first_difference("x", left, {"a": [1], "c": 3}) == ("x.a[1]", {"b": 2}, "(absent)")
    assert first_difference("x", {"a": 1}, {"a": True}) == ("x.a", 1, True)


def test_the_generator_makes_operations_that_succeed() -> None:
    results = []
    for seed in range(20):
        rng = Random(seed)
        machine = ReferenceMachine(random_machine(rng), kernel_of(8)[1])
        generator = Generator(rng, machine)
        for _ in range(100):
            op = generator.next()
            try:
                results.append((op["op"], machine.apply(op).get("errno")))
            except ValueError:
                results.append((op["op"], "usage"))
    good = [name for name, errno in results if errno is None]
    assert len(good) > 0.6 * len(results)
    assert set(WEIGHTS) - set(good) == set()


def test_kernels_take_turns_and_every_second_round_has_small_constants() -> None:
    assert SPECS[0] == kernel_of(0)[0] == kernel_of(2 * len(SPECS))[0]
    spec, small = kernel_of(len(SPECS) + 1)
    assert spec == f"{SPECS[1]} (small constants)"
    assert small["constants"]["lazy_mmu_batch"] == 3
    assert small["programs"] == kernel_of(1)[1]["programs"]
    assert isinstance(ReferenceMachine({}, small), ReferenceMachine)
