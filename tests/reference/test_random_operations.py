"""All kernels under random operations: no program breaks a rule of the model, nothing leaks."""

from __future__ import annotations

from random import Random

import pytest

from differential.operations import Generator, random_machine
from reference.invariants import check_invariants, check_no_leaks
from tlbcore import kernels
from tlbcore.reference import ReferenceMachine, UsageError

SPECS = [
    "linux-5.10",
    "linux-6.1",
    "linux-6.18",
    "linux-5.10:lazy_mmu=sparc64",
    "linux-6.18:lazy_mmu=xen-pv",
    "consolidated",
    "consolidated:none",
    "consolidated:pending=vma",
    "consolidated:pending=mm",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("seed", range(4))
def test_invariants_hold(spec: str, seed: int) -> None:
    rng = Random(f"{spec} {seed}")
    machine = ReferenceMachine(random_machine(rng), kernels.get(spec).resolve())
    generator = Generator(rng, machine)
    for _ in range(200):
        operation = generator.next()
        try:
            machine.apply(operation)
        except UsageError:
            continue
        check_invariants(machine)
    for task in list(machine.tasks):
        machine.apply({"op": "exit", "task": task})
    check_no_leaks(machine)
