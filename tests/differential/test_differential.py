"""The compiled machine against the reference: the same operations, the same results, flushes, events and states."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from campaign import SPECS, kernel_of
from compare import CoreMachine, Pair, first_difference, random_run, report, shrink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import Generator, random_machine

from tlbcore.reference import ReferenceMachine


def core_is_built() -> bool:
    """Whether the compiled core is there and has the machine."""
    try:
        from tlbcore import _core  # type: ignore[attr-defined]  # noqa: PLC0415 - may not be built
    except ImportError:
        return False
    return hasattr(_core, "Machine")


needs_core = pytest.mark.skipif(not core_is_built(), reason="tlbcore._core.Machine is not built")


@needs_core
@pytest.mark.parametrize("seed", range(4 * len(SPECS)))
def test_random_sequences_agree(seed: int) -> None:
    spec, kernel = kernel_of(seed)
    run = random_run(Random(seed), kernel, 150, CoreMachine)
    if run.difference is not None:
        pytest.fail(report(shrink(run, kernel, CoreMachine), spec))


@needs_core
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False), number=st.integers(0, 3 * len(SPECS) - 1), length=st.integers(1, 60))
def test_drawn_sequences_agree(rng: Random, number: int, length: int) -> None:
    spec, kernel = kernel_of(number)
    run = random_run(rng, kernel, length, CoreMachine)
    assert run.difference is None, report(run, spec)


class Forgetful(ReferenceMachine):
    """A machine with a planted error: it does not mention that CPUs were lazy."""

    def flushes(self) -> list[dict[str, Any]]:
        return [{**row, "lazy_skipped": ""} for row in super().flushes()]


def test_a_planted_error_is_found_and_shrunk() -> None:
    kernel = kernel_of(2)[1]
    runs = (random_run(Random(seed), kernel, 400, Forgetful) for seed in range(100))
    run = next(run for run in runs if run.difference is not None)
    short = shrink(run, kernel, Forgetful)
    assert short.difference is not None
    assert short.difference.path.endswith(".lazy_skipped")
    assert len(short.operations) <= 12, report(short, "linux-6.18")


def test_the_reference_agrees_with_itself() -> None:
    for seed in range(len(SPECS)):
        assert random_run(Random(seed), kernel_of(seed)[1], 100, ReferenceMachine).difference is None


def test_first_difference_names_the_place() -> None:
    left = {"a": [1, {"b": 2}], "c": 3}
    assert first_difference("x", left, {"a": [1, {"b": 2}], "c": 3}) is None
    assert first_difference("x", left, {"a": [1, {"b": 4}], "c": 5}) == ("x.a[1].b", 2, 4)
    assert first_difference("x", left, {"a": [1], "c": 3}) == ("x.a[1]", {"b": 2}, "(absent)")
    assert first_difference("x", {"a": 1}, {"a": True}) == ("x.a", 1, True)


def test_the_generator_makes_operations_that_succeed() -> None:
    rng = Random(5)
    pair = Pair(random_machine(rng), kernel_of(2)[1], ReferenceMachine)
    generator = Generator(rng, pair.reference)
    results = []
    for _ in range(600):
        op = generator.next()
        try:
            results.append((op["op"], pair.reference.apply(op).get("errno")))
        except ValueError:
            results.append((op["op"], "usage"))
    good = [name for name, errno in results if errno is None]
    assert len(good) > 0.6 * len(results)
    assert {"fork", "mremap", "munmap", "reclaim", "access", "mprotect"} <= set(good)
