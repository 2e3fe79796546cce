"""What a recording cannot decide: for each class a small recording that belongs, and one beside it that does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from given_data import LAB, load, machine
from perf_text import DONTNEED, FIRST, MADVISE, MUNMAP, PAGE, PID, SECOND, PerfText
from tlbcore import recordings
from tlbcore.cli.validate import text as shown
from tlbcore.validate import KINDS, Validation, validate, validate_folder

A = 0x7F0000000000
B = A + 64 * PAGE
C = B + 8 * PAGE
"""All in one page table, which C keeps: no table is freed."""
FULL = -1
EXECVE = 59
LATER = 40
"""More microseconds than any IPI of these recordings takes."""


def wait(text: PerfText, nr_us: int) -> PerfText:
    """Time in which nothing is recorded: a line that is none."""
    text.lines += ["#"] * nr_us
    return text


def obeyed() -> PerfText:
    """Two threads on two CPUs; three requests were executed after 4 us and obeyed after 8; four pages at A."""
    text = PerfText().map(B, 3).map(C, 2, touched=False).fault(SECOND, C)
    for page in range(3):
        wait(text.enter(FIRST, MUNMAP, B + page * PAGE, PAGE).flush(FIRST, 1, 4), 3)
        wait(text.flush(FIRST, 1, 3), 3).flush(SECOND, 1, 1).leave(FIRST, MUNMAP)
    return text.map(A, 4)


def two_ask(*executes: tuple[int, int]) -> PerfText:
    """Both threads ask for a flush of a page, the first one first; then these execute so much of their own."""
    text = wait(obeyed().enter(FIRST, MADVISE, A, PAGE, DONTNEED), 4)
    text.enter(SECOND, MADVISE, A + 2 * PAGE, PAGE, DONTNEED).flush(FIRST, 1, 4).flush(SECOND, 1, 4)
    for thread, pages in executes:
        text.flush(thread, pages, 3)
    return text.leave(FIRST, MADVISE).leave(SECOND, MADVISE)


def execve(*flushes: int) -> PerfText:
    text = obeyed().enter(FIRST, EXECVE)
    for pages in flushes:
        text.flush(FIRST, pages)
    return text.leave(FIRST, EXECVE).fault(FIRST, A + 0x10000000)


def leaves(then: int, after_us: int, *flushes: tuple[int, int]) -> PerfText:
    """The second CPU goes to another task some time after it was told; then these flushes are recorded."""
    text = obeyed()
    if then not in {0, FIRST, SECOND}:
        # Another process of the recording.
        text.add(then, "exceptions:page_fault_user: address=0x10000 ip=0x400000 error_code=0x6", pid=then, cpu=1)
        text.switch(1, then, SECOND)
        text.lines[-1] = text.lines[-1].replace(f"{PID}/{then}", f"{then}/{then}")
    text.enter(FIRST, MUNMAP, A, PAGE).flush(FIRST, 1, 4).flush(FIRST, 1, 3).leave(FIRST, MUNMAP)
    text = wait(text, after_us).switch(1, SECOND, then)
    return wait(text, LATER).unmap(A + PAGE, 1, *flushes)


def switched(state: str, *flushes: tuple[int, int]) -> PerfText:
    """The caller loses its CPU within its call, for its sibling."""
    text = obeyed().switch(1, SECOND, 0)
    text = wait(text, LATER).enter(FIRST, MUNMAP, A, PAGE).switch(0, FIRST, SECOND)
    text.lines[-1] = text.lines[-1].replace("prev_state=S", f"prev_state={state}")
    text.switch(0, SECOND, FIRST)
    for pages, reason in flushes:
        text.flush(FIRST, pages, reason)
    return text.leave(FIRST, MUNMAP)


BELONGS: dict[str, tuple[Callable[[], PerfText], Callable[[], PerfText]]] = {
    "request_order": (lambda: two_ask((SECOND, FULL)), lambda: two_ask((SECOND, 1))),
    "exec_arguments": (lambda: execve(3, FULL), lambda: execve(FULL, FULL)),
    "preempted": (lambda: switched("R+", (1, 3)), lambda: switched("S", (1, 3))),
    "cpu_unseen": (lambda: leaves(0, 0, (1, 3)), lambda: obeyed().unmap(A, 1, (1, 3))),
    "ipi_arrival": (lambda: leaves(77, 0, (1, 4), (1, 3)), lambda: leaves(77, LATER, (1, 3))),
}


def undecided(text: PerfText, folder: Path) -> Validation:
    return validate(recordings.load(text.write(folder / "perf.txt")), None, machine())


@pytest.mark.parametrize("name", BELONGS)
def test_one_belongs_and_its_neighbour_does_not(name: str, tmp_path: Path) -> None:
    belongs, neighbour = (undecided(make(), tmp_path) for make in BELONGS[name])
    assert belongs.undecided is not None
    assert neighbour.undecided is not None
    assert name in belongs.undecided.nr_flushes
    assert neighbour.differing
    assert name not in neighbour.undecided.nr_flushes


def test_who_asks_first_and_executes_both_was_predicted(tmp_path: Path) -> None:
    first = undecided(two_ask((FIRST, FULL)), tmp_path).operations[-2]
    assert first["predicted"] == first["recorded"] == [{"pages": FULL, "told": True}]


def test_who_asks_first_and_executes_its_own_was_not_overtaken(tmp_path: Path) -> None:
    found = undecided(two_ask((FIRST, 1), (SECOND, FULL)), tmp_path)
    assert found.differing
    assert found.undecided is not None
    assert not found.undecided.nr_flushes


def test_what_is_recorded_of_a_call_that_waits_does_not_lead_its_prediction(tmp_path: Path) -> None:
    told = [undecided(switched("S", *flushes), tmp_path).operations[-1] for flushes in ([(1, 3)], [(1, 4), (1, 3)])]
    assert [one["predicted"] for one in told] == [[{"pages": 1, "told": True}]] * 2


def test_every_class_is_planted() -> None:
    assert [kind.name for kind in KINDS] == list(BELONGS)


def test_the_score_stays_and_a_second_is_over_the_rest(tmp_path: Path) -> None:
    found = undecided(leaves(0, 0, (1, 3)), tmp_path)
    assert found.missed + found.extra == 2
    plain = found.to_dict()
    assert plain["score"] < 1
    assert plain["undecided"]["nr_flushes"] == 2
    assert plain["undecided"]["decided"]["score"] == 1
    assert plain["undecided"]["decided"]["matched"] == found.matched
    assert "Of 2 differing flushes, 2 are of classes that the recording cannot decide" in shown(found, None)


def test_several_recordings_add_up_and_the_lab_has_no_classes(tmp_path: Path) -> None:
    for name, text in (("one", leaves(0, 0, (1, 3))), ("two", two_ask((SECOND, FULL)))):
        text.write(tmp_path / f"{name}.perf")
    both = validate_folder(tmp_path, machine()).undecided
    assert both is not None
    assert both["nr_flushes"] == sum(one["nr_flushes"] for one in both["classes"].values())
    assert set(both["classes"]) == {"cpu_unseen", "request_order"}
    assert validate(load(LAB[0]), None, machine()).undecided is None
