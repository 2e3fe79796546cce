"""What kernels of the lab showed in scenarios that were not among those given, on both machines driven by hand."""

from __future__ import annotations

import pytest

from bench_by_hand import BASE, LAB, brief
from tlbcore import kernels
from tlbcore.simulator import Simulator
from tlbcore.units import PAGE, PMD


def sim_of(kernel: str, backend: str, **config: object) -> Simulator:
    """Return a machine of the lab with swap under a kernel."""
    return Simulator({**LAB, "swap": True, **config}, kernel, backend=backend)


def nr_taken(sim: Simulator) -> int:
    """How many pages reclaim took: each of them dirty, so that each had a flush of its own."""
    return sum(flush.kind == "batch" for flush in sim.flushes)


@pytest.mark.parametrize(("kernel", "size"), [("linux-5.10", 15), ("linux-6.1", 15), ("linux-6.18", 31)])
def test_pages_that_wait_for_the_lru_are_not_paged_out_by_another_cpu(backend: str, kernel: str, size: int) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    other = process.thread(cpu=1)
    process.mmap(128 * PAGE, addr=BASE)
    other.touch(BASE, size - 1, write=True)
    process.madvise(BASE, (size - 1) * PAGE, "pageout")
    assert nr_taken(sim) == 0
    other.touch(BASE + (size - 1) * PAGE, 1, write=True)
    sim.clear()
    process.madvise(BASE, size * PAGE, "pageout")
    assert nr_taken(sim) == size
    # The own ones do not wait.
    process.touch(BASE + 64 * PAGE, 3, write=True)
    sim.clear()
    process.madvise(BASE + 64 * PAGE, 3 * PAGE, "pageout")
    assert nr_taken(sim) == 3


@pytest.mark.parametrize(("kernel", "nr_taken_after"), [("linux-5.10", 4), ("linux-6.1", 4), ("linux-6.18", 0)])
def test_unmapping_empties_the_batch_until_6_13(backend: str, kernel: str, nr_taken_after: int) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    other = process.thread(cpu=1)
    process.mmap(16 * PAGE, addr=BASE)
    process.mmap(PAGE, addr=BASE + PMD)
    other.touch(BASE, 4, write=True)
    other.munmap(BASE + PMD, PAGE)
    sim.clear()
    process.madvise(BASE, 4 * PAGE, "pageout")
    assert nr_taken(sim) == nr_taken_after


@pytest.mark.parametrize(
    ("kernel", "expected"), [("linux-6.1", []), ("linux-6.18", []), ("linux-5.10", ["madvise_cold 0:4"])]
)
def test_what_waits_does_not_grow_cold_since_6_0(backend: str, kernel: str, expected: list[str]) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    other = process.thread(cpu=1)
    process.mmap(8 * PAGE, addr=BASE)
    other.touch(BASE, 4, write=True)
    sim.clear()
    process.madvise(BASE, 4 * PAGE, "cold")
    assert brief(sim) == expected


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-6.18"])
@pytest.mark.parametrize("waits_elsewhere", [True, False])
def test_a_page_that_a_batch_holds_is_copied_after_its_child_has_gone(
    *, backend: str, kernel: str, waits_elsewhere: bool
) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    maker = process.thread(cpu=1) if waits_elsewhere else process
    process.mmap(4 * PAGE, addr=BASE)
    maker.touch(BASE, 1, write=True)
    child = process.fork(cpu=2)
    child.exit()
    sim.clear()
    process.write(BASE)
    by_count = kernel == "linux-5.10"  # where the own batch counts too, and the child's end has not emptied it
    assert brief(sim) == (["write 0:1"] if waits_elsewhere or by_count else [])


