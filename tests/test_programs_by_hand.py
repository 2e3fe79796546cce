"""Schemes, gathers and programs of one's own, run by hand on both machines."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from bench_by_hand import BASE, LAB, brief
from tlbcore import InputError, ProgramError, kernels
from tlbcore.backend import BACKENDS
from tlbcore.calls import FaultError
from tlbcore.schemes import MmuGather
from tlbcore.simulator import Simulator
from tlbcore.steps import (
    Block,
    Step,
    dec_tlb_flush_pending,
    dup_mm,
    flush_tlb_mm,
    flush_tlb_page,
    flush_tlb_range,
    for_each_pte,
    for_each_table,
    for_each_vma,
    inc_tlb_flush_pending,
    mmap_read_lock,
    mmap_unlock,
    mprotect_fixup,
    page_remove_rmap,
    present,
    prot_changed,
    pte_clear,
    pte_modify,
    pte_needs_flush,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pte_wrprotect,
    ptep_clear_flush,
    ptep_get_and_clear,
    put_page,
    select_range_at,
    set_pte_at,
    tlb_finish_mmu,
    tlb_gather_mmu,
    when,
    write,
)
from tlbcore.units import PAGE, PMD


class Eager(MmuGather):
    """Flush each entry as it changes, in munmap and mprotect."""

    def zap(self) -> Block:
        """Flush a page, then free it."""
        entry = when(present, ptep_clear_flush(), page_remove_rmap(), put_page(), otherwise=[pte_clear()])
        return [for_each_table(pte_offset_map_lock(), for_each_pte(entry, filter="not_none"), pte_unmap_unlock())]

    def change_protection(self) -> Block:
        """Change an entry, flush it."""
        change = [ptep_get_and_clear(), pte_modify(), set_pte_at(), when(pte_needs_flush, flush_tlb_page())]
        each = for_each_table(pte_offset_map_lock(), for_each_pte(change), pte_unmap_unlock())
        return [when(prot_changed, mprotect_fixup(), each)]


def test_a_scheme_of_ones_own(backend: str) -> None:
    kernel = kernels.get("linux-6.1").derive("eager", munmap=Eager(), mprotect=Eager())
    sim = Simulator(LAB, kernel, backend=backend)
    process = sim.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 40, write=True)
    process.mprotect(BASE, 3 * PAGE, "r")
    assert brief(sim) == ["mprotect 0:1", "mprotect 1:1", "mprotect 2:1"]
    process.munmap(BASE, 34 * PAGE)
    assert brief(sim) == [f"munmap {page}:1" for page in range(34)]
    process.munmap(BASE, 64 * PAGE)
    assert brief(sim) == [*(f"munmap {page}:1" for page in range(34, 40)), "munmap all freed"]
    assert len(pages(sim)) == 0


def pages(sim: Simulator) -> list[object]:
    """Pages of memory in use."""
    found: list[object] = sim.state()["pages"]
    return found


def entries(sim: Simulator) -> list[int]:
    """Pages from BASE on that have an entry."""
    return [(entry[0] - BASE) // PAGE for mm in sim.state()["mms"] for entry in mm.get("ptes", [])]


def test_the_gather_by_hand_flushes_once(lab: Simulator) -> None:
    process = lab.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    with process.gather() as tlb:
        tlb.remove(BASE + 2 * PAGE, 4)
        tlb.protect(BASE + 10 * PAGE, 2, "r")
        tlb.remove(BASE + 20 * PAGE)
        assert lab.flushes == []
    (flush,) = lab.flushes
    assert (flush.told.cpulist, flush.freed_tables) == ("1", False)
    assert brief(lab) == ["run 2:19"]
    assert entries(lab) == [page for page in range(64) if page not in {2, 3, 4, 5, 20}]
    assert len(pages(lab)) == 59
    with pytest.raises(FaultError):
        process.write(BASE + 11 * PAGE)
    process.write(BASE + 2 * PAGE)
    assert len(pages(lab)) == 60


def test_a_gather_can_flush_before_its_end(lab: Simulator) -> None:
    process = lab.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    with process.gather() as tlb:
        tlb.remove(BASE, 2)
        tlb.flush()
        tlb.remove(BASE + 40 * PAGE, 2)
        tlb.flush_tlb_only()
        tlb.flush_tlb_only()
        tlb.remove(BASE + 50 * PAGE)
    assert brief(lab) == ["run 0:2", "run 40:2", "run 50:1"]
    assert len(pages(lab)) == 59


def test_a_gather_does_nothing_if_its_body_raises(lab: Simulator) -> None:
    process = lab.process()
    process.mmap(4 * PAGE, addr=BASE)
    process.touch(BASE, 4, write=True)
    tlb = process.gather()

    def fail() -> None:
        with tlb:
            tlb.remove(BASE, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with process.gather():
        pass
    assert (brief(lab), entries(lab)) == ([], [0, 1, 2, 3])
    with pytest.raises(InputError, match="found one that is finished, expected to stand inside"):
        tlb.remove(BASE)
    with pytest.raises(InputError, match="found one that is finished, expected a new one"):
        tlb.__enter__()
    with pytest.raises(InputError, match="nr_pages is 0"), process.gather() as empty:
        empty.remove(BASE, 0)
    with pytest.raises(InputError, match="addr is 0x5"), process.gather() as unaligned:
        unaligned.remove(5)


@pytest.mark.parametrize(("skip", "expected"), [("on", []), ("off", ["run 0:2"])])
def test_the_gather_is_the_kernels_own(backend: str, skip: str, expected: list[str]) -> None:  # patch 03
    sim = Simulator(LAB, f"consolidated:skip_unless_demoted={skip}", backend=backend)
    process = sim.process()
    process.mmap(4 * PAGE, "r", addr=BASE)
    process.touch(BASE, 2)
    with process.gather() as tlb:
        tlb.protect(BASE, 4, "rx")
    assert brief(sim) == expected


def test_a_program_of_steps_by_hand(lab: Simulator) -> None:
    process = lab.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 8, write=True)
    wrprotect = when(write, ptep_get_and_clear(), pte_wrprotect(), set_pte_at())
    each = for_each_table(
        pte_offset_map_lock(),
        for_each_pte(wrprotect),
        flush_tlb_range("table"),
        pte_unmap_unlock(),
    )
    process.run([mmap_read_lock(), for_each_vma(each), mmap_unlock()], BASE, 4 * PAGE)
    assert brief(lab) == ["run 0:4 freed"]
    process.touch(BASE, 8, write=True)
    assert lab.counters["nr_faults"] == 4


def test_a_nested_gather_flushes_everything(lab: Simulator) -> None:  # lab rule 9: even one that gathered nothing
    process = lab.process()
    process.mmap(PAGE, addr=BASE)
    gather: Block = [mmap_read_lock(), tlb_gather_mmu(), tlb_finish_mmu(), mmap_unlock()]
    process.run(gather, BASE, PAGE)
    assert brief(lab) == []
    process.run([inc_tlb_flush_pending(), gather, dec_tlb_flush_pending()], BASE, PAGE)
    assert lab.counters["nr_nested_finishes"] == 1
    assert brief(lab) == ["run all freed"]


def test_programs_by_hand_are_checked(lab: Simulator) -> None:
    process = lab.process()
    process.mmap(PAGE, addr=BASE)
    process.write(BASE)
    before = lab.state()
    with pytest.raises(ProgramError, match=r"custom\[0\].*flush_everything"):
        process.run([Step("flush_everything")], BASE, PAGE)
    with pytest.raises(ProgramError, match=r"custom\[1\].*dup_mm"):
        process.run([flush_tlb_mm(), dup_mm()], BASE, PAGE)
    with pytest.raises(ProgramError, match=r"custom\[0\].*0x5"):
        process.run([select_range_at(5, PAGE)], BASE, PAGE)
    with pytest.raises(OSError, match="EINVAL"):
        process.run([flush_tlb_mm()], BASE, 0)
    with pytest.raises(OSError, match="EINVAL"):
        process.run([flush_tlb_mm()], BASE + 1, PAGE)
    with pytest.raises(InputError):
        lab.apply({"op": "levitate", "task": 0})
    assert (lab.state(), lab.flushes) == (before, [])
    process.run([flush_tlb_mm()], BASE, PAGE)
    assert brief(lab) == ["run all freed"]


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.18", "consolidated"])
def test_both_machines_agree_on_everything(kernel: str) -> None:
    found = []
    for backend in BACKENDS:
        sim = Simulator(LAB, kernel, thp="madvise", backend=backend)
        process = sim.process(cpu=0)
        thread = process.thread(cpu=1)
        process.mmap(2 * PMD, addr=BASE)
        process.madvise(BASE + PMD, PMD, "hugepage")
        process.touch(BASE, 600, write=True)
        thread.touch(BASE, 20, stride_pages=30)
        with process.gather() as tlb:
            tlb.remove(BASE + 3 * PAGE, 40)
            tlb.flush()
            tlb.protect(BASE + PMD - 4 * PAGE, 8, "r")
            tlb.remove(BASE + PMD, 512)
        thread.sleep()
        process.run([flush_tlb_mm()], BASE, PAGE)
        process.munmap(BASE, 2 * PMD)
        found.append((sim.state(), sim.flushes, sim.tlb_events, sim.counters))
    assert found[0] == found[1]
    assert len(found[0][1]) > 3


def test_locks_of_programs_by_hand_have_to_pair() -> None:
    process = Simulator().process()
    process.mmap(PAGE, addr=BASE)
    with pytest.raises(ProgramError, match="mmap_lock is still held at the end"):
        process.run([mmap_read_lock()], BASE, PAGE)


def test_the_example_prints_both_lists(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "examples" / "scheme_in_thirty_lines.py"
    runpy.run_path(str(path))["main"](backend)
    printed = capsys.readouterr().out.splitlines()
    lines = [[column.strip() for column in line.split("   ") if column] for line in printed]
    start = 0x7FFF_F7FE_F000
    linux = [
        f"mprotect: cpu 0 mm 1, {start:#x} +3 pages, told 1",
        f"munmap: cpu 0 mm 1, {start:#x} +4 pages, told 1",
        f"run: cpu 0 mm 1, {start + 4 * PAGE:#x} +4 pages, told 1",
    ]
    pages_of = {"mprotect": range(3), "munmap": range(4), "run": range(4, 8)}
    eager = [
        f"{operation}: cpu 0 mm 1, {start + page * PAGE:#x} +1 page, told 1"
        for operation, touched in pages_of.items()
        for page in touched
    ]
    assert lines[0] == ["linux-6.18", "eager"]
    assert [line[0] for line in lines[1:4]] == linux
    assert [line[-1] for line in lines[1:]] == eager
