"""The simulator driven by hand, on both machines; facts of real kernels where the comment says so.

"Lab" are flushes recorded from an unmodified Linux 6.1.192 (5 levels of page tables, no PCID), which is what the tests
of those facts run.
"""

from __future__ import annotations

import doctest
import errno
import runpy
import signal
from pathlib import Path

import pytest

import tlbcore.simulator
import tlbcore.units
from tlbcore import InputError, ProgramError, kernels
from tlbcore.backend import BACKENDS
from tlbcore.calls import FaultError
from tlbcore.flush_log import FLUSH_ALL
from tlbcore.schemes import MmuGather
from tlbcore.simulator import DEFAULT_MACHINE, File, Simulator
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

BASE = 0x1000_0000_0000
LAB = {**DEFAULT_MACHINE, "levels": 5, "pcid": False}


@pytest.fixture(params=["core", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def lab(backend: str) -> Simulator:
    return Simulator(LAB, "linux-6.1", backend=backend)


def brief(sim: Simulator, base: int = BASE) -> list[str]:
    """Each flush by operation, first page from `base`, pages, and freed tables; then they are forgotten."""
    found = []
    for flush in sim.flushes:
        what = "all" if flush.is_full else f"{(flush.start - base) // PAGE}:{flush.nr_pages}"
        found.append(f"{flush.operation} {what}{' freed' if flush.freed_tables else ''}")
    sim.clear()
    return found


def test_the_examples_in_the_docstrings_run() -> None:
    for module in (tlbcore.simulator, tlbcore.units):
        outcome = doctest.testmod(module)
        assert outcome.attempted > 0
        assert outcome.failed == 0


# --- facts of the lab ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nr_pages", "expected"), [(1, "munmap 10:1"), (33, "munmap 10:33"), (34, "munmap all")])
def test_more_than_33_pages_become_a_full_flush(lab: Simulator, nr_pages: int, expected: str) -> None:  # lab rule 1
    process = lab.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    process.munmap(BASE + 10 * PAGE, nr_pages * PAGE)
    assert brief(lab) == [expected]


@pytest.mark.parametrize(("ceiling", "expected"), [(10, "munmap all"), (11, "munmap 0:11")])
def test_the_ceiling_is_a_constant_of_the_kernel(backend: str, ceiling: int, expected: str) -> None:
    kernel = kernels.get("linux-6.1").derive("mine", constants={"tlb_single_page_flush_ceiling": ceiling})
    sim = Simulator(LAB, kernel, backend=backend)
    process = sim.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    process.munmap(BASE, 11 * PAGE)
    assert brief(sim) == [expected]


def test_munmap_flushes_what_was_touched(lab: Simulator) -> None:  # lab rule 2
    process = lab.process()
    process.mmap(64 * PAGE, addr=BASE)
    process.munmap(BASE + 8 * PAGE, 8 * PAGE)
    assert brief(lab) == []
    process.touch(BASE + 22 * PAGE, 3, write=True, stride_pages=2)
    process.touch(BASE, 1)
    process.munmap(BASE + 20 * PAGE, 20 * PAGE)
    assert brief(lab) == ["munmap 22:5"]


def test_freed_tables_pull_the_start_down(lab: Simulator) -> None:  # lab rule 3
    process = lab.process()
    process.mmap(PAGE, addr=BASE)
    process.touch(BASE)
    second = process.mmap(4 * PAGE, addr=BASE + PMD + 10 * PAGE)
    process.touch(second, 4, write=True)
    process.munmap(second, 4 * PAGE)
    assert brief(lab) == ["munmap 512:14 freed"]
    process.munmap(BASE, PAGE)
    assert brief(lab) == ["munmap all freed"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("r", None, ["mprotect 0:4"]),
        ("r", "rw", ["mprotect 0:4", "mprotect 0:4"]),
        ("none", None, ["mprotect 0:4"]),
        ("none", "rw", ["mprotect 0:4"]),
        ("r", "r", ["mprotect 0:4"]),
        ("rwx", None, ["mprotect 0:4"]),
    ],
)
def test_mprotect_flushes_changes_that_matter(
    lab: Simulator, first: str, second: str | None, expected: list[str]
) -> None:  # lab rule 5
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 4, write=True)
    process.mprotect(BASE, 8 * PAGE, first)
    if second is not None:
        process.mprotect(BASE, 8 * PAGE, second)
    assert brief(lab) == expected