@pytest.mark.parametrize(("kernel", "is_dirty"), [("linux-6.1", False), ("linux-6.18", True)])
def test_a_read_fault_of_a_dirty_shared_page_makes_a_dirty_entry_since_6_16(
    *, backend: str, kernel: str, is_dirty: bool
) -> None:
    sim = sim_of(kernel, backend)
    shared = sim.file(4, shmem=True)
    writer, reader = sim.process(cpu=0), sim.process(cpu=1)
    for process in (writer, reader):
        process.mmap(4 * PAGE, addr=BASE, shared=True, file=shared)
    writer.touch(BASE, 4, write=True)
    reader.touch(BASE, 4)
    sim.clear()
    reader.madvise(BASE, 4 * PAGE, "dontneed")
    # Dirty entries are flushed before the lock is dropped, and nothing is left for the end.
    assert sim.counters["nr_flush_requests"] == 1
    other = sim.process(cpu=2)
    other.mmap(4 * PAGE, addr=BASE, shared=True, file=shared)
    other.read(BASE)
    entries = [text for mm in sim.state()["mms"] if mm["id"] == other.mm for _, _, text in mm["ptes"]]
    assert all(("D" in text.split()) is is_dirty for text in entries), entries


@pytest.mark.parametrize(("kernel", "nr_faults"), [("linux-6.1", 4), ("linux-6.18", 1)])
def test_the_huge_zero_page_is_replaced_whole_since_6_13(backend: str, kernel: str, nr_faults: int) -> None:
    sim = sim_of(kernel, backend, thp="always")
    process = sim.process(cpu=0)
    process.mmap(PMD, addr=BASE)
    process.read(BASE)
    sim.clear()
    process.touch(BASE, 4, write=True)
    assert sim.counters["nr_faults"] == nr_faults
    assert brief(sim)[0] == "write all freed"  # 512 small pages are more than the ceiling


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-6.18"])
def test_a_hole_in_a_file_leaves_copies_of_its_pages(backend: str, kernel: str) -> None:
    sim = sim_of(kernel, backend)
    file = sim.file(8)
    process = sim.process(cpu=0)
    process.mmap(8 * PAGE, addr=BASE, file=file)
    process.touch(BASE, 2, write=True)
    process.touch(BASE + 2 * PAGE, 1)
    sim.clear()
    process.truncate(file, 0, 2)
    assert brief(sim) == []
    process.truncate(file, 0)
    assert len(brief(sim)) == 1


def test_walks_meet_areas_by_when_they_came(backend: str) -> None:
    """The area of a child comes right behind the parent's, and a parent's whose end changes comes anew behind it."""
    sim = sim_of("linux-6.1", backend)
    file = sim.file(8)
    process = sim.process(cpu=0)
    process.mmap(8 * PAGE, addr=BASE, shared=True, file=file)
    process.write(BASE)
    child = process.fork(cpu=1)
    child.write(BASE)
    for cut, expected in ((False, [process.mm, child.mm]), (True, [child.mm, process.mm])):
        if cut:
            process.munmap(BASE + 4 * PAGE, 4 * PAGE)
        for one in (process, child):
            one.write(BASE)
        sim.clear()
        process.fsync(file)
        assert [flush.mm for flush in sim.flushes] == expected


def test_kernels_before_the_batches_can_be_had() -> None:
    kernel = kernels.get("linux-6.18").derive("at once", constants={"lru_add_batch": 0})
    sim = Simulator({**LAB, "swap": True}, kernel)
    process = sim.process(cpu=0)
    other = process.thread(cpu=1)
    process.mmap(8 * PAGE, addr=BASE)
    other.touch(BASE, 2, write=True)
    process.madvise(BASE, 2 * PAGE, "pageout")
    assert nr_taken(sim) == 2


@pytest.mark.parametrize(("kernel", "freed"), [("linux-6.1", ""), ("linux-6.18", " freed")])
def test_dontneed_frees_tables_that_it_empties_whole_since_6_14(backend: str, kernel: str, freed: str) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    process.mmap(2 * PMD, addr=BASE)
    process.touch(BASE, 4, write=True)
    process.touch(BASE + PMD, 4, write=True)
    sim.clear()
    process.madvise(BASE, PMD, "dontneed")
    process.madvise(BASE + PMD, PMD - PAGE, "dontneed")
    assert brief(sim) == [f"madvise_dontneed 0:4{freed}", "madvise_dontneed 512:4"]


