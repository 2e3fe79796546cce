"""Pinned lists of flushes, each worked out by hand from the kernel's source."""

from __future__ import annotations

import pytest

from reference.invariants import check_invariants, check_no_leaks
from reference.small_kernel import Bench
from tlbcore.reference.config import ALL

PAGE, PMD = 4096, 1 << 21
A = 0x7F0000203000  # the fourth page of the second PTE table of a PGD entry
PGD = 0x7F0000000000
RANGE = ("range_start", "range_end", "stride_shift", "freed_tables")


def test_munmap_of_an_untouched_area_flushes_the_folded_p4d() -> None:
    bench = Bench()
    bench.mmap(A, 1)
    bench.do("munmap", addr=A, len=PAGE)
    # p4d_free_tlb() of the folded level records one page at the start of the PGD entry, nothing else is there.
    assert bench.flushes(*RANGE) == [(PGD, PGD + PAGE, 12, True)]


def test_munmap_of_an_untouched_area_with_five_levels_flushes_nothing() -> None:
    bench = Bench({"levels": 5})
    bench.mmap(A, 1)
    bench.do("munmap", addr=A, len=PAGE)
    assert bench.flushes(*RANGE) == []


def test_a_neighbour_in_the_same_pgd_entry_keeps_the_folded_p4d() -> None:
    bench = Bench()
    bench.mmap(A, 1)
    bench.mmap(A - 8 * PMD + 16 * PMD, 1)
    bench.do("munmap", addr=A, len=PAGE)
    assert bench.flushes(*RANGE) == []


@pytest.mark.parametrize(("levels", "start"), [(4, PGD), (5, 0)])
def test_munmap_frees_all_tables_of_the_last_page(levels: int, start: int) -> None:
    bench = Bench({"levels": levels})
    bench.mmap(A, 1)
    bench.write(A)
    assert bench.machine.state()["mms"][1]["nr_tables"] == levels
    bench.do("munmap", addr=A, len=PAGE)
    assert bench.flushes(*RANGE) == [(start, A + PAGE, 12, True)]
    assert bench.flushes("start", "end", "gen") == [(0, ALL, 2)]
    assert bench.machine.state()["mms"][1]["nr_tables"] == 1
    assert bench.machine.counters()["nr_table_frees"] == levels - 1


def test_partial_munmap_flushes_one_page() -> None:
    bench = Bench()
    bench.mmap(A, 3)
    bench.write(A, A + PAGE, A + 2 * PAGE)
    bench.do("munmap", addr=A + PAGE, len=PAGE)
    assert bench.flushes(*RANGE) == [(A + PAGE, A + 2 * PAGE, 12, False)]
    assert bench.machine.tlb_events()[-1] == {"request": 0, "cpu": 0, "reason": 3, "pages": 1}


def test_freeing_a_table_between_kept_ones() -> None:
    bench = Bench()
    bench.mmap(PGD + 2 * PMD, 3 * 512)
    bench.write(PGD + 2 * PMD, PGD + 3 * PMD + 5 * PAGE, PGD + 4 * PMD)
    bench.do("munmap", addr=PGD + 3 * PMD, len=PMD)
    # The entry, and the first page of the table that goes; the PMD table stays.
    assert bench.flushes(*RANGE) == [(PGD + 3 * PMD, PGD + 3 * PMD + 6 * PAGE, 12, True)]


def test_dirty_file_pages_flush_before_the_lock_is_dropped_and_again_for_the_tables() -> None:
    bench = Bench({"levels": 5})
    file = bench.do("create_file", shmem=False, nr_pages=64)
    bench.mmap(A, 2, shared=True, file=file)
    bench.write(A)
    bench.do("munmap", addr=A, len=2 * PAGE)
    assert bench.flushes(*RANGE) == [(A, A + PAGE, 12, False), (0, A - 2 * PAGE, 21, True)]
    check_invariants(bench.machine)


def test_mprotect_flushes_from_the_first_to_the_last_touched_page() -> None:
    bench = Bench()
    bench.mmap(A, 10)
    bench.write(A + 2 * PAGE, A + 5 * PAGE)
    bench.do("mprotect", addr=A, len=10 * PAGE, prot=1)
    assert bench.flushes(*RANGE) == [(A + 2 * PAGE, A + 6 * PAGE, 12, False)]
    bench.do("mprotect", addr=A, len=10 * PAGE, prot=1)
    assert len(bench.machine.flushes()) == 1