def test_mprotect_of_the_zero_page(lab: Simulator) -> None:  # lab rule 5
    process = lab.process()
    process.mmap(4 * PAGE, addr=BASE)
    process.touch(BASE, 4)
    process.mprotect(BASE, 4 * PAGE, "r")
    assert brief(lab) == []
    process.mprotect(BASE, 4 * PAGE, "none")
    assert brief(lab) == ["mprotect 0:4"]


@pytest.mark.parametrize("advice", ["dontneed", "free", "cold"])
def test_madvise_flushes_once_and_not_again(lab: Simulator, advice: str) -> None:  # lab rule 6
    process = lab.process()
    process.mmap(16 * PAGE, addr=BASE)
    process.touch(BASE + 2 * PAGE, 8, write=True)
    process.madvise(BASE, 16 * PAGE, advice)
    assert brief(lab) == [f"madvise_{advice} 2:8"]
    process.madvise(BASE, 16 * PAGE, advice)
    assert brief(lab) == []


def test_mremap_flushes_each_table(lab: Simulator) -> None:  # lab rule 7
    process = lab.process()
    process.mmap(2 * PMD, addr=BASE)
    process.touch(BASE + 500 * PAGE, 24, write=True)
    target = BASE + (1 << 32)
    moved = process.mremap(BASE + 508 * PAGE, 8 * PAGE, 8 * PAGE, new_addr=target)
    assert moved == target
    assert brief(lab) == ["mremap 508:4 freed", "mremap 512:4 freed"]


def test_fork_and_copy_on_write(lab: Simulator) -> None:  # lab rule 8
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 2, write=True)
    child = process.fork(cpu=1)
    assert brief(lab) == ["fork all freed"]
    process.touch(BASE, 2, write=True)
    assert brief(lab) == ["write 0:1", "write 1:1"]
    child.touch(BASE, 2, write=True)
    assert brief(lab) == []
    assert child.mm != process.mm


def test_the_first_write_to_a_zero_page(lab: Simulator) -> None:  # lab rule 8
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 2)
    process.touch(BASE, 3, write=True)
    assert brief(lab) == ["write 0:1", "write 1:1"]


def test_msync_flushes_each_dirty_page(lab: Simulator) -> None:  # lab rule 8
    process = lab.process()
    file = lab.file(16)
    process.mmap(16 * PAGE, addr=BASE, file=file, shared=True)
    process.touch(BASE, 4, write=True, stride_pages=3)
    brief(lab)
    process.msync(BASE, 16 * PAGE)
    assert brief(lab) == ["msync 0:1", "msync 3:1", "msync 6:1", "msync 9:1"]
    process.fsync(file)
    assert brief(lab) == []


def test_clear_refs(lab: Simulator) -> None:  # lab rule 8
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 2, write=True)
    process.clear_refs(1)
    assert brief(lab) == []
    process.clear_refs(4)
    assert [text.split()[:2] for text in brief(lab)] == [["clear_refs", "all"]]


def test_reclaim_on_one_cpu_flushes_each_page(lab: Simulator) -> None:  # lab rule 10
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 3, write=True)
    process.reclaim(BASE, 3)
    assert brief(lab) == ["reclaim 0:1", "reclaim 1:1", "reclaim 2:1"]


def test_reclaim_defers_when_others_have_the_mm(lab: Simulator) -> None:  # lab rule 10
    process = lab.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(8 * PAGE, addr=BASE, file=lab.file(8))
    process.touch(BASE, 1)
    brief(lab)
    process.reclaim(BASE, 8)
    (flush,) = lab.flushes
    assert (flush.kind, flush.mm, flush.is_full, flush.told.cpulist) == ("batch", None, True, "1")
    assert brief(lab) == ["reclaim all"]
    process.mmap(2 * PAGE, addr=BASE + PMD)
    process.touch(BASE, 2)
    process.munmap(BASE, PAGE)
    pending, own = (text.split()[:2] for text in brief(lab))
    assert (pending, own) == (["munmap", "all"], ["munmap", "0:1"])
    process.munmap(BASE + PAGE, PAGE)
    assert brief(lab) == ["munmap 1:1"]


def test_threads_on_other_cpus_are_told(lab: Simulator) -> None:  # lab rule 11
    process = lab.process(cpu=0)
    process.thread(cpu=1)
    process.thread(cpu=3)
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    lab.clear()
    process.munmap(BASE, PAGE)
    (flush,) = lab.flushes
    assert (flush.told.cpulist, flush.mask.cpulist, flush.remote) == ("1,3", "0-1,3", True)
    assert flush.nothing_cached.cpulist == "1,3"
    assert repr(flush) == "<Flush munmap: cpu 0 mm 1, 0x100000000000 +1 page, told 1,3>"
    reasons = [(event.cpu, event.reason, event.nr_pages) for event in lab.tlb_events]
    assert reasons == [(0, 4, 1), (0, 3, 1), (1, 1, 1), (3, 1, 1)]