@pytest.mark.parametrize(("kernel", "nr_written", "nr_zero"), [("linux-6.1", 20, 20), ("linux-6.18", 2, 0)])
def test_advice_for_a_part_of_ones_own_huge_page_splits_the_page(
    backend: str, kernel: str, nr_written: int, nr_zero: int
) -> None:
    """Its parts are paged out as small pages; since 6.12 what was never written is the zero page then."""
    sim = sim_of(kernel, backend, thp="always")
    process = sim.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(2 * PMD, addr=BASE)
    for start in (BASE, BASE + PMD):
        process.write(start)
    process.touch(BASE + 10 * PAGE, 2, write=True)
    sim.clear()
    process.madvise(BASE + 10 * PAGE, 20 * PAGE, "pageout")
    assert nr_taken(sim) == nr_written
    assert brief(sim)[0] == "madvise_pageout all freed"
    sim.clear()
    process.madvise(BASE + PMD + 10 * PAGE, 20 * PAGE, "pageout")
    assert nr_taken(sim) == nr_zero


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-6.18"])
@pytest.mark.parametrize("advice", ["pageout", "cold", "free"])
def test_a_huge_page_that_others_map_is_left_alone(backend: str, kernel: str, advice: str) -> None:
    sim = sim_of(kernel, backend, thp="always")
    process = sim.process(cpu=0)
    process.mmap(2 * PMD, addr=BASE)
    process.write(BASE)
    process.read(BASE + PMD)  # the huge zero page
    process.fork(cpu=1)
    sim.clear()
    for start in (BASE, BASE + PMD):
        process.madvise(start + PAGE, PAGE, advice)
        process.madvise(start, PMD, advice)
    assert brief(sim) == []


def test_no_table_is_walked_after_a_whole_huge_page(backend: str) -> None:
    """What MADV_PAGEOUT leaves deferred when it has split and unmapped a huge page waits for the next call."""
    sim = sim_of("linux-6.1", backend, thp="always")
    process = sim.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(PMD, addr=BASE)
    process.write(BASE)
    process.madvise(BASE, PMD, "pageout")
    assert sim.counters["nr_batched_pending_flushes"] == 0
    process.madvise(BASE, PMD, "dontneed")
    assert sim.counters["nr_batched_pending_flushes"] == 1


def test_holes_meet_the_areas_of_a_file_by_when_they_came(backend: str) -> None:
    sim = sim_of("linux-6.18", backend)
    file = sim.file(8)
    process = sim.process(cpu=0)
    process.mmap(8 * PAGE, addr=BASE, shared=True, file=file)
    child = process.fork(cpu=1)
    process.munmap(BASE + 4 * PAGE, 4 * PAGE)  # comes anew, behind the child's
    for one in (process, child):
        one.read(BASE)
    sim.clear()
    process.truncate(file, 0, 2)
    assert [flush.mm for flush in sim.flushes] == [child.mm, process.mm]


@pytest.mark.parametrize(
    ("kernel", "of_file", "nr_areas"),
    [("linux-6.1", True, 3), ("linux-6.18", True, 3), ("linux-6.1", False, 3), ("linux-6.18", False, 1)],
)
def test_what_was_writable_once_stays_an_area_of_its_own(
    *, backend: str, kernel: str, of_file: bool, nr_areas: int
) -> None:
    sim = sim_of(kernel, backend)
    process = sim.process(cpu=0)
    process.mmap(9 * PAGE, "r", addr=BASE, file=sim.file(9) if of_file else None)
    for rights in ("rw", "r"):
        process.mprotect(BASE + 3 * PAGE, 3 * PAGE, rights)
    vmas = next(mm["vmas"] for mm in sim.state()["mms"] if mm["id"] == process.mm)
    assert len(vmas) == nr_areas
