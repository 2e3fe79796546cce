"""The interface of the simulator, driven by hand on both machines."""

from __future__ import annotations

import doctest
import errno
import signal

import pytest

import tlbcore.simulator
import tlbcore.units
from bench_by_hand import BASE, LAB, brief
from tlbcore import InputError, ProgramError, kernels
from tlbcore.calls import FaultError
from tlbcore.flush_log import FLUSH_ALL
from tlbcore.simulator import File, Simulator
from tlbcore.units import PAGE


def test_the_examples_in_the_docstrings_run() -> None:
    for module in (tlbcore.simulator, tlbcore.units):
        outcome = doctest.testmod(module)
        assert outcome.attempted > 0
        assert outcome.failed == 0


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