def test_lazy_cpus_are_spared_unless_tables_go(lab: Simulator) -> None:  # lab rule 11
    process = lab.process(cpu=0)
    sleeper = process.thread(cpu=1)
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 64, write=True)
    sleeper.sleep()
    assert not sleeper.running
    process.munmap(BASE, PAGE)
    process.munmap(BASE, 64 * PAGE)
    process.mmap(64 * PAGE, addr=BASE)
    process.touch(BASE, 2, write=True)
    process.munmap(BASE, PAGE)
    masks = [(f.mask.cpulist, f.told.cpulist, f.lazy_skipped.cpulist, f.lazy_left.cpulist) for f in lab.flushes]
    assert masks == [("0-1", "", "1", ""), ("0-1", "1", "", "1"), ("0", "", "", "")]
    assert str(lab.flushes[1]).endswith("all, freed_tables, told 1, lazy left 1")


@pytest.mark.parametrize(("kernel", "mask", "gone"), [("linux-6.1", "0", ""), ("linux-6.18", "0-1", "1")])
def test_who_switched_away(backend: str, kernel: str, mask: str, gone: str) -> None:  # lab rule 11; 209954cbc7d0
    sim = Simulator(LAB, kernel, backend=backend)
    process, other = sim.process(cpu=0), sim.process(cpu=2)
    process.thread(cpu=1)
    sim.idle(2)
    sim.schedule(1, other.main)
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 8, write=True)
    process.munmap(BASE, 4 * PAGE)
    process.munmap(BASE, 8 * PAGE)
    ranged, full = sim.flushes
    assert (ranged.mask.cpulist, ranged.told.cpulist) == (mask, "")
    assert (full.freed_tables, full.told.cpulist, full.gone.cpulist) == (True, gone, gone)


def test_huge_pages_are_counted_in_their_own_size(backend: str) -> None:  # lab rule 12
    sim = Simulator(LAB, "linux-6.1", thp="always", backend=backend)
    process = sim.process()
    process.mmap(8 * PMD, addr=BASE)
    process.touch(BASE, 8, write=True, stride_pages=512)
    process.munmap(BASE + PMD, 4 * PMD)
    (flush,) = sim.flushes
    assert (flush.stride_shift, flush.nr_strides, flush.nr_pages, flush.start) == (21, 4, 2048, BASE + PMD)


def test_exit_flushes_everything(lab: Simulator) -> None:  # lab rule 13
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 8, write=True)
    process.exit()
    assert brief(lab) == ["exit all freed"]
    assert process.threads == ()
    with pytest.raises(InputError, match="process: found that it exited"):
        process.mmap(PAGE)


# --- the interface ---------------------------------------------------------------------------------------------------


def test_errnos_become_os_errors(lab: Simulator) -> None:
    process = lab.process()
    with pytest.raises(OSError, match="mmap at 0x1: EINVAL") as refused:
        process.mmap(PAGE, addr=1)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="ENOMEM") as hole:
        process.mprotect(BASE, PAGE, "r")
    assert hole.value.errno == errno.ENOMEM


def test_signals_become_fault_errors(lab: Simulator) -> None:
    process = lab.process()
    with pytest.raises(FaultError, match="read at 0x100000000000: SIGSEGV") as segv:
        process.read(BASE)
    assert (segv.value.errno, segv.value.signal) == (errno.EFAULT, signal.SIGSEGV)
    process.mmap(2 * PAGE, addr=BASE, file=lab.file(1), shared=True)
    process.write(BASE)
    with pytest.raises(FaultError) as bus:
        process.write(BASE + PAGE)
    assert bus.value.signal == signal.SIGBUS


def test_what_cannot_be_asked_for_is_an_input_error(lab: Simulator) -> None:
    process = lab.process(cpu=0)
    with pytest.raises(InputError, match="cpu: found 4, expected 0 to 3"):
        lab.process(cpu=4)
    with pytest.raises(InputError, match="prot: found 'rq', expected letters"):
        process.mmap(PAGE, "rq")
    with pytest.raises(InputError, match="offset is 5, expected a multiple of 4096"):
        process.mmap(PAGE, file=lab.file(1), offset=5)
    with pytest.raises(InputError):
        process.mmap(PAGE, file=File(id=99, nr_pages=1, shmem=False))
    for cpu in (1, 2, 3):
        lab.process(cpu)
    with pytest.raises(InputError, match="found a thread on each of the 4 CPUs"):
        lab.process()
    with pytest.raises(InputError, match="backend: found 'fast', expected one of core, reference"):
        Simulator(backend="fast")
    with pytest.raises(InputError, match=r"found kernel 'linux-6\.17'"):
        Simulator(kernel="linux-6.17")


