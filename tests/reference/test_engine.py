"""Generations, masks and lazy CPUs; the arrays of a TLB; the CPU lists."""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import Any

import pytest

from reference.small_kernel import CONSTANTS, Bench
from tlbcore.reference import ReferenceMachine, UsageError
from tlbcore.reference.conditions import CONDITION_HANDLERS
from tlbcore.reference.config import ArrayGeometry
from tlbcore.reference.cpumask import cpulist, cpus_of
from tlbcore.reference.machine import STEP_HANDLERS
from tlbcore.reference.tlb import Key, LruArray

PAGE = 4096
A = 0x7F0000203000


def two_threads(**constants: Any) -> Bench:
    bench = Bench(**constants)
    bench.do("schedule", cpu=1, task=bench.do("clone_thread"))
    bench.mmap(A, 8)
    bench.write(A, A + PAGE)
    bench.write(A, task=1)
    return bench


def test_a_remote_cpu_is_told_and_catches_up() -> None:
    bench = two_threads()
    bench.do("mprotect", addr=A, len=PAGE, prot=1)
    row = bench.machine.flushes()[-1]
    assert (row["mask"], row["told"], row["remote"], row["nothing_cached"]) == ("0-1", "1", True, "")
    assert [(e["cpu"], e["reason"], e["pages"]) for e in bench.machine.tlb_events()[-3:]] == [
        (0, 4, 1),
        (0, 3, 1),
        (1, 1, 1),
    ]
    assert bench.machine.state()["cpus"][1]["ctxs"][0] == [2, 2]


def test_a_lazy_cpu_is_spared_and_flushes_at_switch_in() -> None:
    bench = two_threads()
    bench.do("schedule", cpu=1, task=None)
    bench.do("mprotect", addr=A, len=PAGE, prot=1)
    row = bench.machine.flushes()[-1]
    assert (row["told"], row["lazy_skipped"]) == ("", "1")
    bench.do("schedule", cpu=1, task=1)
    assert bench.machine.tlb_events()[-1] == {"request": -1, "cpu": 1, "reason": 0, "pages": -1}


def test_a_lazy_cpu_must_leave_when_tables_go() -> None:
    bench = two_threads()
    bench.do("schedule", cpu=1, task=None)
    bench.do("munmap", addr=A, len=8 * PAGE)
    row = bench.machine.flushes()[-1]
    assert (row["freed_tables"], row["told"], row["lazy_left"]) == (True, "1", "1")
    assert bench.machine.state()["cpus"][1]["loaded_mm"] == 0


@pytest.mark.parametrize(("rule", "mask", "gone"), [("lazy", "0-1", "1"), ("eager", "0", "")])
def test_a_cpu_that_switched_away(rule: str, mask: str, gone: str) -> None:
    bench = two_threads(mm_cpumask_rule=rule)
    bench.do("schedule", cpu=1, task=bench.do("create_process"))
    bench.do("munmap", addr=A, len=8 * PAGE)
    row = bench.machine.flushes()[-1]
    assert (row["mask"], row["gone"]) == (mask, gone)
    assert bench.machine.state()["mms"][1]["mm_cpumask"] == "0"


def test_pcid_slots_are_reused_round_robin() -> None:
    bench = Bench({"pcid": True}, tlb_nr_dyn_asids=2)
    for _ in range(2):
        bench.do("schedule", cpu=0, task=bench.do("create_process"))
    state = bench.machine.state()["cpus"][0]
    # init_mm had slot 0; mm 1 took slot 1, mm 2 slot 0, mm 3 slot 1 again.
    assert (state["slot"], state["next_asid"], state["ctxs"]) == (1, 2, [[3, 1], [4, 1]])


def test_a_stale_writable_translation_needs_no_entry() -> None:
    bench = Bench()
    bench.mmap(A, 1)
    bench.write(A)
    assert bench.machine.state()["tlb"][0]["entries"] == [[0, A >> 12, 12, 16, "W D NX", "L1+STLB"]]
    bench.do("clear_refs", kind=1)
    bench.write(A)  # through the TLB: A stays clear
    assert " A " not in bench.machine.state()["mms"][1]["ptes"][0][2]


def test_lru_against_a_model() -> None:
    rng = Random(1)
    array: LruArray[int] = LruArray(ArrayGeometry(12, 4))
    model: list[OrderedDict[Key, int]] = [OrderedDict() for _ in range(3)]
    for turn in range(5000):
        key = Key(rng.randrange(2), 12, rng.randrange(24))
        ways = model[key.number % 3]
        if rng.random() < 0.5:
            assert array.hit(key) == ways.get(key)
            if key in ways:
                ways.move_to_end(key)
        else:
            array.insert(key, turn)
            ways[key] = turn
            ways.move_to_end(key)
            if len(ways) > 4:
                ways.popitem(last=False)
    assert sorted(array.all_keys()) == sorted(key for ways in model for key in ways)


def test_cpulist() -> None:
    assert [cpulist(mask) for mask in (0, 1, 0b1011, 0b11110)] == ["", "0", "0-1,3", "1-4"]
    assert list(cpus_of(0b1010)) == [1, 3]


def test_unknown_names_are_refused() -> None:
    bench = Bench()
    with pytest.raises(UsageError, match="op: found 'mumap'"):
        bench.machine.apply({"op": "mumap"})
    with pytest.raises(UsageError, match="task 7 does not exist"):
        bench.machine.apply({"op": "munmap", "task": 7, "addr": 0, "len": 1})
    with pytest.raises(UsageError, match="program mmap is missing"):
        ReferenceMachine({}, {"constants": CONSTANTS, "programs": {}})


def test_the_language_is_total() -> None:
    """Names by hand, so that a lost handler is noticed."""
    assert len(STEP_HANDLERS) == len(set(STEP_HANDLERS))
    assert {"for_each_table", "tlb_finish_mmu", "split_huge_pmd", "mark_lazyfree"} <= STEP_HANDLERS.keys()
    assert {"pte_needs_flush", "pte_demoted", "have_vmas"} <= CONDITION_HANDLERS.keys()