def test_mprotect_that_gives_a_right_back_flushes_too() -> None:
    bench = Bench()
    bench.mmap(A, 1)
    bench.write(A)
    bench.do("mprotect", addr=A, len=PAGE, prot=1)
    bench.do("mprotect", addr=A, len=PAGE, prot=3)
    assert bench.flushes("range_start", "gen") == [(A, 2), (A, 3)]


def test_more_strides_than_the_ceiling_flush_everything() -> None:
    bench = Bench()
    bench.mmap(A, 40)
    bench.write(*(A + n * PAGE for n in range(34)))
    bench.do("mprotect", addr=A, len=33 * PAGE, prot=1)
    bench.do("mprotect", addr=A, len=34 * PAGE, prot=5)
    assert bench.flushes("start", "end") == [(A, A + 33 * PAGE), (0, ALL)]


def test_fork_flushes_all_and_a_copy_one_page() -> None:
    bench = Bench()
    bench.mmap(A, 2)
    bench.write(A, A + PAGE)
    child = bench.do("fork")
    bench.do("schedule", cpu=1, task=child)
    bench.write(A)
    assert bench.flushes("mm", "range_start", "range_end", "freed_tables") == [
        (1, 0, ALL, True),
        (1, A, A + PAGE, False),
    ]
    bench.write(A, task=child)  # the only user now: written in place
    assert len(bench.machine.flushes()) == 2
    check_invariants(bench.machine)


def test_mremap_flushes_once_per_table_of_either_side() -> None:
    bench = Bench({"levels": 5})
    old, new = PGD + 510 * PAGE, PGD + 1024 * PMD + 511 * PAGE
    bench.mmap(old, 4)
    bench.write(*(old + n * PAGE for n in range(4)))
    arguments = {"maymove": True, "fixed": True, "dontunmap": False, "new": new}
    bench.do("mremap", old=old, old_len=4 * PAGE, new_len=4 * PAGE, **arguments)
    moved = [row[:2] for row in bench.flushes("range_start", "range_end")][:3]
    assert moved == [(old, old + PAGE), (old + PAGE, old + 2 * PAGE), (old + 2 * PAGE, old + 4 * PAGE)]
    assert [row[0] for row in bench.machine.state()["mms"][1]["ptes"]] == [new + n * PAGE for n in range(4)]
    check_invariants(bench.machine)


def test_mremap_moves_a_whole_table() -> None:
    bench = Bench({"levels": 5})
    bench.mmap(PGD, 512)
    bench.write(PGD, PGD + 7 * PAGE)
    new = PGD + 600 * PMD
    arguments = {"maymove": True, "fixed": True, "dontunmap": False, "new": new}
    bench.do("mremap", old=PGD, old_len=PMD, new_len=PMD, **arguments)
    assert bench.flushes("range_start", "range_end", "start")[0] == (PGD, PGD + PMD, 0)
    assert [row[0] for row in bench.machine.state()["mms"][1]["ptes"]] == [new, new + 7 * PAGE]
    check_invariants(bench.machine)


def test_exit_flushes_once_and_leaves_nothing() -> None:
    bench = Bench()
    bench.mmap(A, 20)
    bench.write(A, A + 3 * PAGE)
    bench.do("exit")
    assert bench.flushes("range_start", "range_end", "freed_tables") == [(0, ALL, True)]
    cpu = bench.machine.state()["cpus"][0]
    assert (cpu["curr"], cpu["loaded_mm"], cpu["is_lazy"]) == (None, 0, False)  # the flush made it leave the dead mm
    check_no_leaks(bench.machine)


def test_a_full_gather_flushes_and_goes_on() -> None:
    bench = Bench(gather_bundle=2, gather_batch=3, gather_batch_count=1)
    bench.mmap(A, 20)
    bench.write(*(A + n * PAGE for n in range(12)))
    bench.do("munmap", addr=A, len=12 * PAGE)
    spans = bench.flushes("range_start", "range_end")
    assert spans == [(A, A + 5 * PAGE), (A + 5 * PAGE, A + 10 * PAGE), (A + 10 * PAGE, A + 12 * PAGE)]