def test_machines_and_kernels_in_all_their_forms(backend: str) -> None:
    class Described:
        def config(self) -> dict[str, object]:
            return dict(LAB)

    kernel = kernels.get("linux-6.1")
    for form in (kernel, kernel.resolve(), "linux-6.1"):
        sim = Simulator(Described(), form, nr_cpus=2, backend=backend)
        assert repr(sim) == "<Simulator linux-6.1, 2 CPUs>"
        process = sim.process()
        process.mmap(PAGE, addr=BASE)
        process.write(BASE)
        process.madvise(BASE, PAGE, "dontneed")
        assert brief(sim) == ["madvise_dontneed 0:1"]


def test_machines_by_name(backend: str) -> None:
    sim = Simulator("skylake_sp:nr_cpus=3", nr_cpus=2, backend=backend)
    assert sim.nr_cpus == 2
    sim.process().mmap(PAGE, populate=True)
    with pytest.raises(InputError, match="machine"):
        Simulator("pdp11", backend=backend)


def test_a_call_of_a_sleeping_thread_wakes_it(lab: Simulator) -> None:
    process = lab.process(cpu=2)
    thread = process.main
    thread.sleep()
    assert lab.current(2) is None
    process.mmap(PAGE, addr=BASE)
    assert (lab.current(2), thread.running, thread.cpu) == (thread.task, True, 2)
    thread.schedule(0)
    assert (lab.current(0), lab.current(2), thread.cpu) == (thread.task, None, 0)


def test_a_forked_child_takes_its_parents_cpu_if_it_has_none(lab: Simulator) -> None:
    parent = lab.process(cpu=1)
    child = parent.fork()
    assert parent.main.running
    child.mmap(PAGE, addr=BASE)
    assert (child.main.cpu, child.main.running, parent.main.running) == (1, True, False)


def test_exec_ends_the_other_threads(lab: Simulator) -> None:
    process = lab.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(PAGE, addr=BASE)
    old = process.mm
    process.exec()
    assert (len(process.threads), lab.current(1)) == (1, None)
    assert process.mm != old
    with pytest.raises(FaultError):
        process.read(BASE)


def test_clear_forgets_what_happened_but_not_the_machine(lab: Simulator) -> None:
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 8, write=True)
    process.munmap(BASE, PAGE)
    assert lab.counters["nr_flush_requests"] == 1
    before = lab.state()
    lab.clear()
    assert (lab.flushes, lab.tlb_events, set(lab.counters.values())) == ([], [], {0})
    assert lab.state() == before
    process.munmap(BASE + PAGE, PAGE)
    assert (lab.counters["nr_flush_requests"], len(lab.flushes), len(lab.tlb_events)) == (1, 1, 1)
    assert lab.flushes[0].operation == "munmap"


def test_heap_and_shared_memory(lab: Simulator) -> None:
    process = lab.process()
    start = process.brk()
    assert process.brk(start + 4 * PAGE) == start + 4 * PAGE
    process.touch(start, 4, write=True)
    assert process.brk(start + PAGE) == start + PAGE
    assert brief(lab, start) == ["brk 1:3"]
    memory = lab.file(8, shmem=True)
    process.mmap(8 * PAGE, addr=BASE, file=memory, shared=True, offset=2 * PAGE)
    process.touch(BASE, 2, write=True)
    brief(lab)
    process.truncate(memory, 3, 1)
    assert brief(lab) == ["truncate 1:1"]


def test_a_full_flush_says_so(lab: Simulator) -> None:
    process = lab.process()
    process.fork()
    (flush,) = lab.flushes
    assert (flush.is_full, flush.nr_pages, flush.nr_strides, flush.end) == (True, None, None, FLUSH_ALL)
    assert str(flush) == "fork: cpu 0 mm 1, all, freed_tables, told nobody"


def test_an_unknown_step_of_a_kernel_is_a_program_error(backend: str) -> None:
    kernel = kernels.get("linux-6.1").resolve()
    programs = kernel["programs"]
    assert isinstance(programs, dict)
    broken = kernel | {"programs": programs | {"munmap": [{"step": "flush_everything"}]}}
    with pytest.raises(ProgramError, match=r"munmap\[0\].*flush_everything"):
        Simulator(kernel=broken, backend=backend)


# --- programs of one's own -------------------------------------------------------------------------------------------


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
