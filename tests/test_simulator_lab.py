"""Facts of real kernels, on both machines driven by hand.

"Lab" are flushes recorded from an unmodified Linux 6.1.192 (5 levels of page tables, no PCID), which is what
these tests run.
"""

from __future__ import annotations

import pytest

from bench_by_hand import BASE, LAB, brief
from tlbcore import InputError, kernels
from tlbcore.calls import FaultError
from tlbcore.simulator import Simulator
from tlbcore.units import PAGE, PMD


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


@pytest.mark.parametrize(("cleared", "expected"), [(False, ["mprotect 0:4"]), (True, ["mprotect 0:1"])])
def test_shared_memory_is_mapped_read_only_while_soft_dirty_is_tracked(
    lab: Simulator, *, cleared: bool, expected: list[str]
) -> None:  # vma_wants_writenotify()
    process = lab.process()
    process.mmap(8 * PAGE, addr=BASE, shared=True)
    if cleared:
        process.clear_refs(4)
    lab.clear()
    process.touch(BASE, 4)
    process.touch(BASE, 1, write=True)
    process.mprotect(BASE, 8 * PAGE, "r")
    assert brief(lab) == expected


def test_a_child_inherits_what_reclaim_left_unflushed(lab: Simulator) -> None:  # dup_mm() copies tlb_flush_batched
    process = lab.process(cpu=0)
    process.thread(cpu=1)
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 4, write=True)
    process.reclaim(BASE, 2)
    child = process.fork(cpu=2)
    brief(lab)
    child.munmap(BASE + 7 * PAGE, PAGE)
    process.munmap(BASE + 7 * PAGE, PAGE)
    assert brief(lab) == ["munmap all freed", "munmap all freed"]
    child.munmap(BASE + 6 * PAGE, PAGE)
    assert brief(lab) == []


@pytest.mark.parametrize(("thp", "nr_faults"), [("always", 0), ("never", 4)])
def test_a_child_gets_the_huge_zero_page_but_no_small_ones(backend: str, thp: str, nr_faults: int) -> None:
    # vma_needs_copy() asks for an anon_vma; do_huge_pmd_anonymous_page() prepares one for a read, too.
    sim = Simulator(LAB, "linux-6.1", thp=thp, backend=backend)
    process = sim.process(cpu=0)
    process.mmap(2 * PMD, addr=BASE)
    process.touch(BASE, 4)
    child = process.fork(cpu=1)
    before = sim.counters["nr_faults"]
    child.touch(BASE, 4)
    assert sim.counters["nr_faults"] - before == nr_faults


@pytest.mark.parametrize(
    ("kernel", "expected"), [("linux-6.1", ([], 4)), ("linux-6.18", (["mprotect 0:4"], 0))]
)  # d84887739d5c, v6.2
def test_clean_pages_become_writable_by_mprotect_since_6_2(
    backend: str, kernel: str, expected: tuple[list[str], int]
) -> None:
    sim = Simulator(LAB, kernel, backend=backend)
    process = sim.process()
    process.mmap(8 * PAGE, addr=BASE)
    process.touch(BASE, 4, write=True)
    process.madvise(BASE, 8 * PAGE, "free")
    process.mprotect(BASE, 8 * PAGE, "r")
    sim.clear()
    process.mprotect(BASE, 8 * PAGE, "rw")
    flushes, before = brief(sim), sim.counters["nr_faults"]
    process.touch(BASE, 4, write=True)
    assert (flushes, sim.counters["nr_faults"] - before) == expected


def areas(sim: Simulator) -> list[tuple[int, int]]:
    """First page and pages of each area of the latest address space."""
    return [
        ((vma["start"] - BASE) // PAGE, (vma["end"] - vma["start"]) // PAGE) for vma in sim.state()["mms"][-1]["vmas"]
    ]


def test_areas_with_pages_of_different_origin_stay_apart(lab: Simulator) -> None:  # is_mergeable_anon_vma()
    process = lab.process()
    process.mmap(10 * PAGE, addr=BASE)
    process.mprotect(BASE + 2 * PAGE, 6 * PAGE, "r")
    process.touch(BASE, 1, write=True)
    process.touch(BASE + 9 * PAGE, 1, write=True)
    process.mprotect(BASE + 2 * PAGE, 6 * PAGE, "rw")
    assert areas(lab) == [(0, 8), (8, 2)]
    # Neighbours that differ in rights alone have their pages in common.
    process.mprotect(BASE + 8 * PAGE, PAGE, "r")
    process.mprotect(BASE + 8 * PAGE, PAGE, "rw")
    assert areas(lab) == [(0, 8), (8, 2)]
    child = process.fork(cpu=1)
    child.mmap(2 * PAGE, addr=BASE + 10 * PAGE)
    process.mmap(2 * PAGE, addr=BASE + 10 * PAGE)
    assert areas(lab) == [(0, 8), (8, 2), (10, 2)], "areas that fork made do not grow"


@pytest.mark.parametrize(("kernel", "expected"), [("linux-6.1", 2), ("linux-6.18", 1)])
def test_an_untouched_area_takes_in_a_touched_one_since_6_16(backend: str, kernel: str, expected: int) -> None:
    sim = Simulator(LAB, kernel, backend=backend)  # 879bca0a2c4f
    process = sim.process()
    process.mmap(4 * PAGE, addr=BASE)
    process.mprotect(BASE + 2 * PAGE, 2 * PAGE, "r")
    process.mprotect(BASE + 2 * PAGE, 2 * PAGE, "rwx")
    process.touch(BASE + 3 * PAGE, 1, write=True)
    process.mprotect(BASE + 2 * PAGE, 2 * PAGE, "rw")
    assert len(areas(sim)) == expected


def test_fault_around_finds_no_hole(lab: Simulator) -> None:
    process = lab.process()
    file = lab.file(8)
    process.mmap(16 * PAGE, addr=BASE, file=file, shared=True)
    with pytest.raises(FaultError, match="SIGBUS"):
        process.touch(BASE + 8 * PAGE)
    process.truncate(file, 16)
    lab.clear()
    process.touch(BASE)
    process.munmap(BASE + PAGE, 15 * PAGE)
    assert brief(lab) == ["munmap 1:7"], "what was added at the end has to be read first"
    process.touch(BASE)
    process.munmap(BASE, PAGE)
    process.mmap(16 * PAGE, addr=BASE, file=file, shared=True)
    process.touch(BASE + 8 * PAGE)
    lab.clear()
    process.munmap(BASE + PAGE, 15 * PAGE)
    assert brief(lab) == ["munmap 1:15"], "one page is read with those around it"


def test_pageout_has_a_gather_for_each_area(backend: str) -> None:  # mm/madvise.c:madvise_pageout (v6.18.2)
    for kernel in ("linux-6.1", "linux-6.18"):
        sim = Simulator(LAB, kernel, backend=backend)
        process = sim.process()
        process.mmap(8 * PAGE, addr=BASE)
        process.mprotect(BASE + 2 * PAGE, 2 * PAGE, "r")
        before = sim.counters["nr_gathers"]
        process.madvise(BASE, 8 * PAGE, "pageout")
        assert sim.counters["nr_gathers"] - before == 3


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
