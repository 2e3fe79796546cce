"""The flush engine of the explorer: what it is asked for, what its bugs do, and that its reductions lose nothing."""

from __future__ import annotations

import json
import random

import pytest

import tlbcore
from tlbcore import InputError, _core, kernels

ALL = ("I1", "I2", "I3", "I4", "I5", "I8", "I9")
KERNELS = ("linux-5.10", "linux-6.1", "linux-6.18")

#: What a scenario can ask for, without bugs.
MODES = ({"generations": True}, {"switches": True}, {"lazy": True}, {"switches": True, "lazy": True})

#: Bugs, with the mode that shows them.
BUGS = ("mask_after_cr3", "gen_before_loaded_mm", "gen_zero_is_old", "bumps_once_per_deferral", "clears_batched_late")

OPERATIONS = ("madvise_dontneed", "mprotect", "munmap", "shrink_folio_list", "madvise_free", "clear_refs_soft_dirty")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mode", MODES, ids="+".join)
def test_every_operation_is_safe_with_cpus_that_switch(kernel: str, mode: dict[str, bool]) -> None:
    for operation in OPERATIONS:
        if (kernel, operation) == ("linux-5.10", "clear_refs_soft_dirty"):
            continue  # R14b
        verdict = tlbcore.check(kernel, [operation], kind="anon", engine=mode, invariants=ALL)
        verdict.assert_safe()
        assert verdict.engine == "saturating"


def test_a_cpu_that_is_away_is_not_asked_and_one_that_is_lazy_not_either() -> None:
    events = tlbcore.check(
        "linux-6.18", ["madvise_dontneed"], engine={"switches": True, "gen_before_loaded_mm": True}, invariants=["I9"]
    ).counterexample
    texts = [event.text for event in events]
    assert any("inc_mm_tlb_gen()" in text for text in texts)
    assert not any(text.startswith("[IPI") for text in texts)


@pytest.mark.parametrize("seed", range(60))
def test_no_reduction_loses_or_invents_a_state(seed: int) -> None:
    rng = random.Random(seed)
    engine = dict(rng.choice(MODES))
    if rng.random() < 0.5:
        engine[rng.choice(BUGS)] = True
    kernel = kernels.get(rng.choice(KERNELS))
    if engine.get("clears_batched_late"):
        kernel = kernel.derive("RFC 20/20", constants={"batched_pending": "cpumask"})
    threads = [{"operation": rng.choice(OPERATIONS)}]
    if "switches" not in engine and rng.random() < 0.3:
        threads.append({"operation": rng.choice(OPERATIONS)})
    page = {"kind": "anon", "mapped": rng.choice(("read", "write", "dirty"))}
    text = json.dumps({"users": 1, "pages": [page], "threads": threads, "engine": engine})
    reductions = rng.choice((("saturate", "urgent", "symmetry", "dead"), ("saturate",), ("urgent", "dead"), ("dead",)))
    options = {"invariants": [*ALL, "I12"], "reductions": reductions, "states": 3_000_000}
    _, _, undominated, unreachable, agree = _core.explore_audit(kernel.to_json(), text, json.dumps(options))
    assert (undominated, unreachable, agree) == (0, 0, True), (kernel.name, threads, engine, reductions)


def test_faults_beside_generations_are_refused() -> None:
    with pytest.raises(InputError, match="found faults beside generations"):
        tlbcore.check("linux-6.18", ["munmap"], faults=1, engine={"generations": True})


@pytest.mark.parametrize("mode", [{"by_active_mm": True}, {"tlbi": True}, {"batches_fill": True}], ids="+".join)
def test_page_tables_as_objects_go_with_generations_or_plain_requests_only(mode: dict[str, bool]) -> None:
    with pytest.raises(InputError, match="found whole_tables beside by_active_mm, tlbi or batches_fill"):
        tlbcore.check("linux-6.18", ["munmap"], engine=mode, whole_tables=True)


def test_a_refusal_of_tables_in_another_mmu() -> None:
    with pytest.raises(InputError, match="found whole_tables with lazy_mmu per_pte"):
        tlbcore.check("linux-6.18:lazy_mmu=powerpc-hash", ["munmap"], whole_tables=True)
